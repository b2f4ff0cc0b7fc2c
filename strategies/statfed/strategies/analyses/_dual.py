"""The model nearest to noisy counts where cells are impossible: by its dual, for which descent step by step is slow.

Rules tie many pairs of columns to one (a household's size), whose counts then all speak of the same margin: mirror
descent (`_graph.fitted`) needs thousands of steps there. Sought is the p without the impossible cells of least

    W KL(p || uniform) + 1/2 sum_i ((M p - v)_i / s_i)^2

with v the counts as shares, s their noise, M p what the model says of them, and W = 100 units of the sum of squares for
each nat, which few counts' noise is worth, and by which noise of cells with few records is smoothed. Its dual,

    log Z(M' y) - y v + W/2 sum_i (s_i y_i)^2,

is convex without constraints, Z being the sum over all possible cells of exp(M' y); its slope is M p - v + W s^2 y. It
is brought down by L-BFGS. Sources: Dudik, Phillips and Schapire 2007, on maximum entropy with relaxed constraints, and
Liu and Nocedal 1989.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from statfed.strategies.analyses._graph import LEAST, Floats, Junction, Measured, forbidding
from statfed.strategies.analyses._zeros import Zeros

_WEIGHT = 100.0
_KEPT = 20  # steps that L-BFGS remembers


def nearest(tree: Junction, measured: Sequence[Measured], total: float, zeros: Zeros, rounds: int) -> list[Floats]:
    """Margins of the cliques. Counts that no clique holds are left out, and so are impossible cells that none does."""
    base = forbidding(tree, zeros)
    placed = [(one, at) for one in measured if (at := tree.holding(one.columns)) is not None]
    if not placed:
        return tree.margins(base)
    cuts = np.cumsum([one.values.size for one, _ in placed])[:-1]
    shares = np.concatenate([np.ravel(one.values) for one, _ in placed]) / total
    variance = np.concatenate([np.ravel(np.maximum(one.noise, LEAST)) for one, _ in placed]) ** 2 / total**2
    scale = 1 / np.sqrt(np.maximum(shares, np.sqrt(variance)) + _WEIGHT * variance)

    def factors(scaled: NDArray[np.float64]) -> list[Floats]:
        found = [factor.copy() for factor in base]
        for (one, at), values in zip(placed, np.split(scaled * scale, cuts), strict=True):
            found[at] += one.back(values.reshape(one.values.shape), tree.cliques[at])
        return found

    def judged(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        whole, margins = tree.calibrated(factors(scaled))
        said = np.concatenate([np.ravel(one.of(margins[at], tree.cliques[at])) for one, at in placed])
        dual = scaled * scale
        value = whole - float(dual @ shares) + _WEIGHT / 2 * float((variance * dual**2).sum())
        return value, scale * (said - shares + _WEIGHT * variance * dual)

    start = np.zeros(len(shares))
    found = minimize(judged, start, jac=True, method="L-BFGS-B", options={"maxiter": rounds, "maxcor": _KEPT})
    return tree.margins(factors(found.x))
