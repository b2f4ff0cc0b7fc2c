"""Time of one private training step as a ratio to plain, non-private SGD of the same model and batch.

    python benchmarks/training_step.py

The floor of private training is the same forward and backward pass without per-unit clipping and noise. `together`
takes many units at once (`statfed.strategies.learning.exact`), `alone` one by one, as for models that it does not
cover; `noise` is the part of a private step that draws the noise. All variants are timed in turn,
round robin, in one process on one
thread, by the processor time that they use; the median of the ratios is printed.
"""

import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch

from statfed.core.discovery import load
from statfed.core.randomness import stream
from statfed.core.section import Unit
from statfed.core.terms import Privacy
from statfed.scenarios.time_use import CODEBOOK
from statfed.strategies.learning.local import Schedule, fit, get_vector
from statfed.strategies.learning.options import LocalOptions

STEPS, REPEATS, RECORDS_PER_PERSON = 20, 7, 16


def variant(name: str, batch: int, unit: Unit | None, alone: bool = False) -> Callable[[], float]:
    """A function that trains STEPS steps and returns seconds per step."""
    options = LocalOptions(batch_size=batch, local_epochs=STEPS)
    privacy = Privacy(epsilon=1.0, delta=1e-5, unit=unit, max_records_per_unit=256) if unit else None
    module = load("statfed.strategies.models", name, "model")
    windows = np.random.default_rng(0).normal(size=(batch, len(CODEBOOK.channels), CODEBOOK.samples)).astype(np.float32)
    inputs = module.prepare(windows, CODEBOOK)
    labels = np.random.default_rng(1).integers(0, len(CODEBOOK.classes), batch)
    persons = np.arange(batch) // RECORDS_PER_PERSON

    def run() -> float:
        model = module.build(CODEBOOK, 64 if name == "mlp" else 16, 0)
        plan = Schedule(1.0, STEPS, float(batch), 1.0 if unit else None)
        started = time.process_time()
        if alone:
            with patch("statfed.strategies.learning.clipping.covers", return_value=False):
                fit(model, inputs, labels, persons, options, privacy, plan, stream(1, "s"), stream(1, "n"))
        else:
            fit(model, inputs, labels, persons, options, privacy, plan, stream(1, "s"), stream(1, "n"))
        return (time.process_time() - started) / STEPS

    return run


def noise_alone(name: str) -> Callable[[], float]:
    """A function that draws the noise of STEPS steps and returns seconds per step."""
    module = load("statfed.strategies.models", name, "model")
    count = len(get_vector(module.build(CODEBOOK, 64 if name == "mlp" else 16, 0)))
    source = stream(1, "n")

    def run() -> float:
        started = time.process_time()
        for _ in range(STEPS):
            source.normal(count)
        return (time.process_time() - started) / STEPS

    return run


def main() -> None:
    """Print one line per model, batch and variant."""
    print(f"{'model':6} {'batch':>5} {'variant':16} {'ms/step':>8} {'ratio':>6}")
    for name in ("mlp", "cnn"):
        for batch in (64, 256, 1024):
            variants = {"plain SGD": variant(name, batch, None), "noise": noise_alone(name)}
            for unit in ("record", "person"):
                variants[f"{unit}, together"] = variant(name, batch, unit)
                variants[f"{unit}, alone"] = variant(name, batch, unit, alone=True)
            times: dict[str, list[float]] = {key: [] for key in variants}
            for repeat in range(REPEATS + 1):
                for key, run in variants.items():
                    seconds = run()
                    if repeat:
                        times[key].append(seconds)
            for key, taken in times.items():
                ratio = statistics.median(t / p for t, p in zip(taken, times["plain SGD"], strict=True))
                print(f"{name:6} {batch:5d} {key:16} {1e3 * statistics.median(taken):8.2f} {ratio:6.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
