"""Robust strategies against slow, obvious references, and what one lying holder can do: in clear, and under a mask."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused
from statfed.core.fixed_point import Layout
from statfed.core.method import Ask
from statfed.core.resolve import resolve
from statfed.strategies.learning.aggregation import aggregated, make_strategy
from statfed.strategies.learning.options import ROBUST, Strategy
from statfed.strategies.training import local_sgd
from statfed.strategies.training.local_sgd import bounded
from tests.conftest import toy_study, toy_terms
from tests.strategies.training.driven import driven, vector_of

Models = NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def _flower() -> Iterator[None]:
    """Flower's messages want to know whose they are, and its Bulyan collects garbage once a model."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK_NODE_ID, 1
    gc.freeze()
    yield
    gc.unfreeze()


def combined(models: Models, weights: list[int] | None = None, **options: Any) -> NDArray[np.float64]:
    """The next model that Flower's strategy makes of (holders, parameters) models."""
    strategy = make_strategy(Strategy.model_validate(options), len(models))
    updates = list(zip(models, weights or [1] * len(models), strict=True))
    return aggregated(strategy, 1, models[0], updates).astype(np.float64)


def scores(models: NDArray[Any], malicious: int) -> list[float]:
    """Krum's score of each model: squared distances to its n - f - 2 nearest others (Blanchard et al. 2017)."""
    found = []
    for i, one in enumerate(models):
        others = [float(((one - other) ** 2).sum()) for j, other in enumerate(models) if j != i]
        found.append(sum(sorted(others)[: len(models) - malicious - 2]))
    return found


def nearest(models: NDArray[Any], malicious: int, keep: int) -> NDArray[Any]:
    """The `keep` models of lowest score."""
    return models[np.argsort(scores(models, malicious), kind="stable")[:keep]]


def reference(
    name: str, models: NDArray[Any], malicious: int = 1, trim: float = 0.2, side: float = 1.0
) -> NDArray[np.float64]:
    """What each strategy should give, coordinate by coordinate. side: which of two values as near to the median as
    each other bulyan keeps, -1 the larger; the definition leaves that open, and rounding decides."""
    n = len(models)
    models = models.astype(np.float64)
    columns = [sorted(column) for column in models.T]
    match name:
        case "fedmedian":
            return np.asarray([(c[(n - 1) // 2] + c[n // 2]) / 2 for c in columns])
        case "fedtrimmedavg":
            cut = int(trim * n)
            return np.array([sum(c[cut : n - cut]) / (n - 2 * cut) for c in columns])
        case "krum":
            return np.asarray(nearest(models, malicious, 1)[0], np.float64)
        case "multikrum":
            return np.asarray(nearest(models, malicious, n - malicious - 2).mean(0), np.float64)
    chosen = nearest(models, malicious, n - 2 * malicious)
    kept = len(chosen) - 2 * malicious
    middle = np.median(chosen, axis=0)
    kept_values = [
        sorted(c, key=lambda x: (round(abs(x - m), 4), side * x))[:kept] for c, m in zip(chosen.T, middle, strict=True)
    ]
    return np.asarray(np.mean(kept_values, axis=1), np.float64)


@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), holders=st.integers(7, 15), malicious=st.integers(1, 3), far=st.sampled_from([0, 1e3])
)
def test_flowers_robust_strategies_equal_their_definitions(
    name: str, seed: int, holders: int, malicious: int, far: float
) -> None:
    """far: models a thousand from the origin and 0.01 from each other, where float32 distances are only rounding."""
    rng = np.random.default_rng(seed)
    malicious = min(malicious, (holders - 3) // (4 if name == "bulyan" else 2))
    models = (far + rng.normal(size=(holders, 6)) * (0.01 if far else 1.0)).astype(np.float32)
    found = combined(models, name=name, num_malicious=malicious)
    low, high = (reference(name, models, malicious, side=side) for side in (1.0, -1.0))
    near = np.minimum(np.abs(found - low), np.abs(found - high))
    assert (near <= 1e-6 * np.maximum(1.0, np.abs(low))).all()


def test_flowers_own_distances_would_pick_by_rounding() -> None:
    """Why the strategies get differences from the median: models far from the origin, through Flower alone."""
    from flwr.serverapp.strategy import Krum

    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(20):
        models = (1e3 + rng.normal(size=(7, 6)) * 0.01).astype(np.float32)
        replies = []
        for model in models:
            content = RecordDict({"model": ArrayRecord({"vector": Array(model)})})
            content["metrics"] = MetricRecord({"num-examples": 1})
            replies.append(Message(content, 1, "train"))
        record, _ = Krum(num_malicious_nodes=1).aggregate_train(1, replies)
        assert record is not None
        wrong += not np.array_equal(record["vector"].numpy(), reference("krum", models).astype(np.float32))
    assert wrong > 5


@pytest.mark.parametrize("size", [10.0, 1e6, 3e38])
@pytest.mark.parametrize("name", ROBUST)
def test_one_huge_update_leaves_the_robust_model_near_the_honest_mean(name: str, size: float) -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(1.0, 0.1, (6, 50)).astype(np.float32)
    for place in range(7):
        models = np.insert(honest, place, np.float32(size), axis=0)
        found = combined(models, name=name)
        spread = np.abs(honest - honest.mean(0)).max()
        assert np.abs(found - honest.mean(0)).max() <= 2 * spread, place
        if size < 1e30:
            dragged = combined(models, name="fedavg")
            assert np.abs(dragged - honest.mean(0)).min() > (size - 1.5) / 7


def test_two_liars_who_agree_do_not_get_their_model_chosen() -> None:
    rng = np.random.default_rng(2)
    honest = rng.normal(0.0, 0.1, (9, 20)).astype(np.float32)
    models = np.vstack([honest, np.full((2, 20), 5.0, np.float32)])
    for name in ROBUST:
        found = combined(models, name=name, num_malicious=2)
        assert np.abs(found).max() < 0.5, name


def test_multikrum_keeps_as_many_as_it_is_told() -> None:
    models = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)
    for keep in (1, 3, 5):
        found = combined(models, name="multikrum", nodes_to_keep=keep)
        np.testing.assert_allclose(found, nearest(models.astype(np.float64), 1, keep).mean(0), atol=1e-6)


@pytest.mark.parametrize("name", ROBUST)
def test_robust_training_runs_through_a_federation_and_repeats(
    name: str, homes: Callable[..., dict[str, Path]]
) -> None:
    study = toy_study(holders=7, strategy={"name": name})
    places = homes(study)
    one, two = driven(study, places, "r1"), driven(study, places, "r2", wire=True)
    np.testing.assert_array_equal(vector_of(one), vector_of(two))


# Under a mask: what the encoding refuses, what the decoding notices, and what one liar can do at most.

SIZES = {"a": 100, "b": 300, "c": 600}
PARAMETERS = 947  # of the toy model


def masked_sum(layout: Layout, words: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """What any masking protocol gives the coordinator: the sum in Z / 2^bits, read as a signed number."""
    ring = 1 << layout.bits
    total = sum((w.astype(object) for w in words.values()), np.zeros(layout.entries, object)) % ring
    return np.array([int(x) - ring if x >= ring // 2 else int(x) for x in total], object)


def honest_words(layout: Layout) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(5)
    updates = {name: rng.normal(0, 0.1, PARAMETERS) for name in SIZES}
    words = {
        name: layout.for_holder(SIZES[name] / 1000).encode(
            {
                "update": bounded(updates[name].astype(np.float32), 2.0) * np.float64(SIZES[name]),
                "weight": np.array(SIZES[name]),
            }
        )
        for name in SIZES
    }
    return words, updates


def layout() -> Layout:
    terms = toy_terms(training={"update_norm": 2.0}, protection={"name": "secure-aggregation"}, holders=list(SIZES))
    question = resolve(terms).question
    found = local_sgd.layout(question, Ask("fit"), SIZES)
    assert found is not None
    return found


@pytest.mark.parametrize("entry", [2.1, -2.1, 1e6, np.inf, np.nan])
def test_an_update_outside_the_bound_is_refused_before_it_is_masked(entry: float) -> None:
    update = np.zeros(PARAMETERS)
    update[7] = entry
    with pytest.raises((Refused, EngineError), match="encoding: update"):
        layout().for_holder(0.1).encode({"update": update * 100.0, "weight": np.array(100)})


def test_a_holder_cannot_claim_more_records_than_its_share_of_the_range_has_room_for() -> None:
    with pytest.raises(Refused, match="weight"):
        layout().for_holder(0.1).encode({"update": np.zeros(PARAMETERS), "weight": np.array(150)})


def test_an_honest_holder_scales_a_long_update_down() -> None:
    long = np.full(PARAMETERS, 9.0, np.float32)
    short = bounded(long, 2.0)
    assert 2.0 * (1 - 1e-4) < np.linalg.norm(short) <= 2.0
    np.testing.assert_allclose(short / np.linalg.norm(short), long / np.linalg.norm(long), rtol=1e-6)


def test_a_forged_word_outside_the_range_is_noticed_in_the_total() -> None:
    words, _ = honest_words(layout())
    most = 1 << (layout().bits - 2)
    for forged in (2 * most - 1, -2 * most, most + most // 2, -(most + most // 2)):
        lies = words | {
            "a": words["a"].astype(object) + np.eye(1, layout().entries, 3, dtype=int)[0].astype(object) * forged
        }
        with pytest.raises(EngineError, match="outside the agreed range"):
            layout().decode(masked_sum(layout(), lies))


def test_a_forged_word_that_stays_in_range_moves_no_entry_of_the_mean_beyond_the_norm() -> None:
    """The bound that docs/protections.md states for one holder that sends arbitrary words for its update."""
    words, _ = honest_words(layout())
    most, seen = 1 << (layout().bits - 2), []
    for forged in range(-2 * most, 2 * most, most // 32):
        lie = np.full(layout().entries, forged, object)
        lie[-1] = words["a"][-1]  # the weight, which sorts last
        try:
            total = layout().decode(masked_sum(layout(), words | {"a": lie}))
        except EngineError:
            continue
        seen.append(float(np.abs(total["update"] / int(total["weight"])).max()))
    assert len(seen) > 20  # lies that went unnoticed
    assert 1.8 < max(seen) <= 2.0 * (1 + 2.0**-20)


def test_a_strategy_that_sees_only_the_sum_is_moved_by_a_liars_share_of_it() -> None:
    models = np.vstack([np.zeros((6, 5), np.float32), np.full((1, 5), 14.0, np.float32)])
    for name in ("fedavg", "fedprox"):
        np.testing.assert_allclose(combined(models.mean(0)[None], [7], name=name), 2.0, atol=1e-6)
