"""What one run did, of tables or of a model: the facts that an annex is pre-filled with. All of it is public."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statfed.core.card import Card, card_of
from statfed.core.codebook import Column
from statfed.core.errors import UsageError
from statfed.core.method import columns_read, read_question
from statfed.core.privacy.placement import note
from statfed.core.protection import Disclosure, minimum_holders, read_protection, shown_options
from statfed.core.terms import Terms

SIMULATED = ("inprocess", "processes", "ray")
"""Engines whose holders all run on one machine."""
SHOWN_CODES = 8


@dataclass(frozen=True)
class Party:
    """One party of a run. records: its public number of records, None where the run does not say it."""

    name: str
    role: str
    records: int | None = None
    finished: bool = True


@dataclass(frozen=True)
class Variable:
    """One column or channel of the codebook. read: did the run read it?"""

    name: str
    kind: str
    label: str = ""
    role: str = ""
    read: bool = True


@dataclass(frozen=True)
class Account:
    """What a run cost one holder. Epsilons are None without differential privacy; history also once anything left
    exactly. epsilon holds at the study's delta, the others at lifetime_delta."""

    holder: str
    unit: str | None
    epsilon: float | None
    delta: float | None
    history: float | None
    filter: float | None
    budget: float | None
    lifetime_delta: float | None
    disclosures: int
    ledger_head: str


@dataclass(frozen=True)
class Technique:
    """How sums were formed. card, trust: what the protection's module says of itself."""

    name: str
    title: str
    trust: tuple[str, ...]
    options: Mapping[str, Any]
    minimum_holders: int
    identities: bool
    third_parties: tuple[Party, ...]
    card: Card


@dataclass(frozen=True)
class Release:
    """Disclosure control of a run. held: rules that passed at holders; treated: cells by kind."""

    rules: tuple[str, ...] = ()
    method: str = ""
    treated: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """A finished run.

    computation: what was computed, by label. privacy: the study's section, None without; against: whom its epsilon
    does not hold against. case: card of the reference scenario, cast: who plays which role in it. rounds: number of
    sums, or of rounds of training. kept: files of the run's folder that hold results.
    """

    run: str
    created: str
    title: str
    kind: str
    subject: str
    engine: str
    simulated: bool
    computation: Mapping[str, str]
    origin: str
    holders: tuple[Party, ...]
    variables: tuple[Variable, ...]
    filters: tuple[str, ...]
    technique: Technique
    privacy: Mapping[str, Any] | None
    against: str
    seed: int | None
    accounts: tuple[Account, ...]
    release: Release
    rounds: int
    bytes_down: int
    bytes_up: int
    seconds: float
    learns: tuple[Disclosure, ...]
    digests: Mapping[str, str]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    kept: tuple[str, ...]
    purpose: str = ""
    source: str = ""
    gsbpm: str = ""
    cast: Mapping[str, str] = field(default_factory=dict)
    case: Card = field(default_factory=Card)


def technique_of(terms: Terms) -> Technique:
    """How the sums of a study were formed. Raises UsageError where its protection is not installed."""
    module, options = read_protection(terms)
    requires = module.REQUIRES
    return Technique(
        name=terms.protection.name,
        title=module.TITLE,
        trust=tuple(module.TRUST),
        options=shown_options(module, options.model_dump(mode="json")),
        minimum_holders=minimum_holders(terms, requires),
        identities=requires.identities,
        third_parties=tuple(
            Party(n, f"third party (the technique needs {requires.third_parties})")
            for n in module.third_parties(options)
        ),
        card=card_of(module),
    )


def parties_of(names: Sequence[str], finished: Sequence[str], records: Mapping[str, int]) -> tuple[Party, ...]:
    """The data holders of a run, those that dropped out marked."""
    return tuple(Party(name, "data holder", records.get(name), name in finished) for name in names)


def answer_facts(stored: Mapping[str, Any]) -> Facts:
    """The facts of an analysis, from its result.json. Raises UsageError where that is damaged or of another version."""
    try:
        return _answer(stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = type(error).__name__
        raise UsageError(
            f"result.json: got one that is damaged or of another version ({what}); want this version's"
        ) from None


def _answer(stored: Mapping[str, Any]) -> Facts:
    query = Terms.model_validate(stored["query"])
    if query.digest() != stored["query_digest"]:
        raise UsageError("result.json: got a query whose digest differs from query_digest; want what the holders saw")
    analysis, question = read_question(query)
    read, codebook, privacy = columns_read(question), query.codebook, query.privacy
    spending, sums, record = stored["spending"], stored["sums"], stored["disclosure"]
    delta = privacy.delta if privacy else None
    options = {f"option {key}": _words(value) for key, value in query.options.items()}
    drafted = ", drafted from the holders' data" if stored["codebook_drafted"] else ""
    return Facts(
        run=stored["run"],
        created=stored["created"],
        title=stored["title"],
        kind="analysis of tables",
        subject=query.analysis,
        engine=stored["engine"],
        simulated=stored["engine"] in SIMULATED,
        computation={"analysis": f"{query.analysis}: {analysis.TITLE}"}
        | options
        | {"exact result asked for": "yes" if query.exact else "no"},
        origin=f"tables of the holders; codebook {codebook.title or 'without a title'}{drafted}",
        holders=parties_of(query.holders, [one["holder"] for one in spending], {}),
        variables=tuple(
            Variable(name, _kind(column), column.label, column.role or "", name in read)
            for name, column in codebook.columns.items()
        ),
        filters=tuple(map(str, query.where)),
        technique=technique_of(query),
        privacy=privacy.model_dump(mode="json") if privacy else None,
        against=(note(privacy) or "") if privacy else "",
        seed=query.seed,
        accounts=tuple(
            Account(
                holder=one["holder"],
                unit=one["unit"],
                epsilon=one["study_epsilon"],
                delta=delta,
                history=one["history_epsilon"],
                filter=one["filter_epsilon"],
                budget=one["budget_epsilon"],
                lifetime_delta=one["delta"],
                disclosures=one["disclosures"],
                ledger_head=one["ledger_head"],
            )
            for one in spending
        ),
        release=Release(
            rules=tuple(record.get("rules", ())),
            method=record.get("method", ""),
            treated=record.get("treated", {}),
            left_out=record.get("not_evaluated", {}),
            held=tuple(sorted({rule for one in sums for rule in one["rules"]})),
        ),
        rounds=len(sums),
        bytes_down=sum(one["bytes_down"] for one in sums),
        bytes_up=sum(one["bytes_up"] for one in sums),
        seconds=stored["seconds"],
        learns=tuple(Disclosure(**row) for row in stored["learns"]),
        digests={"query": stored["query_digest"], "codebook": codebook.digest()},
        versions={"statfed": stored["version"]},
        notes=tuple(stored["notes"]),
        kept=("result.json", "report.html", *(f"table {name} as CSV" for name in stored["tables"])),
    )


def _kind(column: Column) -> str:
    """What a column holds, in words."""
    if column.type == "category":
        codes = list(column.categories)
        more = ", ..." if len(codes) > SHOWN_CODES else ""
        return f"category, {len(codes)} codes: {', '.join(codes[:SHOWN_CODES])}{more}"
    bounds = "" if column.low is None or column.high is None else f", {column.low:g} to {column.high:g}"
    return f"{column.type}{bounds}{' ' if column.unit else ''}{column.unit}"


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
