"""Analyses on shares against the same on the plain join, and what is never opened."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from lifelines import KaplanMeierFitter

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.strategies.linkages import _features, _model_guards, _models, helper
from tests.strategies.linkages.joined import Run, Watched, run

REGIONS, SECTORS, SIZES = ("n", "s", "w"), ("a", "b", "c", "d"), ("large", "small")
CODEBOOK = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": list(REGIONS)},
            "age": {"type": "integer", "low": 18, "high": 90},
            "x1": {"type": "number", "low": -6, "high": 6},
            "time": {"type": "integer", "low": 1, "high": 20},
            "event": {"type": "boolean"},
            "sector": {"type": "category", "categories": list(SECTORS)},
            "income": {"type": "number", "low": 0, "high": 50_000},
            "x2": {"type": "number", "low": -10, "high": 10},
            "y": {"type": "boolean"},
            "size": {"type": "category", "categories": list(SIZES)},
            "x3": {"type": "number", "low": -5, "high": 5},
        }
    }
)
HAD = {
    "a": ("region", "age", "x1", "time", "event"),
    "b": ("sector", "income", "x2", "y"),
    "c": ("size", "x3"),
}
LEVELS = {"region": REGIONS, "sector": SECTORS, "size": SIZES}


def frames(count: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    made = {name: pd.DataFrame({"id": rng.choice(3 * count // 2, count, replace=False)}) for name in HAD}
    a, b, c = made.values()
    a["region"], a["age"] = rng.integers(0, 3, count), rng.integers(18, 91, count)
    a["x1"] = rng.normal(0, 1, count).clip(-6, 6)
    a["time"], a["event"] = rng.integers(1, 21, count), rng.integers(0, 2, count)
    b["sector"], b["income"] = rng.choice(4, count, p=[0.4, 0.3, 0.2, 0.1]), rng.gamma(2, 1000, count).clip(0, 50_000)
    b["x2"] = rng.normal(0, 2, count).clip(-10, 10)
    b["y"] = (rng.random(count) < 1 / (1 + np.exp(0.3 - b["x2"] / 2))).astype(int)
    c["size"], c["x3"] = rng.integers(0, 2, count), rng.normal(0, 1, count).clip(-5, 5)
    return made


def joined(made: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    first, *others = made.values()
    for other in others:
        first = first.merge(other, on="id")
    for name, levels in LEVELS.items():
        if name in first:
            first[name] = first[name].map(dict(enumerate(levels)))
    return first


def analysed(
    made: Mapping[str, pd.DataFrame],
    method: str,
    minimum: int = 1,
    codebook: Codebook = CODEBOOK,
    watched: dict[str, Watched] | None = None,
    **options: Any,
) -> Run:
    units = {
        name: Units(
            {"id": [str(i) for i in frame["id"]]}, {c: frame[c].to_numpy(np.float64) for c in HAD[name] if c in frame}
        )
        for name, frame in made.items()
    }
    return run(
        units,
        watched,
        reveal="totals",
        method=method,
        options=options,
        codebook=codebook,
        columns={name: HAD[name] for name in made},
        minimum_frequency=minimum,
    )


def rows_of(found: Run, table: str | None = None) -> pd.DataFrame:
    assert found.outcome.result is not None
    return found.outcome.result.to_pandas(table)


TWO = {name: frame for name, frame in frames(400).items() if name != "c"}
THREE = frames(300, 1)


def test_a_cross_table_has_the_counts_of_the_plain_join() -> None:
    found, plain = analysed(TWO, "table", rows=["region"], columns=["sector"]), joined(TWO)
    wanted = plain.groupby(["region", "sector"]).size()
    table = rows_of(found).set_index(["region", "sector"])["count"]
    assert {key: int(n) for key, n in table.items() if n} == wanted.to_dict()
    assert found.outcome.size == len(plain)


@pytest.mark.parametrize("by", [("region", "sector", "size"), ("size", "region")], ids=["all", "not the second's"])
def test_a_cross_table_of_three_holders_has_the_counts_of_the_plain_join(by: tuple[str, ...]) -> None:
    found, plain = analysed(THREE, "table", rows=[by[0]], columns=list(by[1:])), joined(THREE)
    wanted = plain.groupby(list(by)).size()
    table = rows_of(found).set_index(list(by))["count"]
    assert {key: int(n) for key, n in table.items() if n} == wanted.to_dict()


@pytest.mark.parametrize("by", [["region"], ["sector"], ["sector", "region"], []], ids=str)
def test_means_and_totals_by_the_other_holders_categories(by: list[str]) -> None:
    plain = joined(TWO)
    grouped = plain.groupby(by)["income"] if by else plain.groupby(lambda _: 0)["income"]
    n = len(plain)
    mean, total = (rows_of(analysed(TWO, kind, columns=["income"], by=by)) for kind in ("mean", "total"))
    for found, wanted in ((mean, grouped.mean()), (total, grouped.sum())):
        found = found.set_index(by) if by else found
        order = wanted.index if by else [0]
        np.testing.assert_allclose(found.loc[order, "estimate"], wanted, rtol=1e-11)
    inside = grouped.agg(lambda x: np.sqrt(((x - x.mean()) ** 2).sum() * n / (n - 1)) / len(x))
    found = mean.set_index(by) if by else mean
    np.testing.assert_allclose(found.loc[inside.index if by else [0], "std_error"], inside, rtol=1e-6)


def test_a_table_of_sums_has_those_of_the_plain_join() -> None:
    found = rows_of(analysed(TWO, "table", rows=["region"], columns=["sector"], value="income"))
    wanted = joined(TWO).groupby(["region", "sector"])["income"].sum()
    np.testing.assert_allclose(found.set_index(["region", "sector"]).loc[wanted.index, "total"], wanted, rtol=1e-11)


def test_values_that_do_not_differ_in_a_cell_have_no_variance() -> None:
    made = {name: frame.assign(income=12_345.678) if name == "b" else frame for name, frame in TWO.items()}
    found = rows_of(analysed(made, "mean", columns=["income"], by=["region"]))
    np.testing.assert_allclose(found["estimate"], 12_345.678, rtol=1e-12)
    assert (found["std_error"] < 1e-12 * 12_345.678).all()


def test_covariances_and_correlations_are_those_of_the_plain_join() -> None:
    names = ["age", "income", "x2"]
    found = rows_of(analysed(TWO, "covariance", columns=names))
    plain = joined(TWO)[names]
    upper = np.triu_indices(3)
    scale = np.outer(plain.std(), plain.std())[upper]
    np.testing.assert_allclose((found["covariance"] - plain.cov().to_numpy()[upper]) / scale, 0, atol=1e-6)
    np.testing.assert_allclose(found["correlation"], plain.corr().to_numpy()[upper], atol=1e-6)


FORMULA = "income ~ age + C(region) + x2 + C(sector) + I(x1 ** 2) + age:C(region)"


def test_linear_regression_is_that_of_statsmodels_on_the_plain_join() -> None:
    found = rows_of(analysed(TWO, "ols", formula=FORMULA)).set_index("name")
    fit = smf.ols(FORMULA, joined(TWO)).fit()
    assert set(found.index) == set(fit.params.index)
    np.testing.assert_allclose((found["estimate"] - fit.params) / fit.bse, 0, atol=1e-5)
    np.testing.assert_allclose(found["std_error"] / fit.bse, 1, atol=1e-6)


def test_linear_regression_over_three_holders() -> None:
    formula = "income ~ age + x3 + C(size) + C(region)"
    found = rows_of(analysed(THREE, "ols", formula=formula)).set_index("name")
    fit = smf.ols(formula, joined(THREE)).fit()
    np.testing.assert_allclose((found["estimate"] - fit.params) / fit.bse, 0, atol=1e-5)


def test_logistic_regression_is_that_of_statsmodels_on_the_plain_join() -> None:
    formula = "y ~ age + C(region) + x2 + x1"
    run_of = analysed(TWO, "glm", formula=formula)
    found = rows_of(run_of).set_index("name")
    fit = smf.glm(formula, joined(TWO), family=sm.families.Binomial()).fit(tol=1e-12)
    np.testing.assert_allclose((found["estimate"] - fit.params) / fit.bse, 0, atol=1e-5)
    np.testing.assert_allclose(found["std_error"] / fit.bse, 1, atol=2e-5)
    assert run_of.outcome.result is not None
    facts = run_of.outcome.result.facts
    assert abs(float(str(facts["deviance"])) - fit.deviance) < 1e-3
    assert facts["pearson_chi2"] is None


@pytest.mark.parametrize("values", [[0, 1, 2], [0.1, 0.9], [-1, 0, 1, 2]], ids=str)
def test_a_response_of_other_values_than_0_and_1_is_refused(values: list[float]) -> None:
    made = {**TWO, "b": TWO["b"].assign(x2=np.resize(values, len(TWO["b"])))}
    with pytest.raises(Refused, match="got another value than 0 and 1"):
        analysed(made, "glm", formula="x2 ~ age")


@pytest.mark.parametrize(
    ("method", "options"),
    [("mean", {"columns": ["income"]}), ("table", {"rows": ["region"]}), ("ols", {"formula": "income ~ age"})],
)
def test_no_number_of_missing_is_told_where_nobody_knows_it(method: str, options: dict[str, Any]) -> None:
    result = analysed(TWO, method, **options).outcome.result
    assert result is not None
    assert result.facts["observations"] == len(joined(TWO))
    assert result.facts["missing"] is None
    assert result.facts.get("left_out") is None
    assert any("no units" in note for note in result.notes)


def test_survival_curves_by_the_other_holders_groups_are_those_of_the_plain_join() -> None:
    found = rows_of(analysed(TWO, "survival", 5, time="time", event="event", group=["sector"]))
    plain = joined(TWO)
    for sector in SECTORS:
        part = plain[plain["sector"] == sector]
        curve = KaplanMeierFitter().fit(part["time"], part["event"]).survival_function_["KM_estimate"]
        rows = found[found["sector"] == sector]
        np.testing.assert_allclose(rows["survival"], curve.loc[rows["time"]], atol=1e-12)


def uniform(content: bytes) -> bool:
    """Do bytes come up alike? Wrongly denied once in 10^11 times."""
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    return bool(((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 8 * np.sqrt(2 * 255))


def opened_of(found: Run, name: str = "opened") -> np.ndarray[Any, Any]:
    """What the coordinator can put together of the two parties' shares."""
    shares = [
        packet[f"public:{name}"]
        for each in found.watched.values()
        for packet in each.gave
        if f"public:{name}" in packet
    ]
    assert len(shares) == 2
    return np.asarray(np.asarray(shares[0]) + np.asarray(shares[1])).view(np.int64)


def test_cells_below_the_minimum_are_never_opened_nor_what_they_are_part_of() -> None:
    """All that is said to the coordinator is looked through. Fails if the parties open what is decided against."""
    plain = joined(TWO).groupby(["sector", "region"]).size().unstack().reindex(index=SECTORS, columns=REGIONS)
    counts = plain.fillna(0).to_numpy(int)
    minimum = int(np.sort(counts.ravel())[3]) + 1
    few = counts < minimum
    assert 0 < few.sum() < few.size
    found = analysed(TWO, "table", minimum, rows=["sector"], columns=["region"])
    opened = opened_of(found).reshape(len(SECTORS), len(REGIONS), order="F" if opened_of(found).shape[0] == 3 else "C")
    np.testing.assert_array_equal(opened, np.where(few, 0, counts))
    for share in found.watched["a"].gave[-1].values():
        assert isinstance(share, np.ndarray)
    assert found.outcome.size is None
    result = found.outcome.result
    assert result is not None
    assert not result.tables["margins"]
    assert all(value is None for value in result.facts.values())
    shown = rows_of(found).set_index(["sector", "region"])["count"].unstack().loc[list(SECTORS), list(REGIONS)]
    np.testing.assert_array_equal(shown.isna().to_numpy(), few)
    np.testing.assert_array_equal(shown.fillna(0).to_numpy(), np.where(few, 0, counts))


def decided(watched: Mapping[str, Watched]) -> list[np.ndarray[Any, Any]]:
    """The bits that the two computing parties decided, as the coordinator puts them together."""
    said = [[p["public:few"] for p in each.gave if "public:few" in p] for each in watched.values()]
    one, other = [[np.asarray(each) for each in bits] for bits in said if bits]
    return [x ^ y for x, y in zip(one, other, strict=True)]


ONE_EACH = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": ["decoy", *(f"person {i}" for i in range(60))]},
            "sector": {"type": "category", "categories": list(SECTORS)},
            "income": {"type": "number", "low": 0, "high": 50_000},
        }
    }
)


def one_level_each() -> dict[str, pd.DataFrame]:
    """Sixty persons of holder a, each a level of its own; every second one is at b, and forty that fill the minimum."""
    a = pd.DataFrame({"id": range(100), "region": [*range(1, 61), *[0] * 40]})
    b = pd.DataFrame({"id": [*range(0, 60, 2), *range(60, 100)]})
    b["sector"], b["income"] = np.arange(len(b)) % 4, 100.0 * np.arange(len(b))
    return {"a": a, "b": b}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("table", {"rows": ["region"]}),
        ("table", {"rows": ["region"], "columns": ["sector"]}),
        ("total", {"columns": ["income"], "by": ["region"]}),
        ("mean", {"columns": ["income"], "by": ["region"]}),
    ],
)
def test_a_level_for_every_person_does_not_tell_who_matches(method: str, options: dict[str, Any]) -> None:
    """Empty cells and those of one match look alike: in what is decided, opened and shown. Fails if cells without
    matches are opened as 0."""
    watched: dict[str, Watched] = {}
    found = analysed(one_level_each(), method, 10, codebook=ONE_EACH, watched=watched, **options)
    whole, cells = decided(watched)
    assert not whole.any()
    assert cells.reshape(61, -1)[1:].all()
    assert not cells.reshape(61, -1)[0].any()
    opened = opened_of(found)
    assert not opened.reshape(61, -1)[1:].any()
    shown = rows_of(found)
    shown = shown[shown["region"] != "decoy"].drop(columns=["region", "sector", "column"], errors="ignore")
    assert len(shown) == 60 * (4 if options.get("columns") == ["sector"] else 1)
    assert shown.isna().to_numpy().all()
    assert found.outcome.size is None


def test_sums_of_withheld_cells_are_not_opened_either() -> None:
    counts = joined(TWO).groupby("sector").size().reindex(SECTORS)
    minimum = int(counts.min()) + 1
    found = analysed(TWO, "mean", minimum, columns=["age"], by=["sector"])
    gone = int(np.argmin(counts))
    assert not opened_of(found).reshape(len(SECTORS), -1)[gone].any()
    rows = rows_of(found)
    assert rows[["estimate", "std_error", "count"]].isna().to_numpy()[gone].all()
    assert rows.drop(index=gone)["estimate"].notna().all()


def test_a_group_below_the_minimum_has_no_curve() -> None:
    counts = joined(TWO).groupby("sector").size().reindex(SECTORS)
    found = analysed(TWO, "survival", int(counts.min()) + 1, time="time", event="event", group=["sector"])
    assert set(rows_of(found)["sector"]) == set(SECTORS) - {SECTORS[int(np.argmin(counts))]}
    assert found.outcome.size is None


@pytest.mark.parametrize("method", ["ols", "glm"])
def test_a_model_with_a_level_below_the_minimum_opens_nothing(method: str) -> None:
    counts = joined(TWO).groupby("sector").size()
    formula = "y ~ age + C(sector)"
    watched: dict[str, Watched] = {}
    with pytest.raises(Refused, match="nothing of this one was opened"):
        analysed(TWO, method, int(counts.min()) + 1, watched=watched, formula=formula)
    number = int.from_bytes(bytes(watched["a"].got[-1]["number"]), "big") + 1
    last = {name: each.gave[-1] for name, each in watched.items()}
    for name, each in watched.items():  # a coordinator that goes on gets nothing either
        packet: dict[str, Any] = {"number": number.to_bytes(4, "big")}
        packet |= {f"from:{other}": gave[f"to:{name}"] for other, gave in last.items() if f"to:{name}" in gave}
        assert not [item for item in each.answer("round", packet) if item.startswith("public:")]


@pytest.mark.parametrize(
    ("method", "formula"),
    [
        ("ols", "income ~ C(region):C(event)"),
        ("ols", "income ~ C(region)*C(event)"),
        ("ols", "income ~ event"),
        ("ols", "income ~ age"),
        ("ols", "income ~ x1:C(region)"),
        ("glm", "y ~ C(region):C(event)"),
        ("glm", "y ~ x2"),
        ("covariance", "income event"),
    ],
)
def test_a_model_in_which_one_unit_stands_alone_opens_nothing(method: str, formula: str) -> None:
    """One match is alone in a cell of two categories, with a value of a number, or with a response: its coefficient
    would be that unit's value."""
    a, b = TWO["a"].copy(), TWO["b"].copy()
    both = np.flatnonzero(a["id"].isin(b["id"]))
    one = both[a["region"].to_numpy()[both] == 0][0]
    a["event"] = np.where(a["region"] == 0, 0, a["event"]) if "region" in formula else 0
    a["age"], a["x1"] = 40, np.where(a["region"] == 0, 0.0, a["x1"])
    a.loc[a.index[one], ["event", "age", "x1"]] = 1, 41, 1.0
    if formula == "y ~ x2":
        b["y"] = (b["id"] == a["id"].iloc[one]).astype(int)
    a["x1"] = np.where(a["region"] == 0, a["x1"], 0.0)
    options: dict[str, Any] = {"columns": formula.split()} if method == "covariance" else {"formula": formula}
    with pytest.raises(Refused, match="nothing of this one was opened"):
        analysed({"a": a, "b": b}, method, 5, **options)
    assert analysed(TWO, method, 5, **options).outcome.size


def told_of(watched: Mapping[str, Watched]) -> list[str]:
    """Names of all that parties said to the coordinator."""
    return [each for party in watched.values() for packet in party.gave for each in packet if "public:" in each]


def test_a_holder_shares_nothing_of_a_model_with_a_level_for_every_person() -> None:
    """Fails if the levels are judged on the matches alone, whose bits were one a person."""
    watched: dict[str, Watched] = {}
    with pytest.raises(Refused, match="fewer than 10 of this holder's own units have"):
        analysed(one_level_each(), "ols", 10, codebook=ONE_EACH, watched=watched, formula="income ~ C(region)")
    assert not told_of(watched)


def test_a_unit_without_a_key_does_not_fill_a_level() -> None:
    units = Units({"id": [None, "a", "b", None]}, {"event": np.array([1.0, 0.0, 0.0, 1.0])})
    question = _question_of("covariance", columns=["event", "age"])
    _model_guards.refuse_few(question, units, ["event"], 2)
    two = Units({"id": ["x", "a", "b", None]}, {"event": np.array([1.0, 0.0, 0.0, 1.0])})
    with pytest.raises(Refused, match="fewer than 2"):
        _model_guards.refuse_few(question, two, ["event"], 2)


def _question_of(method: str, **options: Any) -> Any:
    agreed_on = helper.Options(reveal="totals", method=method, options=options, codebook=CODEBOOK, columns=HAD)
    return helper._question(agreed_on)


VALUED = make_codebook(
    {
        "columns": {
            "age": {"type": "integer", "low": 0, "high": 2},
            "x1": {"type": "number", "low": 1, "high": 3},
            "income": {"type": "number", "low": 0, "high": 50_000},
        }
    }
)


@pytest.mark.parametrize("column", ["x1", "age"], ids=["two values", "integers"])
@pytest.mark.parametrize("method", ["covariance", "ols"])
def test_one_match_with_one_of_few_values_is_not_told(column: str, method: str) -> None:
    """The commonest of two values, or one of three, that many units of the holder have and one match: its income would
    follow from the cross products. Fails if only values apart from the commonest are counted, or only two."""
    a = pd.DataFrame({"id": range(300), "x1": np.where(np.arange(300) < 160, 1.0, 3.0)})
    a["age"] = np.where(np.arange(300) < 160, 2, np.arange(300) % 2)
    b = pd.DataFrame({"id": range(159, 459), "income": np.random.default_rng(5).uniform(0, 50_000, 300)})
    options: dict[str, Any] = (
        {"columns": [column, "income"]} if method == "covariance" else {"formula": f"income ~ {column}"}
    )
    watched: dict[str, Watched] = {}
    with pytest.raises(Refused, match="at one of few values"):
        analysed({"a": a, "b": b}, method, 10, codebook=VALUED, watched=watched, **options)
    assert [bits.shape for bits in decided(watched)] == [(1,), (1,)]
    assert "public:opened" not in told_of(watched)
    whole = analysed({"a": a, "b": b.assign(id=range(300))}, method, 10, codebook=VALUED, **options)
    assert whole.outcome.size == 300


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("table", {"rows": ["region"], "columns": ["sector"]}),
        ("mean", {"columns": ["income"], "by": ["region"]}),
        ("survival", {"time": "time", "event": "event", "group": ["sector"]}),
    ],
)
def test_nobody_matches_is_an_answer_or_a_refusal(method: str, options: dict[str, Any]) -> None:
    apart = {"a": TWO["a"], "b": TWO["b"].assign(id=TWO["b"]["id"] + 10_000)}
    found = analysed(apart, method, **options)
    assert found.outcome.size == 0
    assert not opened_of(found).any()


@pytest.mark.parametrize("matches", [0, 1, 4])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("table", {"rows": ["region"], "columns": ["sector"]}),
        ("mean", {"columns": ["income"], "by": ["region"]}),
        ("survival", {"time": "time", "event": "event", "group": ["sector"]}),
        ("ols", {"formula": "y ~ age + C(region)"}),
    ],
)
def test_of_fewer_matches_in_all_than_the_minimum_no_cell_is_said_to_be_empty(
    method: str, options: dict[str, Any], matches: int
) -> None:
    """Of one known person the cells that are not empty would be the answer."""
    ids = TWO["b"]["id"].to_numpy() + 10_000
    ids[:matches] = TWO["a"]["id"].to_numpy()[:matches]
    watched: dict[str, Watched] = {}
    with pytest.raises(Refused, match="fewer matches than 5, or none"):
        analysed({"a": TWO["a"], "b": TWO["b"].assign(id=ids)}, method, 5, watched=watched, **options)
    assert told_of(watched) == ["public:few"] * 2


@pytest.mark.parametrize("method", ["ols", "glm"])
def test_a_model_of_nobody_is_refused(method: str) -> None:
    apart = {"a": TWO["a"], "b": TWO["b"].assign(id=TWO["b"]["id"] + 10_000)}
    with pytest.raises(UsageError, match="no records"):
        analysed(apart, method, formula="y ~ age")


def test_everybody_matches() -> None:
    made = {"a": TWO["a"].assign(id=range(400)), "b": TWO["b"].assign(id=range(400))}
    found = analysed(made, "table", rows=["region"], columns=["sector"])
    assert found.outcome.size == 400 == rows_of(found)["count"].sum()


def test_a_party_alone_sees_the_same_lengths_and_uniform_words_whoever_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a few and everybody matched, only what is opened differs. Fails if the indicator of a match goes out in
    plain, or a payload without its second mask; what the helper deals has a seed of 16 bytes and a list before that."""
    from statfed.strategies.linkages._channels import Channels

    seen: dict[str, list[bytes]] = {}
    plain = Channels.open

    def noting(channels: Channels, sender: str, purpose: str, content: bytes) -> bytes:
        found = plain(channels, sender, purpose, content)
        seen.setdefault(f"{channels.identity.name} of {sender}", []).append(found)
        return found

    monkeypatch.setattr(Channels, "open", noting)
    lengths: list[dict[str, list[int]]] = []
    for shift in (0, 390):
        seen.clear()
        made = {"a": TWO["a"].assign(id=range(400)), "b": TWO["b"].assign(id=range(shift, shift + 400))}
        analysed(made, "covariance", 5, columns=["income", "age"])
        lengths.append({name: [len(each) for each in contents] for name, contents in seen.items()})
        for name in ("a of b", "b of a"):
            assert uniform(b"".join(each for each in seen[name] if len(each) >= 3200))
        size = 8 * 400
        dealt = next(each for each in seen["b of helper"] if len(each) > size)
        assert uniform(dealt[16 + size + 16 : -size])  # the half of its own payload that comes back
        assert uniform(dealt[-size:])  # the indicator
        dealt = next(each for each in seen["a of helper"] if len(each) > size)
        assert uniform(dealt[16 : -size - 16])
    assert lengths[0] == lengths[1]


def test_the_helper_reads_no_value_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from statfed.strategies.linkages._channels import Channels

    read: list[bytes] = []
    plain = Channels.open

    def noting(channels: Channels, sender: str, purpose: str, content: bytes) -> bytes:
        found = plain(channels, sender, purpose, content)
        if channels.identity.name == "helper":
            read.append(found)
        return found

    monkeypatch.setattr(Channels, "open", noting)
    made = {name: frame.assign(id=range(400)) for name, frame in TWO.items()}
    analysed(made, "covariance", columns=["age", "x2"])
    content = b"".join(read)
    assert len(read) == 2
    feature = _features.Feature("x2", "b", -10, 10, lambda table: table.number("x2"))
    shared = feature.encoded(made["b"]["x2"].to_numpy(), _features.places(400, 2))
    assert not np.isin(shared, np.frombuffer(content, np.uint64)).any()
    for letter in read:
        assert uniform(letter)


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [("age", np.nan, "missing"), ("age", 17.0, "bounds"), ("region", 3.0, "levels"), ("event", 0.5, "levels")],
    ids=["missing", "out of bounds", "no level", "no boolean"],
)
def test_values_that_do_not_fit_are_refused_without_being_told(column: str, value: float, word: str) -> None:
    frame = TWO["a"].astype({column: float})
    frame.loc[3, column] = value
    options: dict[str, Any] = (
        {"rows": ["region"], "columns": ["sector"]} if column == "region" else {"columns": ["age", "x2"]}
    )
    method = "table" if column == "region" else "covariance"
    if column == "event":
        method, options = "survival", {"time": "time", "event": "event", "group": ["sector"]}
    with pytest.raises(Refused, match=word) as error:
        analysed({**TWO, "a": frame}, method, **options)
    assert "17" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "options", "word"),
    [
        ("ols", {"formula": "income ~ age:x2"}, "one holder"),
        ("ols", {"formula": "income ~ age", "robust": "HC1"}, "robust"),
        ("glm", {"formula": "y ~ age", "family": "poisson"}, "family"),
        ("glm", {"formula": "y ~ age", "link": "probit"}, "link"),
        ("mean", {"columns": ["age", "income"]}, "one holder"),
        ("table", {"rows": ["size"]}, "none of the holders"),
        ("total", {"columns": ["income"], "population": 1000}, "population"),
        ("survival", {"time": "time", "event": "y", "group": ["sector"]}, "time, event"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_has_no_form_on_shares_is_refused_before_anything_is_sent(method: str, options: Any, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        analysed(TWO, method, **options)


def test_a_column_without_bounds_is_refused() -> None:
    columns = {name: column.model_dump(by_alias=True) for name, column in CODEBOOK.columns.items()}
    columns["income"] |= {"low": None, "high": None}
    with pytest.raises(UsageError, match="no bounds"):
        analysed(TWO, "ols", codebook=make_codebook({"columns": columns}), formula="income ~ age")


def test_bounds_so_wide_that_rounding_would_show_are_refused() -> None:
    columns = {name: column.model_dump(by_alias=True) for name, column in CODEBOOK.columns.items()}
    columns["x2"] |= {"low": -1e9, "high": 1e9}
    with pytest.raises(UsageError, match="narrower bounds"):
        analysed(TWO, "ols", codebook=make_codebook({"columns": columns}), formula="income ~ age + x2")


@pytest.mark.parametrize("half", [1e9, 1e12, 1e15, 1e24])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mean", {"columns": ["income"]}),
        ("total", {"columns": ["income"], "by": ["region"]}),
        ("table", {"rows": ["region"], "columns": ["sector"], "value": "income"}),
    ],
    ids=["mean", "total", "table"],
)
def test_means_totals_and_their_errors_never_have_the_rounding_of_wide_bounds(
    method: str, options: dict[str, Any], half: float
) -> None:
    columns = {name: column.model_dump(by_alias=True) for name, column in CODEBOOK.columns.items()}
    columns["income"] |= {"low": -half, "high": half}
    wide = make_codebook({"columns": columns})
    wanted = rows_of(analysed(TWO, method, **options))
    try:
        found = rows_of(analysed(TWO, method, codebook=wide, **options))
    except UsageError:
        with pytest.raises(UsageError, match="narrower bounds"):
            analysed(TWO, method, codebook=wide, **options)
        return
    for name in ("mean", "total", "std_error"):
        if name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 12_345.678])
def test_one_value_of_all_is_told_with_bounds_that_are_wide(value: float) -> None:
    columns = {name: column.model_dump(by_alias=True) for name, column in CODEBOOK.columns.items()}
    columns["income"] |= {"low": -100, "high": 1e8}
    made = {name: frame.assign(income=value) if name == "b" else frame for name, frame in TWO.items()}
    wide = make_codebook({"columns": columns})
    found = rows_of(analysed(made, "mean", codebook=wide, columns=["income"], by=["region"]))
    np.testing.assert_allclose(found["estimate"], value, rtol=1e-9, atol=1e-6)
    assert (found["std_error"] < 1e-6).all()


def test_columns_that_determine_each_other_are_refused_in_spite_of_rounding() -> None:
    made = {**TWO, "a": TWO["a"].assign(x1=TWO["a"]["age"] / 20 - 1.234)}
    with pytest.raises(UsageError, match=r"combination|collinear"):
        analysed(made, "ols", formula="income ~ age + x1")


def test_more_units_than_sums_have_room_for_are_refused() -> None:
    with pytest.raises(UsageError, match="no room"):
        _features.places(2**40, 3)


@pytest.mark.parametrize("cap", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("factors", [1, 2, 3])
def test_the_largest_sums_stay_in_the_ring(cap: int, factors: int) -> None:
    assert cap * 2 ** (factors * _features.places(cap, factors)) < 2**62


def test_steps_are_limited_and_a_period_that_does_not_fit_is_refused() -> None:
    """A coordinator that asks for sums at coefficients that the series does not reach gets none."""
    found = analysed(TWO, "glm", formula="y ~ x2")
    products = found.parties["a"]._setting.plan
    assert isinstance(products, _models.Products)
    with pytest.raises(Refused, match="period"):
        products._angles(np.array([100.0, 0.0]), 50.0)
    with pytest.raises(Refused, match="period"):
        products._angles(np.array([1.0, 0.0]), 900.0)
    with pytest.raises(Refused, match="finite"):
        products._angles(np.array([1.0, np.nan]), 50.0)


def test_a_mean_of_too_few_matches_in_all_is_not_told() -> None:
    apart = {"a": TWO["a"].assign(id=range(400)), "b": TWO["b"].assign(id=range(397, 797))}
    with pytest.raises(Refused, match="nothing of this one was opened"):
        analysed(apart, "mean", 5, columns=["income"])


@pytest.mark.parametrize("method", ["ols", "glm"])
def test_a_level_that_no_match_has_is_left_out_and_said(method: str) -> None:
    made = {**TWO, "b": TWO["b"].assign(sector=TWO["b"]["sector"].replace(0, 3))}
    formula = "y ~ age + C(sector)"
    found = analysed(made, method, 5, formula=formula)
    plain = joined(made)
    fit = (smf.ols if method == "ols" else smf.logit)(formula, plain).fit()
    rows = rows_of(found).set_index("name")
    np.testing.assert_allclose((rows["estimate"] - fit.params) / fit.bse, 0, atol=1e-5)
    assert found.outcome.result is not None
    assert any("sector: no records at a" in note for note in found.outcome.result.notes)


def test_responses_that_are_predicted_exactly_are_refused_without_counting_on_both_sides() -> None:
    made = {**TWO, "b": TWO["b"].assign(y=(TWO["b"]["x2"] > 0).astype(int))}
    with pytest.raises(UsageError, match=r"no convergence|narrower bounds"):
        analysed(made, "glm", formula="y ~ x2")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ols", {"formula": "income ~ age + C(sector)"}),
        ("glm", {"formula": "y ~ age + C(region)", "max_iterations": 30}),
        ("covariance", {"columns": ["income", "age"]}),
    ],
)
def test_a_model_opens_no_more_figures_than_it_counts_as(method: str, options: dict[str, Any]) -> None:
    found = analysed(TWO, method, 5, **options)
    agreement = found.parties["a"]._channels.agreement
    opened = opened_of(found)
    told = int((np.triu(opened) != 0).sum())
    packets = [packet for packet in found.watched["a"].gave if "public:score" in packet]
    for packet in packets:
        score, information = (np.asarray(packet[f"public:{name}"]) for name in ("score", "information"))
        told += len(score) + len(score) * (len(score) + 1) // 2 + 1
        assert information.shape == (len(score), len(score))
    assert told <= helper.figures(agreement)
    if method == "glm":
        steps = helper.Setting.of(agreement).plan.steps  # type: ignore[union-attr]
        assert helper.figures(agreement) >= told + (steps - len(packets)) * 15
