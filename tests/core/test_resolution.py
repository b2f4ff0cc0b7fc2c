"""Results against what their totals may be off by: a method's own coordination, gone through again."""

from collections.abc import Callable

import numpy as np
import pytest

from statfed.core.errors import Refused
from statfed.core.method import Ask, Coordination, Total
from statfed.core.resolution import Told, check
from statfed.core.result import Basis, Result, Row


def spread(value: float, squares: float) -> Result:
    row: Row = {"name": "x", "estimate": value, "std_error": float(np.sqrt(max(squares, 0.0))), "count": 3}
    basis = Basis(keys=("name",), counts=("count",), own=("estimate", "std_error"))
    return Result("toy", "Toy", {"estimates": [row]}, basis={"estimates": basis})


def told(
    coordination: Callable[[], Coordination], *totals: tuple[dict[str, float], dict[str, float]]
) -> tuple[list[Told], Result]:
    """A run and its result. totals: entries and what they may be off by."""
    run, found, answer = coordination(), [], None
    for arrays, off in totals:
        ask = run.send(answer) if answer else next(run)
        answer = Total({k: np.array(v) for k, v in arrays.items()}, resolution={k: np.array(v) for k, v in off.items()})
        found.append(Told(ask, answer))
    with pytest.raises(StopIteration) as end:
        run.send(answer)  # type: ignore[arg-type]
    return found, end.value.value


def cancelling() -> Coordination:
    first = yield Ask("sums")
    second = yield Ask("squares", {"centre": np.asarray(first["sum"] / 3)})
    return spread(float(first["sum"]) / 3, float(second["squares"]) - float(second["power"]) ** 2 / 3)


def test_a_standard_error_below_the_unit_of_its_squares_is_refused_by_name_and_without_its_value() -> None:
    heard, result = told(
        cancelling, ({"sum": 15.0}, {"sum": 1e-12}), ({"squares": 12.0, "power": 0.0}, {"squares": 7.0, "power": 0.1})
    )
    with pytest.raises(Refused, match=r"std_error of \w+: got from totals .*squares\.squares to 7\.0e\+00") as error:
        check(cancelling, heard, result, "secure-aggregation")
    assert "3.46" not in str(error.value)
    heard, result = told(
        cancelling, ({"sum": 15.0}, {"sum": 1e-12}), ({"squares": 9.0, "power": 0.0}, {"squares": 7.0, "power": 0.1})
    )
    with pytest.raises(Refused) as other:  # of another value: the same words
        check(cancelling, heard, result, "secure-aggregation")
    assert str(other.value) == str(error.value)


@pytest.mark.parametrize("off", [0.0, 1e-20, 1e-9])
def test_figures_that_a_unit_hardly_moves_are_released(off: float) -> None:
    heard, result = told(
        cancelling, ({"sum": 15.0}, {"sum": off}), ({"squares": 12.0, "power": 0.0}, {"squares": off, "power": off})
    )
    check(cancelling, heard, result, "secure-aggregation")


def test_a_variance_that_was_cut_off_at_zero_is_not_taken_for_known() -> None:
    """Its figure moves under one of two opposite draws alone."""
    heard, result = told(
        cancelling, ({"sum": 15.0}, {}), ({"squares": 11.0, "power": 6.0}, {"squares": 4.0, "power": 0.0})
    )
    assert result.tables["estimates"][0]["std_error"] == 0
    with pytest.raises(Refused, match="std_error"):
        check(cancelling, heard, result, "secure-aggregation")


def test_a_total_of_zero_is_one_of_zeros() -> None:
    heard, result = told(
        cancelling, ({"sum": 15.0}, {}), ({"squares": 0.0, "power": 0.0}, {"squares": 4.0, "power": 1.0})
    )
    check(cancelling, heard, result, "secure-aggregation")


def iterating() -> Coordination:
    """Halves until a total is below 1, which rounding may decide."""
    number, total = 0, yield_nothing()
    while True:
        total = yield Ask("step", {"number": np.array(float(number))})
        number += 1
        if float(total["left"]) < 1.0:
            return spread(float(total["value"]), 1.0)


def yield_nothing() -> Total:
    return Total({})


def test_a_method_that_goes_on_longer_for_rounding_is_told_its_last_total_again() -> None:
    step = {"left": 0.999999999, "value": 5.0}
    heard, result = told(iterating, ({"left": 2.0, "value": 4.0}, {}), (step, {"left": 1e-9}))
    with pytest.raises(Refused, match="course of the method"):  # it would never end
        check(iterating, heard, result, "secure-aggregation")
    heard, result = told(iterating, ({"left": 2.0, "value": 4.0}, {}), (step, {"left": 1e-12}))
    check(iterating, heard, result, "secure-aggregation")


def branching() -> Coordination:
    first = yield Ask("first")
    name = "above" if float(first["x"]) > 1.0 else "below"
    total = yield Ask(name)
    return spread(float(total["x"]), 1.0)


def test_a_course_that_rounding_decides_is_refused() -> None:
    heard, result = told(branching, ({"x": 1.0 + 1e-9}, {"x": 1e-8}), ({"x": 1.0}, {}))
    with pytest.raises(Refused, match="course of the method"):
        check(branching, heard, result, "multi-party")
