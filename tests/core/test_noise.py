"""Discrete noise: its distribution, its price, and that one privacy unit never changes more than is charged."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian, make_laplace
from opendp.metrics import l1_distance, l2_distance
from opendp.mod import enable_features
from scipy import stats

from statfed.core.errors import EngineError, UsageError
from statfed.core.method import Part
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import discrete, noise
from statfed.core.privacy.accountant import DiscreteGaussian, DiscreteLaplace, repeated
from statfed.core.randomness import stream
from statfed.core.terms import Privacy

enable_features("contrib")
DRAWS = 40_000


def gaussian_pmf(sigma: float, x: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.arange(-math.ceil(12 * sigma), math.ceil(12 * sigma) + 1)
    return np.asarray(np.exp(-((x / sigma) ** 2) / 2) / np.exp(-((wide / sigma) ** 2) / 2).sum())


def laplace_pmf(scale: float, x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(math.tanh(0.5 / scale) * np.exp(-np.abs(x) / scale))


def fit(draws: NDArray[np.int64], pmf: Any, spread: float) -> float:
    """p-value of the chi-square test with about 40 cells of equal width and open ends."""
    width = max(1, round(spread / 6))
    edge = int(4 * spread) // width + 1
    cells = np.clip(np.floor_divide(draws + width // 2, width), -edge, edge)
    x = np.arange(-40 * width * (edge + 1), 40 * width * (edge + 1))
    expected = np.bincount(
        np.clip(np.floor_divide(x + width // 2, width), -edge, edge) + edge, pmf(x), 2 * edge + 1
    ) * len(draws)
    observed = np.bincount(cells + edge, minlength=2 * edge + 1)
    full = expected >= 5
    rest, wanted = observed[~full].sum(), expected[~full].sum()
    observed, expected = observed[full], expected[full]
    if wanted > 0.5:
        observed, expected = np.append(observed, rest), np.append(expected, wanted)
    return float(stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("scale", [0.4, 1.0, 4.7, 60.0, 3755.25])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_draws_follow_the_probabilities_that_are_charged(kind: str, scale: float) -> None:
    draw = discrete.draw_gaussian if kind == "gaussian" else discrete.draw_laplace
    pmf: Any = gaussian_pmf if kind == "gaussian" else laplace_pmf
    draws = draw(scale, DRAWS, stream(1, kind))
    assert fit(draws, lambda x: pmf(scale, x), scale) > 1e-3
    assert fit(draws, lambda x: pmf(scale * 1.1, x), scale * 1.1) < 1e-3  # the test can tell ten per cent


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_draws_are_distributed_as_opendp_draws(kind: str) -> None:
    space = vector_domain(atom_domain(T=int))
    if kind == "gaussian":
        theirs = make_gaussian(space, l2_distance(T=int), scale=6.0)([0] * 20_000)
        ours = discrete.draw_gaussian(6.0, 20_000, stream(2, kind))
    else:
        theirs = make_laplace(space, l1_distance(T=int), scale=6.0)([0] * 20_000)
        ours = discrete.draw_laplace(6.0, 20_000, stream(2, kind))
    cells = np.arange(-15, 17)
    table = [np.histogram(np.clip(draws, -15, 15), cells)[0] for draws in (ours, theirs)]
    # OpenDP draws from the operating system: no seed, so the level is one that does not fail in practice
    assert stats.chi2_contingency(np.array(table) + 1).pvalue > 1e-7


@pytest.mark.parametrize(
    "weights", [discrete._gaussian_weights(2.5), discrete._geometric_weights(2.5, 1, 0)], ids=["gaussian", "geometric"]
)
def test_open_cases_are_settled_by_more_bits_with_the_same_probabilities(weights: discrete.Weights) -> None:
    source = stream(3, "open")
    table = discrete._thresholds(weights, 8)
    starts = (source.words(3000) >> np.uint64(56)).tolist()
    draws = np.array([discrete._settle(weights, int(start), 8, source) for start in starts])
    assert table[-1] == 255
    mass = np.array(weights(100), float)
    expected = np.append(mass[:7], mass[7:].sum()) / mass.sum() * 3000
    assert stats.chisquare(np.bincount(np.minimum(draws, 7), minlength=8), expected).pvalue > 1e-3


def test_thresholds_are_the_cumulative_probabilities_to_the_last_bit() -> None:
    coarse = discrete._thresholds(discrete._gaussian_weights(37.125), 63)
    fine = discrete._thresholds(discrete._gaussian_weights(37.125), 500)
    assert max(abs(a - (b >> 437)) for a, b in zip(coarse[:-1], fine, strict=False)) <= 1
    x = np.arange(len(coarse) - 1)
    exact = gaussian_pmf(37.125, x) * np.where(x == 0, 1, 2)
    np.testing.assert_allclose(np.array(coarse[:-1], float) / 2.0**63, np.cumsum(exact), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 700.0])
def test_standard_deviations_are_those_of_the_probabilities(scale: float) -> None:
    x = np.arange(-60_000, 60_001)
    assert discrete.gaussian_std(scale) == pytest.approx(np.sqrt(gaussian_pmf(scale, x) @ x**2.0), rel=1e-9)
    assert discrete.laplace_std(scale) == pytest.approx(np.sqrt(laplace_pmf(scale, x) @ x**2.0), rel=1e-9)


def gaussian(**fields: Any) -> Privacy:
    """With Gaussian noise where nothing else is said."""
    return Privacy.model_validate({"mechanism": "discrete-gaussian"} | fields)


CELLS = Part((4, 3), 1, integer=True, single=True)
SUMS = Part((3,), np.array([1.0, 25.0, 1e7]))
CASES: list[tuple[dict[str, Part], dict[str, Any], int]] = [
    ({"n": CELLS}, {"epsilon": 1.0}, 1),
    ({"n": CELLS, "s": SUMS}, {"epsilon": 0.1}, 4),
    ({"n": Part(integer=True, bound=1, share=1), "s": Part((2, 2), 3.0, share=3)}, {"epsilon": 5.0, "delta": 1e-9}, 1),
    ({"t": Part((30,), 2.5, single=True)}, {"epsilon": 1.0, "unit": "person", "max_records_per_unit": 4}, 1),
    ({"n": CELLS}, {"epsilon": 0.5, "unit": "person", "max_records_per_unit": 3}, 2),
    ({"i": Part((3,), np.array([1, 20, 1e6]), integer=True)}, {"epsilon": 2.0}, 1),
    ({"n": CELLS, "s": SUMS}, {"epsilon": 1.0, "mechanism": "discrete-laplace"}, 3),
    ({"n": CELLS, "s": SUMS}, {"epsilon": 1.0, "mechanism": "discrete-laplace", "delta": 0.0}, 3),
    ({"n": CELLS}, {"epsilon": 300.0}, 1),
]


@pytest.mark.parametrize(("parts", "terms", "times"), CASES)
def test_composed_asks_stay_within_epsilon_and_waste_little_of_it(
    parts: dict[str, Part], terms: dict[str, Any], times: int
) -> None:
    wanted = Privacy.model_validate({"mechanism": "discrete-gaussian"} | terms)
    made = noise.plan(parts, wanted, times)
    asks = [made.event()] * times
    spent = privacy.epsilon(asks, wanted.delta) if wanted.delta else privacy.pure_epsilon(asks)
    assert wanted.epsilon * 0.99 < spent <= wanted.epsilon
    assert made.epsilon(times, wanted.delta) == pytest.approx(spent, rel=1e-12)
    again = noise.plan(dict(reversed(list(parts.items()))), wanted, times)
    assert again.event() == made.event()
    assert all((again.std(3)[name] == made.std(3)[name]).all() for name in parts)


@pytest.mark.parametrize(("parts", "terms", "times"), CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), same=st.booleans())
def test_generated_neighbours_stay_within_the_sensitivities_that_are_charged(
    parts: dict[str, Part], terms: dict[str, Any], times: int, seed: int, same: bool
) -> None:
    """One unit adds its records; encoded contributions may then differ entry by entry by what the event lists."""
    wanted = Privacy.model_validate({"mechanism": "discrete-gaussian"} | terms)
    made = noise.plan(parts, wanted, times)
    k = wanted.max_records_per_unit if wanted.unit == "person" else 1
    rng = np.random.default_rng(seed)
    for grid in made._grids:
        part = parts[grid.facts.name]
        entries, bound = math.prod(part.shape), np.broadcast_to(part.bound, part.shape).reshape(-1)
        before = rng.normal(0, 1e4, entries) * bound
        after = before.copy()
        spot = int(rng.integers(entries))
        for _ in range(k):
            record = bound * rng.choice([-1.0, 1.0, 0.7], entries)
            if part.single:
                spot = spot if same else int(rng.integers(entries))
                record = np.where(np.arange(entries) == spot, record, 0.0)
            after += record
        if part.integer:
            after = before.round() + (after - before).round()
            before = before.round()
        changed = np.abs(encoded(grid, after) - encoded(grid, before))
        if grid.joint is not None:
            assert changed.sum() <= grid.joint[0]
            continue
        charged = sorted((c for c, _, count in grid.changes for _ in range(count)), reverse=True)
        found = sorted(changed.tolist(), reverse=True)
        if part.single:
            assert all(f <= c for f, c in zip(found, [*charged, *[0] * entries], strict=False))
        else:
            for scale in np.unique(grid.scale):
                (most,) = {c for c, s, _ in grid.changes if s == scale}
                assert changed[grid.scale == scale].max() <= most


def encoded(grid: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `Noise.add` adds noise to: the nearest whole number of units."""
    return np.asarray(np.rint(values / grid.unit))


class _Silent:
    """In place of a sampler: no noise, so that the encoding shows."""

    def __call__(self, scale: float, count: int, source: Any) -> NDArray[np.int64]:
        return np.zeros(count, np.int64)


def test_without_noise_only_the_rounding_to_the_grid_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete, "draw_gaussian", _Silent())
    parts = {"n": CELLS, "s": SUMS, "i": Part((2,), 10_000, integer=True), "z": Part((2,), np.array([0.0, 1.0]))}
    made = noise.plan(parts, gaussian(epsilon=1))
    units = {grid.facts.name: grid.unit.reshape(grid.facts.shape) for grid in made._grids}
    sent = {
        "n": np.arange(12).reshape(4, 3),
        "s": np.array([0.123, -7e4, 1e9]),
        "i": np.array([-12_345, 999_999]),
        "z": np.array([0.0, 0.5]),
    }
    back = made.add(sent, stream(1, "x"))
    assert (back["n"] == sent["n"]).all()
    assert back["n"].dtype == back["i"].dtype == np.int64
    assert all((np.abs(back[name] - sent[name]) <= units[name] / 2 * (1 + 1e-9)).all() for name in sent)
    assert units["i"].tolist() == [20.0, 20.0]
    assert (back["i"] % 20 == 0).all()
    assert units["s"][2] == 1e7 / 512


@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "discrete-laplace"])
def test_the_stated_standard_deviation_is_the_one_drawn_over_several_holders(mechanism: Any) -> None:
    parts = {"n": Part((3000,), 1, integer=True, single=True), "s": Part((3000,), 2.0, single=True)}
    made = noise.plan(parts, gaussian(epsilon=1, mechanism=mechanism))
    empty = {name: np.zeros(3000, np.int64 if part.integer else np.float64) for name, part in parts.items()}
    drawn = [made.add(empty, stream(5, "holder", i)) for i in range(3)]
    for name, std in made.std(3).items():
        total = sum(d[name] for d in drawn)
        assert np.std(total) == pytest.approx(std[0], rel=0.06)
        assert abs(np.mean(total)) < 4 * std[0] / math.sqrt(3000)


def test_a_seeded_stream_gives_the_same_noise_and_another_label_gives_other_noise() -> None:
    made = noise.plan({"n": CELLS, "s": SUMS}, gaussian(epsilon=1))
    zero = {"n": np.zeros((4, 3), np.int64), "s": np.zeros(3)}
    one, two, other = (made.add(zero, stream(7, "noise", label)) for label in ("a", "a", "b"))
    assert all((one[name] == two[name]).all() for name in zero)
    assert any((one[name] != other[name]).any() for name in zero)


def test_the_first_draws_of_a_seed_never_change() -> None:
    assert discrete.draw_gaussian(10.0, 8, stream(1, "pinned")).tolist() == [-10, 9, -4, -7, 7, -15, 26, -3]
    assert discrete.draw_laplace(10.0, 8, stream(1, "pinned")).tolist() == [-4, -4, 2, -1, 0, -20, 40, -1]


def test_cells_cost_one_scalar_mechanism_and_sums_one_each() -> None:
    cells = noise.plan({"n": CELLS}, gaussian(epsilon=1)).event()
    assert isinstance(cells, DiscreteGaussian)
    assert cells.sensitivity == 1
    sums = noise.plan({"s": Part((100,), 3.0)}, gaussian(epsilon=1)).event()
    assert isinstance(sums, privacy.Repeated)
    assert sums.times == 100
    pure = noise.plan({"n": CELLS}, gaussian(epsilon=1, delta=0, mechanism="discrete-laplace")).event()
    assert pure == DiscreteLaplace(scale=1.0, sensitivity=1)


def test_cells_of_sums_are_charged_for_the_order_of_summation_too() -> None:
    """A database may add up untouched cells in another order: each may end one grid unit away."""
    (grid,) = noise.plan({"t": Part((30,), 2.5, single=True)}, gaussian(epsilon=1))._grids
    assert [(change, count) for change, _, count in grid.changes] == [(1, 29), (513, 1)]
    (grid,) = noise.plan(
        {"t": Part((30,), 2.5, single=True)}, gaussian(epsilon=1, unit="person", max_records_per_unit=4)
    )._grids
    assert [(change, count) for change, _, count in grid.changes] == [(1, 26), (129, 2), (257, 1), (513, 1)]


def test_persons_with_k_records_in_one_cell_get_k_times_the_noise_and_a_little_for_spread() -> None:
    one = noise.plan({"n": CELLS}, gaussian(epsilon=1)).std()["n"][0, 0]
    four = noise.plan({"n": CELLS}, gaussian(epsilon=1, unit="person", max_records_per_unit=4)).std()["n"][0, 0]
    spread = math.sqrt(1 + (2 / 4) ** 2 + 2 * (1 / 4) ** 2)
    assert four / one == pytest.approx(4 * spread, rel=0.01)


def test_shares_split_the_budget_in_rho() -> None:
    parts = {"a": Part((2,), 1.0, share=4.0), "b": Part((2,), 1.0, share=1.0)}
    std = noise.plan(parts, gaussian(epsilon=1)).std()
    assert std["b"][0] / std["a"][0] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(
    ("parts", "terms", "message"),
    [
        ({"income": Part((2,), np.array([1.0, math.inf]))}, {}, "income: got no finite bound"),
        ({"x": Part()}, {}, "x: got no finite bound"),
        ({"x": Part(bound=1, share=0.0)}, {}, "x: got a negative bound or share"),
        ({"x": Part(bound=2.0**45, integer=True)}, {}, r"2\*\*44"),
        ({"x": Part((0,), bound=1)}, {}, "no entry that a record can change"),
        ({"x": Part((10_000,), bound=1)}, {"epsilon": 1e-5}, "want at least epsilon"),
    ],
)
def test_what_cannot_be_protected_is_refused_by_name(
    parts: dict[str, Part], terms: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        noise.plan(parts, Privacy.model_validate({"epsilon": 1.0, "mechanism": "discrete-gaussian"} | terms))


def test_sums_that_float64_cannot_tell_apart_and_wrong_shapes_do_not_leave() -> None:
    made = noise.plan({"s": Part((2,), 1.0)}, gaussian(epsilon=1))
    for wrong, message in [
        ({"s": np.array([0.0, 2.0**45])}, "too large for its bound"),
        ({"s": np.array([0.0, math.nan])}, "not finite"),
        ({"s": np.zeros(3)}, "got shape"),
        ({"t": np.zeros(2)}, "noise: got t; want s"),
    ]:
        with pytest.raises(EngineError, match=message):
            made.add(wrong, stream(1, "x"))


@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "discrete-laplace"])
def test_the_planned_margin_of_error_holds_the_noise_as_often_as_it_says(mechanism: Any) -> None:
    parts = {"n": Part((4000,), 1, integer=True, single=True)}
    wanted = gaussian(epsilon=0.05, mechanism=mechanism)
    half = noise.error(parts, wanted, holders=2)["n"][0]
    made = noise.plan(parts, wanted)
    zero = {"n": np.zeros(4000, np.int64)}
    total = sum(made.add(zero, stream(11, i))["n"] for i in range(2))
    inside = int((np.abs(total) <= half).sum())
    low, high = (float(stats.binom.ppf(q, 4000, 0.95)) for q in (0.0005, 0.9995))
    assert low <= inside <= high


@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "discrete-laplace"])
def test_a_budget_found_from_a_margin_of_error_reaches_it_and_no_more(mechanism: Any) -> None:
    parts = {"n": CELLS, "s": SUMS}
    asked = gaussian(epsilon=1, mechanism=mechanism)
    found = noise.epsilon_for(parts, asked, "n", 25.0, holders=3, times=2)
    reached = noise.error(parts, asked.model_copy(update={"epsilon": found}), 3, times=2)["n"].max()
    assert 25.0 * 0.98 < reached <= 25.0
    less = noise.error(parts, asked.model_copy(update={"epsilon": found * 0.97}), 3, times=2)["n"].max()
    assert less > 25.0


def test_a_margin_of_error_out_of_reach_is_refused() -> None:
    with pytest.raises(UsageError, match="got part 'z'; want one of n"):
        noise.epsilon_for({"n": CELLS}, gaussian(epsilon=1), "z", 1.0, 1)
    with pytest.raises(UsageError, match="epsilon 1000 can reach"):
        noise.epsilon_for({"s": SUMS}, gaussian(epsilon=1), "s", 1e-9, 1)
    with pytest.raises(UsageError, match="want a positive number"):
        noise.epsilon_for({"s": SUMS}, gaussian(epsilon=1), "s", 0.0, 1)


def test_the_ledger_takes_a_composed_event_and_frees_what_was_not_used(tmp_path: Any) -> None:
    from statfed.client.guard.ledger import Ledger

    event = noise.plan({"n": CELLS, "s": SUMS}, gaussian(epsilon=1), times=4).event()
    with Ledger(tmp_path / "l.sqlite", dataset="d", unit="record", epsilon=1.0, delta=1e-6) as ledger:
        ledger.reserve("run", "study", 4, event)
        ledger.charge("run", "study", 1, event)
        ledger.release("run")
        spent = ledger.spending("run")
    assert spent.study_epsilon == pytest.approx(privacy.epsilon([repeated(event, 1)], 1e-6))


# ---- which noise, shares of Laplace noise, and entries that change together

DIVIDED = Part((3, 2), 5.0, together=(1.0, 1.0))
WIDE = Part((40,), 2.0, together=(20.0, math.sqrt(20.0)))


@pytest.mark.parametrize("shares", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.4, 1.0, 40.0])
def test_shares_of_laplace_noise_add_up_to_the_probabilities_that_are_charged(shares: int, scale: float) -> None:
    """Not to something with the same variance: a chi-square test that can tell ten per cent of scale."""
    each = [discrete.draw_share(scale, shares, DRAWS, stream(1, "share", i)) for i in range(shares)]
    draws = np.sum(each, axis=0)
    assert fit(draws, lambda x: laplace_pmf(scale, x), scale) > 1e-3
    assert fit(draws, lambda x: laplace_pmf(scale * 1.1, x), scale * 1.1) < 1e-3


@pytest.mark.parametrize("shares", [2, 5])
def test_a_share_has_the_probabilities_of_a_polya_difference(shares: int) -> None:
    draws = discrete.draw_share(3.0, shares, DRAWS, stream(2, "share"))
    x = np.arange(0, 400)
    one = stats.nbinom.pmf(x, 1 / shares, -math.expm1(-1 / 3.0))
    law = np.convolve(one, one[::-1])
    assert fit(draws, lambda at: np.where(np.abs(at) < 400, law[np.clip(at + 399, 0, 798)], 0.0), 3.0) > 1e-3


def test_thresholds_of_shares_are_the_cumulative_probabilities_to_the_last_bit() -> None:
    coarse = discrete._thresholds(discrete._polya_weights(7.5, 3), 63)
    fine = discrete._thresholds(discrete._polya_weights(7.5, 3), 400)
    assert max(abs(a - (b >> 337)) for a, b in zip(coarse[:-1], fine, strict=False)) <= 1
    exact = stats.nbinom.cdf(np.arange(len(coarse) - 1), 1 / 3, -math.expm1(-1 / 7.5))
    np.testing.assert_allclose(np.array(coarse[:-1], float) / 2.0**63, exact, rtol=1e-9)


@pytest.mark.parametrize(("scale", "sensitivity"), [(1.0, 1), (3.0, 7), (40.0, 41), (0.5, 20)])
@pytest.mark.parametrize("order", [1.01, 2.5, 30.0])
def test_the_divergence_of_laplace_noise_is_that_of_its_probabilities(
    scale: float, sensitivity: int, order: float
) -> None:
    loss, mass, _ = discrete.laplace_loss(scale, sensitivity)
    there = mass > 0
    wanted = np.logaddexp.reduce(np.log(mass[there]) + (order - 1) * loss[there]) / (order - 1)
    assert discrete.laplace_renyi(scale, sensitivity, order) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("changes", [(1, 1), (3, 5), (1, 1, 1, 1), (7, 1)])
@pytest.mark.parametrize("order", [1.05, 2.0, 20.0])
def test_changes_of_several_numbers_cost_no_more_than_their_sum_in_one(changes: tuple[int, ...], order: float) -> None:
    together = discrete.laplace_renyi(4.0, sum(changes), order)
    assert sum(discrete.laplace_renyi(4.0, change, order) for change in changes) <= together * (1 + 1e-12)


@pytest.mark.parametrize("changes", [(1, 1), (2, 1), (2, 2)])
def test_the_exact_divergence_of_several_numbers_is_within_what_is_charged_for_all_of_them(
    changes: tuple[int, ...],
) -> None:
    """Hockey-stick divergences of the product of their probabilities, summed up."""
    scale, x = 3.0, np.arange(-120, 121)
    p = q = np.ones(1)
    for change in changes:
        p = np.outer(p, laplace_pmf(scale, x)).reshape(-1)
        q = np.outer(q, laplace_pmf(scale, x - change)).reshape(-1)
    event = privacy.DiscreteLaplaces(scale=scale, sensitivity=sum(changes))
    for delta in (1e-1, 1e-2, 1e-4):
        charged = privacy.epsilon([event], delta)
        assert np.maximum(p - math.exp(charged) * q, 0.0).sum() <= delta * (1 + 1e-9)
    assert privacy.pure_epsilon([event]) == pytest.approx(sum(changes) / scale)


@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "discrete-laplace"])
@pytest.mark.parametrize("part", [DIVIDED, WIDE], ids=["divided", "wide"])
@pytest.mark.parametrize("k", [1, 3])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_entries_that_change_together_stay_within_the_norm_that_is_charged(
    mechanism: Any, part: Part, k: int, seed: int
) -> None:
    wanted = Privacy(epsilon=1, mechanism=mechanism, unit="person", max_records_per_unit=k)
    (grid,) = noise.plan({"s": part}, wanted)._grids
    assert grid.joint is not None
    assert part.together is not None
    rng, entries = np.random.default_rng(seed), math.prod(part.shape)
    before = rng.normal(0, 1e4, entries)
    change = np.zeros(entries)
    for _ in range(k):
        record = np.zeros(entries)
        at = rng.choice(entries, min(entries, int(part.together[0])), replace=False)
        record[at] = rng.choice([-1.0, 1.0], len(at))
        if part.together[0] == 1.0 and rng.random() < 0.5:
            record = rng.dirichlet(np.ones(entries))
        change += record * float(part.bound)
    moved = np.abs(encoded(grid, before + change) - encoded(grid, before))
    assert (moved.sum() if mechanism == "discrete-laplace" else np.sqrt((moved**2).sum())) <= grid.joint[0]


@pytest.mark.parametrize("mechanism", ["automatic", "discrete-gaussian", "discrete-laplace"])
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("part", [DIVIDED, WIDE], ids=["divided", "wide"])
def test_entries_that_change_together_cost_epsilon_and_waste_little_of_it(
    mechanism: Any, epsilon: float, part: Part
) -> None:
    made = noise.plan({"s": part}, Privacy(epsilon=epsilon, mechanism=mechanism))
    assert epsilon * 0.98 < made.epsilon(1, 1e-6) <= epsilon


def test_the_noise_is_the_kind_with_the_smaller_expected_error() -> None:
    for parts in ({"n": CELLS}, {"s": DIVIDED}, {"s": WIDE}, {"n": CELLS, "s": SUMS}, {"s": Part((60,), 1.0)}):
        for epsilon in (0.1, 1.0, 10.0):
            std = {
                kind: noise._expected(noise.plan(parts, Privacy(epsilon=epsilon, mechanism=kind)))
                for kind in ("automatic", "discrete-gaussian", "discrete-laplace")
            }
            assert std["automatic"] <= min(std["discrete-gaussian"], std["discrete-laplace"]) + 0.02
    assert noise.plan({"n": CELLS}, Privacy(epsilon=1)).kind.laplace
    assert not noise.plan({"s": Part((60,), 1.0)}, Privacy(epsilon=1)).kind.laplace
    assert noise.plan({"s": Part((60,), 1.0)}, Privacy(epsilon=1, delta=0)).kind.laplace


def test_persons_of_k_records_cost_k_times_the_noise_of_one_under_laplace_noise_and_no_more() -> None:
    one, four = (
        noise.plan({"n": CELLS}, Privacy(epsilon=0.1, unit="person", max_records_per_unit=k)).std()["n"][0, 0]
        for k in (1, 4)
    )
    assert four / one == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_counts_have_the_error_of_the_geometric_mechanism_and_shares_of_it_that_of_the_colluders_too(
    epsilon: float,
) -> None:
    """It is the best there is for one number (Ghosh, Roughgarden and Sundararajan 2012)."""
    best = discrete.laplace_std(1 / epsilon)
    central = noise.plan({"n": CELLS}, Privacy(epsilon=epsilon, noise="central")).std(4)["n"][0, 0]
    shared = noise.plan({"n": CELLS}, Privacy(epsilon=epsilon, noise="shared"), shares=3).std(4)["n"][0, 0]
    assert central <= 1.01 * best
    assert shared <= 1.01 * math.sqrt(4 / 3) * best


def test_a_sum_of_many_entries_that_change_together_gets_the_noise_that_can_be_drawn_for_it() -> None:
    entries = 20_000
    parts = {"g": Part((entries,), 1.0, together=(math.sqrt(entries), 1.0))}
    planned = noise.plan(parts, Privacy(epsilon=1.0, delta=1e-6), times=20)
    assert not planned.kind.laplace
    assert all(grid.scale.max() <= discrete.LARGEST for grid in planned._grids)
    with pytest.raises(UsageError, match="want at least epsilon"):
        noise.plan(parts, Privacy(epsilon=1.0, delta=1e-6, mechanism="discrete-laplace"), times=20)
