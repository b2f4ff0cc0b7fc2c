"""Holding a study against a holder's policy, before data are read and before anything is charged.

Formal guarantees. Every rule is a conjunction, so an admitted study satisfies all of them. Nothing here reads data or
the ledger: a refusal is a function of the study and the policy, and says in public which rules failed. Of the
thresholds under [minimum] and [disclosure], which are the holder's secret, it names the rule and never the number.

What is not the question itself is the holder's. Its codebook is pinned by digest, and with it the roles of columns
(weight, PSU, stratum, unit, enterprise, record key), hierarchies, missing codes and bounds: without that, whoever asks
finds the largest value of a column by declaring bounds, and exempts itself from a rule by declaring a role.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from statfed.client.guard.policy import ANY, Allow, Limits, Policy, weaker
from statfed.core.codebook import Codebook
from statfed.core.conditions import Clause, canonical, parse_where
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Asked, InPlace, Linking
from statfed.core.linkkeys import as_codebook, read_key
from statfed.core.method import Ask, Cells, Fixed, Model, Part, budget_of
from statfed.core.protection import named_protection
from statfed.core.resolve import Resolved
from statfed.core.section import Section
from statfed.core.terms import Terms
from statfed.core.weighing import WEIGHTS


@dataclass(frozen=True)
class Rule:
    """One rule that a study does not satisfy. text: in public, with what is wanted of the study; key: of policy.toml
    that decides it, empty where no policy could admit the study."""

    text: str
    key: str = ""


def admit(policy: Policy, study: Resolved) -> None:
    """Raise Refused, listing every rule of `policy` that a study does not satisfy; return silently when all are.

    study: public. Raises UsageError instead when the only fault is a delta that gives no protection (delta >= 1/n for
    the n units of this dataset): no policy could admit it. Reads no data and no ledger.
    """
    broken, unusable = failing(policy, study), _unusable(policy, study.terms)
    reasons = [rule.text for rule in broken]
    if reasons:
        raise Refused("\n".join(["not allowed by policy:", *(f"- {r}" for r in [*reasons, *filter(None, [unusable])])]))
    if unusable:
        raise UsageError(unusable)


def failing(policy: Policy, study: Resolved) -> list[Rule]:
    """Every rule of `policy` that a study does not satisfy. Reads no data and no ledger."""
    allow, terms = policy.allow, study.terms
    strategy = getattr(getattr(study.question.options, "strategy", None), "name", None)

    def of(key: str, *texts: str | None) -> list[Rule]:
        return [Rule(text, key) for text in texts if text is not None]

    rules = [
        *of("allow.methods", None if ANY in allow.methods else _listed("method", terms.method, allow.methods)),
        *of(
            "allow.strategies",
            _listed("strategy", strategy, allow.strategies) if strategy and allow.strategies is not None else None,
        ),
        *of("allow.columns", _columns(allow, study.columns)),
        *of("allow.noise", _listed("noise", terms.privacy.noise, allow.noise) if terms.privacy else None),
        *(_linkage(policy, study, study.linking) if study.linking else _protection(allow, terms)),
        *of("dataset.codebooks", *_pinned(policy, study)),
        *of("allow.filters", *_filters(allow, terms.where, study.codebook)),
        *of("allow.weights", *_weights(allow, study)),
        *of("allow.functions", *_functions(allow, study)),
        *of("disclosure", *_parameters(policy, terms)),
        *_parties(policy, study),
        *of("", *_whole(policy, study)),
        *of("limits.asks", *_schedule(policy.limits, study)),
    ]
    if terms.privacy is None:
        if not allow.without_privacy:
            what = "training" if study.training else "a statistic"
            rules += of(
                "allow.without_privacy",
                f"{what} without differential privacy is not allowed; want a [privacy] section",
            )
    elif terms.privacy.unit != policy.budget.unit:
        rules.append(
            Rule(
                f"this dataset's budget is kept per {policy.budget.unit}; got a study per {terms.privacy.unit}: "
                "one dataset has one privacy unit, since neither guarantee implies the other"
            )
        )
    if terms.seed is not None and not allow.public_seed:
        rules += of(
            "allow.public_seed",
            "seed: got a public seed, from which anyone could subtract the noise; this holder draws its noise from "
            "its operating system; want a study without seed",
        )
    return rules + of("", *study.obstacles)  # not left to the coordinator to look


def _protection(allow: Allow, terms: Terms) -> list[Rule]:
    name = terms.protection.name
    listed = None if ANY in allow.protections else _listed("protection", name, allow.protections)
    rules = [Rule(listed, "allow.protections")] if listed else []
    return rules + _conceded(name, terms.protection.options, allow.protections, allow.third_parties)


def _linkage(policy: Policy, study: Resolved, asked: Asked) -> list[Rule]:
    """Units are matched in ways that the policy lists, by third parties that it trusts. What comes out is about as many
    units as the holder's own minimum frequency asks for; its other rules are about records that it sees all of, so that
    while one is on only numbers of units are told."""
    allow, rules, linking = policy.allow, list[Rule](), asked.linking
    name = study.terms.protection.name
    if listed := _listed("linkage", name, tuple(entry for entry in allow.linkages if ":" not in entry)):
        rules.append(Rule(listed, "allow.linkages"))
    elif f"{name}:pairs" not in allow.linkages:
        for holder in linking.to:
            if f"{name}:pairs-to={holder}" not in allow.linkages:
                text = f"pairs: got {holder} to be told which of its units match, not allowed; want size or totals"
                rules.append(Rule(text, "allow.linkages"))
    agreed = study.protection.agreed(study.terms, linking) if isinstance(study.protection, InPlace) else None
    rules += _weakened(name, agreed, allow.linkages, "allow.linkages") if agreed is not None else []
    rules += _keys(allow, study, linking)
    if strangers := sorted(set(study.third_parties) - set(allow.third_parties)):
        wanted = " or ".join(allow.third_parties) or "none: the list is empty"
        text = f"third parties: got {', '.join(strangers)}, not allowed; want {wanted}"
        rules.append(Rule(text, "allow.third_parties"))
    if linking.direct:
        parties = {*study.holders, *study.third_parties} - {policy.holder.name}
        if not allow.direct:
            text = "direct: got a study whose packets go from party to party; want allow.direct"
            rules.append(Rule(text, "allow.direct"))
        elif lacking := policy.direct.lacks(parties):
            rules.append(Rule(lacking, "direct"))
    own = policy.disclosure
    if own.minimum_frequency is not None and linking.minimum_frequency < own.minimum_frequency:
        text = "minimum frequency: a figure over the matched may be about fewer units than this policy's; want more"
        rules.append(Rule(text, "disclosure"))
    counted = linking.reveal == "size" or (study.terms.method == "table" and not study.question.options.value)
    if study.linked_noise is not None:  # then rules are about what somebody sees before there is noise in it
        counted = "totals" not in study.seen.values()
    others = own.model_copy(update={"minimum_frequency": None, "zeros": "allow", "full_cells": "allow"})
    if "protect" in (own.zeros, own.full_cells) or not (counted or (others.silent and own.joint_share is None)):
        text = f"linkage: got {linking.reveal} of {study.terms.method}; want size, or a table of counts: rules of this "
        rules.append(Rule(f"{text}policy beside minimum frequency cannot look at units that match", "disclosure"))
    return rules


def _keys(allow: Allow, study: Resolved, linking: Linking) -> list[Rule]:
    """Parts of a key that are neither whole columns by the codebook's own rules nor listed: another rule or a range may
    leave chosen units without a key."""
    if ANY in allow.keys:
        return []
    listed = set[str]()
    for written in allow.keys:
        with suppress(UsageError):  # of columns that this codebook has not
            listed |= {part.name for part in read_key(written, study.codebook, "allow.keys")}
    other = [part for part in linking.parts(study.codebook) if not as_codebook(part, study.codebook)]
    astray = [part.name for part in other if part.name not in listed]
    if not astray:
        return []
    wanted = f", or {' or '.join(allow.keys)}" if allow.keys else ""
    text = f"key: got {', '.join(astray)}, not allowed; want whole columns by the codebook's own rules{wanted}"
    return [Rule(text, "allow.keys")]


def refusing(policy: Policy, study: Resolved) -> list[Rule]:
    """Everything that a holder of `policy` would say against a study before it looks at data or ledger: what `bounded`
    and `admit` raise, all of it at once."""
    unusable = _unusable(policy, study.terms)
    return [*_large(policy.limits, study.terms), *failing(policy, study), *([Rule(unusable)] if unusable else [])]


def _unusable(policy: Policy, terms: Terms) -> str | None:
    """A delta that gives no protection, in a study of the dataset's own unit."""
    privacy = terms.privacy
    if privacy is None or privacy.unit != policy.budget.unit or privacy.delta * policy.units < 1.0:
        return None
    return (
        f"privacy.delta: got {privacy.delta:g}; want less than 1/{policy.units}, "
        f"one over this dataset's {policy.budget.unit}s"
    )


def conceded(name: str, options: Mapping[str, Any], allowed: Sequence[str], third_parties: Sequence[str]) -> list[str]:
    """What a study asks for beyond the protection's name, and is not allowed: rules that fail, in public words.

    The study is the coordinator's: it could name a party of its own as key holder, or an option that leaves a part in
    clear. Nothing is asked of a policy that allows plain: it trusts the coordinator with every contribution.
    """
    return [rule.text for rule in _conceded(name, options, allowed, third_parties)]


def _conceded(
    name: str, options: Mapping[str, Any], allowed: Sequence[str], third_parties: Sequence[str]
) -> list[Rule]:
    if name not in allowed or "plain" in allowed or ANY in allowed:
        return []
    module, read = named_protection(name, options)
    rules = []
    if strangers := sorted(set(module.third_parties(read)) - set(third_parties)):
        wanted = " or ".join(third_parties) or "none: the list is empty"
        text = f"third parties: got {', '.join(strangers)}, not allowed; want {wanted}"
        rules.append(Rule(text, "allow.third_parties"))
    return rules + _weakened(name, read, allowed, "allow.protections")


def _weakened(name: str, read: Section, allowed: Sequence[str], where: str) -> list[Rule]:
    """Options with which a protection or linkage protects less than by default, and that are not allowed."""
    rules = []
    for key in weaker(type(read)):
        field, value = type(read).model_fields[key], getattr(read, key)
        extra = field.json_schema_extra
        above = isinstance(extra, dict) and extra["weaker"] == "above"
        less = value > field.default if above else value != field.default
        if less and f"{name}:{key}" not in allowed:
            text = f"protection.options.{key}: got one with which {name} protects less; want it left out"
            rules.append(Rule(text, where))
    return rules


def allowed_functions(allow: Allow) -> frozenset[str] | None:
    """Functions that the formula of an exact study may use; None for all."""
    return None if ANY in allow.functions else frozenset(allow.functions)


def bounded(limits: Limits, terms: Terms) -> None:
    """Raise Refused where a study is larger than a holder reads: before the study is read any further."""
    for rule in _large(limits, terms):
        raise Refused(rule.text)


def _large(limits: Limits, terms: Terms) -> list[Rule]:
    codebooks = (terms.codebook, *terms.codebooks.values())
    sizes = {
        "holders": len(terms.holders),
        "columns": max(len(codebook.columns) for codebook in codebooks),
        "categories": max(
            (
                max(len(column.categories), len(column.parents))
                for book in codebooks
                for column in book.columns.values()
            ),
            default=0,
        ),
    }
    return _over(limits, sizes)


def bounded_ask(limits: Limits, study: Resolved, ask: Ask, number: int) -> None:
    """Raise Refused where one ask is larger than a holder answers: before its parts are laid out in memory.

    number: of the sum in its study. The cells of a table are the product of the levels of its columns; of several
    tables, those that the largest may have.
    """
    megabytes = math.ceil(sum(array.nbytes for array in ask.arrays.values()) / 1e6)
    _within(limits, {"asks": number, "megabytes": megabytes})
    discloses = study.method.discloses(study.question, ask)
    if isinstance(discloses, Cells):
        columns = study.question.codebook.columns  # of a linkage those of all holders
        levels = sorted((max(1, len(columns[name].levels)) for name in discloses.by if name in columns), reverse=True)
        _within(limits, {"cells": math.prod(levels[: discloses.together])})
    elif isinstance(discloses, Model) and not study.training:
        _within(limits, {"parameters": discloses.parameters})


def bounded_linkage(policy: Policy, study: Resolved, figures: int, lists: Mapping[str, int]) -> None:
    """Raise Refused where what comes out of a linkage is larger than a holder answers, or another holder's list is so
    long beside this one's data that it may be one of guesses. figures: most that come out; lists: places, by holder."""
    limits, own = policy.limits, policy.dataset.records
    most = max(count for name, count in lists.items() if name != policy.holder.name)
    if limits.ratio is not None and most > limits.ratio * own:
        raise Refused(
            f"limits.ratio: got {most:,} places for another holder's units, {most / own:,.4g} for each record of this "
            f"dataset; want at most {limits.ratio:g}: every place may hold a guess"
        )
    ask: Ask = next(study.method.coordinate(study.question))
    bounded_ask(limits, study, ask, 1)
    _within(limits, {"entries": figures})


def bounded_parts(limits: Limits, parts: Mapping[str, Part]) -> int:
    """How many numbers a contribution has. Raises Refused where those are more than a holder answers with."""
    entries = sum(math.prod(part.shape) for part in parts.values())
    _within(limits, {"entries": entries})
    return entries


def _within(limits: Limits, sizes: Mapping[str, int]) -> None:
    for rule in _over(limits, sizes):
        raise Refused(rule.text)


def _over(limits: Limits, sizes: Mapping[str, int]) -> list[Rule]:
    """The bounds that are exceeded, in their order."""
    return [
        Rule(f"limits.{name}: got {size:,} {name}; want at most {getattr(limits, name):,}", f"limits.{name}")
        for name, size in sizes.items()
        if size > getattr(limits, name)
    ]


def _pinned(policy: Policy, study: Resolved) -> Iterator[str]:
    """The codebook is one that the policy names; in a rehearsal any, unless it names some."""
    pins = policy.dataset.codebooks
    if ANY in pins or (policy.rehearsal and not pins) or study.codebook.digest() in pins:
        return
    wanted = f"want one of {', '.join(pins)}" if pins else "want this holder to pin one: statfed codebook pin"
    yield f"codebook: got {study.codebook.digest()}, which this holder has not pinned; {wanted}"


def _filters(allow: Allow, where: Sequence[Clause], codebook: Codebook) -> Iterator[str]:
    """Every clause is on columns by which records may be selected, or is allowed word for word: alternatives as a
    whole, and a listed condition of several clauses with all of them."""
    if ANY in allow.filters:
        return
    asked = {canonical(clause): clause for clause in where}
    listed: set[str] = set()
    for text in allow.filters:
        clauses = _clauses(text, codebook)
        if clauses <= asked.keys():
            listed |= clauses
    for text, clause in asked.items():
        if text not in listed and not set(clause.columns) <= set(allow.filters):
            wanted = " or ".join(allow.filters) or "none: the list is empty"
            yield f"filters: got {clause}, not allowed; want {wanted}"


def _clauses(text: str, codebook: Codebook) -> set[str]:
    try:
        return {canonical(clause) for clause in parse_where((text,), codebook)}
    except UsageError:  # a column, or of another codebook
        return set()


def _weights(allow: Allow, study: Resolved) -> Iterator[str]:
    """A weight that an exact study names has that role in the holder's codebook, or is listed in its policy: a column
    that is 0 for all but one record would make every total that record's."""
    if study.privacy is not None or ANY in allow.weights:
        return
    for name in weighing(study):
        column = study.codebook.columns.get(name)
        if name not in allow.weights and (column is None or column.role not in WEIGHTS):
            wanted = " or ".join(["a column with role weight or replicate", *allow.weights])
            yield f"weight: got {name}, by which records may not be weighed; want {wanted}, or a private study"


def _functions(allow: Allow, study: Resolved) -> Iterator[str]:
    """The formula of an exact study uses functions that the policy lists: with others a column can be built that is 0
    for all but one record, or that takes two records apart in its last digits."""
    allowed = allowed_functions(allow)
    if allowed is None or study.privacy is not None:
        return
    used: Callable[..., frozenset[str]] = getattr(study.method, "functions_used", lambda _: frozenset())
    if others := sorted(used(study.question) - allowed):
        listed = ", ".join(["columns", "interactions", *sorted(allowed)])
        yield f"formula: got {', '.join(others)}, not allowed; want {listed}"


def weighing(study: Resolved) -> tuple[str, ...]:
    """Columns that the options of a study name as weights: those of fields `weight`, and of fields that are marked
    `json_schema_extra={"weighs": True}`."""
    options, found = study.question.options, []
    for key, field in type(options).model_fields.items():
        marked = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("weighs")
        value = getattr(options, key)
        if (key == "weight" or marked) and value:
            found += [value] if isinstance(value, str) else list(value)
    return tuple(dict.fromkeys(found))


def _parameters(policy: Policy, terms: Terms) -> Iterator[str]:
    """Parameters of dominance rules that a study has decided on holders' figures are this holder's own: by varying
    them whoever asks would bisect the largest contribution. Nothing where a rehearsal leaves rules off."""
    _, options = named_protection(terms.protection.name, terms.protection.options)
    stated = {}
    for key, field in type(options).model_fields.items():
        rule = field.json_schema_extra.get("rule") if isinstance(field.json_schema_extra, dict) else None
        if rule:
            stated[str(rule)] = (getattr(options, key), field.default)
    if policy.rehearsal or all(value == default for value, default in stated.values()):
        return
    if any(value != getattr(policy.disclosure, rule) for rule, (value, _) in stated.items()):
        yield "rule parameters: got others for dominance rules than this holder's own; want those that it has agreed"


def _schedule(limits: Limits, study: Resolved) -> Iterator[str]:
    """A private study's asks are known beforehand."""
    if study.privacy is None:
        return
    budget = budget_of(study.question)
    asks = len(budget.order) if isinstance(budget, Fixed) else 0
    if asks > limits.asks:
        yield f"limits.asks: got {asks:,} sums; want at most {limits.asks:,}"


def _columns(allow: Allow, names: Sequence[str]) -> str | None:
    closed = [] if ANY in allow.columns else [name for name in names if name not in allow.columns]
    return f"columns: got {', '.join(closed)}, not allowed; want only {', '.join(allow.columns)}" if closed else None


def _parties(policy: Policy, study: Resolved) -> list[Rule]:
    minimum, rules, terms = policy.minimum, list[Rule](), study.terms
    if policy.holder.name not in terms.holders:
        text = f"holder {policy.holder.name} is not among the study's holders; want a study that names it"
        rules.append(Rule(text))
    if policy.dataset.records < minimum.records:
        text = "minimum number of records: this dataset has fewer records than its policy's minimum"
        rules.append(Rule(text, "minimum.records"))
    if policy.dataset.persons < minimum.persons:
        text = "minimum number of persons: this dataset has fewer persons than its policy's minimum"
        rules.append(Rule(text, "minimum.persons"))
    try:
        fewest = study.minimum_holders
    except UsageError:
        fewest = minimum.holders  # among the study's obstacles
    if fewest < minimum.holders and not study.linking:  # which is no sum over holders
        text = "minimum number of holders: a sum of this study may be over fewer than this policy's minimum"
        rules.append(Rule(text, "minimum.holders"))
    return rules


def _whole(policy: Policy, study: Resolved) -> Iterator[str]:
    """Exact statistics are over every holder: the difference of two totals over others is few holders' own figures, and
    a holder cannot tell what others were in a total. Training may do without some, over and over: it says so."""
    if policy.rehearsal or study.training or (study.privacy is not None and not study.central):
        return
    try:
        fewest, count = study.minimum_holders, len(study.holders)
    except UsageError:  # among the study's obstacles
        return
    if fewest < count:
        yield (
            f"protection.minimum_holders: got {fewest} of {count} holders for exact sums; want all {count}, or noise "
            "of the holders' own: two totals over different holders tell the difference exactly"
        )


def _listed(what: str, got: str, allowed: tuple[str, ...]) -> str | None:
    if got in allowed:
        return None
    return f"{what}: got {got}, not allowed; want {' or '.join(allowed) or 'none: the list is empty'}"
