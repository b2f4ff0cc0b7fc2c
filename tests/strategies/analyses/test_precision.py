"""Figures of data that differ little: beside the bounds of the codebook, in fixed point, and beside their own size."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused
from statfed.core.method import load_method
from statfed.core.progress import silent
from statfed.core.resolution import moved
from statfed.core.result import Result
from statfed.core.terms import Terms
from statfed.lab.laws.frames import codebook_of, holder_table
from statfed.lab.laws.walk import finished, steps
from statfed.strategies.analyses._survey import estimate_row

NINE = [pd.DataFrame({"x": values}) for values in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0])]
STRATIFIED = {"h": {"type": "category", "categories": ["p", "q"], "role": "stratum"}}
WEIGHTED = {**STRATIFIED, "w": {"type": "number", "low": 0.1, "high": 1, "role": "weight"}}


def asked(
    method: str, options: dict[str, Any], book: Codebook, frames: list[pd.DataFrame], *, encoded: bool = False
) -> Result:
    names = tuple(f"h{i}" for i in range(len(frames)))
    terms = Terms(method=method, options=options, codebook=book, holders=names, seed=1)
    found: Result = finished(terms, dict(zip(names, frames, strict=True)), encoded=encoded)
    return found


def first_row(result: Result) -> dict[str, Any]:
    return dict(result.tables[result.main][0])


@pytest.mark.parametrize(("low", "high"), [(0.0, 1e4), (0.0, 1e12), (-1e12, 0.0), (-1e20, 1e20)])
@pytest.mark.parametrize("method", ["mean", "total", "describe"])
def test_bounds_far_wider_than_the_data_leave_every_figure(method: str, low: float, high: float) -> None:
    frames = [frame * (1.0 if high else -1.0) for frame in NINE]
    book = codebook_of({"x": ("number", low, high)})
    plain, encoded = (asked(method, {"columns": ["x"]}, book, frames, encoded=way) for way in (False, True))
    assert moved(plain, encoded) is None
    assert first_row(encoded)["std_error"] == pytest.approx(0.9128709 * (9 if method == "total" else 1))


@pytest.mark.parametrize("method", ["mean", "total", "describe", "variance", "covariance", "ttest", "ols", "pca"])
def test_bounds_that_hide_the_data_are_refused_or_hide_nothing(method: str) -> None:
    book = codebook_of({"x": ("number", 0, 2e47), "z": ("number", 0, 2e47)})
    frames = [frame.assign(z=(frame.x * 7) % 5) for frame in NINE]
    options: dict[str, Any] = {"formula": "x ~ z"} if method == "ols" else {"columns": ["x"]}
    if method in ("covariance", "pca"):
        options = {"columns": ["x", "z"]}
    plain = asked(method, options, book, frames)
    try:
        encoded = asked(method, options, book, frames, encoded=True)
    except Refused as error:
        assert "want bounds in the codebook" in str(error)  # noqa: PT017
    else:
        assert moved(plain, encoded) is None


def test_data_below_the_unit_of_what_has_no_bounds_are_refused() -> None:
    book = codebook_of({"x": "number"})
    small = [frame * 1e-15 for frame in NINE]
    with pytest.raises(Refused, match=r"of estimates: got from totals .*want bounds in the codebook"):
        asked("mean", {"columns": ["x"]}, book, small, encoded=True)


def test_a_constant_column_has_a_standard_error_of_zero_in_fixed_point_too() -> None:
    book = codebook_of({"x": ("number", 0, 1000)})
    for method in ("mean", "describe"):
        row = first_row(asked(method, {"columns": ["x"]}, book, [0 * frame + 0.1 for frame in NINE], encoded=True))
        assert row["std_error"] == pytest.approx(0, abs=1e-12)


def stratified(y: list[float], w: list[float], strata: str) -> list[pd.DataFrame]:
    frame = pd.DataFrame({"y": y, "w": w, "h": list(strata)})
    return [frame.iloc[::2], frame.iloc[1::2]]


@pytest.mark.parametrize("encoded", [False, True])
def test_a_stratified_weighted_total_of_large_values_has_the_error_of_what_differs(encoded: bool) -> None:
    book = codebook_of({"y": ("number", 0, 2e8), **WEIGHTED})
    y = [1e8, 1e8 + 1, 1e8 + 2, 1e8, 1e8 + 1, 1e8 + 3]
    frames = stratified(y, [0.1] * 3 + [0.3] * 3, "pppqqq")
    row = first_row(asked("total", {"columns": ["y"], "design": True}, book, frames, encoded=encoded))
    assert row["std_error"] == pytest.approx(np.sqrt(3 * 0.01 + 3 * 0.09 * 7 / 3), rel=1e-7)


def test_strata_far_apart_do_not_hide_the_spread_within_them() -> None:
    book = codebook_of({"y": ("number", 0, 2e8), **WEIGHTED})
    y = [1e8, 1e8 + 1, 1e8 + 2, 0.0, 1.0, 3.0]
    frames = stratified(y, [0.1] * 3 + [0.3] * 3, "pppqqq")
    total = first_row(asked("total", {"columns": ["y"], "design": True}, book, frames))
    mean = first_row(asked("mean", {"columns": ["y"], "design": True}, book, frames))
    assert total["std_error"] == pytest.approx(np.sqrt(3 * 0.01 + 3 * 0.09 * 7 / 3), rel=1e-6)
    assert mean["std_error"] == pytest.approx(total["std_error"] / 1.2, rel=1e-6)


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("by", [[], ["h"]])
def test_numbers_of_units_with_constant_weights_are_known(by: list[str], encoded: bool) -> None:
    book = codebook_of({"y": ("number", 0, 9), **WEIGHTED})
    frames = stratified([1.0] * 7, [0.1] * 3 + [0.3] * 4, "pppqqqq")
    result = asked("count", {"design": True, "by": by}, book, frames, encoded=encoded)
    for row in result.tables["estimates"]:
        assert row["std_error"] == 0
        assert row["quality"] is None


@pytest.mark.parametrize("options", [{}, {"by": ["g"]}])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("method", ["total", "mean", "count"])
def test_a_second_look_agrees_with_the_first_where_that_has_its_digits(
    method: str,
    nested: bool,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {"y": ("number", 0, 9), "g": ["a", "b"], **WEIGHTED}
    if nested:
        columns["c"] = {"type": "id", "role": "psu"}
    strata = rng.choice(["p", "q"], 60)
    frame = pd.DataFrame({"y": rng.uniform(0, 9, 60), "h": strata, "w": rng.uniform(0.1, 1, 60)})
    frame["g"], frame["c"] = rng.choice(["a", "b"], 60), [h + str(i % 7) for i, h in enumerate(strata)]
    frame["y"] = frame["y"].where(rng.random(60) < 0.9)
    pieces = [piece for _, piece in frame.groupby(frame.c.isin(["p0", "q1", "p3", "q6"]))]
    asking = {"design": True, **options} | ({} if method == "count" else {"columns": ["y"]})
    book = codebook_of(columns)
    if nested:
        book = book.model_copy(update={"design": book.design.model_copy(update={"psu_spans_holders": False})})
    before = asked(method, asking, book, pieces)
    monkeypatch.setattr("statfed.strategies.analyses._centred.SMALL", np.inf)
    terms = Terms(method=method, options=asking, codebook=book, holders=("a", "b"), seed=1)
    seen = [step.ask.name for step in steps(terms, dict(zip("ab", pieces, strict=True)))]
    assert seen == ["sums", "squares", "centred"]
    after = asked(method, asking, book, pieces)
    assert moved(before, after) is None


def test_a_second_look_adds_up_over_holders_and_keeps_to_its_bounds() -> None:
    book = codebook_of({"y": ("number", 0, 2e8), **WEIGHTED})
    frames = stratified([1e8 + i for i in range(7)], [0.1] * 3 + [0.3] * 4, "pppqqqq")
    terms = Terms(method="total", options={"columns": ["y"], "design": True}, codebook=book, holders=("a", "b"), seed=1)
    (step,) = (s for s in steps(terms, dict(zip("ab", frames, strict=True))) if s.ask.name == "centred")
    whole = step.sent(holder_table(pd.concat(frames), book))
    for name in step.parts:
        assert np.allclose(sum(sent[name] for sent in step.contributions.values()), whole[name], atol=1e-6), name
    for frame in frames:
        for i in range(len(frame)):
            one = step.sent(holder_table(frame.iloc[[i]], book))
            assert all((np.abs(one[name]) <= part.bound).all() for name, part in step.parts.items())


OFF = 1e8
FRAME = pd.DataFrame(np.random.default_rng(2).normal(size=(90, 2)), columns=["x", "z"])
FRAME["g"] = np.where(np.arange(90) % 3 == 0, "a", "b")


@pytest.mark.parametrize(
    ("method", "options", "figure"),
    [
        ("mean", {"columns": ["x"]}, "std_error"),
        ("mean", {"columns": ["x"], "by": ["g"]}, "std_error"),
        ("total", {"columns": ["x"]}, "std_error"),
        ("describe", {"columns": ["x"]}, "variance"),
        ("variance", {"columns": ["x"]}, "estimate"),
        ("variance", {"columns": ["x"], "by": ["g"]}, "std_error"),
        ("covariance", {"columns": ["x", "z"]}, "covariance"),
        ("ttest", {"columns": ["x"], "by": "g"}, "std_error"),
        ("pca", {"columns": ["x", "z"]}, "eigenvalue"),
    ],
)
def test_values_of_one_hundred_million_and_a_little_vary_as_the_little_does(
    method: str, options: dict[str, Any], figure: str
) -> None:
    """As on centred data, to what is left of float64: 10^-8 of a value."""

    def figures(offset: float) -> list[Any]:
        book = codebook_of(dict.fromkeys("xz", ("number", offset - 9, offset + 9)) | {"g": ["a", "b"]})
        frame = FRAME.assign(x=FRAME.x + offset, z=FRAME.z + offset)
        result = asked(method, options, book, [frame.iloc[i::3] for i in range(3)])
        return [row[figure] for row in result.tables[result.main]]

    assert figures(OFF) == pytest.approx(figures(0.0), rel=1e-6)


def test_replicates_of_large_totals_differ_as_their_values_do() -> None:
    weights = {f"r{i}": {"type": "number", "low": 0, "high": 4, "role": "replicate"} for i in range(4)}
    rng = np.random.default_rng(4)
    frame = FRAME.assign(w=1.0)
    for i in range(4):  # as many units in each replicate
        frame[f"r{i}"] = np.tile(rng.permutation([0.5, 1.5]), 45)

    def error(offset: float) -> float:
        book = codebook_of(
            {"x": ("number", offset - 9, offset + 9), "w": {"type": "number", "low": 0, "high": 4, "role": "weight"}}
            | weights,
            design={"replicate_method": "bootstrap"},
        )
        result = asked("total", {"columns": ["x"], "design": True}, book, [frame.assign(x=frame.x + offset)])
        return float(first_row(result)["std_error"])

    assert error(OFF) == pytest.approx(error(0.0), rel=1e-6)


def test_grades_only_where_an_error_says_something() -> None:
    assert estimate_row({}, 10.0, 0.0)["quality"] is None
    assert estimate_row({}, 10.0, 0.01, records=1)["quality"] is None
    assert estimate_row({}, 10.0, 0.01, records=2)["quality"] == "A"
    book = codebook_of({"x": ("number", 0, 10), "g": ["a", "b"]})
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "g": ["a", "b", "b", "b"]})
    rows = asked("mean", {"columns": ["x"], "by": ["g"]}, book, [frame]).tables["estimates"]
    assert [row["quality"] is None for row in rows] == [True, False]


def test_a_law_of_precision_breaks_a_method_whose_totals_do_not_say_what_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With narrow words alone, and nothing held against the result, the variance is gone."""
    from statfed.lab.laws.check import judge
    from statfed.lab.laws.methods import PRECISE, Subject

    monkeypatch.setattr("statfed.core.fixed_point.LONGEST", 0)
    subject = Subject("describe", load_method("describe"))
    (careful,) = judge([PRECISE], subject, silent)
    assert careful.passed, careful.detail
    assert "refused at" in careful.detail
    monkeypatch.setattr("statfed.lab.laws.walk.check", lambda *_: None)
    (check,) = judge([PRECISE], subject, silent)
    assert check.passed is False
    assert "want the figure without encoding, or a refusal" in check.detail


def test_a_margin_of_large_values_has_an_error_that_is_known_or_none() -> None:
    book = codebook_of({"x": ("number", 0, 2e8), "g": ["a", "b"], **WEIGHTED})
    frame = FRAME.assign(x=FRAME.x + OFF, w=0.1, h="p")
    rows = asked("table", {"rows": ["g"], "value": "x"}, book, [frame]).tables
    assert [row["std_error"] is None for row in (*rows["cells"], *rows["margins"])] == [False, False, True]
    whole = frame.assign(x=np.arange(90.0))
    margin = asked("table", {"rows": ["g"], "value": "x"}, book, [whole]).tables["margins"][0]
    assert margin["std_error"] == pytest.approx(90 * np.std(whole.x, ddof=1) / np.sqrt(90))
    constant = asked("table", {"rows": ["g"], "value": "x"}, book, [frame.assign(x=5.0)]).tables["margins"][0]
    assert constant["std_error"] == 0
    units = asked("table", {"rows": ["g"], "design": True}, book, [frame]).tables["margins"][0]
    assert units["std_error"] == 0
