"""Accuracy of DP gradient descent on protected sums (`dp-fedsgd`, shared noise) against pooled DP-SGD and local noise.

    python benchmarks/fedsgd.py [--seeds 5] [--epsilons 0.3,1,3] [--sets time-use,digits,breast-cancer]
        [--steps 100] [--rate 0.1] [--colluders 0] [--persons 60] [--out runs/benchmark-fedsgd.jsonl]

Five holders. Per seed the records are dealt to holders and test anew, and every method starts from the same weights:

- *pooled*: Opacus's DP-SGD (its hooks, its optimizer, its noise) on the union of the holders' records;
- *dp-fedsgd*: the holders' noisy whole-number sums, added up as secure aggregation would, and the same plain step;
- *local + FedAvg*: each holder DP-SGD on its own records with all of the noise, averaged by size over 10 rounds;
- *no noise*: the pooled steps, clipped, without noise.

All take as many passes over the data, at the same epsilon per record (delta 10^-5), clipping norm and learning rate.
time-use: generated sensor windows, persons dealt whole; digits and breast-cancer: the tables that scikit-learn brings
along. With 1 colluder the noise is what a holder that knows its own share leaves of it: 12 % more for five holders.

Prints mean and standard error over seeds as Markdown, and the gap to pooled in standard errors of the paired
differences; writes one line per run to --out, and does not repeat runs that are already there.
"""

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.nn.functional import cross_entropy

from statfed.core.method import Question, read_question
from statfed.core.privacy.accountant import calibrate
from statfed.core.randomness import stream
from statfed.core.study import make_study
from statfed.core.table import Size
from statfed.federation.population import described
from statfed.scenarios import time_use
from statfed.scenarios._data import generator
from statfed.strategies.learning import step as fedsgd
from statfed.strategies.learning.gradients import noisy_sum
from statfed.strategies.learning.local import fit, get_vector, schedule, set_vector
from statfed.strategies.models import mlp

HOLDERS = 5
ROUNDS = 10  # of FedAvg
RATES = {"time-use": 1.0, "digits": 2.0, "breast-cancer": 1.0}
METHODS = ("pooled", "dp-fedsgd", "local + FedAvg", "no noise")


@dataclass(frozen=True)
class Split:
    """One draw of a data set. inputs: (records, features); owner: (records,) holder, -1 for the test set."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    owner: NDArray[np.int64]
    build: Callable[[], nn.Module]

    def of(self, holder: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self.inputs[self.owner == holder], self.labels[self.owner == holder]

    @property
    def pooled(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self.inputs[self.owner >= 0], self.labels[self.owner >= 0]


def split(name: str, seed: int, persons: int) -> Split:
    """A data set, dealt with `seed`."""
    inputs, labels, groups, build = loaded(name, persons)
    order = stream(seed, "benchmark", name).permutation(int(groups.max()) + 1)
    kept = round(0.25 * len(order))
    owner = np.concatenate([np.full(kept, -1), np.arange(len(order) - kept) % HOLDERS])
    return Split(inputs, labels, owner[np.argsort(order)][groups], lambda: build(seed))


@cache
def loaded(
    name: str, persons: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], Callable[[int], nn.Module]]:
    """Inputs, labels, what is dealt whole, and a model by seed."""
    if name == "time-use":
        codebook = time_use.CODEBOOK
        records = generator.generate(persons, 40, 1)
        inputs = mlp.prepare(records.windows, codebook)
        return inputs, records.labels, records.persons, lambda seed: mlp.build(codebook, 32, seed)
    from sklearn import datasets

    table: Any = datasets.load_digits() if name == "digits" else datasets.load_breast_cancer()
    x, y = np.asarray(table.data, np.float64), np.asarray(table.target, np.int64)
    x = x / 16.0 if name == "digits" else (np.log1p(x) - np.log1p(x).mean(0)) / np.log1p(x).std(0) / 4.0
    return x.astype(np.float32), y, np.arange(len(y)), lambda _: linear(x.shape[1], int(y.max()) + 1)


def linear(features: int, classes: int) -> nn.Module:
    layer = nn.Linear(features, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def question(method: str, epsilon: float, options: argparse.Namespace, rate: float) -> Question[Any]:
    """What holders would agree to, read."""
    shared = {"noise": "shared", "colluders": options.colluders} if method == "dp-fedsgd" else {}
    own: dict[str, Any] = {"sampling_rate": options.rate, "rounds": options.steps}
    if method != "dp-fedsgd":
        epochs = max(1, round(options.steps * options.rate / ROUNDS))
        own = {"batch_size": options.batch, "local_epochs": epochs, "rounds": ROUNDS}
    table = described(time_use.CODEBOOK)
    agreed = make_study(
        {
            "scenario": "time-use",
            "method": method,
            "holders": HOLDERS,
            "options": own | {"learning_rate": rate, "features": list(table.features), "target": table.target},
            "privacy": {"epsilon": epsilon, "delta": 1e-5} | shared,
            "protection": {"name": "secure-aggregation", "minimum_holders": HOLDERS} if shared else {},
        }
    ).terms(table.codebook)
    return read_question(agreed)[1]


def pooled(data: Split, epsilon: float | None, seed: int, rate: float, options: argparse.Namespace) -> nn.Module:
    """Opacus on the union; without epsilon, without noise."""
    model = data.build()
    x, y = (torch.from_numpy(part) for part in data.pooled)
    network = GradSampleModule(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=rate),
        noise_multiplier=calibrate(options.rate, options.steps, epsilon, 1e-5) if epsilon else 0.0,
        max_grad_norm=1.0,
        expected_batch_size=options.rate * len(y),
        loss_reduction="mean",
        generator=torch.Generator().manual_seed(seed),
    )
    sampling = stream(seed, "pooled", "sampling")
    for _ in range(options.steps):
        rows = torch.from_numpy(sampling.choose(len(y), options.rate))
        optimizer.zero_grad()
        cross_entropy(network(x[rows]), y[rows], reduction="sum").backward()
        optimizer.step()
    network.remove_hooks()
    return model


def summed(data: Split, epsilon: float, seed: int, rate: float, options: argparse.Namespace) -> nn.Module:
    """`dp-fedsgd`: the holders' whole numbers, added up; a plain step along the mean."""
    model = data.build()
    vector = get_vector(model).astype(np.float64)
    agreed = question("dp-fedsgd", epsilon, options, rate)
    step, privacy = fedsgd.step(agreed, len(vector)), agreed.privacy
    assert privacy is not None
    units = len(data.pooled[1])
    for number in range(options.steps):
        total = np.zeros(len(vector), np.int64)
        for holder in range(HOLDERS):
            x, y = data.of(holder)
            labels = (seed, holder, number)
            streams = stream(*labels, "sampling"), stream(*labels, "noise")
            total += noisy_sum(model, x, y, np.arange(len(y)), privacy, step, *streams)
        vector -= rate * total * (step.unit / (step.rate * units))
        set_vector(model, vector.astype(np.float32))
    return model


def averaged(data: Split, epsilon: float, seed: int, rate: float, options: argparse.Namespace) -> nn.Module:
    """FedAvg over holders' own DP-SGD."""
    model = data.build()
    agreed = question("local-sgd", epsilon, options, rate)
    how, privacy = agreed.options, agreed.privacy
    for number in range(ROUNDS):
        start, total, units = get_vector(model), np.zeros_like(get_vector(model)), len(data.pooled[1])
        for holder in range(HOLDERS):
            x, y = data.of(holder)
            set_vector(model, start)
            streams = stream(seed, holder, number, "local"), stream(seed, holder, number, "local noise")
            plan = schedule(how, privacy, Size(len(y), len(y)))
            fit(model, x, y, np.arange(len(y)), how, privacy, plan, *streams)
            total += get_vector(model) * np.float32(len(y) / units)
        set_vector(model, total)
    return model


def accuracy(model: nn.Module, data: Split) -> float:
    x, y = data.of(-1)
    model.eval()
    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def run(name: str, epsilon: float, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Accuracy of each method."""
    data, rate = split(name, seed, options.persons), RATES[name]
    models = {
        "pooled": pooled(data, epsilon, seed, rate, options),
        "dp-fedsgd": summed(data, epsilon, seed, rate, options),
        "local + FedAvg": averaged(data, epsilon, seed, rate, options),
        "no noise": pooled(data, None, seed, rate, options),
    }
    return {method: accuracy(model, data) for method, model in models.items()}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epsilons", default="0.3,1,3")
    parser.add_argument("--sets", default=",".join(RATES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.1, help="Poisson rate of a record per step")
    parser.add_argument("--batch", type=int, default=32, help="of local DP-SGD")
    parser.add_argument("--colluders", type=int, default=0)
    parser.add_argument("--persons", type=int, default=60, help="time-use: generated persons in all, 40 windows each")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-fedsgd.jsonl"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    setting = [options.steps, options.rate, options.batch, options.colluders, options.persons]
    known = {json.dumps(row["key"]) for row in rows}
    for name in options.sets.split(","):
        for epsilon in map(float, options.epsilons.split(",")):
            for seed in range(1, options.seeds + 1):
                key = [name, epsilon, seed, *setting]
                if json.dumps(key) in known:
                    continue
                started = time.perf_counter()
                rows.append({"key": key, "accuracy": run(name, epsilon, seed, options)})
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(key[:3], rows[-1]["accuracy"], f"{time.perf_counter() - started:.1f} s", flush=True)
    show([row for row in rows if row["key"][3:] == setting])


def show(rows: list[dict[str, Any]]) -> None:
    """Mean ± standard error over seeds, and the gap to pooled."""
    groups: dict[tuple[str, float], list[dict[str, float]]] = {}
    for row in rows:
        groups.setdefault((row["key"][0], row["key"][1]), []).append(row["accuracy"])
    print(f"\n| data | epsilon | {' | '.join(METHODS)} | gap of dp-fedsgd to pooled | in standard errors | seeds |")
    print(f"| --- | --- |{' --- |' * (len(METHODS) + 3)}")
    for (name, epsilon), found in groups.items():
        cells = []
        for method in METHODS:
            mean, error = spread([one[method] for one in found])
            cells.append(f"{mean:.3f} ± {error:.3f}")
        gap, error = spread([one["pooled"] - one["dp-fedsgd"] for one in found])
        ratio = gap / error if error else math.inf
        print(f"| {name} | {epsilon:g} | {' | '.join(cells)} | {gap:+.4f} | {ratio:+.2f} | {len(found)} |")


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.mean(values), error


if __name__ == "__main__":
    main()
