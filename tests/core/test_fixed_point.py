import math

import numpy as np
import pytest

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import LONGEST, MOST_RECORDS, Layout, Slot, layout_of
from statfed.core.method import Ask, Part
from statfed.core.protection import agree, request_of
from statfed.core.resolve import resolve
from tests.conftest import toy_terms
from tests.protocol import Network, agreement

RNG = np.random.default_rng(3)
SIZES = {"a": 50, "b": 150}


def test_a_total_of_encodings_is_the_sum_to_the_last_bits_of_the_range() -> None:
    parts = {"x": Part((4,), bound=np.array([1e-3, 1.0, 1e6, 0.0])), "n": Part((), bound=1, integer=True)}
    layout = layout_of(parts, SIZES, fine=False)
    assert layout.bits == 64
    sent = [
        {"x": RNG.uniform(-1, 1, 4) * np.array([1e-3, 1.0, 1e6, 0.0]) * n, "n": np.array(n)} for n in SIZES.values()
    ]
    total = layout.decode(np.sum([layout.encode(arrays) for arrays in sent], axis=0))
    assert total["n"] == 200
    assert total["n"].dtype == np.int64
    error = np.abs(total["x"] - sum(arrays["x"] for arrays in sent))
    assert (error <= np.array([1e-3, 1.0, 1e6, 0.0]) * 400 * 2.0**-60).all()


def test_entries_without_a_bound_are_encoded_without_loss() -> None:
    layout = layout_of({"score": Part((3,)), "n": Part((), bound=1, integer=True)}, SIZES)
    assert layout.bits == 192
    sent = [{"score": np.array([1e-9, -3.7e15, 2.0**100 / 3]), "n": np.array(4)} for _ in range(2)]
    total = layout.decode(np.sum([layout.encode(arrays) for arrays in sent], axis=0))
    assert total["n"] == 8
    assert np.allclose(total["score"], 2 * sent[0]["score"], rtol=1e-13, atol=0)


def test_small_whole_numbers_travel_in_32_bits_and_updates_when_asked_for() -> None:
    assert layout_of({"n": Part((5,), bound=1, integer=True)}, SIZES).bits == 32
    assert layout_of({"n": Part((5,), bound=2**40, integer=True)}, SIZES).bits == 64
    assert Layout({"u": Slot((5,), 100.0)}, 2, narrow=True).bits == 32


@pytest.mark.parametrize("value", [401.0, -401.0])
def test_a_value_outside_the_range_is_refused_and_not_clipped(value: float) -> None:
    layout = layout_of({"x": Part((2,), bound=1.0)}, SIZES)
    with pytest.raises(Refused, match="x: got a value outside the range"):
        layout.encode({"x": np.array([0.0, value])})
    with pytest.raises(Refused):
        layout.for_holder(0.25).encode({"x": np.array([0.0, 101.0])})
    layout.for_holder(0.25).encode({"x": np.array([0.0, 100.0])})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bound", [1.0, np.array([1.0, 1.0]), np.inf])
def test_a_value_that_is_not_finite_is_an_error(bad: float, bound: float) -> None:
    with pytest.raises((EngineError, Refused)):
        layout_of({"x": Part((2,), bound=bound)}, SIZES).encode({"x": np.array([0.0, bad])})


def test_a_total_outside_the_agreed_range_is_an_error() -> None:
    layout = layout_of({"x": Part((1,), bound=1.0)}, SIZES, fine=False)
    with pytest.raises(EngineError, match="outside the agreed range"):
        layout.decode(np.array([2**62 + 1], np.int64))


def test_plain_sums_are_what_was_sent() -> None:
    network = Network(agreement("plain"))
    layout = layout_of({"x": Part((2,), bound=1.0)}, network.agreement.sizes)
    sent = {name: {"x": RNG.normal(size=2)} for name in network.agreement.holders}
    exact = [math.fsum(arrays["x"][i] for arrays in sent.values()) for i in range(2)]
    assert network.sum(sent, layout).total["x"].tolist() == exact
    network.drops = {"contribute": ["h001"]}
    with pytest.raises(EngineError, match="no answer from h001; want every holder"):
        network.sum(sent, layout)


def test_a_wide_total_of_whole_numbers_beyond_an_integer_is_an_error() -> None:
    layout = layout_of({"score": Part((1,)), "n": Part((), bound=1, integer=True)}, SIZES)
    with pytest.raises(EngineError, match="n: got a sum outside the agreed range"):
        layout.decode(np.array([1 << 160, 0], object))


def test_the_least_whole_number_has_no_absolute_value_and_is_refused() -> None:
    layout = Layout({"n": Slot((1,), np.array([10.0]), integer=True)}, 2)
    with pytest.raises(Refused, match="n: got a value outside the range"):
        layout.encode({"n": np.array([np.iinfo(np.int64).min])})


@pytest.mark.parametrize(
    ("sizes", "holders", "wanted"),
    [
        ({"a": 1000, "b": 1000, "c": -1999}, ("a", "b", "c"), "1 or more each"),  # a's range wraps 64 bits
        ({"a": 1000, "b": 1000, "c": 0}, ("a", "b", "c"), "1 or more each"),
        ({"a": 1000, "b": 1000, "c": MOST_RECORDS}, ("a", "b", "c"), "at most 1099511627776 together"),
        ({"a": 1000, "b": 1000}, ("a", "b", "b"), "holders: got a, b, b; want each once"),
    ],
)
def test_sizes_or_names_that_a_coordinator_made_up_are_refused(
    sizes: dict[str, int], holders: tuple[str, ...], wanted: str
) -> None:
    terms = toy_terms(protection={"name": "secure-aggregation"}).model_copy(update={"holders": holders})
    with pytest.raises(UsageError, match=wanted):
        agree("run", terms, sizes)


def test_no_unit_is_coarse_beside_a_record_whatever_sizes_the_coordinator_tells() -> None:
    sizes = {"a": 1000, "b": 1000, "c": MOST_RECORDS - 2000}
    layout = layout_of({"x": Part((), bound=1.0)}, sizes)
    assert layout.decode(layout.encode({"x": np.array(2.0**-19)}))["x"] == 2.0**-19


def test_updates_travel_in_32_bits_unless_the_smallest_holder_would_lose_too_much() -> None:
    study = resolve(toy_terms(holders=("a", "b", "c"), protection={"name": "secure-aggregation"}))
    fit = Ask("fit")
    for most, bits in ((1000, 32), (2**30 - 2000, 64)):
        layout = study.layout(fit, study.parts(fit), None, {"a": 1000, "b": 1000, "c": most})
        assert layout.bits == bits


def test_a_holder_may_use_its_whole_share_whatever_the_sizes_are() -> None:
    """15 / 22 * 22 is below 15 in float64, as of one pair of sizes in 25."""
    for whole in range(2, 120):
        for own in range(1, whole):
            layout = Layout({"weight": Slot((), float(whole), integer=True)}, 2).for_holder(own / whole)
            assert layout.encode({"weight": np.array(own)}).tolist() == [own]
            with pytest.raises(Refused, match="outside the range"):
                layout.encode({"weight": np.array(own + 1)})


def test_figures_have_units_that_bounds_far_too_wide_do_not_make_coarse() -> None:
    layout = layout_of({"squares": Part((), bound=1e40), "n": Part((), bound=1, integer=True)}, SIZES)
    assert layout.bits == 192
    sent = [{"squares": np.array(x), "n": np.array(1)} for x in (1.25, 0.5)]
    total = layout.decode(np.sum([layout.encode(arrays) for arrays in sent], axis=0))
    assert abs(total["squares"] - 1.75) <= layout.resolution(2)["squares"] < 1e-12
    assert layout.resolution(2)["n"] == 0


def test_words_of_long_vectors_of_figures_stay_narrow_and_whole_numbers_narrowest() -> None:
    assert layout_of({"x": Part((LONGEST,), bound=1.0)}, SIZES).bits == 192
    assert layout_of({"x": Part((LONGEST + 1,), bound=1.0)}, SIZES).bits == 64
    assert layout_of({"n": Part((LONGEST,), bound=1.0, integer=True)}, SIZES).bits == 32


@pytest.mark.parametrize("bound", [1e-300, 1.0, 1e150, 1e300, np.inf])
def test_no_figure_but_zero_becomes_zero(bound: float) -> None:
    for size in (1, LONGEST + 1):
        layout = layout_of({"x": Part((size,), bound=bound)}, SIZES)
        for least in (5e-324, -1e-310):
            values = np.zeros(size)
            values[0] = least
            whole = layout.encode({"x": values})
            assert np.sign(int(whole[0])) == np.sign(least)
            assert not whole[1:].any()


@pytest.mark.parametrize("bound", [1e-300, 1e-150, 1.0, 1e150, 1e300])
def test_totals_of_figures_are_within_what_they_may_be_off_by_at_any_magnitude(bound: float) -> None:
    layout = layout_of({"x": Part((3,), bound=np.array([bound, bound / 3, bound]))}, SIZES)
    each = [RNG.uniform(-1, 1, 3) * bound / 3 for _ in range(2)]
    total = layout.decode(np.sum([layout.encode({"x": x}) for x in each], axis=0))["x"]
    assert (np.abs(total - sum(each)) <= layout.resolution(2)["x"] + 2.0**-50 * bound).all()


def test_contributions_in_other_units_are_to_another_request() -> None:
    """A sum of masked words in different units would be a number without meaning."""
    wide, wider = (layout_of({"x": Part((), bound=bound)}, SIZES) for bound in (1.0, 4.0))
    assert request_of(wide, {}) != request_of(wider, {})
