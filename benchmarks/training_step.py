"""Time of one private training step as a ratio to plain, non-private SGD of the same model and batch.

    python benchmarks/training_step.py

The floor of private training is the same forward and backward pass without per-unit clipping and noise. All variants
are timed in turn, round robin, in one process on one thread; the median of the ratios is printed.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from statfed.client.training import Schedule, fit
from statfed.core.discovery import load
from statfed.core.randomness import stream
from statfed.core.study import Study, make_study
from statfed.scenarios.time_use import CODEBOOK

STEPS, REPEATS = 20, 7


def variant(name: str, batch: int, unit: str | None) -> Callable[[], float]:
    """A function that trains STEPS steps and returns seconds per step."""
    table = {"scenario": "time-use", "model": {"name": name, "hidden": 64 if name == "mlp" else 16}}
    table |= {"training": {"batch_size": batch}} | ({"privacy": {"epsilon": 1.0, "unit": unit}} if unit else {})
    study: Study = make_study(table)
    terms = study.terms(CODEBOOK)
    module = load("statfed.strategies.models", name, "model")
    windows = np.random.default_rng(0).normal(size=(batch, len(CODEBOOK.channels), CODEBOOK.samples)).astype(np.float32)
    inputs = module.prepare(windows, CODEBOOK)
    labels = np.random.default_rng(1).integers(0, len(CODEBOOK.classes), batch)
    persons = np.arange(batch) // 16

    def run() -> float:
        model = module.build(CODEBOOK, terms.model.hidden, 0)
        plan = Schedule(1.0, STEPS, float(batch), 1.0 if unit else None)
        started = time.perf_counter()
        for _ in range(1 if unit else STEPS):
            fit(model, inputs, labels, persons, terms, plan, stream(1, "s"), stream(1, "n"))
        return (time.perf_counter() - started) / STEPS

    return run


def main() -> None:
    """Print one line per model, batch and variant."""
    print(f"{'model':6} {'batch':>5} {'variant':12} {'ms/step':>8} {'ratio':>6}")
    for name in ("mlp", "cnn"):
        for batch in (64, 256, 1024):
            variants = {"plain SGD": variant(name, batch, None)}
            variants |= {f"per {unit}": variant(name, batch, unit) for unit in ("record", "person")}
            times: dict[str, list[float]] = {key: [] for key in variants}
            for repeat in range(REPEATS + 1):
                for key, run in variants.items():
                    seconds = run()
                    if repeat:
                        times[key].append(seconds)
            for key, taken in times.items():
                ratio = statistics.median(t / p for t, p in zip(taken, times["plain SGD"], strict=True))
                print(f"{name:6} {batch:5d} {key:12} {1e3 * statistics.median(taken):8.2f} {ratio:6.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
