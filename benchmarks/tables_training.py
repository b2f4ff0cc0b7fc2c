"""Accuracy of training on tables: federated, pooled and alone, without privacy and at epsilon 3 and 1.

    python benchmarks/tables_training.py [--seeds 5] [--epsilons none,3,1] [--sets breast-cancer,digits]
        [--out runs/benchmark-tables.jsonl]

The tables come with scikit-learn. Each seed deals their records anew: a quarter to the test, the rest to three holders,
a half, a third and a sixth. Everything runs from the holders' files, as `statfed train` does, with one linear model
(`dense`, hidden 1), the same steps, learning rate and clipping norm for all who descend on clipped gradients:

- *federated*: local-sgd without privacy; dp-fedsgd under secure aggregation with shared noise, no colluders;
- *pooled*: Adam on the union without privacy (tuned), Opacus's DP-SGD on the union at the same epsilon;
- *alone*: the mean over holders of each one's own model, Adam or dp-fedsgd of that holder at the same epsilon;
- *glm*: pooled logistic regression.

Bounds are those of the whole table, rounded; no record of the test is in any training. Prints mean and standard error
over seeds as Markdown, and the gap of federated to pooled in standard errors of the paired differences.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from sklearn import datasets
from torch.nn.functional import cross_entropy

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.method import read_question
from statfed.core.privacy.accountant import calibrate
from statfed.core.study import make_study
from statfed.federation.answers import Answer
from statfed.federation.models import Saved, saved
from statfed.federation.references import GRID, train_alone, tune
from statfed.federation.run import Options, run_study
from statfed.federation.trained import Scores
from statfed.strategies.learning.inputs import make_inputs, windows_of
from statfed.strategies.learning.local import get_vector
from statfed.strategies.learning.prepared import Prepared, build
from statfed.strategies.models import dense

SHARES = {"a": 1 / 2, "b": 1 / 3, "c": 1 / 6}
STEPS, RATE, LEARNING_RATE = 40, 1.0, {"breast-cancer": 2.0, "digits": 4.0}
METHODS = ("federated", "pooled", "alone", "glm", "majority")
MODEL = {"name": "dense", "hidden": 1}


def table(name: str) -> tuple[pd.DataFrame, Codebook, list[str]]:
    """Records with target `y`, their codebook and features."""
    found: Any = datasets.load_digits() if name == "digits" else datasets.load_breast_cancer()
    values = found.data if name == "digits" else np.log1p(found.data)
    names = [f"x{i}" for i in range(values.shape[1]) if values[:, i].min() < values[:, i].max()]
    frame = pd.DataFrame({name: values[:, int(name[1:])] for name in names})
    low, high = np.floor(20 * frame.min()) / 20, np.ceil(20 * frame.max()) / 20
    columns: dict[str, Any] = {n: {"type": "number", "low": float(low[n]), "high": float(high[n])} for n in names}
    frame["y"] = [f"class {value}" for value in found.target]
    columns["y"] = {"type": "category", "categories": sorted(set(frame.y))}
    return frame, make_codebook({"columns": columns}), names


def run(name: str, epsilon: float | None, seed: int) -> dict[str, float]:
    """Accuracy of every method on the held-out quarter."""
    frame, codebook, features = table(name)
    frame = frame.iloc[np.random.default_rng(seed).permutation(len(frame))].reset_index(drop=True)
    test, rest = frame[: len(frame) // 4], frame[len(frame) // 4 :]
    ends = np.cumsum([0, *(round(share * len(rest)) for share in SHARES.values())])
    parts = {holder: rest[a:b] for holder, a, b in zip(SHARES, ends[:-1], ends[1:], strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for holder, part in parts.items():
            files[holder] = str(Path(folder) / f"{holder}.parquet")
            part.to_parquet(files[holder])

        def trained(holders: Mapping[str, str]) -> Answer:
            return run_study(study(name, holders, features, epsilon, seed), Options(codebook=codebook))

        answer = trained(files)
        alone = [trained({holder: file}) for holder, file in files.items()] if epsilon else []
    model = saved(answer)
    found = {"federated": score(model, test), "majority": float((test.y == rest.y.mode()[0]).mean())}
    _, question = read_question(answer.terms)
    data = {holder: prepared(part, codebook, features) for holder, part in {**parts, "all": rest}.items()}
    recipe = tune(data["all"], question, seed, lambda *_: None) if epsilon is None else GRID[0]

    def of(network: Any) -> float:
        return score(Saved(get_vector(network), model.card, model.inputs), test)

    if epsilon is None:
        found["pooled"] = of(train_alone(data["all"], question, recipe, seed))
        found["alone"] = statistics.mean(of(train_alone(data[one], question, recipe, seed)) for one in SHARES)
        found["glm"] = logistic(data["all"], prepared(test, codebook, features))
    else:
        found["pooled"] = of(opacus(data["all"], question, epsilon, seed, LEARNING_RATE[name]))
        found["alone"] = statistics.mean(score(saved(one), test) for one in alone)
    return found


def study(name: str, holders: Mapping[str, str], features: list[str], epsilon: float | None, seed: int) -> Any:
    """Of all holders, or of one."""
    options: dict[str, Any] = {"target": "y", "features": features, "model": MODEL}
    private: dict[str, Any] = {}
    if epsilon is None:
        options |= {"rounds": 60, "batch_size": 32, "learning_rate": 0.3}
    else:
        options |= {"rounds": STEPS, "sampling_rate": RATE, "learning_rate": LEARNING_RATE[name]}
        several = len(holders) > 1
        noise = {"noise": "shared", "colluders": 0} if several else {"noise": "local"}
        protection = {"name": "secure-aggregation", "minimum_holders": len(holders)} if several else {"name": "plain"}
        private = {"privacy": {"epsilon": epsilon, "delta": 1e-5, **noise}, "protection": protection}
    method = "dp-fedsgd" if epsilon else "local-sgd"
    return make_study({"method": method, "options": options, "holders": dict(holders), "seed": seed, **private})


def prepared(frame: pd.DataFrame, codebook: Codebook, features: list[str]) -> Prepared:
    """Records as the model takes them."""
    import pyarrow as pa

    inputs = make_inputs(codebook, features, "y")
    x = dense.prepare(windows_of(pa.Table.from_pandas(frame, preserve_index=False), inputs), inputs.form)
    y = frame.y.map(inputs.form.classes.index).to_numpy(np.int64)
    return Prepared(x, y, np.arange(len(y)), np.zeros(len(y), np.bool_))


def opacus(data: Prepared, question: Any, epsilon: float, seed: int, rate: float) -> Any:
    """DP-SGD on the union, by Opacus's own hooks, optimizer and noise."""
    model = build(question, seed)
    x, y = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    network = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=rate),
        noise_multiplier=calibrate(RATE, STEPS, epsilon, 1e-5),
        max_grad_norm=1.0,
        expected_batch_size=len(y),
        loss_reduction="mean",
        generator=torch.Generator().manual_seed(seed),
    )
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(network(x), y, reduction="sum").backward()
        optimizer.step()
    network.remove_hooks()
    return model


def logistic(data: Prepared, test: Prepared) -> float:
    """Pooled logistic regression."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=100.0, max_iter=5000).fit(data.inputs, data.labels)
    return float(fitted.score(test.inputs, test.labels))


def score(model: Saved, test: pd.DataFrame) -> float:
    """Accuracy on the test records."""
    found = model.score(test)
    if not isinstance(found, Scores):
        raise TypeError("scores of a number; want those of classes")
    return found.accuracy


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilons", default="none,3,1")
    parser.add_argument("--sets", default=",".join(LEARNING_RATE))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-tables.jsonl"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {json.dumps(row["key"]) for row in rows}
    for name in options.sets.split(","):
        for epsilon in (None if word == "none" else float(word) for word in options.epsilons.split(",")):
            for seed in range(1, options.seeds + 1):
                key = [name, epsilon, seed]
                if json.dumps(key) in known:
                    continue
                started = time.perf_counter()
                rows.append({"key": key, "accuracy": run(name, epsilon, seed)})
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(key, rows[-1]["accuracy"], f"{time.perf_counter() - started:.1f} s", flush=True)
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    """Mean ± standard error over seeds."""
    groups: dict[tuple[str, float | None], list[dict[str, float]]] = {}
    for row in rows:
        groups.setdefault((row["key"][0], row["key"][1]), []).append(row["accuracy"])
    print(f"\n| table | epsilon | {' | '.join(METHODS)} | federated - pooled | in standard errors | seeds |")
    print(f"| --- | --- |{' --- |' * (len(METHODS) + 3)}")
    for (name, epsilon), found in groups.items():
        cells = []
        for method in METHODS:
            values = [one[method] for one in found if method in one]
            cells.append(" ± ".join(f"{figure:.3f}" for figure in spread(values)) if values else "")
        gap, error = spread([one["federated"] - one["pooled"] for one in found])
        ratio = gap / error if error else math.inf
        shown = "none" if epsilon is None else f"{epsilon:g}"
        print(f"| {name} | {shown} | {' | '.join(cells)} | {gap:+.4f} | {ratio:+.2f} | {len(found)} |")


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.mean(values), error


if __name__ == "__main__":
    main()
