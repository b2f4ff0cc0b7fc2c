"""A rehearsal of a study that was proposed: what would happen, before anybody agrees to it.

The study is run in this process with a simulated holder for every holder of its terms. Their records are made up from
the codebooks (`statfed.federation.generated`); their disclosure rules, limits and budget are those of the home that
asks, in folders of their own that are deleted afterwards. What a policy admits by its list [allow] is told beside and
not acted on, so that people see what would leave if they allowed it.

Formal guarantees. The home is read and never written: its policy, its data (do they fit the codebook?) and its ledger,
which is opened for reading. What is told of the data is whether they fit; it is for the people of this holder. Whatever
else is told is a function of terms, policy and ledger, so that a rehearsal discloses nothing.
"""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from statfed.client.data.tables import connect, inspect
from statfed.client.guard.admission import Rule, weighing
from statfed.client.guard.explaining import approval_by, verdict
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Budget, Dataset, HolderName, Minimum, Parties, Policy, load_policy, write_policy
from statfed.client.guard.refusals import refusals
from statfed.client.guard.register import point
from statfed.client.guard.templates import made
from statfed.client.third_party import FILE as PARTY
from statfed.client.third_party import load_party
from statfed.core.errors import StatfedError, UsageError
from statfed.core.method import Ask, Counts, Magnitude, Part, Product, Public, Update, What
from statfed.core.progress import Progress, silent
from statfed.core.protection import minimum_holders
from statfed.core.resolve import Resolved, resolve
from statfed.core.table import Size
from statfed.core.terms import Terms
from statfed.federation.answers import learns
from statfed.federation.generated import entries, generated
from statfed.federation.generated_keys import rules_of
from statfed.federation.homes import REGISTER, homes_under
from statfed.federation.lines import lines
from statfed.federation.parties import admit_third_parties, identities, third_parties
from statfed.federation.rehearsed import Cost, Learned, Leaving, Reason, Rehearsal, Summed
from statfed.server.driver import Driven, Sum, drive
from statfed.server.engine import Deployment, Meter, Session
from statfed.server.grid import inprocess

FEWEST, MOST, ALL = 200, 2_000, 40_000
"""Records of a simulated holder, and about how many of all holders."""
ROUNDS = 2
"""Of training, that are rehearsed."""
MOST_HOLDERS, ENTRIES, LONGEST = 100, 20_000_000, 300.0
"""What is rehearsed at all: holders, numbers generated, and seconds: whoever proposes a study chooses its size."""
SEED = 1


class _Untried(StatfedError):
    """A rehearsal that is given up: it says nothing against the study."""


def rehearse(
    terms: Terms,
    home: Path | None = None,
    records: int | None = None,
    *,
    title: str = "",
    progress: Progress = silent,
) -> Rehearsal:
    """Rehearse a study with generated records, under the policy of `home`; None: under rules that allow everything.

    home: of a data holder or of a third party; never written. records: of each simulated holder, by default as many as
    this one declares, within bounds. A study that cannot be read at this end is one that is refused, with that reason.
    Raises UsageError where the home cannot be read.
    """
    started = time.perf_counter()
    third = home is not None and (home / PARTY).exists()
    policy = load_policy(home / "policy.toml") if home is not None and not third else None
    party = load_party(home / PARTY).party.name if home is not None and third else ""
    party = policy.holder.name if policy else party
    me = party if party in terms.holders else terms.holders[0]
    try:
        study, _ = resolve(terms, me), resolve(terms)
    except StatfedError as error:
        return _unread(terms, party, title, str(error), time.perf_counter() - started)
    reasons, approval = _reasons(terms, policy, home if third else None)
    records = records or _records(terms, policy)
    outcome = _run(_shortened(terms), policy, records, me, party or me, progress)
    asked = getattr(study.question.options, "rounds", None) if study.training else None
    longer = asked / min(ROUNDS, asked) if asked else 1.0
    own = longer * max(1.0, policy.dataset.records / records if policy else 1.0)
    outcome.figures = round(outcome.figures * longer)
    cost = _cost(study, policy, home, outcome) if policy and home and party in terms.holders else None
    return Rehearsal(
        party=party,
        method=terms.method,
        title=title or study.method.TITLE,
        protection=terms.protection.name,
        holders=terms.holders,
        third_parties=study.third_parties,
        records=records,
        reasons=tuple(Reason(text=rule.text, key=rule.key) for rule in reasons),
        approval=approval,
        misfits=_misfits(study, policy, home) if policy and home and party in terms.holders else None,
        completed=outcome.driven is not None,
        kept_back=tuple(outcome.kept_back),
        stopped=outcome.stopped,
        untried=outcome.untried,
        sums=tuple(outcome.summed()),
        rounds=(min(ROUNDS, asked), asked) if asked else None,
        sent=outcome.meter.sent,
        cost=cost,
        learns=tuple(Learned(**asdict(row)) for row in learns(study)),
        seconds=time.perf_counter() - started,
        own_seconds=outcome.own_seconds * own,
    )


def _unread(terms: Terms, party: str, title: str, reason: str, seconds: float) -> Rehearsal:
    """Of a study that names what is not there, or has options that nothing here has."""
    return Rehearsal(
        party=party,
        method=terms.method,
        title=title,
        protection=terms.protection.name,
        holders=terms.holders,
        third_parties=(),
        records=0,
        reasons=(Reason(text=reason),),
        approval=None,
        misfits=None,
        completed=False,
        kept_back=(),
        stopped="",
        untried="",
        sums=(),
        rounds=None,
        sent=0,
        cost=None,
        learns=(),
        seconds=seconds,
        own_seconds=0.0,
    )


@dataclass(frozen=True, eq=False)
class _Watched(Resolved):
    """A study whose asks are noted as the coordinator lays them out."""

    asked: list[tuple[Ask, dict[str, Part]]] = field(default_factory=list)

    def parts(self, ask: Ask) -> dict[str, Part]:
        found = dict(super().parts(ask))
        self.asked.append((ask, found))
        return found


@dataclass
class _Outcome:
    """How a rehearsal went. figures: exact ones that this holder gave in it."""

    study: Resolved
    asked: list[tuple[Ask, dict[str, Part]]]
    driven: Driven | None = None
    stopped: str = ""
    untried: str = ""
    kept_back: list[str] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    figures: int = 0
    own_seconds: float = 0.0

    def summed(self) -> list[Summed]:
        """The kinds of sums, in the order in which they came."""
        done: list[Sum] = self.driven.sums if self.driven else []
        times = Counter(one.ask for one in done)
        found = {}
        for ask, parts in self.asked:
            if ask.name in found:
                continue
            tried = sum(other.name == ask.name for other, _ in self.asked)
            kept = self.driven is None and bool(self.kept_back) and ask.name == self.asked[-1][0].name
            moved = [one.bytes_up for one in done if one.ask == ask.name]
            leaving = [Leaving(part=name, kind=kind_of(part.what), shape=part.shape) for name, part in parts.items()]
            found[ask.name] = Summed(
                ask=ask.name,
                times=tried,
                refused=tried - times[ask.name] if self.driven else int(kept),
                parts=tuple(leaving),
                numbers=sum(math.prod(part.shape) for part in parts.values()),
                bytes=sum(moved) // len(moved) if moved else 0,
                noise="coordinator" if self.study.central else "here" if self.study.privacy else "none",
            )
        return list(found.values())


def kind_of(what: What | None) -> str:
    """What numbers that leave are, in words."""
    match what:
        case Counts(by=by, units=units):
            behind = "sampling units or enterprises" if units else "records"
            return f"numbers of {behind} by {', '.join(by)}" if by else f"numbers of {behind}"
        case Magnitude():
            return "sums of values over records"
        case Product():
            return "sums over the records of a model (cross products, scores)"
        case Update():
            return "a model or its change, from training"
        case Public():
            return "public: the same whatever the data are"
    return "not declared"


def _reasons(terms: Terms, policy: Policy | None, third: Path | None) -> tuple[Sequence[Rule], str | None]:
    """What stands against a study by the file of this party, and who approves it."""
    if policy is not None:
        said = verdict(policy, terms, approval_by(policy, terms))
        return said.refusing, said.approval
    if third is None:
        return [Rule(text) for text in resolve(terms).obstacles], None
    party, study, found = load_party(third / PARTY), resolve(terms), list[Rule]()
    if terms.protection.name not in party.allow.protections:
        wanted = " or ".join(party.allow.protections)
        found.append(Rule(f"protection: got {terms.protection.name}; want {wanted}", "allow.protections"))
    if party.party.name not in study.third_parties:
        found.append(Rule(f"{party.party.name} has no part in this study; want one that names it"))
    found += [Rule(text) for text in study.obstacles]
    if not study.obstacles and minimum_holders(terms, study.protection.REQUIRES) < party.allow.minimum_holders:
        text = f"holders: got a study over as few as {study.minimum_holders}; want {party.allow.minimum_holders}"
        found.append(Rule(text, "allow.minimum_holders"))
    return found, None


def _records(terms: Terms, policy: Policy | None) -> int:
    own = policy.dataset.records if policy else MOST
    return max(FEWEST, min(own, MOST, ALL // len(terms.holders)))


def _shortened(terms: Terms) -> Terms:
    """The study with a public seed, so that a rehearsal is the same each time, and with few rounds of training."""
    study = resolve(terms)
    rounds = getattr(study.question.options, "rounds", None) if study.training else None
    options = {**terms.options, "rounds": min(ROUNDS, rounds)} if rounds else terms.options
    return terms.model_copy(update={"seed": SEED, "options": options})


def _run(terms: Terms, policy: Policy | None, records: int, me: str, party: str, progress: Progress) -> _Outcome:
    """The study with simulated parties, in a folder that is deleted."""
    read = resolve(terms)
    study = _Watched(**{one.name: getattr(read, one.name) for one in fields(Resolved)})
    outcome = _Outcome(study, study.asked)
    if study.obstacles:  # among the reasons
        return outcome
    with tempfile.TemporaryDirectory(prefix="statfed-") as folder:
        root = Path(folder)
        try:
            _small_enough(terms, records)
            homes = _homes(terms, study, policy, records, root)
            answer: Callable[[Session], Driven] = partial(_answered, study, outcome, party, progress)
            outcome.driven = inprocess.run(Deployment("rehearsal", homes, root / "logs"), answer, progress)
        except _Untried as error:
            outcome.untried = str(error)
        except StatfedError as error:
            outcome.stopped = str(error)
        except Exception as error:  # noqa: BLE001  # of the method, on totals that nobody has foreseen
            outcome.stopped = f"the study fails on generated records ({type(error).__name__})"
        outcome.kept_back = _kept_back(root, terms.holders)
        if outcome.kept_back:
            outcome.stopped = ""
        outcome.figures = _given(root / me / "ledger.sqlite")
    if outcome.driven:
        outcome.own_seconds = sum(one.holder_seconds.get(me, 0.0) for one in outcome.driven.sums)
    return outcome


def _kept_back(root: Path, holders: Sequence[str]) -> list[str]:
    """What rules kept back, with the holders at which they did."""
    found: dict[str, list[str]] = {}
    for name in holders:
        for one in refusals(root / name):
            found.setdefault(" ".join(one.reason.split()), []).append(name)
    return [f"{reason} (at {', '.join(dict.fromkeys(names))})" for reason, names in found.items()]


def _answered(study: Resolved, outcome: _Outcome, party: str, progress: Progress, session: Session) -> Driven:
    try:
        return drive(session, study, "rehearsal", timeout=LONGEST, progress=_until(progress))
    finally:
        outcome.meter = session.meters.get(party, Meter())


def _until(progress: Progress) -> Progress:
    """`progress`, which ends a rehearsal that takes too long."""
    end = time.monotonic() + LONGEST

    def told(phase: str, done: int, total: int) -> None:
        if time.monotonic() > end:
            raise _Untried(f"given up after {LONGEST:g} s and {done} sums")
        progress(phase, done, total)

    return told


def _small_enough(terms: Terms, records: int) -> None:
    """Raise _Untried where the records of all holders would be more than is generated."""
    holders = len(terms.holders)
    if holders > MOST_HOLDERS:
        raise _Untried(f"got {holders:,} holders; want at most {MOST_HOLDERS} to rehearse it")
    many = records * sum(entries(terms.codebook_of(name), _read(terms, name)) for name in terms.holders)
    if many > ENTRIES:
        raise _Untried(f"got {many:,} values to generate; want at most {ENTRIES:,} to rehearse it")


def _given(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    with Ledger.read_only(ledger) as opened:
        return opened.spending().figures


def _homes(terms: Terms, study: Resolved, policy: Policy | None, records: int, root: Path) -> dict[str, Path]:
    """The homes of simulated parties, with generated records."""
    others = third_parties(terms.protection, terms.holders, "inprocess", root)
    homes = homes_under(root, {name: name for name in terms.holders})
    pins = identities({**homes, **others})
    direct = lines(terms.protection, pins)
    admit_third_parties(others, terms.protection.name, pins, direct)
    weights = weighing(study)
    for name, home in homes.items():
        point(home, root / REGISTER)
        book = terms.codebook_of(name)
        keys = rules_of(study.linking.linking, book) if study.linking else None
        table = generated(book, records, name, _read(terms, name), terms.where, weights, SEED, keys)
        pq.write_table(table, home / "data.parquet")
        unit = book.role("unit")
        persons = len(set(table[unit].to_pylist())) if unit in table.column_names else records
        dataset = Dataset(id=name, path="data.parquet", records=records, persons=persons, codebooks=(book.digest(),))
        ruled = _policy(terms, policy, name, dataset, Parties(pins), tuple(others))
        if name in direct:
            allow = ruled.allow.model_copy(update={"direct": True})
            ruled = ruled.model_copy(update={"allow": allow, "direct": direct[name]})
        write_policy(ruled, home / "policy.toml")
    return {**homes, **others}


def _read(terms: Terms, name: str) -> tuple[str, ...]:
    """The columns that a study reads at a holder, whose codebook may be its own."""
    return resolve(terms, name).columns


def _policy(
    terms: Terms, own: Policy | None, name: str, dataset: Dataset, parties: Parties, trusted: tuple[str, ...]
) -> Policy:
    """A simulated holder's policy: all that may be asked, under the rules, limits and budget of `own`."""
    unit = terms.privacy.unit if terms.privacy else own.budget.unit if own else "record"
    units = dataset.records if unit == "record" else dataset.persons
    epsilon, delta = (own.budget.epsilon, own.budget.delta) if own else (1_000.0, 1e-6)
    allowing = made(
        "rehearsal",
        holder=HolderName(name=name),
        dataset=dataset,
        budget=Budget(unit=unit, epsilon=epsilon, delta=min(delta, 0.5 / units)),
        parties=parties,
        third_parties=trusted,
    )
    if own is None:
        return allowing
    rules = {
        "disclosure": own.disclosure,
        "refusals": own.refusals,
        "limits": own.limits,
        "minimum": Minimum(records=1),
    }
    return allowing.model_copy(update=rules)


def _misfits(study: Resolved, policy: Policy, home: Path) -> tuple[str, ...]:
    """How the true data do not fit the study's codebook, in words without values."""
    try:
        with connect(policy.dataset.path, home) as source:
            return inspect(source, study.codebook, study.columns, weighing(study)).mismatches
    except UsageError as error:
        return (str(error),)


def _cost(study: Resolved, policy: Policy, home: Path, outcome: _Outcome) -> Cost:
    """What the study costs by the true ledger, which is read alone; a new one where there is none yet."""
    privacy, size = study.privacy, Size(policy.dataset.records, policy.dataset.persons)
    epsilon, reserved = None, None
    if privacy is not None and privacy.unit == policy.budget.unit:
        try:
            reserved = study.reservation(size)
        except UsageError:  # no noise is enough, or a delta that is none: among the reasons, or why it stopped
            reserved = None
        epsilon = reserved.epsilon(privacy.epsilon, privacy.delta) if reserved else None
    with tempfile.TemporaryDirectory(prefix="statfed-") as folder, _ledger(policy, home, Path(folder)) as ledger:
        spent = ledger.spending()
        left = spent.left
        more = ledger.more_like(reserved) if reserved else None
    return Cost(
        unit=policy.budget.unit,
        epsilon=epsilon,
        delta=privacy.delta if privacy else None,
        left=left,
        share=epsilon / left if epsilon is not None and left > 0 else None,
        more=more,
        figures=outcome.figures,
        given=spent.figures,
        most=policy.limits.figures,
    )


def _ledger(policy: Policy, home: Path, folder: Path) -> Ledger:
    if (home / "ledger.sqlite").exists():
        return Ledger.read_only(home / "ledger.sqlite")
    point(folder, folder / REGISTER)
    budget = policy.budget
    return Ledger(
        folder / "ledger.sqlite",
        dataset=policy.dataset.id,
        unit=budget.unit,
        epsilon=budget.epsilon,
        delta=budget.delta,
    )
