"""The release of pooled results: what is withheld, what the record says, and what an outsider can still work out."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.randomness import stream
from statfed.core.result import Additive, Basis, Coefficients, Result, Row, Scalar
from statfed.server.disclosure.audit import intervals
from statfed.server.disclosure.release import release
from statfed.server.disclosure.sums import sums_of_rows
from tests.federate import codebook_of, federate, split
from tests.server.test_suppression import TWO_REGIONS

CODEBOOK = codebook_of(
    {
        "sex": ["f", "m"],
        "area": {"type": "category", "categories": list("abcde"), "parents": TWO_REGIONS},
        "branch": ["x", "y", "z"],
        "income": ("number", 0, 1e7),
    }
)
FREQUENCY = Rules(minimum_frequency=10, dominance_k=None, p_percent=None)


def released(result: Result, rules: Rules = FREQUENCY) -> Result:
    return release(result, CODEBOOK, rules, source=stream(1, "release"), seconds=2.0)


def tabulated(
    counts: dict[tuple[str, str], int], nested: bool = False, extra: dict[str, Any] | None = None, **columns: float
) -> Result:
    """A result of `table` by branch and area with all margins. columns: further sums, each so many times the count."""
    frame = pd.DataFrame([{"branch": b, "area": a, "count": n} for (b, a), n in counts.items()])
    for name, times in columns.items():
        frame[name] = frame["count"] * times
    sums = ["count", *columns]
    margins: list[Row] = []
    for keep in (["branch"], ["area"], []):
        found = frame.groupby(keep)[sums].sum().reset_index() if keep else frame[sums].sum().to_frame().T
        margins += [{"branch": None, "area": None} | _plain(row) for row in found.to_dict("records")]
    if nested:
        regions = frame.assign(area=frame["area"].map(TWO_REGIONS))
        for keep in (["branch", "area"], ["area"]):
            found = regions.groupby(keep)[sums].sum().reset_index()
            margins += [{"branch": None, "area": None} | _plain(row) for row in found.to_dict("records")]
    cells = [_plain(row) for row in frame.to_dict("records")]
    facts: dict[str, Scalar] = {"observations": int(frame["count"].sum()), "chi_square": 12.5, "method": "pearson"}
    tables = {"cells": [row | (extra or {}) for row in cells], "margins": [{**row, **(extra or {})} for row in margins]}
    by, told = ("branch", "area"), {*columns, *(extra or {})}
    kind = Additive(
        "margins",
        total="total" if "total" in told else "",
        bounds=("dominance_bound_1", "dominance_bound_2") if "dominance_bound_1" in told else (),
        record_key="cell_key" if "cell_key" in told else "",
    )
    own = tuple(name for name in columns if name == "std_error")
    return Result(
        "table",
        "Table",
        tables,
        facts,
        ("smallest expected count 0.4",),
        by,
        basis={"cells": Basis(by, counts=("count",), own=own, kind=kind)},
        observations="observations",
        public=("method",),
    )


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    return {str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()}


def random_counts(seed: int, mean: float = 30) -> dict[tuple[str, str], int]:
    rng = np.random.default_rng(seed)
    return {(b, a): int(rng.negative_binomial(1, 1 / (1 + mean))) for b in "xyz" for a in "abcde"}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), nested=st.booleans())
def test_an_outsider_cannot_recover_an_unsafe_count_from_anything_shown(seed: int, nested: bool) -> None:
    exact = tabulated(random_counts(seed), nested, total=3.0, std_error=0.5)
    shown = released(exact)
    sums = sums_of_rows(exact.tables["cells"], exact.tables["margins"], exact.by, CODEBOOK)
    rows = [*shown.tables["cells"], *shown.tables["margins"]]
    truth = np.array([row["count"] for row in (*exact.tables["cells"], *exact.tables["margins"])], float)
    hidden = np.array([row["status"] != "released" for row in rows])
    unsafe = (truth > 0) & (truth < 10)
    assert hidden[unsafe].all()
    assert {row["status"] for row in rows} <= {"suppressed", "released"}
    for row, hide, value in zip(rows, hidden, truth, strict=True):
        assert [row[c] for c in ("count", "total")] == ([None] * 2 if hide else [value, 3 * value])
        assert row["std_error"] in ((None,) if hide else (value / 2, None))
    assert all(row["std_error"] is not None for row in rows[:15] if row["status"] == "released")
    found = intervals(sums, truth, hidden)
    assert (found[unsafe, 1] - found[unsafe, 0] >= truth[unsafe] * (1 - 1e-5)).all()
    record = shown.disclosure
    assert record["treated"] == {"suppressed": int(hidden.sum())}
    assert "primary" not in str(shown.to_dict())
    assert record["rules"] == ["minimum frequency"]
    assert record["applied_to"] == "pooled release"
    assert "10" not in str({k: v for k, v in record.items() if k in ("rules", "method", "not_evaluated")})
    if hidden.any():
        assert shown.facts["chi_square"] is None
        assert shown.notes[0].startswith("What is derived")
        assert record["audit"]["passed"] is True
        assert set(record["audit"]) == {"passed", "pattern"}


def test_a_safe_table_is_released_whole() -> None:
    exact = tabulated({(b, a): 50 for b in "xyz" for a in "abcde"})
    shown = released(exact)
    assert shown.facts == exact.facts
    assert shown.notes == exact.notes
    assert [row["count"] for row in shown.tables["cells"]] == [50] * 15
    assert shown.disclosure["treated"] == {"suppressed": 0}


def test_without_margins_the_number_of_observations_does_not_give_a_cell_away() -> None:
    exact = tabulated({("x", "a"): 3, ("y", "a"): 50, ("z", "a"): 40})
    shown = released(exact.with_(tables={"cells": exact.tables["cells"]}))
    counts = [row["count"] for row in shown.tables["cells"]]
    assert counts.count(None) == 2 or shown.facts["observations"] is None
    assert list(shown.tables) == ["cells"]


def test_dominance_bounds_decide_and_are_never_released() -> None:
    counts = {(b, a): 50 for b in "xyz" for a in "abcde"}
    exact = tabulated(counts, total=100.0, dominance_bound_1=8.0, dominance_bound_2=15.0)
    cells = [dict(row) for row in exact.tables["cells"]]
    cells[3] |= {"dominance_bound_1": 4900.0, "dominance_bound_2": 4950.0}
    shown = released(exact.with_(tables={"cells": cells, "margins": exact.tables["margins"]}), Rules())
    assert [i for i, row in enumerate(shown.tables["cells"]) if row["status"] == "suppressed" and i == 3] == [3]
    assert not any("dominance" in key for row in shown.tables["cells"] for key in row)
    assert "by_rule" not in shown.disclosure


def test_totals_without_contributions_are_recorded_as_not_evaluated() -> None:
    record = released(tabulated(random_counts(1), total=2.0), Rules()).disclosure
    assert set(record["not_evaluated"]) == {"(n,k) dominance", "p% rule"}
    assert "not known" in record["not_evaluated"]["p% rule"]


def test_rows_without_counts_or_margins_that_do_not_add_up_are_not_released() -> None:
    exact = tabulated(random_counts(2))
    cells = [{k: v for k, v in row.items() if k != "count"} for row in exact.tables["cells"]]
    with pytest.raises(Refused, match="minimum frequency"):
        released(exact.with_(tables={"cells": cells}))
    wrong = [dict(row, count=int(str(row["count"])) + 7) for row in exact.tables["margins"]]
    with pytest.raises(EngineError, match="not the sums"):
        released(exact.with_(tables={"cells": exact.tables["cells"], "margins": wrong}))


@pytest.mark.parametrize("method", ["round", "random-round", "controlled-round"])
def test_rounding_treats_every_row_and_withholds_what_is_derived(method: Any) -> None:
    exact = tabulated(random_counts(3), std_error=0.25)
    shown = released(exact, FREQUENCY.model_copy(update={"method": method, "base": 5}))
    rows = [*shown.tables["cells"], *shown.tables["margins"]]
    assert {row["status"] for row in rows} == {"rounded"}
    assert all(int(str(row["count"])) % 5 == 0 and row["std_error"] is None for row in rows)
    assert shown.facts["chi_square"] is None
    assert int(str(shown.facts["observations"])) % 5 == 0
    assert shown.disclosure["method"] == method
    assert shown.disclosure["treated"] == {"rounded": len(rows)}


def test_cell_keys_perturb_each_row_by_its_own_key_and_are_never_released() -> None:
    exact = tabulated(random_counts(4), total=2.0, extra={"cell_key": 0.97})
    rules = FREQUENCY.model_copy(update={"method": "cell-key"})
    first, again = released(exact, rules), release(exact, CODEBOOK, rules, source=stream(9, "other"))
    assert first.to_dict() == again.to_dict()
    for row, true in zip(first.tables["cells"], exact.tables["cells"], strict=True):
        assert row["status"] == "perturbed"
        assert "cell_key" not in row
        assert 0 <= int(str(row["count"])) <= int(str(true["count"])) + 5
        moved = (float(str(row["total"])) - 2 * int(str(true["count"]))) / 2  # in mean contributions
        assert moved == pytest.approx(round(moved))
        assert abs(moved) <= 5
    quotients = [float(str(row["total"])) / int(str(row["count"])) for row in first.tables["cells"] if row["count"]]
    assert any(abs(q - 2) > 0.01 for q in quotients)  # of perturbed numbers, so not the mean of 2
    with pytest.raises(UsageError, match="record-key"):
        released(tabulated(random_counts(4)), rules)


def test_rounding_does_not_pretend_to_protect_dominated_totals() -> None:
    exact = tabulated({("x", "a"): 50, ("y", "a"): 60}, total=9.0, dominance_bound_1=8.9, dominance_bound_2=8.95)
    with pytest.raises(UsageError, match="dominance"):
        released(exact, Rules(method="round"))


def model(observations: int, parameters: int, **facts: float) -> Result:
    rows: list[Row] = [{"name": f"x{i}", "estimate": 1.0, "std_error": 0.1} for i in range(parameters)]
    basis = Basis(
        keys=("name",), observations=True, own=("estimate", "std_error"), kind=Coefficients(residual_df="residual_df")
    )
    return Result(
        "ols",
        "OLS",
        {"coefficients": rows},
        {"observations": observations, **facts},
        basis={"coefficients": basis},
        observations="observations",
    )


def test_models_of_too_few_records_are_refused_by_the_name_of_the_rule_alone() -> None:
    rules = Rules(minimum_frequency=10, residual_df=17, parameters_per_record=0.21)
    assert released(model(100, 4), rules).disclosure["rules"] == [
        "minimum frequency",
        "parameters per record",
        "residual degrees of freedom",
    ]
    with pytest.raises(Refused, match="residual degrees of freedom") as error:
        released(model(20, 4), rules)
    assert "17" not in str(error.value)
    with pytest.raises(Refused, match="parameters per record") as error:
        released(model(100, 30), rules)
    assert "0.21" not in str(error.value)
    with pytest.raises(Refused, match="residual"):
        released(model(100, 4, residual_df=3), rules)
    with pytest.raises(Refused, match="not declared: number of records of table coefficients"):
        released(model(50, 2).with_(facts={}), rules)
    assert released(model(50, 2).with_(facts={}), OFF).tables["coefficients"]


def test_describe_withholds_columns_with_too_few_values_and_keeps_their_names() -> None:
    frame = pd.DataFrame({"income": [float(i) if i < 4 else None for i in range(40)], "age": range(40)})
    codebook = codebook_of(
        {"income": {"type": "number", "low": 0, "high": 99, "unit": "EUR"}, "age": ("number", 0, 99)}
    )
    exact = federate("describe", [frame], codebook, columns=["income", "age"])
    shown = release(exact, codebook, FREQUENCY, source=stream(1))
    few, enough = shown.tables["columns"]
    assert (few["column"], few["unit"], few["status"]) == ("income", "EUR", "suppressed")
    assert {few[key] for key in ("count", "mean", "variance", "std_error", "missing")} == {None}
    assert enough == {**exact.tables["columns"][1], "status": "released"}
    assert shown.disclosure["treated"]["suppressed"] == 1


def domains(counts: dict[str | None, int], **facts: Any) -> Result:
    rows = [
        {"branch": b, "column": "income", "estimate": n * 1.5, "std_error": 1.0, "quality": "A", "count": n}
        for b, n in counts.items()
    ]
    basis = Basis(("branch",), ("column",), ("count",), own=("estimate", "std_error", "quality"))
    return Result(
        "mean",
        "Mean",
        {"estimates": rows},
        facts,
        by=("branch",),
        basis={"estimates": basis},
        observations="observations" if facts else None,
    )


def statuses(result: Result) -> list[Any]:
    return [row["status"] for row in result.tables["estimates"]]


def test_a_domain_that_could_be_had_by_subtraction_takes_another_with_it() -> None:
    assert statuses(released(domains({"x": 4, "y": 40, "z": 60}))) == ["suppressed", "released", "released"]
    for shown in (
        released(domains({"x": 4, "y": 40, "z": 60, None: 104})),
        released(domains({"x": 4, "y": 40, "z": 60}, observations=104)),
    ):
        assert statuses(shown)[:3] == ["suppressed", "suppressed", "released"]
        assert shown.tables["estimates"][1]["quality"] is None
        assert shown.disclosure["treated"] == {"suppressed": 2}


def test_domains_withheld_together_stand_for_enough_records() -> None:
    shown = released(domains({"x": 3, "y": 4, "z": 60, None: 67}))
    assert statuses(shown)[:2] == ["suppressed", "suppressed"]
    assert "suppressed" in statuses(shown)[2:]


def test_a_result_from_too_few_records_shows_no_figure_at_all() -> None:
    result = Result(
        "pca",
        "PCA",
        {"components": [{"component": 1, "eigenvalue": 2.5}]},
        {"observations": 4, "sd": 1.0, "scale": True},
        basis={"components": Basis(keys=("component",), observations=True, own=("eigenvalue",))},
        observations="observations",
        public=("scale",),
    )
    shown = released(result)
    assert shown.tables["components"][0] == {"component": 1, "eigenvalue": None, "status": "suppressed"}
    assert shown.facts == {"observations": None, "sd": None, "scale": True}


def test_the_tail_of_a_survival_curve_is_withheld_and_its_times_are_kept() -> None:
    rows = [{"time": float(t), "at_risk": n, "survival": 0.9, "std_error": 0.1} for t, n in enumerate([90, 40, 6])]
    basis = {"curve": Basis(keys=("time",), counts=("at_risk",), own=("survival", "std_error"))}
    shown = released(
        Result("survival", "Survival", {"curve": rows}, {"observations": 90}, basis=basis, observations="observations")
    )
    last = shown.tables["curve"][2]
    assert [row["status"] for row in shown.tables["curve"]] == ["released", "released", "suppressed"]
    assert (last["time"], last["survival"]) == (2.0, None)


def test_private_results_pass_and_the_record_says_why_no_rule_ran() -> None:
    exact = tabulated(random_counts(5)).with_(privacy={"epsilon": 1.0})
    shown = released(exact)
    assert shown.tables["cells"] == exact.tables["cells"]
    assert shown.disclosure["rules"] == []
    assert set(shown.disclosure["not_evaluated"].values()) == {"differentially private"}


def test_rules_that_are_off_release_everything() -> None:
    exact = tabulated(random_counts(6))
    shown = released(exact, OFF)
    assert [row["count"] for row in shown.tables["cells"]] == [row["count"] for row in exact.tables["cells"]]


def test_tables_of_the_analysis_are_read_as_they_are_sent() -> None:
    rng = np.random.default_rng(0)
    areas = rng.choice(list("abcde"), 300, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    frame = pd.DataFrame({"sex": rng.choice(["f", "m"], 300), "area": areas, "income": rng.lognormal(8, 1, 300)})
    asked: list[tuple[dict[str, Any], Rules]] = [({}, FREQUENCY), ({"value": "income"}, Rules())]
    for options, rules in asked:
        exact = federate("table", split(frame, 3), CODEBOOK, rows=["sex"], columns=["area"], **options)
        shown = released(exact, rules)
        rows = [*shown.tables["cells"], *shown.tables["margins"]]
        few = [int(str(row["count"])) < 10 for row in (*exact.tables["cells"], *exact.tables["margins"])]
        assert any(few)
        for row, unsafe in zip(rows, few, strict=True):
            assert not any(key.startswith(("dominance", "cell_key")) for key in row)
            if unsafe:
                assert (row["status"], row["count"], row["total"], row["std_error"]) == ("suppressed", None, None, None)
        assert shown.facts["chi_square"] is None
        ran = {"minimum frequency"} | ({"(n,k) dominance", "p% rule"} if options else set())
        assert set(shown.disclosure["rules"]) == ran


def test_a_comparison_with_a_small_group_is_withheld_though_both_together_are_many() -> None:
    rows: list[Row] = [{"name": "income", "estimate": 2.0, "count": 90, "group_1": "f", "count_1": 4, "count_2": 86}]
    basis = {"tests": Basis(keys=("name", "group_1"), counts=("count", "count_1", "count_2"), own=("estimate",))}
    row = released(Result("ttest", "t-test", {"tests": rows}, basis=basis)).tables["tests"][0]
    assert (row["status"], row["name"], row["estimate"], row["count_2"]) == ("suppressed", "income", None, None)


def test_what_is_not_declared_is_released_only_where_no_rule_is_on() -> None:
    rows: list[Row] = [{"region": "n", "n": 1, "sum": 5000.0}, {"region": "s", "n": 90, "sum": 7000.0}]
    bare = Result("plugin", "Plugin", {"rows": rows}, {"largest": 5000.0}, by=("region",))
    with pytest.raises(Refused, match="not declared: table rows, fact largest; nothing is released"):
        released(bare)
    assert released(bare, OFF).tables["rows"] == rows
    half = bare.with_(basis={"rows": Basis(("region",), counts=("n",))}, facts={})
    with pytest.raises(Refused, match="not declared: column sum of table rows"):
        released(half)
    whole = half.with_(basis={"rows": Basis(("region",), counts=("n",), own=("sum",))})
    assert [row["sum"] for row in released(whole).tables["rows"]] == [None, 7000.0]
    for basis in (Basis(("region",), own=("n", "sum")), Basis(("region",), own=("n", "sum"), observations=True)):
        with pytest.raises(Refused, match="number of records of table rows"):
            released(half.with_(basis={"rows": basis}))


def test_a_row_that_does_not_tell_its_records_is_withheld() -> None:
    rows: list[Row] = [{"region": "n", "n": None, "sum": 5000.0}, {"region": "s", "n": 90, "sum": 7000.0}]
    basis = {"rows": Basis(("region",), counts=("n",), own=("sum",))}
    shown = released(Result("plugin", "Plugin", {"rows": rows}, basis=basis)).tables["rows"]
    assert [row["status"] for row in shown] == ["suppressed", "released"]
    assert shown[0]["sum"] is None


def test_rows_of_single_events_are_withheld_with_those_that_would_give_them_away() -> None:
    left, at_risk, rows = [12, 1, 15, 30, 2, 3], 90, []
    for t, n in enumerate(left):
        rows.append({"time": float(t), "at_risk": at_risk, "events": n, "survival": 0.9})
        at_risk -= n
    basis = Basis(keys=("time",), counts=("at_risk", "events"), own=("survival",), flows=("events",))
    shown = released(Result("survival", "Survival", {"curve": rows}, basis={"curve": basis})).tables["curve"]
    assert [row["events"] for row in shown] == [12, None, None, None, None, None]
    # 1 is the difference of its neighbours, so 15 goes with it; 2 and 3 are together too few, so 30 goes with them
    assert [row["time"] for row in shown] == [0, 1, 2, 3, 4, 5]


def test_numbers_of_other_records_are_withheld_alone_where_they_are_too_small() -> None:
    few = domains({"x": 40, "y": 60}, observations=100, missing=1, left_out=0).with_(numbers=("missing", "left_out"))
    shown = released(few.with_(notes=("1 record misses a weight: left out", "a note")))
    assert shown.facts == {"observations": 100, "missing": None, "left_out": 0}
    assert shown.notes == ("a note", "Numbers of records that are too small to be shown are withheld.")
    assert statuses(shown) == ["released", "released"]
    rows: list[Row] = [{"column": "a", "count": 97, "missing": 3}, {"column": "b", "count": 100, "missing": 0}]
    basis = {"columns": Basis(keys=("column",), counts=("count",), numbers=("missing",))}
    told = Result("describe", "D", {"columns": rows}, {"records": 100}, basis=basis, observations="records")
    assert [row["missing"] for row in released(told).tables["columns"]] == [None, 0]
    assert released(told).facts == {"records": None}


def test_figures_of_several_rows_go_with_the_first_row_that_is_withheld() -> None:
    result = domains({"x": 4, "y": 40, "z": 60})
    basis = {**result.basis, "all": Basis(keys=("column",), counts=("count",), own=("mean",), derived=("f",))}
    rows: list[Row] = [{"column": "income", "mean": 2.0, "f": 3.0, "count": 104}]
    shown = released(result.with_(tables={**result.tables, "all": rows}, basis=basis)).tables["all"][0]
    assert (shown["mean"], shown["f"]) == (2.0, None)
