"""A recommendation: what no rule excludes, ranked, and how that changes with the facts."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

from statfed.core import VERSION
from statfed.core.applicability import missing, pip
from statfed.core.discovery import origin
from statfed.core.errors import UsageError
from statfed.core.protection import package_of, read_protection
from statfed.core.scenario import Case
from statfed.lab.recommend import synthetic
from statfed.lab.recommend.answer import (
    Answer,
    Evidence,
    Flip,
    Learned,
    NotMeasured,
    Ranked,
    Reason,
    Rejected,
    Remedy,
)
from statfed.lab.recommend.evidence import Known, Measurements, evidence, nearest, of, scenarios
from statfed.lab.recommend.flips import Changed, changes
from statfed.lab.recommend.rank import order, reasons
from statfed.lab.recommend.rules import excluded, excludes
from statfed.lab.recommend.techniques import Candidate, candidates, representative

_MOST_CHANGES = 3
_GIVEN = ("output", "partitioning")


def recommend(
    case: Case, measured: Measurements | None = None, known: Mapping[str, Known] | None = None, use: str = ""
) -> Answer:
    """Rank every technique for a case. known: the reference scenarios, by default all that are installed. use: of
    synthetic records, one of their guide. Raises UsageError on a use that is none."""
    measured, known = measured or Measurements(), scenarios() if known is None else known
    everything = candidates()
    here = [one for one in everything if one.protection is not None]
    rows = evidence(measured.rows, case, known)
    short = _shortlist(case, here, rows)
    names = [candidate.id for candidate, _ in short]
    flips, indifferent = _sensitivity(case, here, measured, known, names)
    remedies = () if short else _remedies(case, here)
    records = synthetic.of_case(case, use)
    others = tuple(_outside(case, one) for one in everything if one.protection is None)
    return Answer(
        version=VERSION,
        case=case,
        headline=_headline(case, short, remedies, others, records),
        measurements=measured.origin,
        ranked=tuple(_ranked(case, candidate, said, of(candidate, rows)) for candidate, said in short),
        rejected=tuple(
            Rejected(
                id=one.id,
                title=one.title,
                protection=str(one.protection),
                release=one.release,
                exclusions=found,
                evidence=of(one, rows),
            )
            for one in here
            if (found := excluded(case, one))
        ),
        not_measured=others,
        sensitivity=flips,
        indifferent=indifferent,
        remedies=remedies,
        nearest=nearest(case, known, measured.rows),
        synthetic=records,
    )


Short = list[tuple[Candidate, tuple[Reason, ...]]]


def _shortlist(case: Case, here: Sequence[Candidate], rows: Sequence[Evidence]) -> Short:
    """The techniques that no rule excludes, with their reasons, the best first."""
    found = [(one, reasons(case, one, of(one, rows))) for one in here if not excludes(case, one)]
    return sorted(found, key=lambda each: order(case, each[0], _score(each[1])))


def _score(said: Sequence[Reason]) -> float:
    return round(sum(one.points for one in said), 1) + 0.0


def _ranked(case: Case, candidate: Candidate, said: tuple[Reason, ...], rows: tuple[Evidence, ...]) -> Ranked:
    terms = representative(case, candidate)
    module, _ = read_protection(terms)
    try:
        learns = module.learns(terms)
    except UsageError:  # a protection that cannot say for this kind of study
        learns = ()
    extra = candidate.requires.extra
    return Ranked(
        id=candidate.id,
        title=candidate.title,
        protection=str(candidate.protection),
        release=candidate.release,
        score=_score(said),
        reasons=said,
        trust=candidate.trust,
        learns=tuple(Learned(role=r.role, learns=r.learns, protected_by=r.protected_by) for r in learns),
        evidence=rows,
        origin=origin(package_of(str(candidate.protection)), str(candidate.protection)),
        install=pip(extra) if missing(extra) else "",
    )


def _outside(case: Case, candidate: Candidate) -> NotMeasured:
    requires = candidate.requires
    needs = [f"at least {requires.minimum_holders} holders"] if requires.minimum_holders > 1 else []
    needs += [requires.third_parties] if requires.third_parties else []
    needs += ["keys of all parties, compared outside the system"] if requires.identities else []
    needs += [f"processor time in the order of {int(requires.cost):,} times plain"] if requires.cost != "1" else []
    return NotMeasured(
        id=candidate.id,
        title=candidate.title,
        needs=tuple(needs),
        trust=candidate.trust,
        exclusions=excluded(case, candidate),
        built=candidate.built,
        note=candidate.note,
        source=candidate.source,
    )


def _sensitivity(
    case: Case,
    here: Sequence[Candidate],
    measured: Measurements,
    known: Mapping[str, Known],
    names: Sequence[str],
) -> tuple[tuple[Flip, ...], tuple[str, ...]]:
    """Flips that change the shortlist's members or its first place, and the facts of which no flip does."""
    flips, facts = [], dict.fromkeys(change.fact for change in changes(case))
    for change in changes(case):
        rows = evidence(measured.rows, change.case, known)
        there = [candidate.id for candidate, _ in _shortlist(change.case, here, rows)]
        if set(there) == set(names) and there[:1] == list(names[:1]):
            continue
        if change.fact in _GIVEN and not there:  # another question; of interest where it has an answer
            continue
        flips.append(
            Flip(
                fact=change.fact,
                value=change.value,
                text=_then(change.text, names, there),
                enters=tuple(name for name in there if name not in names),
                leaves=tuple(name for name in names if name not in there),
                first=there[0] if there else "",
            )
        )
    moved = {flip.fact for flip in flips}
    return tuple(flips), tuple(fact for fact in facts if fact not in (*moved, *_GIVEN))


def _then(text: str, names: Sequence[str], there: Sequence[str]) -> str:
    """One sentence: what a flip changes."""
    if not there:
        return f"{text}, then nothing remains"
    first = f"{there[0]} comes first" if there[:1] != list(names[:1]) else f"{there[0]} stays first"
    enters, leaves = [n for n in there if n not in names], [n for n in names if n not in there]
    said = [first]
    said += [f"{'; '.join(enters)} can be had too"] if enters and enters != there[:1] else []
    said += [f"{'; '.join(leaves)} cannot be had"] if leaves else []
    return f"{text}, then {', and '.join(said)}"


def _remedies(case: Case, here: Sequence[Candidate]) -> tuple[Remedy, ...]:
    """The smallest sets of changed facts with which a technique remains: all of the same, smallest size.

    What is asked for, and how data are partitioned, change only where nothing else does.
    """
    everything = changes(case)
    few = tuple(change for change in everything if change.fact not in _GIVEN)
    for single, size in product((few, everything), range(1, _MOST_CHANGES + 1)):
        found = []
        for together in combinations(single, size):
            if len({change.fact for change in together}) < size:
                continue
            new: dict[str, Any] = {change.fact: getattr(change.case, change.fact) for change in together}
            lets = tuple(one.id for one in here if not excludes(case.model_copy(update=new), one))
            if lets:
                found.append(_remedy(together, lets))
        if found:
            return tuple(found)
    return ()


def _remedy(together: Sequence[Changed], lets: tuple[str, ...]) -> Remedy:
    text = " and ".join(change.text.removeprefix("if ") for change in together)
    return Remedy(changes=tuple(f"{c.fact} = {c.value}" for c in together), text=f"if {text}", lets=lets)


def _headline(
    case: Case,
    short: Short,
    remedies: Sequence[Remedy],
    others: Sequence[NotMeasured],
    records: Sequence[synthetic.Synthetic],
) -> str:
    if case.output == "synthetic-data" and records:
        found = [(one.title.lower(), synthetic.first(one)) for one in records]
        uses = ", ".join(f"{title}: {'none that is built' if kept is None else kept.method}" for title, kept in found)
        return f"synthetic records, by their use ({uses}); none is cleared for release before it was evaluated"
    if short:
        candidate, said = short[0]
        best = sorted(said, key=lambda one: -one.points)[:2]
        return f"{candidate.id}: {'; '.join(one.text for one in best if one.points > 0) or candidate.title}"
    parts = ["no technique that is installed suits this case"]
    fits = [one.id + ("" if one.built else " (not built yet)") for one in others if not one.exclusions]
    parts += [f"outside this software might do: {', '.join(fits)}"] if fits else []
    parts += [f"{remedies[0].text}, then {', or '.join(remedies[0].lets)}"] if remedies else []
    return "; ".join(parts)
