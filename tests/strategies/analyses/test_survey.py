"""Count, total, mean and ratio against R's survey package (tests/data/survey_reference.R) and slow loops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total, read_question, summed
from statfed.core.privacy.noise import plan
from statfed.core.randomness import stream
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from tests.federate import codebook_of, federate, split, table_of
from tests.noise import scheduled

DATA = Path(__file__).parents[2] / "data"
REFERENCE: dict[str, Any] = json.loads((DATA / "survey_reference.json").read_text())
SAMPLE = pd.read_csv(DATA / "survey_reference.csv")
REGIONS, SEXES, STRATA = ["north", "south", "west"], ["f", "m"], [f"h{i}" for i in range(1, 7)]
PSUS = sorted(SAMPLE["psu"].unique())


def codebook(*roles: str, replicates: str = "", spans: bool = False, **design: Any) -> Codebook:
    columns: dict[str, Any] = {
        "income": "number",
        "hours": ("number", 0, 80),
        "age": ("integer", 0, 120),
        "region": REGIONS,
        "sex": SEXES,
        "w": {"type": "number"},
        "stratum": {"type": "category", "categories": STRATA},
        "psu": {"type": "category", "categories": PSUS} if spans else {"type": "id"},
    }
    for role in roles:
        columns[{"weight": "w"}.get(role, role)]["role"] = role
    for name in SAMPLE.columns:
        if replicates and name.startswith(f"{replicates}_"):
            columns[name] = {"type": "number", "role": "replicate"}
    return codebook_of(columns, design=design | {"psu_spans_holders": spans})


def nested(frame: pd.DataFrame, holders: int = 3) -> list[pd.DataFrame]:
    """Whole PSUs dealt to holders, one of which gets none; strata lie with several holders."""
    owner = frame["psu"].map({name: (7 * i) % (holders - 1) for i, name in enumerate(PSUS)})
    return [frame[owner == i].reset_index(drop=True) for i in range(holders)]


QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {"columns": ["income"]}),
    "mean_by": ("mean", {"columns": ["income"], "by": ["sex"]}),
    "mean_by2": ("mean", {"columns": ["income"], "by": ["region", "sex"]}),
    "total": ("total", {"columns": ["income"]}),
    "total_by": ("total", {"columns": ["hours"], "by": ["region"]}),
    "count": ("count", {}),
    "count_by": ("count", {"by": ["region"]}),
    "ratio": ("ratio", {"numerator": "income", "denominator": "hours"}),
    "ratio_by": ("ratio", {"numerator": "income", "denominator": "hours", "by": ["sex"]}),
}
ROLES = ("weight", "stratum", "psu")


def agree(case: str, name: str, frames: list[pd.DataFrame], book: Codebook, **options: Any) -> None:
    analysis, asked = QUESTIONS[name]
    wanted = REFERENCE[case][name]
    result = federate(analysis, frames, book, **asked, **options)
    shown = result.to_pandas()
    np.testing.assert_allclose(shown["estimate"], np.atleast_1d(wanted["estimate"]), rtol=1e-9)
    np.testing.assert_allclose(shown["std_error"], np.atleast_1d(wanted["std_error"]), rtol=1e-9, atol=1e-9)
    assert result.df == REFERENCE[case]["df"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_psus_nested_in_holders_with_strata_across_them_equal_r(name: str) -> None:
    agree("clustered", name, nested(SAMPLE), codebook(*ROLES), design=True)


@pytest.mark.parametrize("name", QUESTIONS)
def test_psus_across_holders_equal_r(name: str) -> None:
    agree("clustered", name, split(SAMPLE, 2, 3), codebook(*ROLES, spans=True), design=True)


@pytest.mark.parametrize("name", ["mean_by2", "total", "count_by", "ratio_by"])
def test_strata_without_psus_weights_alone_and_simple_random_samples_equal_r(name: str) -> None:
    frames = split(SAMPLE, 2, 8)
    agree("strata", name, frames, codebook("weight", "stratum"), design=True)
    agree("weighted", name, frames, codebook(), weight="w")
    agree("weighted", name, frames, codebook("weight"), design=True)
    agree("srs", name, frames, codebook())


@pytest.mark.parametrize("name", ["mean", "mean_by", "total", "total_by", "count_by", "ratio"])
def test_a_known_population_expands_totals_and_corrects_variances_as_r_does(name: str) -> None:
    agree("finite", name, split(SAMPLE, 3, 1), codebook(), population=5000)


@pytest.mark.parametrize("method", ["jkn", "bootstrap", "jk1", "brr", "fay"])
@pytest.mark.parametrize("name", ["mean_by", "total"])
def test_replicate_weights_equal_r_with_its_default_scales_and_centre(method: str, name: str) -> None:
    rscales = REFERENCE["jkn"]["rscales"] if method == "jkn" else []
    book = codebook(
        "weight",
        replicates=method,
        replicate_method=method,
        replicate_rscales=rscales,
        fay_rho=0.3 if method == "fay" else 0.0,
    )
    analysis, asked = QUESTIONS[name]
    shown = federate(analysis, split(SAMPLE, 2, 5), book, design=True, **asked).to_pandas()
    wanted = REFERENCE[method][name]
    np.testing.assert_allclose(shown["estimate"], np.atleast_1d(wanted["estimate"]), rtol=1e-9)
    np.testing.assert_allclose(shown["std_error"], np.atleast_1d(wanted["std_error"]), rtol=1e-9)


@pytest.mark.parametrize("rule", ["certainty", "adjust"])
@pytest.mark.parametrize("spans", [False, True])
def test_a_stratum_with_one_psu_follows_the_rule_of_the_codebook_as_in_r(rule: str, spans: bool) -> None:
    frame = SAMPLE[SAMPLE["psu"] != SAMPLE.loc[SAMPLE["stratum"] == "h6", "psu"].max()]
    for name in ("mean", "total", "ratio"):
        book = codebook(*ROLES, spans=spans, lonely_psu=rule)
        agree(f"lonely_{rule}", name, nested(frame), book, design=True)
    with pytest.raises(UsageError, match="1 stratum with a single PSU"):
        federate("mean", nested(frame), codebook(*ROLES), columns=["hours"], design=True)


def test_horvitz_thompson_divides_by_the_known_population_and_deff_equals_r() -> None:
    asked: dict[str, Any] = {"columns": ["hours"], "estimator": "horvitz-thompson", "population": 9000}
    book = codebook("weight", "stratum")
    row = federate("mean", nested(SAMPLE), book, design=True, **asked).tables["estimates"][0]
    assert row["estimate"] == pytest.approx(REFERENCE["horvitz_thompson"]["estimate"], rel=1e-9)
    row = federate("mean", nested(SAMPLE), codebook(*ROLES), columns=["income"], design=True).tables["estimates"][0]
    assert row["deff"] == pytest.approx(REFERENCE["deff"], rel=1e-9)


def slow(frame: pd.DataFrame, kind: str, y: str, x: str, inside: Any) -> tuple[float, float, int]:
    """Estimate, variance and df by loops over strata and PSUs of the pooled sample, value 0 outside the domain."""
    known = frame[y].notna() & frame[x].notna() & inside
    w = frame["w"]
    top, bottom = float((w * frame[y])[known].sum()), float((w * frame[x])[known].sum())
    if kind == "total":
        theta, z = top, frame[y].where(known, 0.0)
    else:
        theta = top / bottom
        z = ((frame[y] - theta * frame[x]) / bottom).where(known, 0.0)
    variance, psus, strata = 0.0, 0, 0
    for _, stratum in frame.assign(z=z * w).groupby("stratum"):
        totals = stratum.groupby("psu")["z"].sum().to_numpy()
        psus, strata = psus + len(totals), strata + 1
        if len(totals) > 1:
            variance += len(totals) * float(totals.var(ddof=1))
    return theta, variance, psus - strata


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 5), spans=st.booleans(), n=st.integers(1, 120))
def test_random_designs_equal_loops_over_the_pooled_sample(seed: int, holders: int, spans: bool, n: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"income": rng.normal(1e4, 50, n), "hours": rng.uniform(1, 80, n), "sex": rng.choice(SEXES, n)}
    )
    frame["income"] = frame["income"].where(rng.random(n) < 0.85)
    frame["stratum"], frame["psu"] = rng.choice(STRATA[:3], n), rng.choice(PSUS[:9], n)  # PSU names recur in strata
    frame["w"], frame["region"] = rng.uniform(1, 30, n), "north"
    owner = rng.integers(0, holders, n)
    if not spans:  # a name at another holder is another PSU
        frame["psu"] = frame["psu"] + owner.astype(str)
    frames = [frame[owner == i].reset_index(drop=True) for i in range(holders)]
    if not spans:
        frames = [f.assign(psu=f["psu"].str[:3]) for f in frames]
    book = codebook(*ROLES, spans=spans, lonely_psu="certainty")
    for kind in ("total", "ratio"):
        columns: dict[str, Any] = {"columns": ["income"]} if kind == "total" else {}
        columns |= {"numerator": "income", "denominator": "hours"} if kind == "ratio" else {}
        result = federate(kind, frames, book, by=["sex"], design=True, **columns)
        for row in result.tables["estimates"]:
            inside = frame["sex"] == row["sex"]
            if not (inside & frame["income"].notna()).any():
                assert row["estimate"] == (0.0 if kind == "total" else None)
                continue
            partner = "income" if kind == "total" else "hours"
            theta, variance, df = slow(frame, kind, "income", partner, inside)
            assert row["estimate"] == pytest.approx(theta, rel=1e-9)
            scale = max(variance, (1e-4 if kind == "ratio" else 1e-12) * theta**2)  # one record: 0 but for rounding
            assert float(row["std_error"] or 0) ** 2 == pytest.approx(variance, rel=1e-8, abs=1e-9 * scale)
            assert result.df == df


def test_the_error_of_an_unweighted_mean_is_s_over_root_n_and_survives_a_large_mean() -> None:
    frame = pd.DataFrame({"income": np.random.default_rng(1).normal(1e6, 3, 500)})
    frames = [*split(frame, 3, 2), frame.iloc[:0]]
    row = federate("mean", frames, codebook(), columns=["income"]).tables["estimates"][0]
    assert row["std_error"] == pytest.approx(frame["income"].sem(), rel=1e-9)
    total = federate("total", frames, codebook(), columns=["income"]).tables["estimates"][0]
    assert total["std_error"] == pytest.approx(frame["income"].std() * np.sqrt(500), rel=1e-9)


def test_no_records_one_record_and_only_missing_values_give_nulls_not_nan() -> None:
    empty = SAMPLE.iloc[:0]
    row = federate("mean", [empty, empty], codebook(), columns=["income"]).tables["estimates"][0]
    assert (row["estimate"], row["std_error"], row["lower"], row["count"]) == (None, None, None, 0)
    assert federate("count", [empty], codebook()).tables["estimates"][0]["estimate"] is None
    one = federate("mean", [SAMPLE.iloc[:1], empty], codebook(), columns=["hours"]).tables["estimates"][0]
    assert one["estimate"] == SAMPLE["hours"][0]
    assert one["std_error"] is None
    void = SAMPLE.assign(income=np.nan)
    row = federate("mean", [void, empty], codebook(*ROLES), columns=["income"], design=True).tables["estimates"][0]
    assert (row["estimate"], row["std_error"], row["quality"], row["count"]) == (None, None, None, 0)


def test_records_without_a_weight_are_left_out_and_reported() -> None:
    frame = SAMPLE.copy()
    frame.loc[:9, "w"] = np.nan
    result = federate("total", split(frame, 3), codebook(), columns=["hours"], weight="w")
    assert result.facts["left_out"] == 10
    assert "left out" in result.notes[0]
    kept = frame.iloc[10:]
    assert result.tables["estimates"][0]["total"] == pytest.approx((kept["w"] * kept["hours"]).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "roles", "message"),
    [
        ({"columns": ["wage"]}, ROLES, "got 'wage'"),
        ({"columns": ["sex"]}, ROLES, "want number, integer or boolean"),
        ({"columns": ["hours"], "by": ["psu"]}, ROLES, "want category or boolean"),
        ({"columns": ["hours"], "by": ["sex", "sex"]}, ROLES, "more than once"),
        ({"columns": ["hours"], "weight": "sex"}, ROLES, "want number or integer"),
        ({"columns": ["hours"], "weight": "age", "design": True}, ROLES, "want the codebook's weight"),
        ({"columns": ["hours"], "design": True}, (), "codebook without roles"),
        ({"columns": ["hours"], "design": True, "population": 900}, ROLES, "simple random sample only"),
        ({"columns": ["hours"], "population": 9}, ROLES, "at least as many units"),
        ({"columns": ["hours"], "estimator": "horvitz-thompson"}, ROLES, "want population"),
        ({"columns": ["hours"], "design": True, "where": ["age > 30"]}, ROLES, "want the domain as by"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options: Any, roles: tuple[str, ...], message: str) -> None:
    where = options.pop("where", [])
    with pytest.raises(UsageError, match=message):
        federate("mean", [SAMPLE], codebook(*roles), where=where, **options)


def test_replicate_weights_without_method_or_scales_are_refused() -> None:
    with pytest.raises(UsageError, match="replicate_method"):
        federate("count", [SAMPLE], codebook("weight", replicates="jkn"), design=True)
    with pytest.raises(UsageError, match="replicate_rscales"):
        federate("count", [SAMPLE], codebook("weight", replicates="jkn", replicate_method="jkn"), design=True)


def test_quality_falls_with_the_coefficient_of_variation() -> None:
    from statfed.strategies.analyses._survey import estimate_row

    grades = [estimate_row({}, 1.0, cv**2)["quality"] for cv in (0.05, 0.08, 0.15, 0.2, 0.3, 0.5)]
    assert grades == ["A", "B", "C", "D", "E", "F"]
    assert estimate_row({}, 0.0, 1.0)["quality"] is None


PRIVATE = codebook_of(
    {
        "income": ("number", 0, 200),
        "hours": ("number", 0, 80),
        "region": REGIONS,
        "sex": SEXES,
        "w": {"type": "number", "low": 0, "high": 121},
    }
)


@pytest.mark.parametrize(
    ("analysis", "options"),
    [
        ("count", {"population": 5000, "by": ["sex"]}),
        ("total", {"columns": ["income"], "by": ["sex"]}),
        ("mean", {"columns": ["income", "hours"], "by": ["sex"]}),
        ("mean", {"columns": ["hours"], "weight": "w"}),
        ("ratio", {"numerator": "income", "denominator": "hours"}),
        ("table", {"rows": ["region"], "columns": ["sex"]}),
        ("table", {"rows": ["region"], "value": "income", "weight": "w"}),
    ],
)
def test_private_errors_are_sampling_plus_the_noise_that_estimates_really_have(analysis: str, options: Any) -> None:
    frames = split(SAMPLE, 2, 2)
    query = Terms(
        method=analysis,
        options=options,
        codebook=PRIVATE,
        holders=("a", "b", "c"),
        seed=1,
        privacy=Privacy(epsilon=1),
    )
    module, question = read_question(query)
    name, times = scheduled(question)
    assert times == 1
    parts = module.parts(question, Ask(name))
    made = plan(parts, Privacy(epsilon=1), 1)
    arrays = summed(
        {f"{i}": module.contribute(table_of(f, PRIVATE), question, Ask(name)) for i, f in enumerate(frames)}, parts
    )
    key = "total" if analysis == "table" else "estimate"

    def draw(seed: int | None, stated: bool = True) -> Result:
        noise = {part: std * stated for part, std in made.std().items()}
        sent = arrays if seed is None else made.add(arrays, stream(seed, "errors"))
        run = module.coordinate(question)
        assert next(run).name == name
        with pytest.raises(StopIteration) as end:
            run.send(Total(sent, noise))
        result: Result = end.value.value
        return result

    exact, stated = draw(None, stated=False), draw(None)
    asked = {**options, "weight": options.get("weight")}
    plain = federate(analysis, frames, codebook(), **asked)
    for one, other in zip(exact.tables[exact.main], plain.tables[plain.main], strict=True):
        assert one[key] == pytest.approx(other[key], rel=1e-9)
        assert one["std_error"] == pytest.approx(other["std_error"], rel=0.05)
    drawn = [draw(seed).tables[exact.main] for seed in range(250)]
    for i, row in enumerate(exact.tables[exact.main]):
        values = np.array([rows[i][key] for rows in drawn], float)
        added = float(stated.tables[exact.main][i]["std_error"] or 0) ** 2 - float(row["std_error"] or 0) ** 2
        assert values.var() < 1.5 * added
        if (
            analysis == "table" or "weight" not in options
        ):  # noise hides the sampling variance: errors are the wider for it
            assert values.var() == pytest.approx(added, rel=0.5)


def test_privacy_wants_bounds_and_no_design() -> None:
    def ask(book: Codebook, **options: Any) -> None:
        read_question(
            Terms(method="mean", options=options, codebook=book, holders=("a",), seed=1, privacy=Privacy(epsilon=1))
        )

    with pytest.raises(UsageError, match="income: got no bounds"):
        ask(codebook(), columns=["income"])
    with pytest.raises(UsageError, match="w without bounds"):
        ask(codebook(), columns=["hours"], weight="w")
    with pytest.raises(UsageError, match="design-based variances have no private form"):
        ask(codebook(*ROLES), columns=["hours"], design=True)
