"""Measures of synthetic data: copies, independent columns, planted and fresh records are told for what they are."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.synthetic import attacks, membership, specific, targets, utility
from statfed.core.synthetic.coded import Coded, grid_of
from statfed.core.synthetic.features import cuts_of, gower_points, grouped, main_effects, nearest
from statfed.core.synthetic.guide import Limit
from statfed.core.synthetic.measured import auc, wilson
from statfed.federation.synthetic import own_table
from tests.synthetic_people import CODEBOOK, people, read, shuffled

N = 1500
ORIGINAL, FRESH, LIKE = (people(N, seed) for seed in (1, 2, 3))
OWN, F, S = map(read, (ORIGINAL, FRESH, LIKE))
APART = read(shuffled(ORIGINAL, 4))
KEYS = ("age", "edu", "region")


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(share: float) -> Coded:
    """Fresh records, some of which are replaced by the original's rarest ones, verbatim."""
    count = round(share * N)
    rare = np.argsort(-membership.rarity(OWN, OWN))[:count]
    return read(pd.concat([people(N - count, 5), ORIGINAL.iloc[rare]]))


PLANTED = planted(0.03)

GENERAL: dict[str, Callable[[Coded], float]] = {
    "margins": lambda table: utility.margins(OWN, table, F, rng()).value,
    "hellinger": lambda table: utility.hellinger(OWN, table, F, rng()).value,
    "associations": lambda table: utility.associations(OWN, table, F, rng()).value,
    "s-pmse": lambda table: utility.propensity(OWN, table, F, rng())[1].value,
}


@pytest.mark.parametrize("name", ["margins", "associations", "s-pmse"])
def test_independent_columns_are_farther_than_fresh_records_and_a_copy_is_nearest(name: str) -> None:
    measure = GENERAL[name]
    copy, like, apart = measure(OWN), measure(S), measure(APART)
    assert copy < like < apart


def test_columns_by_themselves_do_not_tell_that_relations_are_lost() -> None:
    assert GENERAL["hellinger"](APART) < GENERAL["hellinger"](S)


def test_the_distance_of_margins_is_that_of_a_plain_cross_table() -> None:
    grid = grid_of(OWN, 10)
    found = utility.margins(OWN, APART, None, rng(), ways=2).value
    values = []
    for i, first in enumerate(grid.names):
        for second in grid.names[i + 1 :]:
            tables = []
            for each in (OWN, APART):
                codes = pd.DataFrame(grid.codes(each), columns=list(grid.names))
                tables.append(codes.groupby([first, second]).size() / each.count)
            one, other = tables[0].align(tables[1], fill_value=0)
            values.append(float((one - other).abs().sum() / 2))
    assert found == pytest.approx(np.mean(values), abs=1e-12)


def test_pmse_is_that_of_an_unpenalised_logistic_model_on_the_same_terms() -> None:
    plain = utility.propensity(OWN, APART, None, rng(), interactions=False)[0]
    both = np.vstack([main_effects(OWN, OWN), main_effects(APART, OWN)])
    labels = np.repeat([0, 1], [OWN.count, APART.count])
    p = LogisticRegression(C=np.inf, max_iter=2000).fit(both, labels).predict_proba(both)[:, 1]
    assert plain.value == pytest.approx(float(((p - 0.5) ** 2).mean()), rel=1e-3, abs=1e-9)


def test_s_pmse_of_data_from_the_right_model_has_mean_0_and_spread_1() -> None:
    """Synthetic records drawn given the original's estimates: here the original's shares of each cell."""
    codebook = make_codebook({"columns": {"g": {"type": "category", "categories": list("abcde"), "required": True}}})
    values = []
    for seed in range(200):
        source = rng(seed)
        original = Coded(codebook, {"g": source.integers(5, size=2000)})
        shares = np.bincount(original.columns["g"], minlength=5) / 2000
        synthetic = Coded(codebook, {"g": source.choice(5, size=2000, p=shares)})
        values.append(utility.propensity(original, synthetic, None, source)[1].value)
    assert np.mean(values) == pytest.approx(0.0, abs=4 / math.sqrt(200))
    assert np.std(values) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(("count", "groups"), [(200, 2), (300, 3), (500, 4)])
def test_lost_relations_are_seen_by_products_of_groups_where_those_of_columns_are_too_many(
    count: int, groups: int
) -> None:
    original, fresh = read(people(count, 1)), read(people(count, 2))
    independent = read(shuffled(people(count, 3), 4))
    lost, like = (utility.propensity(original, each, None, rng())[1] for each in (independent, fresh))
    assert f"products of {groups} groups" in lost.about
    assert lost.value > like.value + 3
    assert lost.high is None


def test_a_model_without_products_breaks_limits_and_keeps_none() -> None:
    """It does not see relations: independent columns have the figure of data from the right model."""
    limit = Limit(measure="s-pmse", most=10.0, reason="a test's")
    original, independent = read(people(100, 1)), read(shuffled(people(100, 3), 4))
    found = utility.propensity(original, independent, None, rng())[1]
    assert (found.low, found.high) == (found.value, math.inf)
    assert "relations are not seen" in found.note
    assert limit.kept(found) is None
    assert found.row()["high"] is None
    other = read(people(100, 3).assign(region="A", employed=True, edu="0"))
    assert limit.kept(utility.propensity(original, other, None, rng())[1]) is False


def test_groups_of_columns_are_halves_also_of_spikes_and_rare_levels() -> None:
    codebook = make_codebook(
        {
            "columns": {
                "x": {"type": "number", "low": 0, "high": 9},
                "g": {"type": "category", "categories": ["rare", "most", "none"]},
            }
        }
    )
    table = Coded(
        codebook, {"x": np.array([0.0] * 7 + [3.0, 5.0, np.nan]), "g": np.array([0] + [1] * 8 + [-1], np.int64)}
    )
    assert cuts_of(table, "x", 2).tolist() == [0.0]
    assert cuts_of(table, "g", 2).tolist() == [0.0]
    assert grouped(table, table, 2).tolist() == [[0, 0]] * 7 + [[1, 1]] * 2 + [[0, 0]]
    top = Coded(codebook, {"x": np.array([1.0] + [9.0] * 9), "g": np.ones(10, np.int64)})
    assert cuts_of(top, "x", 2).tolist() == [1.0]
    assert cuts_of(top, "g", 2).tolist() == []


def test_associations_agree_with_correlation_and_cramers_v() -> None:
    frame = ORIGINAL.dropna()
    r = np.corrcoef(frame["age"], frame["income"])[0, 1]
    assert utility.association(OWN, "age", "income") == pytest.approx(r, abs=1e-10)
    table = pd.crosstab(ORIGINAL["edu"], ORIGINAL["employed"])
    chi = chi2_contingency(table, correction=False).statistic
    n, (rows, columns) = len(ORIGINAL), table.shape
    phi = max(0.0, chi / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1))
    assert utility.association(OWN, "edu", "employed") == pytest.approx(math.sqrt(phi / (smaller - 1)), abs=1e-10)


def test_boosted_trees_tell_independent_columns_apart_and_not_fresh_records() -> None:
    assert (utility.discrimination(OWN, APART, None, rng()).low or 0.0) > 0.55
    like = utility.discrimination(OWN, S, None, rng())
    assert like.low is not None
    assert like.high is not None
    assert like.low < 0.5 < like.high + 0.02
    assert "both tables" in utility.discrimination(OWN, OWN, None, rng()).note


def test_auc_is_that_of_scikit_learn_with_ties() -> None:
    source = rng()
    labels, scores = source.integers(2, size=300), source.integers(5, size=300) * 1.0
    value, error = auc(scores[labels == 1], scores[labels == 0])
    assert value == pytest.approx(roc_auc_score(labels, scores))
    draws = []
    for _ in range(500):
        take = source.integers(300, size=300)
        draws.append(roc_auc_score(labels[take], scores[take]))
    assert error == pytest.approx(np.std(draws), rel=0.15)


def test_wilson_covers() -> None:
    source, kept = rng(), 0
    for hits in source.binomial(80, 0.07, size=2000):
        centre, half = wilson(int(hits), 80)
        kept += centre - half <= 0.07 <= centre + half
    assert 0.93 < kept / 2000 < 0.98


ATTACKS: dict[str, Callable[[Coded, int], object]] = {
    "singling-out, 1": lambda table, seed: attacks.singling_out(OWN, table, F, rng(seed), 300, columns=1),
    "singling-out, 4": lambda table, seed: attacks.singling_out(OWN, table, F, rng(seed), 300, columns=4),
    "inference": lambda table, seed: attacks.inference(OWN, table, F, rng(seed), "edu", attempts=500),
    "replicated-uniques": lambda table, seed: targets.replicated_uniques(OWN, table, F, KEYS, rng(seed)),
    "tcap": lambda table, _: targets.targeted_correct(OWN, table, F, (*KEYS, "income"), "employed"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_succeeds_on_a_copy_and_not_on_fresh_records(name: str) -> None:
    copy, like = ATTACKS[name](OWN, 1), ATTACKS[name](S, 1)
    assert copy.excess_low > 0.05  # type: ignore[attr-defined]
    assert like.excess_low < 0.05  # type: ignore[attr-defined]
    assert like.excess_low <= like.excess <= like.excess_high  # type: ignore[attr-defined]


def test_linkability_of_a_copy_that_many_columns_describe() -> None:
    halves = (("income", "edu"), ("age", "region", "employed"))
    copy = attacks.linkability(OWN, OWN, F, rng(), halves, attempts=500, neighbours=5)
    like = attacks.linkability(OWN, S, F, rng(), halves, attempts=500, neighbours=5)
    assert copy.excess_low > 0.02 > like.excess_low  # type: ignore[operator]


def test_linkability_does_not_come_from_the_order_of_records() -> None:
    """Halves that say nothing of anybody: many synthetic records are equally near to both."""
    codebook = make_codebook({"columns": {n: {"type": "boolean", "required": True} for n in "ab"}})
    table = Coded(codebook, {n: np.zeros(400, np.int64) for n in "ab"})
    found = attacks.linkability(table, table, None, rng(), (("a",), ("b",)), attempts=400)
    assert found.value < 0.05


def test_membership_reads_planted_records_and_no_others() -> None:
    fresh = read(people(4000, 6))
    assert membership.membership(OWN, OWN, fresh, rng()).low > 0.9  # type: ignore[operator]
    assert membership.membership(OWN, PLANTED, fresh, rng(), rare=0.03).low > 0.6  # type: ignore[operator]
    like = membership.membership(OWN, S, fresh, rng())
    assert like.low < 0.5 < like.high  # type: ignore[operator]


def test_membership_needs_enough_fresh_records() -> None:
    with pytest.raises(UsageError, match="about 1,600 fresh records"):
        membership.membership(OWN, S, F.take(np.arange(60)), rng())


def test_planted_copies_are_counted() -> None:
    found = membership.copies(OWN, PLANTED, F, rng())
    assert found.value == pytest.approx(0.03, abs=0.006)
    assert found.excess == pytest.approx(0.03, abs=0.006)


def test_disco_and_repu_agree_with_a_plain_count() -> None:
    frame = pd.DataFrame({"a": list("xxyyz"), "b": list("ppqrs"), "t": list("uuuvu")})
    other = pd.DataFrame({"a": list("xxyyw"), "b": list("ppqrs"), "t": list("uuvvu")})
    codebook = make_codebook(
        {"columns": {n: {"type": "category", "categories": sorted({*frame[n], *other[n]})} for n in frame}}
    )
    original, synthetic = (own_table(each, codebook) for each in (frame, other))
    # keys (x,p): u u -> u in the synthetic data, both right; (y,q): v, wrong; (y,r): v, right; (z,s): not there
    disco = targets.disclosive_correct(original, synthetic, None, ("a", "b"), "t", rng())
    assert disco.value == pytest.approx(wilson(3, 5)[0])
    tcap = targets.targeted_correct(original, synthetic, None, ("a", "b"), "t")
    assert tcap.value == pytest.approx(wilson(3, 4)[0])
    assert tcap.n == 4
    repu = targets.replicated_uniques(original, synthetic, None, ("a", "b"), rng())
    assert repu.value == pytest.approx(wilson(2, 5)[0])


def test_gower_points_have_gowers_distance() -> None:
    points = gower_points(OWN.take(np.arange(20)), OWN)
    distances, places = nearest(points, points, 20)
    ages, edus = OWN.columns["age"][:20], OWN.columns["edu"][:20]
    incomes, regions, employed = (OWN.columns[name][:20] for name in ("income", "region", "employed"))
    spread = np.nanmax(OWN.columns["income"]) - np.nanmin(OWN.columns["income"])
    for i in range(20):
        for place, distance in zip(places[i], distances[i], strict=True):
            known = ~np.isnan(incomes[[i, place]])
            income = abs(incomes[i] - incomes[place]) / spread if known.all() else float(known.sum() == 1)
            expected = abs(ages[i] - ages[place]) / (OWN.columns["age"].max() - OWN.columns["age"].min()) + income
            expected += sum(each[i] != each[place] for each in (edus, regions, employed))
            if known.sum() != 1:  # one missing value is at least 1 from any other
                assert distance == pytest.approx(expected, abs=1e-5)


def test_a_model_trained_on_independent_columns_is_no_good_on_real_records() -> None:
    apart = specific.train_synthetic_test_real(OWN, APART, F, "employed", rng())
    like = specific.train_synthetic_test_real(OWN, S, F, "employed", rng())
    assert apart.value < 0.6 < like.value
    assert abs(like.excess or 1.0) < 0.05
    number = specific.train_synthetic_test_real(OWN, S, F, "income", rng())
    assert number.about == "R squared of income"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: utility.margins(OWN, S, None, rng(), ways=9), "ways: got 9"),
        (lambda: attacks.inference(OWN, S, None, rng(), "edu", ("edu",)), "want them apart"),
        (lambda: attacks.linkability(OWN, S, None, rng(), (("age",), ("age",))), "without a common"),
        (lambda: targets.disclosive_correct(OWN, S, None, ("edu",), "edu", rng()), "beside the target"),
        (lambda: OWN.only(("wages",)), "wages"),
        (lambda: read(ORIGINAL.drop(columns="edu")), "edu"),
        (lambda: read(ORIGINAL.assign(edu="9")), "edu"),
        (lambda: read(ORIGINAL[:0]), "no records"),
        (lambda: utility.margins(OWN, S.only(("age",)), None, rng()), "different columns"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_missing_codes_and_dates_are_read() -> None:
    codebook = make_codebook(
        {
            "columns": {
                "day": {"type": "date", "low": "2020-01-01", "high": "2021-01-01"},
                "x": {"type": "integer", "low": 0, "high": 9, "missing": [-9]},
            }
        }
    )
    found = own_table(pd.DataFrame({"day": ["2020-01-03", None], "x": [-9, 4]}), codebook)
    assert found.columns["day"][0] == 18264
    assert found.missing("day").tolist() == [False, True]
    assert found.missing("x").tolist() == [True, False]
    assert "private" in repr(found)
    assert CODEBOOK.columns["age"].required
