"""`synthetic-within`: attacks on synthetic data that take many records together, by each holder within its own.

Whether a record is unique, or rare, depends on the others. A holder knows its own alone; so what is measured is another
thing than of the pooled records, and each holder's figures are added up, not its records':

- *Replicated uniques*: records that are unique by the keys among their holder's, and stand as a unique in the synthetic
  data. Numbers are grouped in twentieths of the synthetic data, which are public. A record that is unique among all is
  unique among its holder's: of the same records and cells the rate here is at least that of all, an upper bound; and
  it is the risk from somebody who knows which holder has a person's record.
- *Singling out*: pairs of a predicate and a holder in which it is true of exactly one record of the holder. A predicate
  that is true of one record of all is true of one record of one holder: of the same records, H holders times the rate
  is at least the rate of all.
- *Membership of rare records*: what is rare is decided among the holder's records, its own `apart` records are the
  strangers, half of them as in `membership.membership`. The figure is the mean over attacked members of the share of
  strangers *of their holder* that they come before: each holder's area under the curve, weighted by its members. Its
  variance is that of independent areas (DeLong et al. 1988 each). It is a mean: what befalls the records of one holder
  among many is thinned in it. A holder with fewer than OWN_FEWEST on a side counts none.

Records are put in the order of their own values, and as many are looked at of both sides as the fewer has, as in the
pooled measures. A holder without any on one side is not attacked.

Why not the uniques of all: numbers of records by key over all holders could be asked of the synthetic records' own
keys, which are public. But each of these numbers would be seen by whoever adds them up, and those that are 1 single out
a person; what may leave is the number of successes alone, and that is no sum over holders: whether a total is 1 is
known of the total only. It takes a computation on hidden totals, as a protection with functions of its own could make
it; none is built.

Nothing here adds up over records, and a record that comes changes what is said of others: there is no bound of it for
noise, and no form with noise. Whoever asks chooses the table: the parts say of nothing what they are, so that no holder
whose rules are on answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Part, Question, once
from statfed.core.result import Result, Row
from statfed.core.synthetic.attacks import Predicate, alone, predicates
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.measured import auc
from statfed.core.synthetic.membership import RARE, rare_scores
from statfed.core.synthetic.targets import replicated
from statfed.core.table import Table
from statfed.strategies.analyses._synthetic_table import (
    Compared,
    coded_sides,
    columns_of,
    in_order,
    names_of,
    synthetic_of,
)

TITLE = "Attacks on synthetic data that take records together, by each holder within its own"
GROUP = "Distributions"
PUSHES_DOWN = "all but the attacks; embedded DuckDB streams"
LINKED = True
WITHIN = True
SEED = 1
"""Of what is drawn, the same at every holder."""
OWN_FEWEST = 5
"""Rare records of both sides that a holder needs."""
WIDTHS = (1, 3, 5)
"""Columns of predicates."""
_MOST_ATTACKED = 4000
_MOST_SPREAD = 128.0
"""Of a holder's squared error times its members squared, over its records. With m members and n strangers it is at most
m / 4 (m / (m - 1)) + m^2 / (4 (n - 1)); n is OWN_FEWEST at least, and m at most _MOST_ATTACKED and half the records."""


class Options(Compared):
    """Options of synthetic-within."""

    keys: tuple[str, ...] = Field(min_length=1, description="what is known of a person, for uniques")
    predicates: int = Field(default=500, ge=1, le=5000, description="predicates of each width, for singling out")
    rare: float = Field(default=RARE, gt=0, le=0.5, description="share of a holder's records that are rare")


@dataclass(frozen=True)
class _Attack:
    """name: of the measure; tried: predicates, none for uniques."""

    name: str
    about: str
    tried: tuple[Predicate, ...] = ()

    def made(self, own: Coded, synthetic: Coded, keys: Sequence[str]) -> tuple[int, int]:
        """Attempts and successes on a holder's records."""
        if not self.tried:
            hits = replicated(synthetic, synthetic, own, keys)
            return len(hits), int(hits.sum())
        return len(self.tried), sum(alone(one, own) for one in self.tried)


@once
def attacks_of(question: Question[Options]) -> tuple[_Attack, ...]:
    """All attacks but membership, in order."""
    options, synthetic = question.options, synthetic_of(question)
    for name in options.keys:
        if name not in names_of(question.codebook, options):
            question.codebook.column(name, "keys")
            raise UsageError(f"keys: got {name}; want columns with levels or an order")
    found = [_Attack("replicated-uniques", ", ".join(options.keys))]
    for width in sorted({min(width, len(synthetic.names)) for width in WIDTHS}):
        try:
            made = predicates(synthetic, np.random.default_rng(SEED), options.predicates, width)
        except UsageError:  # no value that occurs once, say
            continue
        found.append(_Attack("singling-out", f"predicates of {width} columns", tuple(made)))
    return tuple(found)


def columns(question: Question[Options]) -> tuple[str, ...]:
    found = columns_of(question)
    attacks_of(question)
    return found


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "attacks":
        raise UsageError(f"synthetic-within: unknown ask: got {ask.name!r}; want attacks")
    attacks = attacks_of(question)
    most = np.array([[max(len(one.tried), 1)] * 2 for one in attacks], np.float64)
    return {
        "records": Part((), 1.0, integer=True, single=True),
        "tried": Part(most.shape, most, integer=True),
        "succeeded": Part(most.shape, most, integer=True),
        "rare": Part((2,), 1.0, integer=True),
        "above": Part(bound=1.0),
        "spread": Part(bound=_MOST_SPREAD),
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    options, synthetic, attacks = question.options, synthetic_of(question), attacks_of(question)
    tried, succeeded = (np.zeros((len(attacks), 2), np.int64) for _ in range(2))
    rare, above, spread = np.zeros(2, np.int64), 0.0, 0.0
    both = [None if side is None else in_order(side) for side in coded_sides(table, question)]
    made, kept = both
    if made is not None and (kept is not None or not options.apart):
        size = min(made.count, kept.count if kept is not None else made.count)
        for side, own in enumerate(both):
            if own is not None:
                drawn = own.drawn(size, np.random.default_rng(SEED))
                for place, attack in enumerate(attacks):
                    tried[place, side], succeeded[place, side] = attack.made(drawn, synthetic, options.keys)
    if made is not None and kept is not None:
        rare, above, spread = _membership(made, synthetic, kept, options.rare)
    return {
        "records": np.array(table.aggregate(n=table.expr.count())["n"], np.int64),
        "tried": tried,
        "succeeded": succeeded,
        "rare": rare,
        "above": np.array(above),
        "spread": np.array(spread),
    }


def _membership(made: Coded, synthetic: Coded, kept: Coded, rare: float) -> tuple[NDArray[np.int64], float, float]:
    """Rare members and strangers; the members' shares of strangers that they come before, added up; its variance."""
    none = np.zeros(2, np.int64), 0.0, 0.0
    if min(made.count, kept.count // 2) <= OWN_FEWEST:
        return none
    score, inside = rare_scores(made, synthetic, kept, np.random.default_rng(SEED), rare, _MOST_ATTACKED)
    counts = np.array([inside.sum(), (~inside).sum()], np.int64)
    if counts.min() < OWN_FEWEST:
        return none
    value, error = auc(score[inside], score[~inside])
    m = int(counts[0])
    return counts, m * value, (m * error) ** 2


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells()


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("attacks")
    rows: list[Row] = []
    for place, attack in enumerate(attacks_of(question)):
        rows += [
            {
                "measure": attack.name,
                "about": attack.about,
                "records": name,
                "tried": int(total["tried"][place, side]),
                "succeeded": int(total["succeeded"][place, side]),
            }
            for side, name in enumerate(("made from", "apart"))
        ]
    members, others = (int(count) for count in total["rare"])
    area = float(total["above"]) / members if members else None
    error = float(np.sqrt(max(float(total["spread"]), 0.0))) / members if members else None
    membership: list[Row] = [{"members": members, "others": others, "auc": area, "std_error": error}]
    tables = {"attacks": rows, "membership": membership}
    keys = {"attacks": ("measure", "about", "records"), "membership": ()}
    facts = {"records": int(total["records"])}
    return Result("synthetic-within", "Attacks within each holder's records", tables, facts, keys=keys)
