"""What one run did, of tables or of a model, or what a study would do: the facts that an annex is pre-filled with. All
of it is public."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statfed.core.card import Card, card_of
from statfed.core.codebook import Column
from statfed.core.discovery import load
from statfed.core.linkage import key_columns, linking_of
from statfed.core.method import columns_read, is_training, read_question
from statfed.core.privacy.placement import note
from statfed.core.protection import Disclosure, minimum_holders, read_protection, shown_options
from statfed.core.resolve import resolve_applicable
from statfed.core.scenario import PACKAGE as SCENARIOS
from statfed.core.scenario import load_training
from statfed.core.terms import Terms
from statfed.federation.annex.linked import Linked, linked_of
from statfed.federation.answers import Answer, learns
from statfed.federation.trained import Spending

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
    exactly. epsilon holds at the study's delta, the others at lifetime_delta; share is of the budget."""

    holder: str
    unit: str | None
    epsilon: float | None
    delta: float | None
    history: float | None
    share: float | None
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
    does not hold against. linked: its linkage, None without; planned: it has not run. case: card of the reference
    scenario, cast: who plays which role in it. rounds: number of sums, or of rounds of training. kept: files of the
    run's folder that hold results.
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
    linked: Linked | None = None
    planned: bool = False


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


def facts_of(answer: Answer) -> Facts:
    """The facts of a finished run.

    Raises UsageError where its method, scenario or protection is not installed.
    """
    terms = answer.terms
    method, question = read_question(terms)
    read, codebook, privacy, training = columns_read(question), terms.codebook, terms.privacy, is_training(terms.method)
    keys = _keys(terms)
    record = answer.result.disclosure
    about = load_training(answer.scenario).ABOUT if answer.scenario else None
    asked = [one for one in answer.sums if one.ask == "fit"] if training else list(answer.sums)
    records = {one.holder: one.records for one in answer.spending}
    digests = {"study": answer.study_digest, "codebook": codebook.digest()}
    if answer.training:
        digests["model"] = answer.training.model_digest
    tables = tuple(f"table {name} as CSV" for name in answer.result.tables)
    kept = ("study.toml", "result.json", "report.html", *tables, "logs")
    drafted = ", drafted from the holders' data" if answer.drafted else ""
    origin = f"tables of the holders; codebook {codebook.title or 'without a title'}{drafted}"
    if answer.scenario:
        origin = f"{answer.origin}{' (generated, not observed)' if answer.synthetic else ''}"
    options = {f"option {key}": _words(value) for key, value in terms.options.items()}
    return Facts(
        run=answer.run,
        created=answer.created,
        title=answer.title,
        kind="training of a model" if training else "analysis of tables",
        subject=answer.scenario or terms.method,
        engine=answer.engine,
        simulated=answer.simulated or answer.engine in SIMULATED,
        computation={"method": f"{terms.method}: {method.TITLE}"}
        | options
        | {"exact result asked for": "yes" if terms.exact else "no"},
        origin=origin,
        holders=parties_of(terms.holders, list(records), records),
        variables=tuple(
            Variable(name, _kind(column), column.label, column.role or "", name in read or name in keys)
            for name, column in codebook.columns.items()
        ),
        filters=tuple(map(str, terms.where)),
        technique=technique_of(terms),
        privacy=privacy.model_dump(mode="json") if privacy else None,
        against=(note(privacy) or "") if privacy else "",
        seed=terms.seed,
        accounts=tuple(map(_account, answer.spending)),
        release=Release(
            rules=tuple(record.get("rules", ())),
            method=record.get("method", ""),
            treated=record.get("treated", {}),
            left_out=record.get("not_evaluated", {}),
            held=tuple(sorted({rule for one in answer.sums for rule in one.rules})),
        ),
        rounds=len(asked),
        bytes_down=sum(one.bytes_down for one in answer.sums),
        bytes_up=sum(one.bytes_up for one in answer.sums),
        seconds=sum(one.seconds for one in answer.sums) if training else answer.seconds,
        learns=answer.learns,
        digests=digests,
        versions=dict(answer.versions),
        notes=(*answer.warnings, *answer.result.notes),
        kept=(*kept, "model.npz", "checkpoint.npz") if training else kept,
        purpose=about.purpose if about else "",
        source=about.source if about else "",
        gsbpm=about.gsbpm if about else "",
        cast=dict(about.roles) if about else {},
        case=about.card if about else Card(),
        linked=linked_of(terms, answer.result),
    )


def facts_of_study(terms: Terms, title: str = "", origin: str = "", scenario: str = "") -> Facts:
    """The facts of a study before it runs. origin: of its data; scenario: a reference scenario like it, if one.

    Raises UsageError where it could not be run.
    """
    study = resolve_applicable(terms)
    method, read, codebook, privacy = study.method, columns_read(study.question), terms.codebook, terms.privacy
    about = load(SCENARIOS, scenario, "scenario").ABOUT if scenario else None
    return Facts(
        run="not run",
        created="before any run",
        title=title,
        kind="training of a model" if study.training else "analysis of tables",
        subject=scenario or terms.method,
        engine="",
        simulated=False,
        computation={"method": f"{terms.method}: {method.TITLE}"}
        | {f"option {key}": _words(value) for key, value in terms.options.items()}
        | {"exact result asked for": "yes" if terms.exact else "no"},
        origin=origin or f"tables of the holders; codebook {codebook.title or 'without a title'}",
        holders=parties_of(terms.holders, terms.holders, {}),
        variables=tuple(
            Variable(name, _kind(column), column.label, column.role or "", name in read or name in _keys(terms))
            for name, column in codebook.columns.items()
        ),
        filters=tuple(map(str, terms.where)),
        technique=technique_of(terms),
        privacy=privacy.model_dump(mode="json") if privacy else None,
        against=(note(privacy) or "") if privacy else "",
        seed=terms.seed,
        accounts=(),
        release=Release(),
        rounds=0,
        bytes_down=0,
        bytes_up=0,
        seconds=0.0,
        learns=learns(study),
        digests={"study": terms.digest(), "codebook": codebook.digest()},
        versions={},
        notes=(),
        kept=(),
        purpose=about.purpose if about else "",
        source=about.source if about else "",
        gsbpm=about.gsbpm if about else "",
        cast=dict(about.roles) if about else {},
        case=about.card if about else Card(),
        linked=linked_of(terms),
        planned=True,
    )


def _keys(terms: Terms) -> frozenset[str]:
    """Columns that units are matched by; none without a linkage."""
    asked = linking_of(terms)
    if asked is None:
        return frozenset()
    return frozenset(name for holder in terms.holders for name in key_columns(asked.linking, terms.codebook_of(holder)))


def _account(spent: Spending) -> Account:
    return Account(
        holder=spent.holder,
        unit=spent.unit,
        epsilon=spent.study_epsilon,
        delta=spent.delta,
        history=spent.history_epsilon,
        share=spent.share,
        budget=spent.budget_epsilon,
        lifetime_delta=spent.lifetime_delta,
        disclosures=spent.disclosures,
        ledger_head=spent.ledger_head,
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
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
