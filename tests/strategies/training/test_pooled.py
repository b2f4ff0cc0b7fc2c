"""Federated training against training on the union of the tables, and the same under every protection and engine."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.privacy import discrete
from statfed.core.resolve import resolve_applicable
from statfed.core.terms import Terms
from statfed.server.driver import Driven, drive
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from statfed.strategies.learning.local import get_vector, set_vector
from statfed.strategies.learning.losses import mean_loss
from statfed.strategies.learning.prepared import build
from tests.covering import rest_whole
from tests.strategies.training.driven import question_of
from tests.strategies.training.tables import people, study_of, trained, written

LINE = {"name": "dense", "hidden": 1}


def public_table(name: str) -> tuple[pd.DataFrame, Codebook]:
    """A table that comes with scikit-learn, and its codebook: bounds of hundredths, and the target `y`."""
    found: Any = load_breast_cancer() if name == "breast-cancer" else load_diabetes()
    frame = pd.DataFrame(found.data[:, :8], columns=[f"x{i}" for i in range(8)])
    low, high = np.floor(100 * frame.min()) / 100, np.ceil(100 * frame.max()) / 100
    ends = {name: (float(low[name]), float(high[name])) for name in map(str, frame)}
    columns: dict[str, Any] = {c: {"type": "number", "low": low, "high": high} for c, (low, high) in ends.items()}
    frame["y"] = found.target if name == "diabetes" else np.array(["bad", "good"])[found.target]
    target = {"type": "number", "low": 0, "high": 400} if name == "diabetes" else {"type": "category"}
    columns["y"] = target | ({} if name == "diabetes" else {"categories": ["bad", "good"]})
    return frame, make_codebook({"columns": columns})


def dealt(frame: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Three holders of different sizes."""
    parts = {"a": frame[:50], "b": frame[50:150], "c": frame[150:]}
    return written(folder, {name: part.reset_index(drop=True) for name, part in parts.items()})


def steps_of(terms: Terms, homes: dict[str, Path]) -> list[NDArray[np.float32]]:
    """The model before each round and after the last."""
    study, seen = resolve_applicable(terms), []

    def run(session: Any) -> Driven:
        def note(checkpoint: Any) -> None:
            seen.append(np.array(checkpoint.state["model"]))

        return drive(session, study, "r", timeout=60, progress=lambda *_: None, on_state=note)

    done = inprocess.run(Deployment("r", homes, Path("unused")), run, lambda *_: None)
    return [*seen, done.result.arrays["model"]]


def pooled_inputs(frame: pd.DataFrame, codebook: Codebook) -> tuple[torch.Tensor, torch.Tensor]:
    """What a model sees of the union, by hand."""
    low, high = (np.array([getattr(codebook.columns[f"x{i}"], end) for i in range(8)]) for end in ("low", "high"))
    x = (frame[[f"x{i}" for i in range(8)]].to_numpy() - (low + high) / 2) / ((high - low) / 2)
    y = (frame.y == "good").to_numpy(np.int64) if frame.y.dtype == object else frame.y.to_numpy(np.float32) / 200 - 1
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def homes_of(study: Any, terms: Terms, folder: Path) -> dict[str, Path]:
    from statfed.federation.homes import homes_under, make_homes

    folders = homes_under(folder, {name: name for name in study.holders})
    return make_homes(study, terms, study.holders, folders, folder)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
@pytest.mark.parametrize("hidden", [1, 6])
def test_one_full_batch_a_round_is_pooled_gradient_descent_step_for_step(
    name: str, hidden: int, tmp_path: Path
) -> None:
    frame, codebook = public_table(name)
    study = study_of(dealt(frame, tmp_path), "y", [f"x{i}" for i in range(8)], rounds=8, batch_size=10_000,
                     learning_rate=0.5, model={"name": "dense", "hidden": hidden})  # fmt: skip
    terms = study.terms(codebook)
    found = steps_of(terms, homes_of(study, terms, tmp_path / "homes"))
    x, y = pooled_inputs(frame, codebook)
    model = build(question_of(terms), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for vector in found:
        np.testing.assert_allclose(vector, get_vector(model), atol=2e-6)
        optimizer.zero_grad()
        mean_loss(model(x), y).backward()
        optimizer.step()
    assert len(found) == 9
    assert np.abs(found[-1] - found[0]).max() > 0.05


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
def test_linear_models_converge_to_those_of_scikit_learn(name: str, tmp_path: Path) -> None:
    frame, codebook = public_table(name)
    decay = 0.05 if name == "breast-cancer" else 0.0
    study = study_of(dealt(frame, tmp_path), "y", [f"x{i}" for i in range(8)], rounds=150, batch_size=10_000,
                     learning_rate=1.0, weight_decay=decay, model=LINE,
                     strategy={"name": "fedavgm", "server_momentum": 0.9})  # fmt: skip
    vector = trained(study, codebook=codebook).result.arrays["model"]
    x, y = (part.numpy() for part in pooled_inputs(frame, codebook))
    if name == "diabetes":
        least = LinearRegression().fit(x, y)
        np.testing.assert_allclose(vector[:8], least.coef_, atol=2e-2)
        assert np.abs(x @ vector[:8] + vector[8] - least.predict(x)).max() < 1e-2
        return
    # Two symmetric outputs with decay d on each are one with d / 2; the intercept is in the penalty.
    ones = np.column_stack([x, np.ones(len(x))])
    ridge = LogisticRegression(C=2 / (decay * len(x)), fit_intercept=False, tol=1e-8, max_iter=5000).fit(ones, y)
    found = np.append(vector[8:16] - vector[:8], vector[17] - vector[16])
    np.testing.assert_allclose(found, ridge.coef_[0], atol=2e-3)


def clipped_steps(study: Any, codebook: Codebook, frame: pd.DataFrame, steps: int) -> NDArray[np.float32]:
    """Pooled descent on clipped gradients, one record at a time."""
    x, y = pooled_inputs(frame, codebook)
    model = build(question_of(study.terms(codebook)), 1)
    for _ in range(steps):
        total = torch.zeros(len(get_vector(model)))
        for i in range(len(y)):
            model.zero_grad()
            mean_loss(model(x[i : i + 1]), y[i : i + 1]).backward()
            slope = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            total += slope * min(1.0, 0.3 / float(slope.norm()))
        set_vector(model, (get_vector(model) - (total / len(y)).numpy()).astype(np.float32))
    return get_vector(model)


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes"])
def test_private_descent_without_its_noise_is_pooled_descent_on_clipped_gradients(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discrete, "draw_gaussian", lambda _, count, __: np.zeros(count, np.int64))
    frame, codebook = public_table(name)
    study = study_of(dealt(frame, tmp_path), "y", [f"x{i}" for i in range(8)], "dp-fedsgd", rounds=3, model=LINE,
                     learning_rate=1.0, clipping_norm=0.3, privacy={"epsilon": 3.0})  # fmt: skip
    found = trained(study, codebook=codebook).result.arrays["model"]
    np.testing.assert_allclose(found, clipped_steps(study, codebook, frame, 3), atol=2e-5)


PROTECTIONS: dict[str, dict[str, Any]] = {
    "secure-aggregation": {"name": "secure-aggregation"},
    "homomorphic-encryption": {"name": "homomorphic-encryption"},
    "multi-party": {"name": "multi-party"},
}


def asked(holders: dict[str, str], method: str, target: str, protection: str, **more: Any) -> Any:
    private = {"privacy": {"epsilon": 5.0}} if method == "dp-fedsgd" else {}
    return study_of(holders, target, ["age", "region"], method, rounds=2, holdout=0.2, model=LINE,
                    protection=PROTECTIONS.get(protection, {"name": protection}), **private, **more)  # fmt: skip


@pytest.mark.parametrize(
    ("protection", "method", "target"),
    rest_whole(
        product(PROTECTIONS, ["dp-fedsgd", "local-sgd"], ["employed", "income"]),
        lambda protection, method, target: (
            (method == "dp-fedsgd") == (target == "employed") or protection == "secure-aggregation"
        ),
    ),
)
def test_model_and_scores_are_the_same_under_every_protection(
    protection: str, method: str, target: str, tmp_path: Path
) -> None:
    holders = written(tmp_path, {name: people(40 * i, i) for i, name in enumerate("abc", 1)})
    plain = trained(asked(holders, method, target, "plain")).result
    hidden = trained(asked(holders, method, target, protection)).result
    if method == "dp-fedsgd":
        np.testing.assert_array_equal(hidden.arrays["model"], plain.arrays["model"])
        return  # the noise of scores is another in each study
    np.testing.assert_allclose(hidden.arrays["model"], plain.arrays["model"], atol=1e-6)
    one, other = (result.to_pandas("scores") for result in (hidden, plain))
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)


@pytest.mark.parametrize("method", ["dp-fedsgd", "local-sgd"])
def test_model_and_scores_are_the_same_to_the_bit_over_the_wire(method: str, tmp_path: Path) -> None:
    class Wire:
        @staticmethod
        def run(deployment: Any, drive: Any, progress: Any) -> Any:
            return inprocess.run(deployment, drive, progress, wire=True)

    holders = written(tmp_path, {name: people(40 * i, i) for i, name in enumerate("abc", 1)})
    study = asked(holders, method, "employed", "plain")
    one, two = trained(study).result, trained(study, engine=Wire).result
    np.testing.assert_array_equal(one.arrays["model"], two.arrays["model"])
    assert one.tables == two.tables
