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
from statfed.core.method import Ask, budget_of, functions_of, is_training, load_method, read_question
from statfed.core.privacy.noise import plan
from statfed.core.privacy.placement import hindrances
from statfed.core.privacy.spending import own_noise
from statfed.core.protection import PACKAGE, Requirements, default_minimum, minimum_holders
from statfed.core.terms import Privacy, Protection, Terms

EXTRAS = {"he": "tenseal", "mpc": "mpyc", "link": "rbcl"}
"""The package behind each optional extra that a protection or linkage may need."""


@dataclass(frozen=True)
class Choice:
    """What to do instead, in words. then: the study after it; None where something outside the study has to change."""

    text: str
    then: Terms | None


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


def _installed(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    package = missing(requires.extra)
    if package:

        def choices() -> Iterator[Choice]:
            yield Choice(pip(requires.extra), None)
            yield from others(terms, lambda other: other.reveals_updates == requires.reveals_updates)

        yield Finding("installed", f"protection {terms.protection.name}: needs {package}: not installed", choices)


def _dropout(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
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


def _count(terms: Terms) -> str:
    return "one holder" if len(terms.holders) == 1 else f"{len(terms.holders)} holders"


def _exact_total(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    fewest = requires.minimum_holders
    if terms.privacy is None and len(terms.holders) < fewest:
        reason = f"protection {terms.protection.name}: got {_count(terms)}, and each could subtract its "
        yield Finding(
            "exact total",
            f"{reason}own part from an exact total",
            lambda: [more_holders(terms, fewest), *private_forms(terms)],
        )


def _one_holder(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    if terms.privacy is not None and len(terms.holders) == 1 and not requires.reveals_updates:
        reason = (
            f"protection {terms.protection.name}: got one holder, whose contribution is the total: nothing is hidden"
        )
        yield Finding(
            "one holder", reason, lambda: [*others(terms, lambda r: r.reveals_updates), more_holders(terms, 2)]
        )


def _official(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    if terms.exact and terms.privacy is not None:
        exact = terms.model_copy(update={"privacy": None})
        rules = ", without [privacy] but with disclosure rules at the holders and at the release"

        def choices() -> Iterator[Choice]:
            own = Choice(f"protection {terms.protection.name}{rules}", exact)
            hidden = list(others(exact, lambda other: not other.reveals_updates, rules))
            yield from [*hidden, own] if requires.reveals_updates else [own, *hidden]
            if len(exact.holders) < requires.minimum_holders:
                more = more_holders(exact, requires.minimum_holders)
                yield Choice(f"{more.text}{rules}", more.then)

        where = {"local": "at every holder", "central": "to the total", "shared": "by the holders together"}
        reason = f"exact: noise is added {where[terms.privacy.noise]}, and an official figure has to be exact"
        yield Finding("official", reason, choices)


def _approximate(terms: Terms, _: Requirements, options: Any) -> Iterator[Finding]:
    """Choices of an option that its protection marks as inexact: `json_schema_extra={"approximate": VALUE}`.

    Noise that holders share is proved for whole numbers alone, and an official figure has to be exact.
    """
    shared = terms.privacy is not None and terms.privacy.noise == "shared"
    if not shared and not terms.exact:
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


def _noise(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    if terms.privacy is None or list(_dropout(terms, requires, _)):
        return
    privacy = terms.privacy

    def choices() -> Iterator[Choice]:
        fewer = minimum_holders(terms, requires) - 1
        if 1 <= fewer < privacy.colluders:
            yield moved(f"privacy.colluders {fewer}", colluders=fewer)
        yield from others(terms, hides)
        yield more_holders(terms, privacy.colluders + 1)
        yield moved("local noise", noise="local", colluders=0)
        yield moved("central noise where the coordinator is trusted", noise="central", colluders=0)

    def moved(text: str, **changes: Any) -> Choice:
        return Choice(text, terms.model_copy(update={"privacy": privacy.model_copy(update=changes)}))

    for reason, _instead in hindrances(terms):
        yield Finding(reason.partition(":")[0], reason, choices)


def hides(requires: Requirements) -> bool:
    """Does the coordinator see exact sums and nothing else?"""
    return requires.fixed_point and not requires.reveals_updates


def _functions(terms: Terms, requires: Requirements, options: Any) -> Iterator[Finding]:
    """Functions of holders' figures that an analysis needs beside sums, or that its study may let it have."""
    try:
        needed = tuple(dict.fromkeys(functions_of(read_question(terms)[1]).values()))
    except UsageError:
        return  # a study that cannot be read is refused as such
    agreed = tuple(getattr(options, "functions", ()))
    if not set(needed) <= set(requires.functions):

        def elsewhere() -> Iterator[Choice]:
            for name in _names(terms, lambda other: set(needed) <= set(other.functions)):
                protection = Protection(name=name, options={"functions": list(needed)})
                choice = terms.model_copy(update={"protection": protection})
                yield Choice(f"protection {name} with functions {', '.join(needed)}", choice)

        reason = f"{terms.method}: needs {', '.join(needed)} of holders' figures, but protection "
        yield Finding("functions", f"{reason}{terms.protection.name} forms sums only", elsewhere)
    elif not set(needed) <= set(agreed):
        given = terms.protection.options | {"functions": list(dict.fromkeys((*agreed, *needed)))}
        own = _protected(terms, f"protection.options.functions {', '.join(given['functions'])}", options=given)
        reason = f"protection.options.functions: got {', '.join(agreed) or 'none'} for {terms.method}"
        yield Finding("agreed functions", reason, (own,).__iter__)


def _of_updates(terms: Terms, _: Requirements, options: Any) -> Iterator[Finding]:
    """Options that a protection marks as of use for model updates alone: `json_schema_extra={"only": "training"}`."""
    try:
        if getattr(load_method(terms.method), "UPDATES", False):
            return
    except UsageError:
        return
    what = "sums of gradients" if is_training(terms.method) else "a statistic"
    for key, field in type(options).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("only") == "training" and getattr(options, key) != field.default:
            without = {k: v for k, v in terms.protection.options.items() if k != key}
            reason = f"protection.options.{key}: got {getattr(options, key)} for {what}, where it means nothing"
            choice = _protected(terms, f"none of {key}", options=without)
            yield Finding(f"option {key}", reason, (choice,).__iter__)


def _own(terms: Terms, requires: Requirements, _: Any) -> Iterator[Finding]:
    """What the method itself has against a study."""
    try:
        method, question = read_question(terms)
    except UsageError:
        return
    found: Callable[..., Iterator[Finding]] | None = getattr(method, "hindrances", None)
    if found is not None:
        yield from found(question, requires)


RULES = (
    _installed,
    _dropout,
    _exact_total,
    _one_holder,
    _official,
    _approximate,
    _noise,
    _functions,
    _of_updates,
    _own,
)


def under(terms: Terms, name: str) -> Terms:
    """The same study under another protection, with that one's default options."""
    return terms.model_copy(update={"protection": Protection(name=name)})


def _names(terms: Terms, suits: Callable[[Requirements], bool]) -> list[str]:
    """Installed protections beside the study's own that suit it, the cheapest first."""
    found = {name: load(PACKAGE, name, "protection").REQUIRES for name in modules(PACKAGE)}
    names = [name for name, requires in found.items() if suits(requires) and name != terms.protection.name]
    return sorted(names, key=lambda name: (int(found[name].cost), name))


def others(terms: Terms, suits: Callable[[Requirements], bool], why: str = "") -> Iterator[Choice]:
    """The same study under each other protection that suits."""
    return (Choice(f"protection {name}{why}", under(terms, name)) for name in _names(terms, suits))


def _protected(terms: Terms, text: str, **changes: Any) -> Choice:
    return Choice(text, terms.model_copy(update={"protection": terms.protection.model_copy(update=changes)}))


def changed(terms: Terms, text: str, **options: Any) -> Choice:
    """The same study with some options of its method replaced."""
    return Choice(text, terms.model_copy(update={"options": {**terms.options, **options}}))


def more_holders(terms: Terms, fewest: int) -> Choice:
    """At least so many holders: the study's own, and others that stand for those to be found."""
    new = (name for number in count(1) if (name := f"holder-{number}") not in terms.holders)
    more = islice(new, max(0, fewest - len(terms.holders)))
    return Choice(f"at least {fewest} holders", terms.model_copy(update={"holders": (*terms.holders, *more)}))


def private_forms(terms: Terms) -> Iterator[Choice]:
    """The same study under differential privacy, where it has such a form."""
    if terms.exact:
        return
    try:
        given: dict[str, Any] = getattr(load_method(terms.method), "PRIVACY", {})
        private = terms.model_copy(update={"privacy": Privacy.model_validate({"epsilon": 1.0, **given})})
        method, question = read_question(private)
        budget = budget_of(question)
        first = getattr(budget, "order", ("",))[0]
        if first and private.privacy and first not in own_noise(method):
            plan(method.parts(question, Ask(first)), private.privacy, len(budget.order))  # type: ignore[union-attr]
    except UsageError:
        return
    yield Choice(
        "differential privacy ([privacy])" if is_training(terms.method) else "differential privacy (--privacy)", private
    )
