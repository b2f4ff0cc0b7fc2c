"""Arithmetic on shares against plain arithmetic, and what each of the three sees of it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from statfed.core.errors import Refused, UsageError
from statfed.core.randomness import Stream
from statfed.strategies.linkages import _waves
from statfed.strategies.linkages._rounds import Letter, Mail, Out
from statfed.strategies.linkages._shares import Computer, Dealer, Machine, Value, multiplied, opened

RNG = np.random.default_rng
FIRST, SECOND, DEALER = "first", "second", "dealer"


def worked(
    program: Callable[[Machine, list[Value]], Any], inputs: Sequence[NDArray[Any]], seed: int = 1
) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Results by party, and all mail that each has read, of a program on shares of these whole numbers."""
    keys = [RNG(seed + i).bytes(16) for i in (0, 1)]
    machines: dict[str, Machine] = {
        FIRST: Computer(SECOND, DEALER, True, Stream(keys[0])),
        SECOND: Computer(FIRST, DEALER, False, Stream(keys[1])),
        DEALER: Dealer(SECOND, (Stream(keys[0]), Stream(keys[1]))),
    }
    values: dict[str, list[Value]] = {name: [] for name in machines}
    for array in inputs:
        whole = np.asarray(array).astype(np.int64).view(np.uint64)
        share = RNG(seed + 2).integers(0, 2**64, whole.shape, np.uint64)
        values[FIRST].append(Value(whole.shape, share))
        values[SECOND].append(Value(whole.shape, whole - share))
        values[DEALER].append(Value(whole.shape))
    running = {name: program(machines[name], values[name]) for name in machines}
    out: dict[str, Out] = {name: next(each) for name, each in running.items()}
    results: dict[str, Any] = {}
    seen: dict[str, list[bytes]] = {name: [] for name in machines}
    while not results:
        letters: dict[str, dict[str, Letter]] = {name: {} for name in machines}
        for sender, given in out.items():
            for to, arrays in given.mail.items():
                content = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
                seen[to].append(content)
                letters[to][sender] = Letter(sender, content)
        out = {}
        for name, each in running.items():
            try:
                out[name] = each.send(Mail(letters[name]))
            except StopIteration as end:
                results[name] = end.value
        for each_letters in letters.values():
            for letter in each_letters.values():
                letter.end()
    assert set(results) == set(machines), "the three are not in step"
    assert not seen[DEALER], "the dealer was told something"
    return results, seen


def whole(results: dict[str, Any], i: int | None = None) -> NDArray[np.int64]:
    one, two = (results[name] if i is None else results[name][i] for name in (FIRST, SECOND))
    return opened([one.share, two.share])


@pytest.mark.parametrize(("p", "q"), [(3, 2), (40, 50)], ids=["by columns", "by pieces"])
def test_a_matrix_product_is_that_of_whole_numbers_whatever_wraps_round(p: int, q: int) -> None:
    x, y = (RNG(3).integers(0, 2**64, (1300, k), np.uint64) for k in (p, q))
    wanted = np.stack([(x * column[:, None]).sum(axis=0, dtype=np.uint64) for column in y.T], axis=1)
    np.testing.assert_array_equal(multiplied(x, y), wanted)


def test_products_are_right_also_where_a_value_is_used_again() -> None:
    x, y, w = (
        RNG(4).integers(-(2**20), 2**20, (300, 3)),
        RNG(5).integers(-99, 99, (300, 2)),
        RNG(6).integers(0, 2, (300, 1)),
    )

    def program(m: Machine, v: list[Value]) -> Any:
        first = yield from m.products([(v[0], v[1], "matrix"), (v[2], v[0], "outer"), (v[0], v[0], "matrix")])
        second = yield from m.products([(v[0], v[1], "matrix"), (first[1], v[1], "outer")])
        return [*first, *second]

    results, _ = worked(program, [x, y, w])
    np.testing.assert_array_equal(whole(results, 0), x.T @ y)
    np.testing.assert_array_equal(whole(results, 1), w * x)
    np.testing.assert_array_equal(whole(results, 2), x.T @ x)
    np.testing.assert_array_equal(whole(results, 3), x.T @ y)
    np.testing.assert_array_equal(whole(results, 4), np.einsum("np,nq->npq", w * x, y).reshape(300, 6))


@pytest.mark.parametrize("minimum", [2, 5, 2000])
def test_exactly_the_counts_below_the_minimum_and_not_nothing_are_few(minimum: int) -> None:
    counts = np.array([[0, 1, 2, 4, 5, 6, 99, 999, 1000]])
    results, _ = worked(lambda m, v: m.few(v[0], minimum, 1000), [counts])
    np.testing.assert_array_equal(results[FIRST], (counts > 0) & (counts < minimum))
    np.testing.assert_array_equal(results[SECOND], results[FIRST])
    assert results[DEALER] is None


@pytest.mark.parametrize("counts", [[0, 5, 6, 1000], [0, 4, 5], [1, 2, 3, 4], [0], [7], [1], [0] * 70 + [3]], ids=str)
def test_one_bit_says_whether_any_count_is_few(counts: list[int]) -> None:
    results, _ = worked(lambda m, v: m.any_few(v[0], 5, 1000), [np.array([counts])])
    assert results[FIRST].tolist() == [any(0 < count < 5 for count in counts)] == results[SECOND].tolist()
    assert results[DEALER] is None


def test_bits_that_are_counted_are_masked() -> None:
    """Of 6,400 counts that all are few the bits that go out look like coins. Fails without the dealt bit."""
    _, seen = worked(lambda m, v: m.any_few(v[0], 5, 63), [np.full((6400, 1), 3)])
    for name in (FIRST, SECOND):
        (bits,) = (part for part in seen[name] if len(part) == 8 * 6400 and (np.frombuffer(part, "<u8") < 2).all())
        assert abs(np.frombuffer(bits, "<u8").astype(int).sum() - 3200) < 240  # six standard deviations


def test_a_division_never_fails_is_off_by_less_than_one_and_has_no_bias() -> None:
    bits = np.array([20, 40], np.uint64)
    x = np.concatenate([RNG(7).integers(-(2**62) + 1, 2**62, (20_000, 2)), [[0, 0], [2**62 - 1, 1 - 2**62]]])
    results, _ = worked(lambda m, v: m.halved(v[0], bits), [x])
    off = whole(results) - x.astype(np.longdouble) / 2.0 ** bits.astype(float)
    assert np.abs(off).max() < 1
    assert np.abs(off.mean(axis=0)).max() < 5 / math.sqrt(6 * len(x))


def test_waves_give_the_logistic_function_its_derivative_and_its_integral_within_the_stated_error() -> None:
    x = np.concatenate([RNG(8).normal(0, 4, 3000), [-20.0, 0.0, 20.0]])
    series = _waves.plan(20.0)
    turns = np.rint(x / series.period * 2.0**53).astype(np.int64)[:, None] * (1 << 11)
    results, _ = worked(lambda m, v: m.waves(v[0], series.factors), [turns])
    waves = whole(results) / 2.0**_waves.SCALE
    mean = 1 / (1 + np.exp(-x))
    rounding = 2.0**-24
    assert series.off < 1e-9
    assert np.abs(0.5 + x / series.period + waves[:, 0] - mean).max() < series.off + rounding
    assert np.abs(1 / series.period + waves[:, 1] - mean * (1 - mean)).max() < 2 * series.off + rounding
    softplus = series.level + x**2 / (2 * series.period) + waves[:, 2]
    assert np.abs(softplus - np.log(2 * np.cosh(x / 2))).max() < 20 * series.off + rounding


@pytest.mark.parametrize("reach", [0.0, 3.0, 15.0, 35.0])
def test_the_stated_error_bounds_the_series_in_exact_cosines(reach: float) -> None:
    series = _waves.plan(reach)
    x = np.linspace(-reach, reach, 999)
    k = 2 * np.pi * np.arange(1, _waves.FREQUENCIES + 1) / series.period
    found = 0.5 + x / series.period + np.sin(np.outer(x, k)) @ series.factors[0, 0]
    assert np.abs(found - 1 / (1 + np.exp(-x))).max() <= series.off + 1e-15


@pytest.mark.parametrize("reach", [60.0, math.inf, math.nan])
def test_a_linear_predictor_beyond_the_series_is_refused(reach: float) -> None:
    with pytest.raises(UsageError, match="bounds"):
        _waves.plan(reach)


def test_what_the_computing_parties_see_is_uniform_whatever_the_numbers() -> None:
    """Every word that is mailed, of values that are all alike: by bits and by bytes. Fails if a mask is left out."""

    def program(m: Machine, v: list[Value]) -> Any:
        (a,) = yield from m.products([(v[0], v[0], "outer")])
        b = yield from m.halved(a, np.array([3], np.uint64))
        c = yield from m.waves(b, _waves.plan(1.0).factors)
        return c

    _, seen = worked(program, [np.zeros((2000, 1))])
    for name in (FIRST, SECOND):
        masked = [part for part in seen[name] if len(part) >= 16_000]
        assert len(masked) >= 3
        for part in masked:
            assert stats.chisquare(np.bincount(np.frombuffer(part, np.uint8), minlength=256)).pvalue > 1e-6


def test_the_place_in_a_truth_table_is_uniform_whatever_the_count() -> None:
    _, seen = worked(lambda m, v: m.few(v[0], 5, 63), [np.full((6400, 1), 3)])
    for name in (FIRST, SECOND):
        (places,) = (part for part in seen[name] if len(part) == 8 * 6400 and (np.frombuffer(part, "<u8") < 64).all())
        assert stats.chisquare(np.bincount(np.frombuffer(places, "<u8").astype(int), minlength=64)).pvalue > 1e-6


@pytest.mark.parametrize("wrong", [np.zeros(2, np.uint64), np.zeros(3)], ids=["shorter", "floats"])
def test_shares_of_another_form_are_not_put_together(wrong: Any) -> None:
    with pytest.raises(Refused, match="different form"):
        opened([np.zeros(3, np.uint64), wrong])


def test_a_letter_of_another_length_is_refused() -> None:
    letter = Letter("first", bytes(16))
    letter.take((1,))
    with pytest.raises(Refused, match="more than wanted"):
        letter.end()
    with pytest.raises(Refused, match="want 24"):
        letter.take((2,))
