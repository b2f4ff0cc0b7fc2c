"""The rules behind `statfed.core.applicability`: what stands against a study, and studies that might do instead.

A choice may turn out not to apply either: `statfed.core.applicability` asks the same rules before it offers one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from typing import Any

from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.privacy.placement import hindrances
from statfed.core.protection import PACKAGE, Requirements, default_minimum, minimum_holders
from statfed.core.query import Privacy as QueryPrivacy
from statfed.core.query import Query
from statfed.core.study import ROBUST, Privacy, Protection, Strategies, Strategy, Terms
from statfed.strategies.learning.step import STRATEGIES as STEPS

Asked = Terms | Query
SUMS: tuple[Strategies, ...] = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
"""Strategies that need nothing but the average."""
EXTRAS = {"he": "tenseal", "mpc": "mpyc"}
"""The package behind each optional extra that a protection may need."""


@dataclass(frozen=True)
class Choice:
    """What to do instead, in words. then: the study after it; None where something outside the study has to change."""

    text: str
    then: Asked | None


@dataclass(frozen=True)
class Finding:
    """What a rule found. choices: formed only when somebody asks."""

    rule: str
    reason: str
    choices: Callable[[], Iterable[Choice]]


def missing(extra: str) -> str:
    """The package behind an optional extra, when it is not installed; else nothing."""
    package = EXTRAS.get(extra, extra)
    return package if package and find_spec(package) is None else ""


def pip(extra: str) -> str:
    """The command that installs what `missing` names."""
    return f"pip install 'statfed[{extra}]'" if extra in EXTRAS else f"pip install {extra}"


def _installed(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    package = missing(requires.extra)
    if package:

        def choices() -> Iterator[Choice]:
            yield Choice(pip(requires.extra), None)
            yield from _others(terms, lambda other: other.reveals_updates == requires.reveals_updates)

        yield Finding("installed", f"protection {terms.protection.name}: needs {package}: not installed", choices)


def _dropout(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    try:
        minimum_holders(terms, requires)
    except UsageError as error:
        wanted, total = terms.protection.minimum_holders, len(terms.holders)

        def choices() -> Iterator[Choice]:
            fewest = default_minimum(total, requires) if (wanted or 0) <= total else total
            yield _protected(terms, f"protection.minimum_holders {fewest}", minimum_holders=fewest)
            if wanted is not None and wanted < total and not requires.survives_dropout:
                for name in _names(terms, lambda other: other.survives_dropout):
                    yield _protected(under(terms, name), f"protection {name}", minimum_holders=wanted)

        reason = str(error).partition("; want")[0]
        if requires.survives_dropout and wanted is not None and 3 * wanted <= 2 * total:
            reason += f" of {total} holders, of whom more than two thirds have to be in a sum"
        yield Finding("dropout", reason, choices)


def _count(terms: Asked) -> str:
    return "one holder" if len(terms.holders) == 1 else f"{len(terms.holders)} holders"


def _exact_total(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    fewest = requires.minimum_holders
    if terms.privacy is None and len(terms.holders) < fewest:
        reason = f"protection {terms.protection.name}: got {_count(terms)}, and each could subtract its "
        yield Finding(
            "exact total", f"{reason}own part from an exact total", lambda: [_holders(terms, fewest), *_private(terms)]
        )


def _one_holder(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    if terms.privacy is not None and len(terms.holders) == 1 and not requires.reveals_updates:
        reason = (
            f"protection {terms.protection.name}: got one holder, whose contribution is the total: nothing is hidden"
        )
        yield Finding("one holder", reason, lambda: [*_others(terms, lambda r: r.reveals_updates), _holders(terms, 2)])


def _single_updates(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    if isinstance(terms, Terms) and terms.strategy.name in ROBUST and not requires.reveals_updates:
        name = terms.protection.name

        def choices() -> Iterator[Choice]:
            yield from _others(terms, lambda other: other.reveals_updates, ", which shows the coordinator each update")
            yield _strategy(terms, f"a strategy that needs the average only: {', '.join(SUMS)}", name=SUMS[0])

        reason = f"strategy {terms.strategy.name}: looks at each holder's update, which protection {name} hides"
        yield Finding("single updates", reason, choices)


def _enough_holders(terms: Asked, _: Requirements, __: Any) -> Iterator[Finding]:
    """Holders that a robust strategy needs: Blanchard et al. 2017, El Mhamdi et al. 2018, and at least one to trim."""
    if not isinstance(terms, Terms) or terms.strategy.name not in ROBUST:
        return
    strategy, total = terms.strategy, len(terms.holders)
    fewest = holders_for(strategy)
    if total < fewest:

        def choices() -> Iterator[Choice]:
            yield _holders(terms, fewest)
            if strategy.num_malicious > 1:
                yield _strategy(terms, "strategy.num_malicious 1", num_malicious=1)
            if strategy.name == "fedtrimmedavg" and total >= 3:
                yield _strategy(
                    terms, f"strategy.trim_fraction {1.1 / total:.2g}", trim_fraction=float(f"{1.1 / total:.2g}")
                )
            yield from (_strategy(terms, f"strategy {other}", name=other) for other in ROBUST)

        says = {"fedmedian": "", "fedtrimmedavg": f" with trim_fraction {strategy.trim_fraction:g}"}
        suffix = says.get(strategy.name, f" with num_malicious {strategy.num_malicious}")
        yield Finding("enough holders", f"strategy {strategy.name}: got {total} holders, too few{suffix}", choices)
    most = total - strategy.num_malicious - 2
    if strategy.name == "multikrum" and strategy.nodes_to_keep and 0 < most < strategy.nodes_to_keep:
        reason = f"strategy.nodes_to_keep: got {strategy.nodes_to_keep} of {total} holders, num_malicious "
        fits = _strategy(terms, f"strategy.nodes_to_keep {most}", nodes_to_keep=most)
        yield Finding("nodes to keep", f"{reason}{strategy.num_malicious}", lambda: [fits])


def holders_for(strategy: Strategy) -> int:
    """Fewest holders with which a strategy keeps what it promises; 1 for those that promise nothing."""
    match strategy.name:
        case "fedmedian":
            return 3
        case "fedtrimmedavg":
            return next(n for n in count(3) if int(strategy.trim_fraction * n) >= 1)
        case "krum" | "multikrum":
            return 2 * strategy.num_malicious + 3
        case "bulyan":
            return 4 * strategy.num_malicious + 3
    return 1


def _official(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    if isinstance(terms, Query) and terms.exact and terms.privacy is not None:
        exact = terms.model_copy(update={"privacy": None})
        rules = ", without [privacy] but with disclosure rules at the holders and at the release"

        def choices() -> Iterator[Choice]:
            own = Choice(f"protection {terms.protection.name}{rules}", exact)
            hidden = list(_others(exact, lambda other: not other.reveals_updates, rules))
            yield from [*hidden, own] if requires.reveals_updates else [own, *hidden]
            if len(exact.holders) < requires.minimum_holders:
                more = _holders(exact, requires.minimum_holders)
                yield Choice(f"{more.text}{rules}", more.then)

        where = {"local": "at every holder", "central": "to the total", "shared": "by the holders together"}
        reason = f"exact: noise is added {where[terms.privacy.noise]}, and an official figure has to be exact"
        yield Finding("official", reason, choices)


def _approximate(terms: Asked, _: Requirements, options: Any) -> Iterator[Finding]:
    """Choices of an option that its protection marks as inexact: `json_schema_extra={"approximate": VALUE}`.

    Noise that holders share is proved for whole numbers alone, and an official figure has to be exact.
    """
    shared = terms.privacy is not None and terms.privacy.noise == "shared"
    if not shared and not (isinstance(terms, Query) and terms.exact):
        return
    for key, field in type(options).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and getattr(options, key) == extra.get("approximate", ...):
            without = {k: v for k, v in terms.protection.options.items() if k != key}
            what = "shared noise" if shared else "an official figure"
            reason = (
                f"protection.options.{key}: {getattr(options, key)} gives approximate sums, {what} wants exact ones"
            )
            choice = _protected(terms, f"{key} {field.default}", options=without)
            yield Finding(f"approximate {key}", reason, (choice,).__iter__)


def _noise(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    if not isinstance(terms, Query) or terms.privacy is None or list(_dropout(terms, requires, _)):
        return
    privacy = terms.privacy

    def choices() -> Iterator[Choice]:
        fewer = minimum_holders(terms, requires) - 1
        if 1 <= fewer < privacy.colluders:
            yield moved(f"privacy.colluders {fewer}", colluders=fewer)
        yield from _others(terms, _hides)
        yield _holders(terms, privacy.colluders + 1)
        yield moved("local noise", noise="local", colluders=0)
        yield moved("central noise where the coordinator is trusted", noise="central", colluders=0)

    def moved(text: str, **changes: Any) -> Choice:
        return Choice(text, terms.model_copy(update={"privacy": privacy.model_copy(update=changes)}))

    for reason, _instead in hindrances(terms):
        yield Finding(reason.partition(":")[0], reason, choices)


def _gradients(terms: Asked, requires: Requirements, _: Any) -> Iterator[Finding]:
    """What gradient descent on protected sums (`statfed.strategies.learning.step`) needs, and shared noise, which only
    it has."""
    if not isinstance(terms, Terms):
        return
    descent, privacy = terms.training.method == "dp-fedsgd", terms.privacy

    def trained(text: str, **changes: Any) -> Choice:
        return Choice(text, terms.model_copy(update={"training": terms.training.model_copy(update=changes)}))

    def noised(text: str, **changes: Any) -> Choice:
        made = privacy.model_copy(update=changes) if privacy else None
        return Choice(text, terms.model_copy(update={"privacy": made}))

    each = trained("training.method local-sgd", method="local-sgd")
    local = noised("local noise", noise="local", colluders=0)
    if descent and privacy is None:
        reason = "training.method: got dp-fedsgd without differential privacy"
        yield Finding("descent privacy", reason, lambda: [*_private(terms), each])
    if descent and terms.strategy.name not in STEPS:
        step = _strategy(terms, f"strategy {', '.join(STEPS)}", name=STEPS[0])
        yield Finding("descent strategy", f"strategy {terms.strategy.name}: not for dp-fedsgd", lambda: [step, each])
    if descent and terms.training.momentum:
        none = trained("training.momentum 0 (strategy fedavgm has momentum after the noise)", momentum=0.0)
        reason = (
            f"training.momentum: got {terms.training.momentum:g} for dp-fedsgd, whose holders keep nothing between "
        )
        yield Finding("descent momentum", f"{reason}steps", lambda: [none, each])
    if privacy is None or privacy.noise == "local":
        return
    shared = noised("shared noise", noise="shared", colluders=1)
    if privacy.noise == "central":
        reason = "privacy.noise: got central, but in training only holders add noise"
        yield Finding("central", reason, lambda: [local, shared])
        return
    if not descent:
        reason = "privacy.noise: got shared for local-sgd, where every holder's update is protected by itself"
        yield Finding("not shared", reason, lambda: [local, trained("training.method dp-fedsgd", method="dp-fedsgd")])
    if requires.reveals_updates or not requires.fixed_point:
        reason = f"privacy.noise: got shared under {terms.protection.name}, which does not hide a holder's share"
        yield Finding("shown shares", reason, lambda: [*_others(terms, _hides), local])
    if not list(_dropout(terms, requires, _)):
        fewest = minimum_holders(terms, requires)
        if privacy.colluders >= fewest:
            fewer = [noised(f"privacy.colluders {fewest - 1}", colluders=fewest - 1)] if fewest > 1 else []
            reason = f"privacy.colluders: got {privacy.colluders} where a sum is formed over {fewest} holders or more"
            yield Finding("colluders", reason, lambda: [*fewer, _holders(terms, 2 * privacy.colluders + 2), local])


def _hides(requires: Requirements) -> bool:
    """Does the coordinator see exact sums and nothing else?"""
    return requires.fixed_point and not requires.reveals_updates


def _functions(terms: Asked, requires: Requirements, options: Any) -> Iterator[Finding]:
    """Functions of holders' figures that an analysis needs beside sums, or that its study may let it have."""
    if not isinstance(terms, Query):
        return
    from statfed.core.method import functions_of, read_query

    try:
        needed = tuple(dict.fromkeys(functions_of(read_query(terms)[1]).values()))
    except UsageError:
        return  # a query that cannot be read is refused as such
    agreed = tuple(getattr(options, "functions", ()))
    if not set(needed) <= set(requires.functions):

        def elsewhere() -> Iterator[Choice]:
            for name in _names(terms, lambda other: set(needed) <= set(other.functions)):
                protection = Protection(name=name, options={"functions": list(needed)})
                choice = terms.model_copy(update={"protection": protection})
                yield Choice(f"protection {name} with functions {', '.join(needed)}", choice)

        reason = f"{terms.analysis}: needs {', '.join(needed)} of holders' figures, but protection "
        yield Finding("functions", f"{reason}{terms.protection.name} forms sums only", elsewhere)
    elif not set(needed) <= set(agreed):
        given = terms.protection.options | {"functions": list(dict.fromkeys((*agreed, *needed)))}
        own = _protected(terms, f"protection.options.functions {', '.join(given['functions'])}", options=given)
        reason = f"protection.options.functions: got {', '.join(agreed) or 'none'} for {terms.analysis}"
        yield Finding("agreed functions", reason, (own,).__iter__)


def _of_training(terms: Asked, _: Requirements, options: Any) -> Iterator[Finding]:
    """Options that a protection marks as of use for model updates alone: `json_schema_extra={"only": "training"}`."""
    steps = isinstance(terms, Terms) and terms.training.method == "dp-fedsgd"
    if isinstance(terms, Query) or steps:
        what = "sums of gradients" if steps else "a statistic"
        for key, field in type(options).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("only") == "training" and getattr(options, key) != field.default:
                without = {k: v for k, v in terms.protection.options.items() if k != key}
                reason = f"protection.options.{key}: got {getattr(options, key)} for {what}, where it means nothing"
                choice = _protected(terms, f"none of {key}", options=without)
                yield Finding(f"option {key}", reason, (choice,).__iter__)


RULES = (
    _installed,
    _dropout,
    _exact_total,
    _one_holder,
    _single_updates,
    _enough_holders,
    _official,
    _approximate,
    _noise,
    _gradients,
    _functions,
    _of_training,
)


def under(terms: Asked, name: str) -> Asked:
    """The same study under another protection, with that one's default options."""
    return terms.model_copy(update={"protection": Protection(name=name)})


def _names(terms: Asked, suits: Callable[[Requirements], bool]) -> list[str]:
    """Installed protections beside the study's own that suit it, the cheapest first."""
    found = {name: load(PACKAGE, name, "protection").REQUIRES for name in modules(PACKAGE)}
    names = [name for name, requires in found.items() if suits(requires) and name != terms.protection.name]
    return sorted(names, key=lambda name: (int(found[name].cost), name))


def _others(terms: Asked, suits: Callable[[Requirements], bool], why: str = "") -> Iterator[Choice]:
    """The same study under each other protection that suits."""
    return (Choice(f"protection {name}{why}", under(terms, name)) for name in _names(terms, suits))


def _protected(terms: Asked, text: str, **changes: Any) -> Choice:
    return Choice(text, terms.model_copy(update={"protection": terms.protection.model_copy(update=changes)}))


def _strategy(terms: Terms, text: str, **changes: Any) -> Choice:
    strategy = terms.strategy.model_copy(update=changes)
    return Choice(text, terms.model_copy(update={"strategy": strategy}))


def _holders(terms: Asked, fewest: int) -> Choice:
    """At least so many holders: the study's own, and others that stand for those to be found."""
    new = (name for number in count(1) if (name := f"holder-{number}") not in terms.holders)
    more = islice(new, max(0, fewest - len(terms.holders)))
    return Choice(f"at least {fewest} holders", terms.model_copy(update={"holders": (*terms.holders, *more)}))


def _private(terms: Asked) -> Iterator[Choice]:
    """The same study under differential privacy, where it has such a form."""
    if isinstance(terms, Terms):
        yield Choice("differential privacy ([privacy])", terms.model_copy(update={"privacy": Privacy(epsilon=1.0)}))
        return
    from statfed.core.method import Ask, private_asks, read_query
    from statfed.core.privacy.noise import plan

    private = terms.model_copy(update={"privacy": QueryPrivacy(epsilon=1.0)})
    if terms.exact:
        return
    try:
        analysis, question = read_query(private)
        name, times = private_asks(analysis, question)
        plan(analysis.parts(question, Ask(name)), QueryPrivacy(epsilon=1.0), times)
    except UsageError:
        return
    yield Choice("differential privacy (--privacy)", private)
