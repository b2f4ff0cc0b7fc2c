"""A whole population: nothing that needs strangers is judged, and shares are those of a plain count."""

import numpy as np
import pandas as pd
import pytest

from statfed.core.errors import UsageError
from statfed.core.synthetic import population
from statfed.core.synthetic.coded import grid_of
from statfed.core.synthetic.evaluation import Asked, Evaluation, evaluate
from statfed.core.synthetic.guide import guide
from tests.synthetic_people import people, read

N = 800
FRAME, MADE = people(N, 1), people(N, 3)
OWN, S = read(FRAME), read(MADE)
KEYS = ("age", "edu", "region")
ASKED = Asked("public-release", KEYS, ("employed", "income"), attempts=100, population=True)


def found(synthetic: object = S) -> Evaluation:
    return evaluate(OWN, synthetic, None, ASKED, np.random.default_rng(1))  # type: ignore[arg-type]


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells of both tables, as text."""
    grid = grid_of(OWN, 20)
    return tuple(pd.DataFrame(grid.codes(each), columns=list(grid.names)) for each in (OWN, S))  # type: ignore[return-value]


def test_replicated_uniques_are_those_of_a_plain_count() -> None:
    own, made = frames()
    keys = list(KEYS)
    single = [each.groupby(keys).filter(lambda rows: len(rows) == 1)[keys] for each in (own, made)]
    assert population.replicated_uniques(OWN, S, KEYS).value == pytest.approx(len(single[0].merge(single[1])) / N)


def test_what_is_disclosed_is_that_of_a_plain_count_without_the_commonest_value() -> None:
    own, made = frames()
    keys = list(KEYS)
    one = made.groupby(keys)["income"].agg(["nunique", "first"]).query("nunique == 1")["first"].rename("told")
    both = own.merge(one.reset_index(), on=keys)
    right = both[both["told"] == both["income"]]
    odd = right[right["income"] != own["income"].mode()[0]]
    told = population.disclosive_correct(OWN, S, KEYS, "income")
    assert told.value == pytest.approx(len(odd) / N)
    assert f"with the commonest value {len(right) / N:.3f}" in told.note
    assert population.targeted_correct(OWN, S, KEYS, "income").value == pytest.approx(len(right) / len(both))


def test_nothing_is_judged_that_needs_strangers_and_shares_have_no_interval() -> None:
    told = found()
    assert {name for name, _ in told.left_out} >= {"membership"}
    assert not any("fresh" in reason and "--fresh" in reason for _, reason in told.left_out)
    assert guide().population.warning in told.notes
    assert not any(one.limit.figure == "excess" for one in told.judged if one.limit.measure == "disco")
    for one in told.measured:
        if one.kind == "risk":
            assert one.baseline is None
            assert one.excess is None
        if one.name in ("replicated-uniques", "disco", "tcap", "copies"):
            assert (one.low, one.high) == (None, None)
        if one.name in ("singling-out", "linkability", "inference"):
            assert population.DRAWN in one.note
    assert all(one.kept is not None for one in told.judged)


def test_a_copy_of_a_population_is_useful_and_not_safe() -> None:
    told = found(OWN)
    assert (told.word("utility"), told.word("risk")) == ("no evidence against", "evidence against")


def test_fresh_records_of_a_whole_population_are_refused() -> None:
    with pytest.raises(UsageError, match="everybody is in a whole population"):
        evaluate(OWN, S, S, ASKED, np.random.default_rng(1))
