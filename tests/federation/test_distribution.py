"""`histogram` and `quantile` against numpy on the pooled data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total, read_question
from statfed.core.terms import Terms
from statfed.strategies.analyses import _bins, _hierarchy
from tests.federate import codebook_of, federate, split, table_of
from tests.noise import noisy

CODEBOOK = codebook_of(
    {
        "x": ("number", 0, 1e6),
        "age": ("integer", 0, 119),
        "works": "boolean",
        "free": "number",
        "w": ("number", 0, 50),
        "minus": ("number", -1, 1),
        "sex": ["f", "m", "none"],
    }
)


def people(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    heavy = np.minimum(rng.pareto(0.7, n), 1e6)
    frame = pd.DataFrame(
        {
            "x": np.where(rng.random(n) < 0.3, rng.choice([0, 0.1 + 0.2, 7, 1e6], n), heavy),  # ties, ends, tails
            "age": np.minimum(rng.poisson(40, n), 119),
            "works": rng.random(n) < 0.7,
            "w": rng.choice([0, 0.5, 1, 3.7, 50], n),
            "sex": rng.choice(["f", "m"], n),
        }
    )
    for name in ("x", "w", "sex"):
        frame[name] = frame[name].where(rng.random(n) < 0.93)
    return frame


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 3), n=st.integers(0, 80), bins=st.integers(1, 20))
def test_histogram_equals_pooled_numpy_on_the_public_edges(seed: int, holders: int, n: int, bins: int) -> None:
    frame = people(seed, n)
    frames = split(frame, holders, seed)
    pooled = frame["x"].dropna()
    rows = federate("histogram", frames, CODEBOOK, column="x", bins=bins).tables["cells"]
    counts, edges = np.histogram(pooled, bins=bins, range=(0, 1e6))
    assert [row["count"] for row in rows] == counts.tolist()
    assert [row["lower"] for row in rows] == edges[:-1].tolist()
    if len(pooled):
        density = np.histogram(pooled, bins=bins, range=(0, 1e6), density=True)[0]
        assert [row["density"] for row in rows] == pytest.approx(density)
    edges = np.array([0, 0.1, 0.1 + 0.2, 1, 7, 1e6])  # values lie on edges; 0.1 + 0.2 is not 0.3
    weighted = federate("histogram", frames, CODEBOOK, column="x", edges=edges.tolist(), weight="w")
    both = frame[["x", "w"]].dropna()
    assert [row["count"] for row in weighted.tables["cells"]] == np.histogram(both["x"], edges)[0].tolist()
    totals = np.histogram(both["x"], edges, weights=both["w"])[0]
    assert [row["total"] for row in weighted.tables["cells"]] == pytest.approx(totals, rel=1e-9)


def test_histogram_in_groups_keeps_values_at_both_ends_and_leaves_others_out() -> None:
    frame = people(4, 150)
    result = federate("histogram", split(frame, 3), CODEBOOK, column="x", edges=[0.3, 7, 50], by=["sex"])
    shown = result.to_pandas()
    assert result.by == ("bin", "sex")
    for sex in ("f", "m"):
        pooled = frame.loc[frame["sex"] == sex, "x"].dropna()
        assert shown.loc[shown["sex"] == sex, "count"].tolist() == np.histogram(pooled, [0.3, 7, 50])[0].tolist()
    assert shown.loc[shown["sex"] == "none", "density"].isna().all()


def test_histogram_of_whole_numbers_has_bins_of_the_same_number_of_values() -> None:
    frame = people(5, 100)
    rows = federate("histogram", split(frame, 3), CODEBOOK, column="age", bins=7).tables["cells"]
    assert [row["upper"] for row in rows] == [18, 36, 54, 72, 90, 108, 126]
    assert [row["count"] for row in rows] == np.histogram(frame["age"], np.arange(0, 127, 18))[0].tolist()
    rows = federate("histogram", split(frame, 3), CODEBOOK, column="works").tables["cells"]
    assert [row["count"] for row in rows] == [int((~frame["works"]).sum()), int(frame["works"].sum())]


def test_edges_reach_the_database_bit_for_bit() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 60)  # as decimal literals, some of them come out one bit off
    edges = [0.0, *sorted(values.tolist()), 2.0]
    rows = federate("histogram", [pd.DataFrame({"x": values})], CODEBOOK, column="x", edges=edges).tables["cells"]
    assert [row["count"] for row in rows] == np.histogram(values, edges)[0].tolist() == [0, *[1] * 60]


@pytest.mark.parametrize("closed", ["left", "right"])
@pytest.mark.parametrize("by", [[], ["sex"], ["sex", "bin"]])
def test_bins_are_the_same_by_the_engine_s_aggregate_and_by_conditions(
    closed: Literal["left", "right"], by: list[str]
) -> None:
    values = [-np.inf, -1.5, -0.0, 0.0, 0.1 + 0.2, 0.3, 7.0, 7.0, np.inf, None]
    frame = pd.DataFrame({"x": values, "sex": ["f", "m", "f", "m", None] * 2, "bin": [True, False] * 5})
    table = table_of(frame, codebook_of({"x": "number", "sex": ["f", "m", "none"], "bin": "boolean"}))
    edges = np.array([-1.5, -0.0, 0.3, 7.0])
    fast = _bins.counts(table, "x", edges, closed, None, by)["count"]
    slow = _bins.counts(replace(table, embedded=False), "x", edges, closed, None, by)["count"]
    np.testing.assert_array_equal(fast, slow)
    x = frame["x"].dropna()
    expected = np.bincount(np.searchsorted(edges, x, "right" if closed == "left" else "left"), minlength=5)
    if not by:
        assert fast.tolist() == expected.tolist()
    assert fast.sum() == (len(x) if not by else frame.dropna()["x"].size)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"column": "sex"}, "want number"),
        ({"column": "free"}, "want edges, or low and high"),
        ({"column": "x", "edges": [1, 1]}, "want two or more, increasing"),
        ({"column": "x", "edges": [-1, 1]}, "want them within 0 to 1e"),
        ({"column": "x", "edges": [0, 1], "bins": 3}, "want one of them"),
        ({"column": "x", "weight": "minus"}, "want none below 0"),
        ({"column": "x", "by": ["age"]}, "want category or boolean"),
        ({"column": "x", "bins": 0}, "bins"),
    ],
)
def test_histogram_mistakes_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate("histogram", [people(0, 9)], CODEBOOK, **options)


def inverted_cdf(x: NDArray[np.float64], p: float, w: NDArray[np.float64] | None = None) -> float:
    """The smallest x with F(x) >= p: slow and obvious."""
    order = np.argsort(x)
    cumulative = np.arange(1, len(x) + 1) / len(x) if w is None else np.cumsum(w[order]) / w.sum()
    return float(x[order][np.argmax(cumulative >= p - (0 if w is None else 1e-12))])


def within(row: Any, reference: float, tolerance: float) -> None:
    assert row["bracket_lower"] <= reference <= row["bracket_upper"]
    assert row["bracket_upper"] - row["bracket_lower"] <= tolerance
    assert abs(row["estimate"] - reference) <= tolerance


@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking is slow
@given(
    seed=st.integers(0, 10_000),
    holders=st.integers(1, 3),
    n=st.integers(1, 70),
    probabilities=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3),
    refined=st.booleans(),
)
def test_quantiles_hold_the_pooled_ones_within_the_tolerance(
    seed: int, holders: int, n: int, probabilities: list[float], refined: bool
) -> None:
    frame = people(seed, n)
    result = federate(
        "quantile",
        split(frame, holders, seed),
        CODEBOOK,
        columns=["x", "age"],
        probabilities=probabilities,
        method="refinement" if refined else "bisection",
    )
    assert int(str(result.facts["asks"])) <= (5 if refined else 20)
    for row in result.tables["estimates"]:
        name, p = str(row["column"]), float(str(row["probability"]))
        pooled = frame[name].dropna().to_numpy(float)
        assert row["count"] == len(pooled)
        if len(pooled):
            within(row, inverted_cdf(pooled, p), 1.0 + 1e-9 if name == "x" else 0.0)
            exact = np.quantile(pooled, p, method="inverted_cdf")
            assert row["estimate"] == pytest.approx(exact, abs=0.0 if name != "x" else 1.0)
        else:
            assert row["estimate"] is None


@pytest.mark.parametrize("method", ["bisection", "refinement"])
def test_weighted_quantiles_in_groups_hold_the_pooled_ones(method: str) -> None:
    frame = people(8, 120)
    options: dict[str, Any] = {"columns": ["x", "age"], "weight": "w", "by": "sex", "tolerance": 5.0, "method": method}
    result = federate("quantile", split(frame, 3), CODEBOOK, probabilities=[0.1, 0.5, 0.9], **options)
    for row in result.tables["estimates"]:
        name = str(row["column"])
        pooled = frame.loc[frame["sex"] == row["sex"], [name, "w"]].dropna().to_numpy(float)
        assert row["count"] == len(pooled)
        assert row["std_error"] is None
        if row["sex"] == "none":
            assert row["estimate"] is None
        else:
            reference = inverted_cdf(pooled[:, 0], float(str(row["probability"])), pooled[:, 1])
            within(row, reference, 5.0 if name == "x" else 0.0)


def test_ranks_at_the_steps_of_the_distribution_are_those_of_its_definition() -> None:
    frame = pd.DataFrame({"age": np.arange(100)})
    p = [k / 100 for k in range(1, 100)]  # 0.07 * 100 is 7.000000000000001: rank 7 all the same
    rows = federate("quantile", [frame], CODEBOOK, columns=["age"], probabilities=p).tables["estimates"]
    assert [row["estimate"] for row in rows] == list(range(99))


def test_values_that_are_all_equal_and_a_tolerance_below_rounding_come_to_an_end() -> None:
    frame = pd.DataFrame({"x": [0.1 + 0.2] * 30, "age": [119] * 30})
    result = federate("quantile", split(frame, 2), CODEBOOK, columns=["x", "age"], tolerance=1e-300)
    assert all(row["estimate"] == pytest.approx(frame[str(row["column"])][0]) for row in result.tables["estimates"])


def test_a_bracket_has_one_edge_until_both_ends_were_asked_about_so_that_no_smaller_tail_is_counted() -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(50, 12, 400)})
    query = Terms(method="quantile", options={"columns": ["x"]}, codebook=TREE, holders=("a",), seed=1)
    module, question = read_question(query)
    table = table_of(frame, TREE)
    run, seen = module.coordinate(question), []
    ask: Ask | None = next(run)
    while ask:
        sent = module.contribute(table, question, ask)
        seen.append((ask.arrays["edges"].shape[-1], int(sent["count"].min())))
        try:
            ask = run.send(Total(sent))
        except StopIteration:
            ask = None
    few = [edges for edges, _ in seen].index(7)
    assert 2 <= few <= 5
    assert len(seen) <= 9
    assert min(n for _, n in seen[few:]) >= min(n for _, n in seen[:few]) > 0


@pytest.mark.parametrize(
    "edges", [np.zeros((1, 9, 8)), np.zeros((1, 3, 1)), np.full((1, 9, 1), np.nan), np.arange(18.0)[::-1], np.zeros(0)]
)
def test_edges_of_another_form_are_refused_by_the_holder(edges: NDArray[np.float64]) -> None:
    query = Terms(method="quantile", options={"columns": ["x"]}, codebook=CODEBOOK, holders=("a",), seed=1)
    module, question = read_question(query)
    edges = edges.reshape(1, 9, 2) if len(edges) == 18 else edges
    for half in (lambda ask: module.parts(question, ask), lambda ask: module.contribute(None, question, ask)):  # type: ignore[arg-type]  # the table is not looked at
        with pytest.raises(UsageError, match="quantile: edges: got"):
            half(Ask("cells", {"edges": edges} if edges.size else {}))


def test_woodruff_limits_are_quantiles_at_the_limits_of_f_and_null_where_these_leave_the_unit_interval() -> None:
    frame = people(9, 200)
    half = 1.959963984540054 * np.sqrt(0.25 / 200)
    row = federate("quantile", split(frame, 3), CODEBOOK, columns=["age"], probabilities=[0.5]).tables["estimates"][0]
    age = frame["age"].to_numpy(float)
    assert (row["lower"], row["upper"]) == (inverted_cdf(age, 0.5 - half), inverted_cdf(age, 0.5 + half))
    few = federate("quantile", [frame[:5]], CODEBOOK, columns=["age"], probabilities=[0.1]).tables["estimates"][0]
    assert (few["lower"], few["std_error"]) == (None, None)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"columns": ["free"]}, "free: got no bounds"),
        ({"columns": ["sex"]}, "want number"),
        ({"columns": ["x"], "probabilities": [0]}, "greater than 0"),
        ({"columns": ["x"], "probabilities": [1]}, "less than 1"),
        ({"columns": ["x"], "weight": "minus"}, "want none below 0"),
        ({"columns": ["w"], "weight": "w"}, "want another weight"),
        ({"columns": ["x"], "by": "age"}, "want category or boolean"),
        ({"columns": ["x"], "tolerance": 0}, "greater than 0"),
    ],
)
def test_quantile_mistakes_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate("quantile", [people(0, 9)], CODEBOOK, **options)


def test_private_histogram_shows_no_negative_counts_and_the_deviation_of_its_noise() -> None:
    frame = people(1, 300)
    result = noisy("histogram", split(frame, 3), CODEBOOK, 1, column="age", bins=20, epsilon=0.2)
    assert all(int(str(row["count"])) >= 0 and row["std_error"] == 5.0 for row in result.tables["cells"])
    exact = noisy("histogram", split(frame, 3), CODEBOOK, 1, scale=0, column="age", bins=20).tables["cells"]
    plain = federate("histogram", [frame], CODEBOOK, column="age", bins=20).tables["cells"]
    assert [row["count"] for row in exact] == [row["count"] for row in plain]


def dense(fan_out: int, depth: int) -> NDArray[np.float64]:
    levels = [np.kron(np.eye(fan_out**d), np.ones(fan_out ** (depth - d))) for d in range(depth + 1)]
    return np.concatenate(levels).astype(np.float64)


def test_the_tree_is_the_weighted_least_squares_estimate_and_its_variance() -> None:
    fan_out, depth, variances = 3, 3, (0.5, 2.0, 1.0, 4.0)
    design = dense(fan_out, depth)
    weights = np.concatenate([np.full(fan_out**d, 1 / v) for d, v in enumerate(variances)])
    noisy_counts = np.random.default_rng(0).normal(5, 3, len(design))
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    wanted = covariance @ design.T @ (weights * noisy_counts)
    levels: Sequence[NDArray[np.float64]] = np.split(noisy_counts, np.cumsum([fan_out**d for d in range(depth)]))
    assert _hierarchy.consistent(levels, variances, fan_out) == pytest.approx(wanted)
    leaves = fan_out**depth
    for share in (0.1, 0.5):
        ranks = np.tril(np.ones((leaves + 1, leaves)), -1) - share
        assert _hierarchy.rank_variance(variances, fan_out, share) == pytest.approx(
            np.einsum("ti,ij,tj->t", ranks, covariance, ranks)
        )


TREE = codebook_of({"x": ("number", 0, 100), "age": ("integer", 0, 119), "free": "number", "sex": ["f", "m"]})


def spread(seed: int, n: int = 800) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x, age = 100 * rng.beta(2, 5, n), rng.integers(0, 100, n)
    return pd.DataFrame({"x": x, "age": age, "sex": rng.choice(["f", "m"], n)})


def test_private_quantiles_without_noise_are_the_pooled_ones_but_for_the_width_of_a_bin() -> None:
    frame = spread(1)
    rows = noisy("quantile", split(frame, 3), TREE, 0, scale=0, columns=["x", "age"], by="sex").tables["estimates"]
    for row in rows:
        name, p = str(row["column"]), float(str(row["probability"]))
        pooled = frame.loc[frame["sex"] == row["sex"], name].to_numpy(float)
        assert row["count"] == len(pooled)
        assert row["estimate"] == pytest.approx(inverted_cdf(pooled, p), abs=100 / 4096 if name == "x" else 0)


@pytest.mark.parametrize("epsilon", [0.1, 3.0])  # mostly noise, mostly sampling error
def test_private_quantile_limits_cover_the_sampling_error_and_the_noise(epsilon: float) -> None:
    hits = []
    for seed in range(20):
        result = noisy(
            "quantile", [spread(seed)], TREE, seed, columns=["x"], probabilities=[0.25, 0.5], epsilon=epsilon
        )
        for row, truth in zip(result.tables["estimates"], (16.10, 26.44), strict=True):  # quantiles of beta(2, 5)
            hits.append(float(str(row["lower"])) <= truth <= float(str(row["upper"])))
    assert np.mean(hits) >= 0.85


def test_private_quantiles_of_no_records_are_null_or_within_the_bounds() -> None:
    for seed in range(5):
        for row in noisy("quantile", [spread(0, 0)], TREE, seed, columns=["x", "age"]).tables["estimates"]:
            for key in ("estimate", "lower", "upper"):
                assert row[key] is None or 0 <= float(str(row[key])) <= 119


@pytest.mark.parametrize(
    ("analysis", "options", "wanted"),
    [
        ("quantile", {"columns": ["free"]}, "no bounds"),
        ("quantile", {"columns": ["x"], "weight": "age"}, "want quantiles without weights"),
        ("histogram", {"column": "x", "weight": "free"}, "no bounds"),
    ],
)
def test_privacy_without_bounds_or_with_weighted_quantiles_is_refused(
    analysis: str, options: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(UsageError, match=wanted):
        noisy(analysis, [spread(0, 9)], TREE, 0, **options)
