"""The number of links of a record: one possible true link and a random number of false ones.

    P(k) = sum_g w_g [ (1 - p) f(k; m_g) + p f(k - 1; m_g) ]

p: probability of the true link; f: law of the number of false links in latent class g, with mean m_g, Poisson or, for
`trials` candidates, Binomial. In the fitted model p + sum_g w_g m_g is the mean number of links, exactly.
Source: Dasylva and Goussanou 2022, Japanese Journal of Statistics and Data Science 5; Dasylva et al. 2024, Survey
Methodology 50(2), 375-408.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
_LEAST = 1e-300
_NONE = 1e-8


@dataclass(frozen=True)
class Mixture:
    """A fitted model. weights, means: (classes,). trials: candidates of the binomial law, None for Poisson."""

    p: float
    weights: Floats
    means: Floats
    trials: int | None

    @property
    def parameters(self) -> int:
        """Free parameters: p, the means, and all weights but one."""
        return 2 * len(self.means)

    @property
    def false_links(self) -> float:
        """Mean number of false links."""
        return float(self.weights @ self.means)

    def parts(self, cells: int) -> tuple[Floats, Floats]:
        """Probabilities (cells,) of k links without and with the true link."""
        law = _law(cells, self.means, self.trials)
        return (1 - self.p) * (self.weights @ law), self.p * (self.weights @ _later(law))

    def probability(self, cells: int) -> Floats:
        """P(k) for k = 0 ... cells - 1."""
        without, true = self.parts(cells)
        return np.asarray(without + true)

    def true_given(self, cells: int) -> Floats:
        """P(true link | k links) for k = 0 ... cells - 1."""
        without, true = self.parts(cells)
        return np.asarray(true / np.maximum(without + true, _LEAST))


def log_likelihood(model: Mixture, counts: Floats) -> float:
    """Of counts (cells,) of records by number of links."""
    return float(counts @ np.log(np.maximum(model.probability(len(counts)), _LEAST)))


def fitted(counts: Floats, classes: int, trials: int | None = None, near: Mixture | None = None) -> Mixture:
    """Maximum likelihood by L-BFGS-B within the bounds, from several starts or from a model nearby, then Newton steps
    where it is inside."""
    n, k = counts.sum(), np.arange(len(counts))
    mean = float(k @ counts / n)

    def value(theta: Floats) -> tuple[float, Floats]:
        whole, slope = _whole(_model(theta, classes, trials), len(counts))
        return -float(counts @ np.log(whole)) / n, -counts @ slope / n

    starts = []
    for share in (0.5, 0.9, 0.1) if classes > 1 else (0.5,):
        p = min(0.98, share * max(mean, 1e-3), float(counts[1:].sum() / n + 1e-6))
        spread = np.linspace(0.3, 2.0, classes) if classes > 1 else np.ones(1)
        starts.append(np.concatenate([[p], np.maximum(mean - p, 1e-4) * spread, np.zeros(classes - 1)]))
    if near is not None and near.p < 1 and (near.means > 0).all():
        starts = [_theta(near)]
    most = float(trials) if trials else None
    bounds = [(0.0, 1.0), *[(0.0, most)] * classes, *[(-12.0, 12.0)] * (classes - 1)]
    if most:
        starts = [
            np.concatenate([s[:1], np.minimum(s[1 : classes + 1], 0.98 * most), s[classes + 1 :]]) for s in starts
        ]
    found = []
    for start in starts:
        end = optimize.minimize(
            value,
            start,
            jac=True,
            bounds=bounds,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
        )
        found.append((float(end.fun), np.asarray(end.x, dtype=float)))
    theta = min(found, key=lambda each: each[0])[1]
    model = _model(_polished(theta, counts, classes, trials, bounds), classes, trials)
    p = 1.0 if model.p > 1 - _NONE else 0.0 if model.p < _NONE else model.p
    means = np.where(model.means < _NONE, 0.0, model.means)
    # by the identity of the means the false links are what the true ones leave
    left, false_links = mean - p, float(model.weights @ means)
    return Mixture(p, model.weights, means * (left / false_links) if left > 0 and false_links > 0 else means, trials)


def scores(model: Mixture, cells: int) -> Floats:
    """Derivatives (cells, parameters) of log P(k) by p, the means, and the logits of all weights but the first."""
    return _whole(model, cells)[1]


def _whole(model: Mixture, cells: int) -> tuple[Floats, Floats]:
    """P(k), and the derivatives of its logarithm."""
    law = _law(cells, model.means, model.trials)
    each = (1 - model.p) * law + model.p * _later(law)
    slope = _slope(cells, model.means, model.trials)
    by_mean = model.weights[:, None] * ((1 - model.p) * slope + model.p * _later(slope))
    whole = np.maximum(model.weights @ each, _LEAST)
    by_p = model.weights @ (_later(law) - law)
    by_logit = model.weights[1:, None] * (each[1:] - whole)
    return whole, np.asarray((np.vstack([by_p[None, :], by_mean, by_logit]) / whole).T)


def influence(model: Mixture, counts: Floats) -> tuple[Floats, Floats]:
    """What one record with k links adds to the errors of the parameters, (cells, parameters), and the inverse of the
    observed information, (parameters, parameters).

    Parameters at a limit are held there: zeros. Raises numpy.linalg.LinAlgError where the information is singular: the
    parameters are not identified.
    """
    theta, cells = _theta(model), len(counts)
    free = np.array([i for i in range(len(theta)) if not _limited(model, i)], dtype=int)
    whole = np.zeros((len(theta), len(theta)))
    if len(free):
        information = -_hessian(theta, counts, len(model.means), model.trials)[np.ix_(free, free)]
        scale = np.sqrt(np.abs(np.diag(information)))
        if (scale == 0).any():
            raise np.linalg.LinAlgError("singular information")
        values = np.linalg.eigvalsh(information / np.outer(scale, scale))
        if values.min() < 1e-10:
            raise np.linalg.LinAlgError("information is not positive")
        whole[np.ix_(free, free)] = np.linalg.inv(information)
    return np.asarray(scores(model, cells) @ whole), whole


def slopes(model: Mixture, counts: Floats) -> tuple[float, float]:
    """How fast the log-likelihood falls from p = 1 and from no false links, per unit; 0 where it does not."""
    total = counts @ scores(model, len(counts))
    by_mean = total[1 : 1 + len(model.means)]
    return max(float(total[0]), 0.0), max(float(-(by_mean.sum())), 0.0)


def _polished(
    theta: Floats, counts: Floats, classes: int, trials: int | None, bounds: list[tuple[float, float | None]]
) -> Floats:
    for _ in range(8):
        low, high = (np.array([b[i] if b[i] is not None else np.inf for b in bounds], dtype=float) for i in (0, 1))
        free = np.flatnonzero((theta > low + 1e-7) & (theta < high - 1e-7))
        gradient = counts @ scores(_model(theta, classes, trials), len(counts))
        hessian = _hessian(theta, counts, classes, trials)[np.ix_(free, free)]
        try:
            step = np.linalg.solve(hessian, gradient[free])
        except np.linalg.LinAlgError:
            return theta
        nearer = theta.copy()
        nearer[free] -= step
        if not np.isfinite(nearer).all() or (nearer < low).any() or (nearer > high).any():
            return theta
        gain = log_likelihood(_model(nearer, classes, trials), counts) - log_likelihood(
            _model(theta, classes, trials), counts
        )
        if gain < 0 or np.abs(step).max(initial=0.0) < 1e-12:
            return theta
        theta = nearer
    return theta


def _model(theta: Floats, classes: int, trials: int | None) -> Mixture:
    logits = np.concatenate([[0.0], theta[classes + 1 :]])
    weights = np.exp(logits - logits.max())
    return Mixture(float(theta[0]), weights / weights.sum(), np.asarray(theta[1 : classes + 1]), trials)


def _theta(model: Mixture) -> Floats:
    return np.concatenate([[model.p], model.means, np.log(model.weights[1:] / model.weights[0])])


def _limited(model: Mixture, parameter: int) -> bool:
    if parameter == 0:
        return not 0 < model.p < 1
    classes = len(model.means)
    return parameter <= classes and not 0 < model.means[parameter - 1] < (model.trials or np.inf)


def _hessian(theta: Floats, counts: Floats, classes: int, trials: int | None) -> Floats:
    """Of the log-likelihood, by central differences of its exact gradient."""
    rows = []
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-5 * max(abs(theta[i]), 1e-2)
        ends = [counts @ scores(_model(theta + sign * step, classes, trials), len(counts)) for sign in (1, -1)]
        rows.append((ends[0] - ends[1]) / (2 * step[i]))
    hessian = np.array(rows)
    return np.asarray((hessian + hessian.T) / 2)


def _law(cells: int, means: Floats, trials: int | None) -> Floats:
    """Probabilities (classes, cells) of 0 ... cells - 1 false links."""
    k, m = np.arange(cells, dtype=float), np.asarray(means, dtype=float)[:, None]
    if trials is None:
        return np.asarray(np.exp(special.xlogy(k, m) - m - special.gammaln(k + 1)))
    left = trials - k
    ways = special.gammaln(trials + 1) - special.gammaln(k + 1) - special.gammaln(np.maximum(left, 0) + 1)
    share = m / max(trials, 1)
    chance = ways + special.xlogy(k, share) + special.xlog1py(np.maximum(left, 0), -share)
    return np.where(left >= 0, np.exp(chance), 0.0)


def _slope(cells: int, means: Floats, trials: int | None) -> Floats:
    """Derivative of the law by its mean."""
    law = _law(cells, means, None) if trials is None else _law(cells, means * (trials - 1) / trials, trials - 1)
    return np.asarray(_later(law) - law)


def _later(law: Floats) -> Floats:
    """Of one more link."""
    return np.concatenate([np.zeros((len(law), 1)), law[:, :-1]], axis=1)
