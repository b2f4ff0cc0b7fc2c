"""What asks cost and what is set aside: shares of a budget against slow references, and what a claim has to cover."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.errors import UsageError
from statfed.core.method import Adaptive, Ask, Budget, Fixed, Method, Part, Question, Scheduled, fixed
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import spending
from statfed.core.privacy.accountant import Event, Gaussian
from statfed.core.privacy.noise import plan, plan_share
from statfed.core.privacy.spending import Reservation
from statfed.core.section import Section
from statfed.core.table import Size
from statfed.core.terms import Privacy, Terms
from tests.universe import CODEBOOK

SIZE = Size(200, 100)
PARTS: dict[str, dict[str, Part]] = {
    "counts": {"n": Part((4, 3), 1, integer=True, single=True)},
    "sums": {"s": Part((3,), np.array([1.0, 25.0, 1e7]))},
    "both": {"n": Part((), 1, integer=True, single=True), "s": Part((5,), 2.5, single=True, share=0.3)},
    "wide": {"i": Part((2,), np.array([3.0, 4e5]), integer=True)},
}
DELTAS = [1e-3, 1e-6, 1e-9]
MECHANISMS = ["discrete-gaussian", "discrete-laplace"]


OWN = Gaussian(noise_multiplier=9.0)


class Options(Section):
    """None."""


@dataclass(frozen=True)
class Own:
    """Noise that a method adds by itself."""

    event: Event = OWN
    steps: int = 1
    rate: float = 1.0
    noise_multiplier: float = 9.0
    noise_to_signal: float | None = None


def question(budget: Budget, given: Privacy | None, own: tuple[str, ...] = ()) -> Question[Any]:
    """Of a method that asks for PARTS by name."""
    method = SimpleNamespace(
        parts=lambda _, ask: PARTS[ask.name],
        budget=lambda _: budget,
        OWN_NOISE=own,
        mechanism=lambda _, __, size: Own(noise_multiplier=9.0 + size.records),
    )
    terms = Terms(method="made-up", codebook=CODEBOOK, holders=("a",), seed=None, privacy=given)
    return Question(terms, cast(Method, method), Options(), CODEBOOK)


def of(epsilon: float = 1.0, delta: float = 1e-6, mechanism: Any = "discrete-gaussian", **more: Any) -> Privacy:
    return Privacy(epsilon=epsilon, delta=delta, mechanism=mechanism, **more)


def events(reserved: Reservation | None) -> Counter[str]:
    assert reserved is not None
    found = Counter[str]()
    for event, times in reserved.events:
        found[privacy.event_to_json(event)] += times
    return found


# ---- the figures that a filter of shares stands on


def slow_zcdp(concentrated: float, delta: float) -> float:
    """The least epsilon with delta(epsilon) <= delta, by bisection over a dense grid of orders.

    delta(epsilon) = min over a > 1 of exp((a - 1)(a rho - epsilon)) / (a - 1) (1 - 1 / a)^a (Canonne, Kamath and
    Steinke 2020, corollary 13).
    """
    a = 1.0 + np.logspace(-3, 5, 40_000)

    def spent(epsilon: float) -> float:
        return float(np.min((a - 1) * (a * concentrated - epsilon) - np.log(a - 1) + a * np.log1p(-1 / a)))

    low, high = 0.0, 1e6
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= math.log(delta) else (middle, high)
    return high


@pytest.mark.parametrize("delta", [0.1, *DELTAS])
@pytest.mark.parametrize("concentrated", [1e-5, 1e-3, 0.05, 1.0, 20.0, 1e3])
def test_epsilon_of_concentrated_privacy_is_that_of_the_best_order_and_never_less(
    concentrated: float, delta: float
) -> None:
    found, slow = privacy.zcdp_epsilon(concentrated, delta), slow_zcdp(concentrated, delta)
    assert slow - 1e-8 <= found
    assert found <= slow * 1.005 + (5e-3 if slow < 0.05 else 0.0)  # of orders to 4097 only


def test_epsilon_of_concentrated_privacy_is_never_negative_and_grows() -> None:
    for delta in (0.4, 1e-2, 1e-6):
        found = [privacy.zcdp_epsilon(r, delta) for r in (0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0)]
        assert found[0] == 0.0
        assert found == sorted(found)
        assert min(found) >= 0.0


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 900), st.sampled_from(DELTAS))
def test_a_claim_is_the_largest_budget_within_the_target(target: float, delta: float) -> None:
    claimed = privacy.claim("discrete-gaussian", target, delta)
    assert isinstance(claimed, Gaussian)
    assert target * 0.9995 - 1e-4 <= privacy.zcdp_epsilon(privacy.rho(claimed), delta) <= target
    pure = privacy.claim("discrete-laplace", target, delta)
    assert privacy.pure_epsilon([pure]) == pytest.approx(target, rel=1e-12)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize("target", [0.1, 1.0, 8.0])
def test_a_claim_costs_at_most_the_target_by_the_tight_composition_too(target: float, delta: float) -> None:
    assert privacy.epsilon([privacy.claim("discrete-gaussian", target, delta)], delta) <= target
    assert privacy.epsilon([privacy.claim("discrete-laplace", target, delta)], delta) <= target * (1 + 1e-3)


@pytest.mark.parametrize(("mechanism", "target"), [("discrete-gaussian", 1e-4), ("discrete-laplace", 1e-6)])
def test_a_target_that_no_noise_reaches_is_wrong_usage(mechanism: str, target: float) -> None:
    with pytest.raises(UsageError, match=r"privacy: got epsilon .* in shares; want a larger epsilon"):
        privacy.claim(mechanism, target, 1e-9)
    asked = question(Adaptive(), of(target, 1e-9, mechanism))
    with pytest.raises(UsageError, match="want a larger epsilon"):
        spending.price(asked, Ask("sums", share=0.5), SIZE, 1)
    with pytest.raises(UsageError, match="want a larger epsilon"):
        spending.reservation(asked, SIZE, 1)


def test_what_is_no_share_of_a_claim_costs_more_than_all_of_it() -> None:
    gaussian, laplace = (privacy.claim(mechanism, 1.0, 1e-6) for mechanism in MECHANISMS)
    exact = plan({"n": Part((), 1, integer=True)}, of(mechanism="discrete-laplace")).event()
    assert privacy.cost(gaussian, exact) == math.inf
    assert privacy.cost(laplace, Gaussian(noise_multiplier=1e5)) == math.inf
    assert privacy.cost(gaussian, privacy.dp_sgd(0.01, 5.0, 1)) == math.inf


# ---- one share


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(PARTS)),
    share=st.floats(1e-3, 1.0),
    epsilon=st.floats(0.05, 20.0),
    delta=st.sampled_from(DELTAS),
    mechanism=st.sampled_from(MECHANISMS),
    where=st.sampled_from(["local", "central"]),
    records=st.integers(1, 4),
)
def test_an_ask_costs_its_share_and_hardly_less(
    name: str, share: float, epsilon: float, delta: float, mechanism: str, where: str, records: int
) -> None:
    wanted = of(epsilon, delta, mechanism, noise=where, unit="person", max_records_per_unit=records)
    try:
        made = plan_share(PARTS[name], wanted, share)
    except UsageError as error:
        assert "want a larger epsilon" in str(error)  # noqa: PT017  # a share too small for noise that can be drawn
        assert epsilon * share < 0.01
        return
    claimed = privacy.claim(mechanism, epsilon, delta)
    if mechanism == "discrete-gaussian":
        taken = privacy.rho(made.event()) / privacy.rho(claimed)
    else:
        taken = privacy.pure_epsilon([made.event()]) / epsilon
    assert share * 0.98 <= taken <= share * (1 + 1e-12)
    assert privacy.cost(claimed, made.event()) == pytest.approx(taken, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.0 + 1e-9, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match=r"share of the privacy budget: got .*; want more than 0 and at most 1"):
        plan_share(PARTS["sums"], of(), share)
    with pytest.raises(UsageError, match="share of the privacy budget"):
        spending.price(question(Adaptive(), of()), Ask("sums", share=share), SIZE, 1)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_share_too_small_for_any_noise_is_refused_with_what_to_do(mechanism: str) -> None:
    with pytest.raises(UsageError, match="of epsilon 1 for 12 entries; want a larger epsilon or share, or a question"):
        plan_share(PARTS["counts"], of(mechanism=mechanism), 1e-13)


def test_shares_of_shared_noise_are_those_of_all_who_do_not_collude() -> None:
    wanted = of(noise="shared", colluders=1)
    claimed = privacy.claim("discrete-gaussian", 1.0, 1e-6)
    for holders in (2, 5, 40):
        made = plan_share(PARTS["both"], wanted, 0.25, holders)
        assert 0.25 * 0.98 <= privacy.cost(claimed, made.event()) <= 0.25


# ---- any split of a budget

SPLITS = st.lists(st.tuples(st.sampled_from(sorted(PARTS)), st.floats(0.02, 1.0)), min_size=1, max_size=7)
ORDERS = (1.01, 1.25, 2.0, 3.0, 8.0, 33.0, 188.0, 2000.0)


def spent_on(split: Sequence[tuple[str, float]], wanted: Privacy) -> list[Event]:
    """Events of asks whose shares are those of the split, scaled to add up to 1 where they are more."""
    whole = max(1.0, math.fsum(share for _, share in split) * (1 + 1e-12))
    asked = question(Adaptive(), wanted)
    prices = [spending.price(asked, Ask(name, share=share / whole), SIZE, 1) for name, share in split]
    return [paid.event for paid in prices if paid]


@settings(max_examples=40, deadline=None)
@given(SPLITS, st.floats(0.2, 10.0), st.sampled_from(DELTAS), st.sampled_from(MECHANISMS))
def test_any_split_of_a_budget_is_dominated_by_what_is_set_aside_for_it(
    split: list[tuple[str, float]], epsilon: float, delta: float, mechanism: str
) -> None:
    wanted = of(epsilon, delta, mechanism)
    taken = spent_on(split, wanted)
    reserved = spending.reservation(question(Adaptive(), wanted), SIZE, 1)
    assert reserved is not None
    assert reserved.claim is not None
    assert reserved.epsilon(epsilon, delta) == epsilon
    for order in ORDERS:
        assert privacy.renyi(taken, order) <= privacy.renyi([reserved.claim], order) * (1 + 1e-9)
    assert privacy.renyi_epsilon(taken, delta) <= privacy.renyi_epsilon([reserved.claim], delta) + 1e-12
    if mechanism == "discrete-laplace":
        assert privacy.pure_epsilon(taken) <= epsilon * (1 + 1e-12)
    assert min(privacy.epsilon(taken, delta), privacy.pure_epsilon(taken)) <= epsilon * (1 + 1e-12)


# ---- a fixed budget


def several(*asks: tuple[str, int, float]) -> Fixed:
    return Fixed(tuple(Scheduled(*ask) for ask in asks))


THREE = several(("counts", 2, 0.5), ("sums", 1, 0.3), ("both", 3, 0.2))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("delta", [1e-6, 0.0])
def test_several_asks_of_a_fixed_budget_each_take_their_share_of_it(mechanism: str, delta: float) -> None:
    if mechanism == "discrete-gaussian" and not delta:
        delta = 1e-9
    asked = question(THREE, of(2.0, delta, mechanism))
    claimed = privacy.claim(mechanism, 2.0, delta)
    for scheduled in THREE.asks:
        paid = spending.price(asked, Ask(scheduled.name), SIZE, 1)
        assert paid is not None
        each = scheduled.share / scheduled.times
        assert each * 0.98 <= privacy.cost(claimed, paid.event) <= each
        assert paid == spending.price(asked, Ask(scheduled.name, share=1.0), None, 1)  # the same at both ends
    reserved = spending.reservation(asked, SIZE, 1)
    assert reserved is not None
    assert sum(events(reserved).values()) == 6
    assert 0.0 < reserved.epsilon(2.0, delta) <= 2.0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(PARTS)), st.integers(1, 4), st.floats(0.05, 1.0)),
        min_size=2,
        max_size=4,
        unique_by=lambda ask: ask[0],
    ),
    st.floats(0.2, 20.0),
    st.sampled_from(MECHANISMS),
)
def test_a_fixed_budget_with_shares_of_one_stays_within_epsilon_and_no_run_is_refused(
    asks: list[tuple[str, int, float]], epsilon: float, mechanism: str
) -> None:
    whole = math.fsum(share for _, _, share in asks)
    budget = several(*((name, times, share / whole) for name, times, share in asks))
    reserved = spending.reservation(question(budget, of(epsilon, 1e-6, mechanism)), SIZE, 1)
    assert reserved is not None
    assert reserved.epsilon(epsilon, 1e-6) <= epsilon


def test_pure_privacy_is_not_refused_for_what_discretisation_adds() -> None:
    """Composition of discretised losses is a little above the sum of pure epsilons, which holds at every delta."""
    event = privacy.claim("discrete-laplace", 20.0, 1e-6)
    assert privacy.epsilon([event], 1e-6) > 20.0
    assert Reservation(((event, 1),)).epsilon(20.0, 1e-6) == Reservation(((event, 1),)).epsilon(20.0, 0.0) == 20.0


def test_shares_beyond_the_whole_budget_are_refused_with_what_would_be_enough() -> None:
    greedy = question(several(("counts", 1, 1.0), ("sums", 1, 1.0)), of())
    with pytest.raises(UsageError, match=r"privacy.epsilon: got 1; want at least 1\.\d+ for all asks together"):
        spending.reservation(greedy, SIZE, 1)


@pytest.mark.parametrize("budget", [THREE, fixed("counts", 5), several(("counts", 1, 0.5), ("sums", 2, 0.5))])
def test_a_run_that_goes_on_sets_aside_the_asks_that_are_left(budget: Fixed) -> None:
    asked = question(budget, of())
    each = {ask.name: spending.price(asked, Ask(ask.name), SIZE, 1) for ask in budget.asks}
    whole = spending.reservation(asked, SIZE, 1)
    assert whole is not None
    for done in range(len(budget.order)):
        wanted = Counter(privacy.event_to_json(each[name].event) for name in budget.order[done:])  # type: ignore[union-attr]
        left = spending.reservation(asked, SIZE, 1, done)
        assert events(left) == wanted
        assert left is not None
        assert left.epsilon(1.0, 1e-6) <= whole.epsilon(1.0, 1e-6)
    for done in (len(budget.order), len(budget.order) + 1):
        with pytest.raises(UsageError, match=f"resume: got {done} asks made; want fewer than all {len(budget.order)}"):
            spending.reservation(asked, SIZE, 1, done)


def test_a_budget_that_is_spent_in_shares_is_gone_on_with_as_far_as_it_is_left() -> None:
    asked = question(Adaptive(12), of())
    reserved = spending.reservation(asked, SIZE, 1)
    assert reserved is not None
    assert reserved.claim is not None
    assert (reserved.events, reserved.most) == ((), 12)
    event = spending.price(asked, Ask("counts", share=0.25), SIZE, 1)
    assert event is not None
    left = spending.reservation(asked, SIZE, 1, 1, [event.event])
    assert left is not None
    assert left.claim is not None
    assert privacy.rho(left.claim) + privacy.rho(event.event) == pytest.approx(privacy.rho(reserved.claim))
    assert privacy.rho(left.claim) + privacy.rho(event.event) <= privacy.rho(reserved.claim) * (1 + 1e-12)
    rest = spending.reservation(asked, SIZE, 1, 4, [event.event] * 4)  # what rounding of the noise left over
    assert rest is None or (rest.claim is not None and privacy.rho(rest.claim) < 0.01 * privacy.rho(reserved.claim))
    assert spending.reservation(asked, SIZE, 1, 5, [event.event] * 5) is None


def test_one_ask_is_composed_tightly_and_costs_what_a_plan_costs() -> None:
    for times in (1, 4):
        asked = question(fixed("counts", times), of())
        paid, reserved = spending.price(asked, Ask("counts"), SIZE, 1), spending.reservation(asked, SIZE, 1)
        assert paid is not None
        assert reserved is not None
        assert paid.noise == plan(PARTS["counts"], of(), times)
        assert 0.99 < reserved.epsilon(1.0, 1e-6) <= 1.0


def test_an_ask_that_is_not_of_the_budget_has_no_price() -> None:
    with pytest.raises(UsageError, match="ask: got wide; want counts, sums, both"):
        spending.price(question(THREE, of()), Ask("wide"), SIZE, 1)


def test_noise_of_a_fixed_budget_is_not_for_parts_that_an_ask_made_wider() -> None:
    """Noise is planned before any total is seen: what a coordinator sends along must not move a bound."""
    asked = question(THREE, of())
    honest, wider = Ask("sums", {"at": np.zeros(2)}), Ask("sums", {"bound": np.array(1e9)})
    method: Any = asked.method
    method.parts = lambda _, ask: {"s": Part((), float(ask.arrays.get("bound", 1.0)))}
    assert spending.price(asked, honest, SIZE, 1) == spending.price(asked, Ask("sums"), SIZE, 1)
    with pytest.raises(UsageError, match="ask: got sums with other parts than noise was planned for"):
        spending.price(asked, wider, SIZE, 1)
    free = question(Adaptive(), of())
    free.method.parts = method.parts  # type: ignore[method-assign]
    one, other = (spending.price(free, Ask("sums", ask.arrays, 0.5), SIZE, 1) for ask in (honest, wider))
    assert one is not None
    assert other is not None
    assert one.noise is not None
    assert other.noise is not None
    assert other.noise.std()["s"] == pytest.approx(one.noise.std()["s"] * 1e9, rel=0.01)


def test_without_privacy_nothing_costs_and_nothing_is_set_aside() -> None:
    for budget in (THREE, Adaptive()):
        asked = question(budget, None)
        assert spending.price(asked, Ask("counts"), SIZE, 1) is None
        assert spending.reservation(asked, SIZE, 1) is None


def test_a_method_s_own_noise_is_priced_by_size_and_only_where_there_is_one() -> None:
    budget = several(("counts", 3, 0.9), ("sums", 1, 0.1))
    asked = question(budget, of(50.0), own=("counts",))
    assert spending.price(asked, Ask("counts"), None, 1) is None
    prices = [spending.price(asked, Ask("counts"), Size(n, n), 1) for n in (1, 2)]
    assert [paid.mechanism.noise_multiplier for paid in prices if paid and paid.mechanism] == [10.0, 11.0]
    assert all(paid and paid.noise is None for paid in prices)
    reserved = spending.reservation(asked, SIZE, 1)
    noise = spending.price(asked, Ask("sums"), SIZE, 1)
    assert noise is not None
    wanted: Mapping[str, int] = {
        privacy.event_to_json(OWN): 3,
        privacy.event_to_json(noise.event): 1,
    }
    assert events(reserved) == wanted
