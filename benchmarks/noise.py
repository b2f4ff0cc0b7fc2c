"""Errors of private counts, tables, totals and means over those of the best central mechanism.

    python benchmarks/noise.py

Root of the mean squared error of the noise alone, epsilon 1 at delta 1e-6, four holders, one of whom may collude under
shared noise. The best central mechanism is the geometric one, with deviation sqrt(2) / epsilon times what a record can
change (for a mean: its range over the number of records), which knows how many records there are. `before`: what
statfed 0.1 had until it chose the noise by its error.
"""

import math

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.method import Ask, read_question
from statfed.core.privacy.noise import plan
from statfed.core.terms import Privacy, Terms
from statfed.strategies.analyses import _divided

HOLDERS, COLLUDERS, MEAN = 4, 1, 300.0
BEFORE = {"count": (3.1, 3.6, 6.2), "table": (3.1, 3.6, 6.2), "total": (3.2, None, None), "mean": (2.4, None, None)}
COLUMNS = {
    "income": {"type": "number", "low": 0, "high": 1000},
    "balance": {"type": "number", "low": -1000, "high": 1000},
    "region": {"type": "category", "categories": {code: code for code in "abcdefgh"}},
}


def deviation(analysis: str, options: dict[str, object], where: str, epsilon: float) -> float:
    """Standard deviation of the noise in an estimate, in units of what a record can change."""
    privacy = Privacy.model_validate({"epsilon": epsilon, "delta": 1e-6, "noise": where})
    holders = tuple(f"h{i}" for i in range(HOLDERS))
    codebook = Codebook.model_validate({"columns": COLUMNS})
    terms = Terms(method=analysis, options=options, codebook=codebook, holders=holders, seed=1, privacy=privacy)
    module, question = read_question(terms)
    parts = module.parts(question, Ask("noisy"))
    std = plan(parts, privacy, 1, HOLDERS - COLLUDERS if where == "shared" else 1).std(HOLDERS)
    if "count" in std:
        return float(np.max(std["count"]))
    low = -1000.0 if "balance" in str(options) else 0.0
    form = _divided.of_total(low, 1000.0) if analysis == "total" else _divided.of_mean(low, 1000.0)
    zeros = {name: np.zeros(part.shape) for name, part in parts.items()}
    sums = _divided.read(form, zeros, std, 1, "_0")
    of = sums.variance(1.0, form.low if analysis == "total" else form.low - MEAN)
    return float(np.sqrt(np.max(of))) / 1000.0


def main() -> None:
    """Print the ratios."""
    options: dict[str, tuple[str, dict[str, object]]] = {
        "count": ("count", {}),
        "table": ("table", {"rows": ["region"]}),
        "total": ("total", {"columns": ["income"]}),
        "total, either sign": ("total", {"columns": ["balance"]}),
        "mean": ("mean", {"columns": ["income"]}),
    }
    print(f"{'':20}{'central':>18}{'shared':>18}{'local':>18}   (ratio, before)")
    for name, (analysis, asked) in options.items():
        row = ""
        for place, where in enumerate(("central", "shared", "local")):
            ratio = deviation(analysis, asked, where, 1.0) / math.sqrt(2.0)
            was = BEFORE[name][place] if name in BEFORE else None
            row += f"{ratio:>10.2f} {f'({was:.1f})' if was else '':>7}"
        print(f"{name:20}{row}")


if __name__ == "__main__":
    main()
