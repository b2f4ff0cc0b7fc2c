"""An annex as sections of paragraphs, tables and questions: the same content for every format.

What follows from the run is written in; what only the parties can say is left blank (`BLANK`) and marked by the
formats. The document states facts and asks questions: there is no word of a verdict in it.
"""

from dataclasses import dataclass
from typing import Literal

from statfed.core.card import TOPICS, Card, Topic
from statfed.core.discovery import is_linkage
from statfed.federation.annex import bearing, matching
from statfed.federation.annex.facts import Facts
from statfed.federation.annex.parts import BLANK, Asked, Block, Cell, Section, Table, pairs
from statfed.federation.report import formats

Kind = Literal["dpia", "agreement"]
TITLES: dict[Kind, str] = {
    "dpia": "Annex to a data protection impact assessment",
    "agreement": "Annex to a data-sharing agreement",
}
LEFT_OUT: dict[Kind, tuple[Topic, ...]] = {
    "dpia": ("skills", "maturity", "recurring cost"),
    "agreement": ("impact assessment",),
}
"""Topics that an annex does not ask about."""
STATEMENT = (
    "This annex states facts of one study or run and asks questions. It is no legal assessment: what the facts mean "
    "under the law that applies to each party is for the parties and their advisers to say."
)
NO_CARD = "This technique brings no card: the parties have to find its questions themselves."
ENTERPRISE = "A holder's rules of disclosure control may look at the enterprise column all the same."


@dataclass(frozen=True)
class Annex:
    """One annex. banners: heading and sentence of what a reader must know first; planned: its study has not run."""

    kind: Kind
    title: str
    run: str
    created: str
    banners: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    planned: bool = False


def make_annex(facts: Facts, kind: Kind) -> Annex:
    """The annex of a run, or of a study that has not run, pre-filled."""
    ran = [] if facts.planned else [_accounting(facts), _disclosure(facts), _retention(facts)]
    sections = [
        _processing(facts),
        _parties(facts),
        _data(facts),
        _purpose(facts, kind),
        _technique(facts),
        *(matching.sections(facts.linked, _from(facts)) if facts.linked else ()),
        Section("What each party learns", (_learns(facts),)),
        *ran,
        *_cards(facts, kind),
        *(_risks(facts) if kind == "dpia" else _terms(facts)),
    ]
    return Annex(kind, TITLES[kind], facts.run, facts.created, _banners(facts), tuple(sections), facts.planned)


def _from(facts: Facts) -> str:
    return "From the study" if facts.planned else "From the run"


def _banners(facts: Facts) -> tuple[tuple[str, str], ...]:
    found = []
    if facts.planned:
        found.append(
            (
                "Not run yet",
                "This annex is of a study before it runs: what it asks, who would learn what, and what is to be "
                "agreed. What a run did and cost stands in the annex of that run.",
            )
        )
    if facts.simulated:
        seeded = facts.privacy is not None and facts.seed is not None
        found.append(
            (
                "Simulated parties",
                "All parties of this run were processes of one machine; no other organisation took part. Names of "
                "holders are those of the simulation."
                + (
                    f" The noise follows from the public seed {facts.seed}: the epsilons are what the same study would "
                    "cost with noise drawn in secret, and the figures are no private release."
                    if seeded
                    else ""
                ),
            )
        )
    if facts.privacy is None:
        found.append(
            (
                "No differential privacy",
                "What came out has no noise of differential privacy, whatever rules treated it.",
            )
        )
    return tuple(found)


def _processing(facts: Facts) -> Section:
    rows: list[tuple[str, Cell]] = [("kind", facts.kind), ("subject", facts.subject), ("title", facts.title)]
    rows += list(facts.computation.items())
    rows.append(("records looked at", "; ".join(facts.filters) or "all that each holder has"))
    if not facts.planned:
        rows += [
            ("run", facts.run),
            ("time", facts.created),
            ("engine", f"{facts.engine}{', simulated parties' if facts.simulated else ''}"),
            ("took", bearing.cost(facts)),
        ]
    rows += [(f"digest of the {what} (SHA-256)", digest) for what, digest in facts.digests.items()]
    rows += [(f"version of {name}", version) for name, version in facts.versions.items()]
    return Section(
        "Description of the processing",
        (pairs(_from(facts), *rows), *(f"Note of the run: {text}" for text in facts.notes)),
    )


def _parties(facts: Facts) -> Section:
    everyone = [*facts.holders, *facts.technique.third_parties]
    rows: list[tuple[Cell, ...]] = []
    for party in everyone:
        size = formats.count(party.records) if party.records is not None else BLANK
        role = party.role if party.finished else f"{party.role}; dropped out before the end"
        rows.append((party.name, role, size if party in facts.holders else "none in this role", BLANK, BLANK))
    rows += [(name, role, "none in this role", BLANK, BLANK) for name, role in bearing.CENTRAL]
    blocks: list[Block] = [
        Table(
            "Parties",
            ("Name in the run", "Role", "Records, public number", "Organisation", "Contact"),
            tuple(rows),
        )
    ]
    if facts.cast:
        blocks.append(pairs("Roles in the reference scenario, for comparison", *facts.cast.items()))
    return Section("Parties and roles", tuple(blocks))


def _data(facts: Facts) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for one in facts.variables:
        about = f"{one.label} (role: {one.role})" if one.role else one.label
        rows.append((one.name, one.kind, about, "yes" if one.read else "no", BLANK if one.read else ""))
    read = f"Read by the {'study' if facts.planned else 'run'}"
    return Section(
        "Categories of data",
        (
            f"Data: {facts.origin}. Contents of records are not part of this document.",
            Table(
                "Codebook",
                (
                    "Name",
                    "Holds",
                    "Label",
                    read,
                    "Needed because",
                ),
                tuple(rows),
            ),
            *([ENTERPRISE] if any(one.role == "enterprise" and not one.read for one in facts.variables) else []),
            pairs(
                "For the parties to say",
                ("whose data (persons, households, enterprises)", BLANK),
                ("special categories or statistical confidentiality", BLANK),
                ("where the records came from, and what the persons were told", BLANK),
            ),
        ),
    )


def _purpose(facts: Facts, kind: Kind) -> Section:
    rows: list[tuple[str, Cell]] = [("purpose of the parties", BLANK), ("legal basis of each party", BLANK)]
    if kind == "dpia":
        rows += [("why it is necessary", BLANK), ("why a way with less intrusion would not do", BLANK)]
    known: list[Block] = []
    if facts.purpose:
        stated = [("purpose", facts.purpose), ("source", facts.source), ("GSBPM 5.1", facts.gsbpm)]
        known.append(pairs("Of the reference scenario, for comparison", *stated))
    return Section("Purpose", (*known, pairs("For the parties to say", *rows)))


def _technique(facts: Facts) -> Section:
    used = facts.technique
    return Section(
        "Technique and its assumptions",
        (
            pairs(
                _from(facts),
                ("linkage" if facts.linked else "protection", used.name),
                ("what it is", used.title),
                ("options", bearing.options(facts)),
                *(() if facts.linked else (("sums", bearing.minimum(facts)),)),
                ("parties beside holders", ", ".join(party.name for party in used.third_parties) or "none"),
                ("identity keys", "each party has pinned the others'" if used.identities else "none"),
            ),
            Table(
                "What is assumed",
                ("Assumption", "Why the parties rely on it"),
                tuple((text, BLANK) for text in used.trust),
            ),
        ),
    )


def _learns(facts: Facts) -> Table:
    return Table(
        "Who learns what",
        ("Role", "Learns", "Protected by"),
        tuple((row.role, row.learns, row.protected_by) for row in facts.learns),
    )


def _accounting(facts: Facts) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for one in facts.accounts:
        rows.append(
            (
                one.holder,
                formats.epsilon(one.epsilon) if facts.privacy else "not private",
                formats.delta(one.delta) if facts.privacy else formats.DASH,
                formats.epsilon(one.history) if one.history is not None else "none is finite",
                formats.share(one.share),
                formats.allowance(one.budget),
                formats.delta(one.lifetime_delta),
                formats.count(one.disclosures),
            )
        )
    spent = ("Epsilon of this run", "at delta", "Epsilon of the history", "Taken of it all", "Budget", "at delta")
    heads = ("Holder", *spent, "Exact releases so far")
    heads_after = tuple((one.holder, one.ledger_head, BLANK) for one in facts.accounts)
    return Section(
        "Privacy accounting",
        (
            bearing.privacy(facts),
            *([f"Limit: {facts.against}."] if facts.against else []),
            Table("Composed for each holder", heads, tuple(rows)),
            Table("Heads of the ledgers", ("Holder", "Head after the run", "Kept outside the holder at"), heads_after),
            "Epsilon of this run is composed over everything that the run charged, with privacy loss distributions. "
            "The history is composed over all runs; it is not finite once anything left exactly. What is taken of "
            "the budget is by the filter that enforces it; history and budget are at the second delta. "
            "What was spent is rounded up, the budget down.",
        ),
    )


def _disclosure(facts: Facts) -> Section:
    release = facts.release
    treated = ", ".join(f"{number} {kind}" for kind, number in release.treated.items() if number)
    return Section(
        "Disclosure control",
        (
            pairs(
                "From the run",
                ("rules of the release that ran", ", ".join(release.rules) or "none"),
                ("method", release.method if release.rules else formats.DASH),
                ("treated cells", treated or "none"),
                ("rules that did not run", "; ".join(f"{k}: {why}" for k, why in release.left_out.items()) or "none"),
                ("holders' own rules that passed", ", ".join(release.held) or "none ran"),
            ),
            pairs("For the parties to say", ("who chose rules and thresholds", BLANK), ("who signs a release", BLANK)),
        ),
    )


def _retention(facts: Facts) -> Section:
    exact = facts.privacy is None and facts.kind == "analysis of tables"
    rows: list[tuple[Cell, ...]] = [
        ("ledger of each holder", "append-only: entries of this run stay", BLANK),
        ("folder of the run, at the coordinator", ", ".join(facts.kept), BLANK),
        ("log of each holder", "errors in full, of which only public words left it", BLANK),
    ]
    if exact:
        rows.insert(1, ("releases.sqlite of holders with rules", "which exact results left, without values", BLANK))
    if is_linkage(facts.technique.name):
        rows.insert(1, ("linked.sqlite of holders", "which of their own units linkages were about", BLANK))
    if facts.technique.identities:
        rows.append(("keys of the run", "made for it, forgotten with it", "nothing is kept"))
        rows.append(("identity keys and pins", "valid until they are replaced", BLANK))
    return Section(
        "Retention and revocation",
        (
            Table("What remains", ("What", "State after the run", "Kept until, and who deletes it"), tuple(rows)),
            pairs(
                "For the parties to say",
                ("what happens when a holder leaves", BLANK),
                ("what happens when a person or enterprise objects", BLANK),
            ),
        ),
    )


def _cards(facts: Facts, kind: Kind) -> list[Section]:
    found = [_questions(f"Questions of the technique: {facts.technique.name}", facts.technique.card, facts, kind)]
    if facts.case.questions:
        found.append(_questions(f"Questions of the reference scenario: {facts.subject}", facts.case, facts, kind))
    return found


def _questions(title: str, card: Card, facts: Facts, kind: Kind) -> Section:
    topics: list[Topic] = [topic for topic in TOPICS if topic not in LEFT_OUT[kind] and card.on(topic)]
    asked = tuple(Asked(topic, bearing.of(topic, facts), card.on(topic)) for topic in topics)
    return Section(title, asked or (NO_CARD,))


def _risks(facts: Facts) -> list[Section]:
    rows = tuple((row.role, row.learns, row.protected_by, BLANK, BLANK, BLANK) for row in facts.learns)
    heads = ("Who", "Learns", "Protected by", "Likelihood of harm", "Severity", "Further measures")
    signed = pairs(
        "For the parties to say",
        ("advice of the data protection officer", BLANK),
        ("views of those concerned", BLANK),
        ("decision, with date and signature", BLANK),
    )
    return [
        Section("Risks and measures", (Table("One row for each row of who learns what", heads, rows),)),
        Section("Advice and decision", (signed,)),
    ]


def _terms(facts: Facts) -> list[Section]:
    names = [party.name for party in (*facts.holders, *facts.technique.third_parties)]
    names += [name for name, _ in bearing.CENTRAL]
    duties = Table("Each party", ("Party", "Undertakes to", "For how long"), tuple((n, BLANK, BLANK) for n in names))
    rest = pairs(
        "For the parties to say",
        ("what may be asked beyond this run, and who decides", BLANK),
        ("who may publish what", BLANK),
        ("cost, and who bears it", BLANK),
        ("liability and disputes", BLANK),
        ("changes, notice and end", BLANK),
    )
    signed = Table(
        "Signatures", ("Party", "Name and function", "Date", "Signature"), tuple((n, *[BLANK] * 3) for n in names)
    )
    return [Section("Duties and terms", (duties, rest)), Section("Signatures", (signed,))]
