"""Bias and coverage of private regressions over repeated releases: eleven designs, noise central, shared and local.

    python benchmarks/private_ols.py [draws]

Each draw is a new sample of 5,000 records (300 in one design) and a new release of its cross-products, with the noise
of epsilon 1 at delta 1e-6 over four holders; releases are simulated by the deviations that are planned, and fitted by
the code that fits real ones. All figures are of the worst coefficient, the intercept among them: bias in stated
standard errors (their median), stated standard error over the spread of the errors (both over all draws, as the root of
the mean square), lowest and highest coverage of nominal 95 % limits, all of the releases that show the coefficient, and
none where less than a tenth do. A release that withholds a column is held to the regression without it. `wrong` is the
highest share of all releases that show limits without the truth in them, `withheld` the highest that show no figure;
beside them the mean and median standard error of the slope of z. Prints Markdown.
"""

import sys
from dataclasses import dataclass

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
HOLDERS, COLLUDERS = 4, 1


@dataclass(frozen=True)
class Case:
    """A design. levels: probabilities of those of g. wide, wider: bounds of z and y, and of z alone, over what is just
    wide enough for them.

    slope: of z. skewed: z lognormal instead of normal. together: correlation of z and w. unit: of z and its bounds.
    """

    name: str
    formula: str = "y ~ z + g"
    levels: tuple[float, ...] = (0.5, 0.3, 0.2)
    wide: float = 1.0
    wider: float = 1.0
    slope: float = 0.4
    skewed: bool = False
    together: float = 0.0
    n: int = 5000
    unit: float = 1.0


CASES = (
    Case("two levels and a number"),
    Case("a level with 1 %", levels=(0.6, 0.39, 0.01)),
    Case("bounds 3 times too wide", wide=3.0),
    Case("bounds of z 3 times, steep", wider=3.0, slope=1.2),
    Case("bounds of z 10 times, steep", wider=10.0, slope=1.2),
    Case("bounds 100 times too wide", wide=100.0),
    Case("unequal scales, skewed", formula="y ~ z + w + g", skewed=True, unit=1e5),
    Case("correlation .95", formula="y ~ z + w", together=0.95),
    Case("300 records", n=300),
    Case("eight levels", levels=(0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02)),
    Case("interaction", formula="y ~ z * g", levels=(0.5, 0.5)),
)
Z, Y = 4.0, 8.0  # bounds that are just wide enough


def codebook_of(case: Case) -> Codebook:
    """z, w and y as numbers, g with the case's levels."""
    levels = {f"l{i}": "" for i in range(len(case.levels))}
    half = (2 * Z if case.skewed else Z) * case.wide * case.wider * case.unit
    columns = {
        "z": {"type": "number", "low": 0.0 if case.skewed else -half, "high": half},
        "w": {"type": "number", "low": -Z, "high": Z},
        "y": {"type": "number", "low": -Y * case.wide, "high": Y * case.wide},
        "g": {"type": "category", "categories": levels},
    }
    return Codebook.model_validate({"columns": columns})


def sampled(case: Case, design: Design, truth: Floats, rng: np.random.Generator, n: int) -> Floats:
    """Columns of the design and the response, (n, p + 1)."""
    g = rng.choice(len(case.levels), n, p=case.levels)
    z, other = rng.normal(size=(2, n))
    w = (case.together * z + np.sqrt(1 - case.together**2) * other).clip(-Z, Z)
    z = np.minimum(np.exp(0.7 * z), 2 * Z) if case.skewed else z.clip(-Z, Z)
    values = {"z": z * case.unit, "w": w}
    columns = []
    for term in design.terms:
        column = np.ones(n)
        for number in term.numbers:
            column = column * values[number.text]
        for category, code in term.cells:
            column = column * (g == category.codes.index(code))
        columns.append(column)
    x = np.column_stack(columns)
    return np.column_stack([x, x @ truth + rng.normal(size=n)])


def run(case: Case, where: str, draws: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Truths, estimates, standard errors and half widths of limits, (draws, p) each, NaN where withheld."""
    codebook = codebook_of(case)
    privacy = Privacy.model_validate({"epsilon": 1.0, "noise": where})
    holders = tuple(f"h{i}" for i in range(HOLDERS))
    options = {"formula": case.formula}
    terms = Terms(method="ols", options=options, codebook=codebook, holders=holders, seed=1, privacy=privacy)
    module, question = read_question(terms)
    planned = plan(module.parts(question, Ask("adassp")), privacy, 1, HOLDERS - COLLUDERS if where == "shared" else 1)
    noise = planned.std(HOLDERS)
    design = make_design(case.formula, codebook)
    layout, p = _adassp._layout(design), len(design.names)
    named = {"Intercept": 1.0, "z": case.slope / case.unit, "w": -0.3}
    whole = np.array([named.get(name, 0.5 - 0.35 * i) for i, name in enumerate(design.names)])
    many = sampled(case, design, whole, np.random.default_rng(1), 200_000)
    truths, estimates, errors, halves = (np.full((draws, p), np.nan) for _ in range(4))
    of: dict[tuple[int, ...], Floats] = {tuple(range(p)): whole}
    for draw in range(draws):
        rng = np.random.default_rng([CASES.index(case), draw])
        scaled = (sampled(case, design, whole, rng, case.n) - layout.center) / layout.scale
        moments = (scaled.T @ scaled)[layout.pairs[:, 0], layout.pairs[:, 1]]
        products = moments + rng.normal(size=len(layout.pairs)) * noise["products"]
        records = np.array(case.n + int(np.rint(rng.normal() * float(noise["records"]))))
        coordination = module.coordinate(question)
        next(coordination)
        try:
            coordination.send(Total({"records": records, "products": products}, noise))
        except StopIteration as end:
            rows, df = end.value.tables["coefficients"], end.value.df
            kept = tuple(j for j, row in enumerate(rows) if row["estimate"] is not None)
            if kept not in of:
                of[kept] = np.asarray(np.linalg.lstsq(many[:, kept], many[:, -1], rcond=None)[0], np.float64)
            at = draw, list(kept)
            truths[at] = of[kept]
            estimates[at] = [rows[j]["estimate"] for j in kept]
            errors[at] = [rows[j]["std_error"] for j in kept]
            halves[at] = stats.t.ppf(0.975, df) * errors[at]
    return truths, estimates, errors, halves


def line(case: Case, where: str, draws: int) -> str:
    """A row of the table."""
    truths, estimates, errors, halves = run(case, where, draws)
    off = estimates - truths
    shown = ~np.isnan(off)
    missed = np.abs(off) > halves
    often = shown.mean(axis=0) >= 0.1
    off, by = off[:, often], errors[:, often]
    bias = np.nanmean(off, axis=0) / np.nanmedian(by, axis=0)
    stated = np.sqrt(np.nanmean(by**2, axis=0) / np.nanmean(off**2, axis=0))
    held = 1 - missed[:, often].sum(axis=0) / shown[:, often].sum(axis=0)
    slope = "- | -"
    if often[1]:
        slope = " | ".join(f"{of * case.unit:.3f}" for of in (np.nanmean(estimates[:, 1]), np.nanmedian(errors[:, 1])))
    cells = (
        f"{case.name}, {case.slope:g}",
        where,
        slope,
        f"{bias[np.abs(bias).argmax()]:.2f}",
        f"{stated.min():.2f} - {stated.max():.2f}",
        f"{held.min():.3f} - {held.max():.3f}",
        f"{missed.mean(axis=0).max():.3f}",
        f"{1 - shown.mean(axis=0).min():.0%}",
    )
    return f"| {' | '.join(cells)} |"


def main(draws: int) -> None:
    """Print a row a design and placement of noise."""
    head = (
        "design, slope of z",
        "noise",
        "mean",
        "std_error",
        "bias / se",
        "se / spread",
        "coverage",
        "wrong",
        "withheld",
    )
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for case in CASES:
        for where in ("central", "shared", "local"):
            print(line(case, where, draws), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
