"""Bias and coverage of private regressions over repeated releases, on ten designs.

    python benchmarks/private_ols.py [draws]

Each draw is a new sample of 5,000 records and a new release of its cross-products, with the noise of epsilon 1 at delta
1e-6 over four holders where nothing else is said; releases are simulated by the deviations that are planned, and fitted
by the code that fits real ones. Bias is in standard errors of one estimate and as a share of it; coverage is of
nominal 95 % limits; the worst coefficient is shown of each, and the slope of z apart.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from statfed.core.codebook import Codebook
from statfed.core.method import Ask, Total, read_question
from statfed.core.privacy.noise import plan
from statfed.core.terms import Privacy, Terms
from statfed.strategies.analyses import _adassp
from statfed.strategies.analyses._matrix import Design, make_design

Floats = NDArray[np.float64]
RARE = (0.6, 0.39, 0.01)


@dataclass(frozen=True)
class Case:
    """A design: levels' probabilities, half range of z over its deviation, slopes, and the release."""

    name: str
    formula: str = "y ~ z + g"
    levels: tuple[float, ...] = RARE
    reach: float = 5.0
    noise: str = "local"
    n: int = 5000
    epsilon: float = 1.0
    error: float = 1.0
    effects: Mapping[str, float] = field(default_factory=dict)


CASES = (
    Case("rare level, local"),
    Case("rare level, shared", noise="shared"),
    Case("rare level, central", noise="central"),
    Case("no rare level, local", levels=(0.5, 0.3, 0.2)),
    Case("without g, local", formula="y ~ z"),
    Case("wide bounds of z, central", reach=15.0, noise="central"),
    Case("eight levels, central", levels=(0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02), noise="central"),
    Case("two numbers, central", formula="y ~ z + w + g", noise="central"),
    Case("interaction, central", formula="y ~ z * g", levels=(0.5, 0.5), noise="central"),
    Case("20,000 records, local", n=20_000),
)


def codebook_of(case: Case) -> Codebook:
    """z, w and y as numbers, g with the case's levels."""
    levels = {f"l{i}": "" for i in range(len(case.levels))}
    number = {"type": "number", "low": -case.reach, "high": case.reach}
    y = {"type": "number", "low": -8, "high": 8}
    return Codebook.model_validate(
        {"columns": {"z": number, "w": number, "y": y, "g": {"type": "category", "categories": levels}}}
    )


def sampled(case: Case, design: Design, truth: Floats, rng: np.random.Generator) -> Floats:
    """Columns of the design and the response, (n, p + 1)."""
    g = rng.choice(len(case.levels), case.n, p=case.levels)
    values = {"z": rng.normal(size=case.n).clip(-4, 4), "w": rng.normal(size=case.n).clip(-4, 4)}
    columns = []
    for term in design.terms:
        column = np.ones(case.n)
        for number in term.numbers:
            column = column * values[number.text]
        for category, code in term.cells:
            column = column * (g == category.codes.index(code))
        columns.append(column)
    x = np.column_stack(columns)
    return np.column_stack([x, x @ truth + rng.normal(scale=case.error, size=case.n)])


def run(case: Case, draws: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Truth, estimates, standard errors and whether limits hold the truth: (p,) and (draws, p)."""
    codebook = codebook_of(case)
    privacy = Privacy.model_validate({"epsilon": case.epsilon, "noise": case.noise})
    terms = Terms(
        method="ols",
        options={"formula": case.formula},
        codebook=codebook,
        holders=tuple(f"h{i}" for i in range(4)),
        seed=1,
        privacy=privacy,
    )
    module, question = read_question(terms)
    parts = module.parts(question, Ask("adassp"))
    std = plan(parts, privacy, 1, 3 if case.noise == "shared" else 1).std(4)
    design = make_design(case.formula, codebook)
    layout, p = _adassp._layout(design), len(design.names)
    named = {"Intercept": 1.0, "z": 0.4, "w": -0.3}
    truth = np.array([named.get(name, 0.5 - 0.35 * i) for i, name in enumerate(design.names)])
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([CASES.index(case), draw])
        scaled = (sampled(case, design, truth, rng) - layout.center) / layout.scale
        moments = scaled.T @ scaled
        products = (
            moments[layout.pairs[:, 0], layout.pairs[:, 1]] + rng.normal(size=len(layout.pairs)) * std["products"]
        )
        records = np.array(case.n + int(np.rint(rng.normal() * float(std["records"]))))
        total = Total({"records": records, "products": products}, std)
        fit = _adassp._fit(layout, total, _adassp._matrix(layout, total, int(records)), int(records))
        back = design.back(layout.center[:p], layout.scale[:p]) * layout.scale[p]
        beta = back @ fit.coefficients
        beta[list(design.constant)] += layout.center[p]
        found.append((beta, np.sqrt(np.diag(back @ fit.covariance @ back.T))))
    estimates, errors = (np.array(each) for each in zip(*found, strict=True))
    held = np.abs(estimates - truth) <= stats.t.ppf(0.975, case.n - p) * errors
    return truth, estimates, errors, held


def main(draws: int) -> None:
    """Print a line a design."""
    print(f"{'':28}{'slope of z':>11}{'bias / se':>11}{'worst bias / se':>17}{'coverage':>17}   ({draws} draws)")
    for case in CASES:
        truth, estimates, errors, held = run(case, draws)
        bias = (estimates.mean(axis=0) - truth) / np.median(errors, axis=0)
        worst, share = int(np.abs(bias).argmax()), held.mean(axis=0)
        print(
            f"{case.name:28}{estimates[:, 1].mean():>11.4f}{bias[1]:>11.2f}{bias[worst]:>17.2f}"
            f"{share.min():>10.3f} - {share.max():.3f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
