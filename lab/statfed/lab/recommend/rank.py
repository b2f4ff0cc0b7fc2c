"""Scores of techniques that no rule excludes: points for and against, each with a sentence from the case's facts.

The score is the sum. Points are judgements and stand beside their sentences, so that whoever judges otherwise can add
up differently; ties go to the cheaper protection, then to fewer parties, then to less noise, then by name.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from statfed.core.scenario import Case
from statfed.lab.recommend import cost, noise
from statfed.lab.recommend.answer import Evidence, Reason
from statfed.lab.recommend.rules import SAYS, YEARLY
from statfed.lab.recommend.techniques import Candidate

HORIZON = 5
"""Years that a privacy budget should last."""
_LEVELS: tuple[str, ...] = get_args(Case.model_fields["skills"].annotation)
_SENSITIVITY = {"low": 0, "moderate": 1, "high": 2}


@dataclass(frozen=True)
class Aspect:
    """One thing that speaks for or against a technique."""

    id: str
    title: str
    says: Callable[[Case, Candidate], Iterator[tuple[float, str]]]


def reasons(case: Case, candidate: Candidate, rows: Sequence[Evidence]) -> tuple[Reason, ...]:
    """Every reason, in the order of ASPECTS, what was measured last. rows: evidence about the candidate."""
    said = [(aspect.id, *one) for aspect in ASPECTS for one in aspect.says(case, candidate)]
    said.append(("evidence", *_measured(case, rows)))
    return tuple(Reason(aspect=aspect, points=round(points, 1) + 0.0, text=text) for aspect, points, text in said)


def order(case: Case, candidate: Candidate, score: float) -> tuple[float, int, int, float, str]:
    """What ranked techniques are sorted by."""
    loud = noise.ratio(noise.seen(case, linkage=candidate.linkage), candidate.release) if candidate.noisy else 0.0
    return -score, int(candidate.requires.cost), candidate.nodes, loud, candidate.id


def _trust(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    harm, who = _SENSITIVITY[case.sensitivity], SAYS[case.coordinator]
    if candidate.linkage:
        points = (0.5, 2.0, 3.0)[harm] / (2 if case.coordinator == "trusted" else 1)
        yield points, f"the coordinator, {who}, relays what is sealed, and gets what comes out and no unit"
    elif not candidate.requires.reveals_updates:
        points = (0.5, 2.0, 3.0)[harm] / (2 if case.coordinator == "trusted" else 1)
        worst = "; a coordinator that deviates is withstood" if case.coordinator == "malicious" else ""
        yield points, f"the coordinator, {who}, gets sums only, of values of {case.sensitivity} sensitivity{worst}"
    elif candidate.release == "local":
        yield (0.0, 1.0, 1.0)[harm], "the coordinator sees each contribution, but with noise in it"
    else:
        points = 0.0 if case.coordinator == "trusted" else (-1.0, -3.0, -5.0)[harm]
        yield (
            points,
            f"the coordinator, {who}, sees each holder's contribution, of {case.sensitivity} sensitivity",
        )
    if candidate.release == "shared":
        yield -0.1, "the privacy of the noise rests on all holders but one colluder adding their part"


def _parties(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if candidate.nodes:
        own = candidate.nodes > 1 and not case.third_party
        by = "the holders would run them" if own else "contracts, their price and their audit"
        yield -0.5 if candidate.nodes == 1 else -1.0, f"needs {candidate.requires.third_parties}: {by}"


def _few(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if case.parties == 2 and candidate.release == "exact" and not candidate.linkage:
        yield -2.0, f"with {case.parties} organisations each has the other's part of a total by subtraction"


def _matching(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if not candidate.linkage:
        return
    if candidate.similar and case.identifier == "common":
        yield -1.0, "keys without errors need no similarity, which shows a third party which records are alike"
    elif candidate.similar:
        yield 1.0, "keys with errors are linked by similarity; recall and precision are estimated beside the links"
    figures = [name for name in candidate.methods if name != "total"]
    if figures:
        yield 1.0, f"over the matched, and nobody learns which they are: {', '.join(candidate.methods)}"
    elif candidate.methods:
        yield 0.0, f"over the matched: {', '.join(candidate.methods)} of one holder's columns"
    else:
        yield 0.0, "the number of links or the pairs, and no figure over the matched"
    yield (
        0.0,
        "whoever puts guessed identifiers into its list learns how many the others have: caps, minimum and "
        "limits.linkages bound it",
    )


def _exactness(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if candidate.similar:
        yield 0.5, "links are estimated: some are wrong and some are missed, within stated limits"
        return
    if not candidate.noisy:
        wanted = ", as official figures have to be" if case.exact else ""
        yield 2.0, f"results are exact{wanted}"
        return
    assumed = "" if case.epsilon else "; the case sets no epsilon, this is for 1 a release"
    seen = noise.seen(case, linkage=candidate.linkage)
    found = noise.ratio(seen, candidate.release) / noise.limit(case)
    yield -3.0 * min(1.0, math.sqrt(found)), f"{noise.in_words(seen, candidate.release)} (modelled){assumed}"
    if candidate.linkage:
        yield 0.5, "epsilon bounds what is told of any unit, to everybody but the holder that sees the figure first"
        return
    yield 1.0, "epsilon bounds what the publication tells of any unit, whatever else is known"


def _recurrence(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    yearly = YEARLY[case.recurrence]
    if case.recurrence == "once":
        return
    if candidate.noisy and case.epsilon is not None:
        years = noise.affordable(noise.seen(case, linkage=candidate.linkage), candidate.release) / yearly
        lasts = "outlasts any plan" if years > 100 else f"lasts {years:.2g} years"
        text = f"{case.recurrence} releases: a total epsilon of {case.epsilon:g} {lasts} before noise drowns them"
        yield (0.0 if years >= HORIZON else -2.0 * (1 - years / HORIZON)), f"{text} (modelled)"
    elif not candidate.noisy and yearly > 1:
        yield (
            -1.0,
            f"{case.recurrence} exact releases: their differences show units that came or left, unless rules look",
        )


def _dominance(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if not case.dominance or case.output != "statistics":
        return
    if candidate.noisy:
        yield -1.0, "noise has to hide a unit that dominates a figure, and so grows with the largest one"
    elif any(name.startswith("dominance") for name in candidate.requires.functions):
        yield 2.0, "dominance is decided on pooled cells, and one boolean a row is opened"
    else:
        yield -2.0, "dominance needs the two largest of a pooled cell: sums bound them, safely, and hide safe cells too"


def _dropout(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    if not case.dropout:
        return
    if not candidate.requires.survives_dropout:
        yield -2.0, "a holder may be away, and every holder is needed: the run is repeated"
        return
    yield 1.0, "a holder may be away: a sum over the others is formed"
    if not candidate.noisy:
        yield -0.5, "two exact sums over holders that differ by one show that one's: policies set the fewest holders"


def _skills(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    requires = candidate.requires
    steps = ["identity keys to compare and pin"] if requires.identities else []
    needed = 1 if steps else 0
    if candidate.nodes:
        steps.append("parties beside the holders to run")
        needed = 2
    if candidate.noisy:
        steps.append("a privacy budget to set and keep")
        needed = max(needed, 1)
    short = needed - _LEVELS.index(case.skills)
    if steps:
        yield -1.5 * max(0, short), f"skills are {case.skills}; it takes {', '.join(steps)}"


def _cost(case: Case, candidate: Candidate) -> Iterator[tuple[float, str]]:
    multiple = int(candidate.requires.cost)
    if multiple > 1:
        yield -0.5 * math.log10(multiple), f"processor time in the order of {multiple:,} times a plain sum"
    found = cost.estimate(case, candidate)
    if found is None:
        lacks = "it was not measured" if candidate.linkage else "its package is not installed here"
        yield 0.0, f"bytes are not known: {lacks}"
        return
    if candidate.linkage:
        each = found.processor / case.records * 1e6
        yield 0.0, f"{each:.3g} microseconds of processor time a record, of all parties together (measured)"
    slow = 0.0 if found.total < 60 else -1.0 if found.total < 3600 else -2.0
    size = f"{found.bytes / 1e6:.2g} MB" if found.bytes >= 1e4 else "less than 10 kB"
    stages = "1 stage" if found.stages == 1 else f"{found.stages} stages"
    line = f"{case.bandwidth:g} Mbit/s and {case.latency:g} ms"
    yield slow, f"{size} a holder in {stages} a release: {_duration(found.total)} over {line} (modelled)"


ASPECTS = (
    Aspect("trust", "what the coordinator sees, whom the case trusts, and the harm if it leaked", _trust),
    Aspect("third parties", "organisations beside the holders that have to be found", _parties),
    Aspect("matching", "how units are matched, and what comes out over the matched", _matching),
    Aspect("few holders", "what two organisations learn of each other", _few),
    Aspect("exactness", "noise beside the signal", _exactness),
    Aspect(
        "recurrence",
        f"how long a budget lasts ({HORIZON} years wanted), what repeated exact releases tell",
        _recurrence,
    ),
    Aspect("dominance", "units that dominate a figure", _dominance),
    Aspect("dropout", "holders that are away", _dropout),
    Aspect("skills", "what the weakest party can run", _skills),
    Aspect("cost", "processor time, bytes and messages over the case's line", _cost),
)


def _measured(case: Case, rows: Sequence[Evidence]) -> tuple[float, str]:
    """Points of what was measured: 2 where the nearest scenarios all reached their measure, -2 where none did."""
    judged = [
        row
        for row in rows
        if row.reached is not None
        and (case.epsilon is None or row.epsilon is None or row.epsilon <= case.epsilon * (1 + 1e-6))
    ]
    if not judged:
        beyond = f" within epsilon {case.epsilon:g}" if rows else ""
        return 0.0, f"not measured in the scenarios nearest to the case{beyond}"
    weights = [row.trials / (0.1 + row.distance) for row in judged]
    share = sum(w * (row.reached or 0.0) for w, row in zip(weights, judged, strict=True)) / sum(weights)
    trials, reached = sum(row.trials for row in judged), sum(round(row.trials * (row.reached or 0)) for row in judged)
    names = ", ".join(dict.fromkeys(row.scenario for row in judged))
    failed = sum(row.failed for row in judged)
    what = f"{reached} of {trials} trials reached the success measure of {names}"
    return 2.0 * (2 * share - 1), what + (f"; {failed} failed" if failed else "")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
