"""Which facts of a run bear on which topic of a card, in sentences."""

from collections.abc import Callable, Mapping

from statfed.core.card import Topic
from statfed.core.protection import Disclosure
from statfed.federation.annex.facts import Facts
from statfed.federation.report import formats

_OF_RUNS: tuple[Topic, ...] = ("transfers", "safe settings", "maturity", "recurring cost", "revocation")
"""Topics on which only a run has facts."""
CENTRAL = (("coordinator", "computing party"), ("result party", "receives what is released"))
"""Parties of every run that it does not name."""


def of(topic: Topic, facts: Facts) -> tuple[str, ...]:
    """What the run says on a topic, or a study before it runs; nothing where there is no fact on it."""
    return () if facts.planned and topic in _OF_RUNS else tuple(_ON[topic](facts))


def options(facts: Facts) -> str:
    """The protection's options, defaults included."""
    return "; ".join(f"{key} {_plain(value)}" for key, value in facts.technique.options.items()) or "none"


def minimum(facts: Facts) -> str:
    """Over how many holders a sum may be formed."""
    count, least = len(facts.holders), facts.technique.minimum_holders
    return f"over all {count} holders" if least == count else f"over at least {least} of {count} holders"


def cost(facts: Facts) -> str:
    """What the run took."""
    each = "round" if facts.kind == "training of a model" else "sum"
    return (
        f"{facts.rounds} {each}{'' if facts.rounds == 1 else 's'}, "
        f"{formats.size(facts.bytes_down)} to the parties, {formats.size(facts.bytes_up)} from them, "
        f"{formats.seconds(facts.seconds)}"
    )


def privacy(facts: Facts) -> str:
    """The guarantee of the study, as one sentence."""
    section = facts.privacy
    if section is None:
        return "No differential privacy: each sum or update is an exact disclosure in the holders' ledgers."
    unit, relation = section["unit"], section["neighbouring"]
    noise = {"local": "each holder", "central": "the coordinator", "shared": "the holders together"}
    said = ("unit", "neighbouring", "epsilon", "delta", "noise")
    rest = [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in section.items() if key not in said]
    return (
        f"Differential privacy with unit {unit} and neighbouring relation {relation} (data that differ by one {unit} "
        f"added or removed): epsilon {section['epsilon']:g} and delta {formats.delta(section['delta'])} were asked for "
        f"at each holder; noise is added by {noise[section['noise']]} "
        f"({', '.join(rest)})."
    )


def _plain(value: object) -> str:
    if value is None:
        return "default"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _said(row: Disclosure) -> str:
    return f"{row.role}: {row.learns} (protected by: {row.protected_by})"


def _rows(facts: Facts, wanted: Callable[[str], bool]) -> list[str]:
    return [_said(row) for row in facts.learns if wanted(row.role)]


def _together(role: str) -> bool:
    """Is the role several parties that pool what they know?"""
    return " with " in role or " together" in role


def _sums(facts: Facts) -> list[str]:
    """Over how many holders; of a linkage, which is no sum, nothing."""
    return [] if facts.linked else [f"sums {'are' if facts.planned else 'were'} formed {minimum(facts)}"]


def _roles(facts: Facts) -> list[str]:
    third = [f"{party.name}: {party.role}" for party in facts.technique.third_parties]
    return [f"data holders: {', '.join(party.name for party in facts.holders)}", *third]


def _trust(facts: Facts) -> list[str]:
    assumed = [f"assumed: {text}" for text in facts.technique.trust]
    return [*assumed, *_sums(facts), *_rows(facts, _together)]


def _keys(facts: Facts) -> list[str]:
    signed = "each party signs with its identity key" if facts.planned else "each party signed with its identity key"
    pinned = signed if facts.technique.identities else "no identity keys were used"
    return [pinned, f"options: {options(facts)}"]


def _basis(facts: Facts) -> list[str]:
    read = ", ".join(one.name for one in facts.variables if one.read)
    looked = [f"only records with {'; '.join(facts.filters)}"] if facts.filters else []
    return [f"read at each holder: {read}", *looked, f"data: {facts.origin}"]


def _impact(facts: Facts) -> list[str]:
    rules = [] if facts.planned else _rules(facts)
    return [*_rows(facts, lambda role: role == "result party"), privacy(facts), *rules]


def _control(facts: Facts) -> list[str]:
    third = {party.name for party in facts.technique.third_parties}
    return [*_rows(facts, lambda role: role == "coordinator"), *(f"third party: {name}" for name in sorted(third))]


def _transfers(facts: Facts) -> list[str]:
    moved = f"{formats.size(facts.bytes_down)} went to the parties and {formats.size(facts.bytes_up)} came from them"
    place = ["all of it on one machine, in a simulation"] if facts.simulated else []
    return [moved, *place, *_rows(facts, lambda role: role == "anyone on the network")]


def _projects(facts: Facts) -> list[str]:
    asked = [f"{key}: {value}" for key, value in facts.computation.items()]
    return [f"{facts.kind}: {facts.subject}", *asked, *(f"digest of the {k}: {v}" for k, v in facts.digests.items())]


def _settings(facts: Facts) -> list[str]:
    simulated = ", all parties on one machine" if facts.simulated else ""
    return [f"engine {facts.engine}{simulated}"]


def _data(facts: Facts) -> list[str]:
    read = [f"{one.name} ({one.kind})" for one in facts.variables if one.read]
    unread = [one.name for one in facts.variables if not one.read]
    special = [f"{one.name} has the role {one.role}" for one in facts.variables if one.role]
    return [
        f"read: {', '.join(read)}",
        *([f"in the codebook and not read: {', '.join(unread)}"] if unread else []),
        *special,
    ]


def _rules(facts: Facts) -> list[str]:
    rules = ", ".join(facts.release.rules) or "none"
    held = ", ".join(facts.release.held) or "none ran"
    return [f"rules of the release that ran: {rules}", f"holders' own rules that passed: {held}"]


def _outputs(facts: Facts) -> list[str]:
    if facts.planned:
        return [privacy(facts)]
    return [*_rules(facts), privacy(facts), *_sums(facts)]


def _audit(facts: Facts) -> list[str]:
    heads = [f"head of the ledger of {one.holder}: {one.ledger_head}" for one in facts.accounts]
    return [*(f"digest of the {k}: {v}" for k, v in facts.digests.items()), *heads]


def _revocation(facts: Facts) -> list[str]:
    gone = [f"{party.name} dropped out before the end" for party in facts.holders if not party.finished]
    exact = [f"{one.holder}: {one.disclosures} exact releases in its ledger so far" for one in facts.accounts]
    return [*gone, *exact, f"files of the run: {', '.join(facts.kept)}"]


_ON: dict[Topic, Callable[[Facts], list[str]]] = {
    "roles": _roles,
    "trust": _trust,
    "key custody": _keys,
    "legal basis": _basis,
    "impact assessment": _impact,
    "joint control": _control,
    "transfers": _transfers,
    "safe projects": _projects,
    "safe people": lambda facts: [],  # noqa: ARG005
    "safe settings": _settings,
    "safe data": _data,
    "safe outputs": _outputs,
    "skills": lambda facts: [],  # noqa: ARG005
    "maturity": lambda facts: [f"version of {name}: {version}" for name, version in facts.versions.items()],
    "recurring cost": lambda facts: [cost(facts)],
    "auditability": _audit,
    "revocation": _revocation,
}
