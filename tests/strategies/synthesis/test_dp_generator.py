"""`dp-generator`: gradients against torch, their bound against neighbours, holders against pooled records, files."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from statfed.client.guard.ledger import read_only
from statfed.core.errors import StatfedError, UsageError
from statfed.core.method import Ask, read_question
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.utility import margins
from statfed.core.terms import Terms
from statfed.federation.federation import Federation
from statfed.federation.synthetic import Synthesizer, fit, load_synthesizer, own_table
from statfed.strategies.analyses import made
from statfed.strategies.analyses._made import Network, clipped_sum, drawn
from statfed.strategies.synthesis import dp_generator
from tests.federate import codebook_of, federate

BOOK = codebook_of(
    {
        "job": {"type": "category", "categories": ["none", "part", "full"], "required": True},
        "hours": {"type": "integer", "low": 0, "high": 49},
        "sex": {"type": "boolean", "required": True},
    }
)
SHORT: dict[str, Any] = {"classes": 10, "hidden": 8, "steps": 8}


def people(count: int = 600, seed: int = 3) -> pd.DataFrame:
    """Hours follow the job, and are missed by those without one; sex is by itself."""
    rng = np.random.default_rng(seed)
    job = rng.integers(3, size=count)
    hours = np.where(job > 0, np.array([0, 20, 40])[job] + rng.integers(-5, 6, count), np.nan)
    return pd.DataFrame(
        {"job": np.array(["none", "part", "full"])[job], "hours": hours, "sex": rng.random(count) < 0.4}
    )


def random_one(network: Network, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.5, network.entries).astype(np.float32)


def codes(network: Network, count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(size, size=count) for size in network.sizes])


def by_torch(network: Network, vector: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The gradient of one record's loss by automatic differentiation, of the masked matrices written out."""
    weights = network.weights(vector)
    matrices = [torch.tensor(one, requires_grad=True) for one in weights.matrices]
    biases = [torch.tensor(one, requires_grad=True) for one in weights.biases]
    cells = torch.zeros(network.starts[-1], dtype=torch.float64)
    places = [start + int(c) for start, c in zip(network.starts[:-1], code, strict=True)]
    cells[places] = 1.0
    value = cells
    for layer in range(network.layers):
        value = torch.relu((matrices[layer] * torch.tensor(network.masks[layer])) @ value + biases[layer])
    out = (matrices[network.layers] * torch.tensor(network.masks[network.layers])) @ value + biases[-1]
    if network.direct:
        out = out + (matrices[-1] * torch.tensor(network.masks[-1])) @ cells
    blocks = zip(network.starts, network.starts[1:], places, strict=False)
    loss = sum(-torch.log_softmax(out[start:end], 0)[place - start] for start, end, place in blocks)
    assert isinstance(loss, torch.Tensor)
    found = torch.autograd.grad(loss, [*matrices, *biases], allow_unused=True)
    whole = [
        np.zeros(like.shape) if g is None else g.numpy() for g, like in zip(found, [*matrices, *biases], strict=True)
    ]
    return network.flat(whole[: len(matrices)], whole[len(matrices) :])


NETWORKS = [Network((3, 4, 2, 5), 7, 1, True), Network((3, 4, 2, 5), 7, 3, False), Network((4,), 2, 1, True)]


@pytest.mark.parametrize("network", NETWORKS, ids=["direct", "deep", "one column"])
def test_a_record_s_gradient_is_that_of_automatic_differentiation_scaled_to_the_clip(network: Network) -> None:
    vector, records = random_one(network), codes(network, 12)
    for record in records:
        wanted = by_torch(network, vector, record)
        size = np.linalg.norm(wanted)
        assert size > 0.5
        free = clipped_sum(network, vector, record[None], 1e6)
        np.testing.assert_allclose(free, wanted, rtol=1e-5, atol=1e-6 * float(size))
        clipped = clipped_sum(network, vector, record[None], 0.3)
        np.testing.assert_allclose(clipped, wanted * 0.3 / size, rtol=1e-4, atol=1e-6)
        assert np.linalg.norm(clipped) <= 0.3


def test_a_column_s_chances_do_not_depend_on_it_or_on_later_ones() -> None:
    network = NETWORKS[1]
    record = codes(network, 1)[0]
    for column, size in enumerate(network.sizes):  # the slope in a cell's bias is its chance, less the record's own
        chances = []
        for other in range(size):
            changed = record.copy()
            changed[column] = other
            changed[column + 1 :] = (changed[column + 1 :] + other) % np.array(network.sizes)[column + 1 :]
            slope = clipped_sum(network, random_one(network), changed[None], 1e6)[-network.starts[-1] :]
            slope[network.starts[column] + other] += 1.0
            chances.append(slope[network.starts[column] : network.starts[column + 1]])
        np.testing.assert_allclose(chances, np.broadcast_to(chances[0], (size, size)), atol=1e-8)
        np.testing.assert_allclose(chances[0].sum(), 1.0, atol=1e-8)


def test_one_record_moves_the_clipped_sum_by_no_more_than_the_clip_wherever_it_stands() -> None:
    network = Network((3, 40, 2, 30), 24, 2, True)
    weights = random_one(network) * 30  # chosen so that most slopes are those of a step function
    records = codes(network, 1500)
    whole = clipped_sum(network, weights, records, 0.7)
    for place in (0, 700, 1023, 1024, 1499):
        without = clipped_sum(network, weights, np.delete(records, place, axis=0), 0.7)
        alone = clipped_sum(network, weights, records[place : place + 1], 0.7)
        assert np.linalg.norm(whole - without) <= 0.7
        np.testing.assert_allclose(whole - without, alone, atol=1e-9)  # its part does not depend on who else is there
    assert np.linalg.norm(alone) == pytest.approx(0.7, rel=2e-5)


def test_holders_together_get_the_model_of_pooled_records() -> None:
    frame = people()

    def weights(frames: list[pd.DataFrame]) -> np.ndarray:
        return federate("made", frames, BOOK, **SHORT).to_pandas()["value"].to_numpy()

    pooled, dealt = weights([frame]), weights([frame.iloc[i::3] for i in range(3)])
    assert np.abs(pooled).max() > 0.2
    np.testing.assert_allclose(dealt, pooled, atol=1e-5)


def fitted(frame: pd.DataFrame, **options: Any) -> Synthesizer:
    with Federation({"a": frame}, BOOK, seed=1) as asked:
        return fit(asked, "dp-generator", options)


def test_records_keep_what_depends_and_are_the_same_from_the_same_seed(tmp_path: Path) -> None:
    frame = people(1500)
    original = own_table(frame, BOOK)
    model = fitted(frame, classes=50, hidden=16, steps=40, rate=0.3)
    model.save(tmp_path / "model.json")
    made = load_synthesizer(tmp_path / "model.json").coded(3000, seed=5)
    pd.testing.assert_frame_equal(model.sample(3000, seed=5), load_synthesizer(tmp_path / "model.json").sample(3000, 5))
    rng = np.random.default_rng(0)
    apart = Coded(original.codebook, {name: rng.permutation(values) for name, values in original.columns.items()})

    def distance(table: Coded) -> float:
        return float(margins(original, table, None, np.random.default_rng(0)).value)

    assert distance(made) < 0.5 * distance(apart)
    missing = made.missing("hours")
    assert (missing == (made.columns["job"] == 0)).mean() > 0.97  # missing values follow too


def test_a_private_fit_of_several_holders_costs_what_its_file_says(tmp_path: Path) -> None:
    holders = {name: people(400).iloc[i::3] for i, name in enumerate("abc")}
    privacy = {"epsilon": 3.0, "noise": "shared"}
    with Federation(holders, BOOK, seed=1, protection="secure-aggregation", workspace=tmp_path) as asked:
        model = fit(asked, "dp-generator", {**SHORT, "hidden": 2, "steps": 2}, privacy)
    origin = model.fitted.origin
    assert len(origin["runs"]) == 1  # one study, one charge
    ledgers = sorted(tmp_path.rglob("ledger.sqlite"))
    assert len(ledgers) == 3
    for path in ledgers:
        with read_only(path) as ledger:
            spent = ledger.spending(origin["runs"][0], delta=origin["delta"])
        assert spent.charged == 2  # steps
        assert spent.study_epsilon == pytest.approx(origin["epsilon"], rel=1e-9)
    assert 2.7 < origin["epsilon"] <= 3.0
    assert len(model.sample(50, 1)) == 50


def test_exact_gradients_leave_no_holder_with_rules() -> None:
    with Federation({"a": people(90), "b": people(90)}, BOOK, rules="standard") as asked, pytest.raises(StatfedError):
        fit(asked, "dp-generator", {**SHORT, "steps": 1})


def test_weights_that_are_none_and_steps_beyond_the_last_are_refused() -> None:
    terms = Terms(method="made", options=SHORT, codebook=BOOK, holders=("a",), seed=1)
    question = read_question(terms)[1]
    first = next(made.coordinate(question))
    assert first.arrays["weights"].dtype == np.float32
    bad = first.arrays["weights"].copy()
    bad[3] = np.nan
    for arrays in ({"weights": bad}, {"weights": bad[1:]}, {"weights": bad.astype(np.float64)}, {"other": bad}):
        with pytest.raises(UsageError, match="want"):
            made.parts(question, Ask("step", arrays))
    with pytest.raises(UsageError, match="beyond 1000"):
        made.parts(question, Ask("step", {"weights": np.full_like(bad, 2e3)}))
    assert made.follows(question, [first] * 7, first) == ""
    assert "got step 9; want 8" in made.follows(question, [first] * 8, first)
    with pytest.raises(UsageError, match="fewer classes or hidden units"):
        read_question(replace_options(terms, hidden=1024, layers=4))


def replace_options(terms: Terms, **more: Any) -> Terms:
    return terms.model_copy(update={"options": {**terms.options, **more}})


def test_a_model_s_file_that_is_none_is_refused() -> None:
    good = json.loads(json.dumps(dict(fitted(people(100), **{**SHORT, "steps": 1}).fitted.model)))
    raw = base64.b64decode(good["weights"])
    names = list(good["axes"])
    others = [
        good | {"weights": good["weights"][:-8]},
        good | {"weights": "?" + good["weights"][1:]},
        good | {"weights": base64.b64encode(b"\x00\x00\xc0\x7f" + raw[4:]).decode()},
        good | {"weights": 3},
        good | {"network": {**good["network"], "hidden": 9}},
        good | {"network": {**good["network"], "hidden": 10**9}},
        good | {"network": {**good["network"], "direct": "yes"}},
        good | {"axes": {name: good["axes"][name] for name in names[1:]}},
        good | {"axes": {**good["axes"], "job": {"levels": ["none", "full", "part"], "missing": False}}},
        good | {"axes": []},
        {key: good[key] for key in ("axes", "network")},
    ]
    for other in others:
        with pytest.raises(UsageError, match="model"):
            dp_generator.generate(other, BOOK, 5, np.random.default_rng(0))
    assert set(dp_generator.generate(good, BOOK, 5, np.random.default_rng(0))) == set(names)


def test_cells_are_drawn_by_the_chances_that_are_trained() -> None:
    network = NETWORKS[0]
    vector = random_one(network, 4)
    found = drawn(network, network.weights(vector), 40_000, np.random.default_rng(2))
    start, end = network.starts[1], network.starts[2]
    for first in range(3):  # chances of the second column given the first, from slopes as above
        record = np.array([[first, 0, 0, 0]])
        slope = clipped_sum(network, vector, record, 1e6)[-network.starts[-1] :][start:end]
        slope[0] += 1.0
        given = found[found[:, 0] == first, 1]
        assert np.abs(np.bincount(given, minlength=4) / len(given) - slope).max() < 0.02
