"""The coordinator's half of a mixed model with a random intercept: the Laplace approximation and its maximum.

With u the modes of the group effects given coefficients b and standard deviation sigma, the marginal log-likelihood is
approximated by

    L(b, sigma) = l(b, u) - sum_j u_j^2 / (2 sigma^2) - 1/2 sum_j log(1 + sigma^2 W_j),

l the log-likelihood given u and W_j the sum of the information weights of group j. Links are canonical, so that l is
concave. Given sigma, b and u are found together by Newton steps on l less the penalty, with the gradient of the last
term in b (through W and through u) as a tilt: penalised iteratively reweighted least squares, and at its end the exact
maximum of L in b. log sigma follows by Newton's method within a bracket; every step starts where the last one's
derivative leads. Sources: Breslow and Clayton 1993; Bates et al. 2015 (lme4, one quadrature point).
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total
from statfed.strategies.analyses._glm_search import HALVINGS, NOISE, Search
from statfed.strategies.analyses._regression import Vector, whitening

Steps = Generator[Ask, Total, "Mode"]
GRID = np.geomspace(1e-3, 1e2, 26)  # of sigma: where the search may start
LONGEST = 1.0  # step of log sigma
NEGLIGIBLE = 1e-8  # of sigma^2 W: a variance that no group's records could tell from 0
COARSE = 1e-2  # standard errors: how well modes are found while sigma is still far away


@dataclass(frozen=True)
class Mode:
    """The sums at coefficients b (k,) of [1, columns] and group effects u (groups,), seen at one variance.

    free: of the k columns, the p that the model has. variance: sigma^2, above 0.
    """

    b: Vector
    u: Vector
    total: Total
    free: tuple[int, ...]
    variance: float

    @property
    def weight(self) -> Vector:
        """W: (groups,), information on each group's effect."""
        return np.asarray(self.total["group_information"][:, 0])

    @property
    def penalised(self) -> Vector:
        """Diagonal of the group block of the penalised information."""
        return self.weight + 1 / self.variance

    @property
    def cross(self) -> Vector:
        """(groups, p): information between effects and coefficients."""
        return np.asarray(self.total["group_information"][:, list(self.free)])

    @property
    def objective(self) -> float:
        """Log-likelihood given u, less the penalty and what does not depend on b and u."""
        if self.total["invalid"]:
            return -math.inf
        return -float(self.total["deviance"]) / 2 - float(self.u @ self.u) / (2 * self.variance)

    @property
    def log_likelihood(self) -> float:
        """The Laplace approximation, without the part that depends on the responses alone."""
        return self.objective - float(np.log1p(self.variance * self.weight).sum()) / 2

    @property
    def tilt(self) -> Vector:
        """(p,): gradient of -1/2 sum log(1 + sigma^2 W) in the coefficients, the modes following them."""
        third, d = self.total["group_third"], self.penalised
        along = third[:, list(self.free)] - third[:, :1] * self.cross / d[:, None]
        return np.asarray(-(along / d[:, None]).sum(axis=0) / 2)

    def whitened(self) -> Vector:
        """(p, p): W with W W' the inverse of the coefficients' information, the effects profiled out."""
        inner = self.total["information"][np.ix_(self.free, self.free)]
        return whitening(inner - self.cross.T @ (self.cross / self.penalised[:, None]))

    def solve(self, right_b: Vector, right_u: Vector) -> tuple[Vector, Vector]:
        """The penalised information's inverse times (right_b, right_u)."""
        w, cross, d = self.whitened(), self.cross, self.penalised
        step = w @ (w.T @ (right_b - cross.T @ (right_u / d)))
        return step, (right_u - cross @ step) / d

    def gradient(self) -> tuple[Vector, Vector]:
        """Of L in b and of its modes' equation in u."""
        score = self.total["score"][list(self.free)]
        return score + self.tilt, self.total["group_score"] - self.u / self.variance

    def after(self, search: Search, step_b: Vector, step_u: Vector, variance: float | None = None) -> Steps:
        """The sums after a step of the coefficients and effects, and of the variance where one is given."""
        b, u = self.b.copy(), self.u + step_u
        b[list(self.free)] += step_b
        total = yield Ask("step", {**search.arrays, "coefficients": b, "effects": u})
        return Mode(b, u, total, self.free, self.variance if variance is None else variance)

    def following(self) -> tuple[Vector, Vector]:
        """Derivatives of b and u in log sigma."""
        return self.solve(np.zeros(len(self.free)), 2 * self.u / self.variance)

    def slope(self) -> tuple[float, float]:
        """First and second derivative of the profile of L in log sigma. The second without fourth derivatives of l."""
        u, d, weight, tau = self.u, self.penalised, self.weight, self.variance
        third = self.total["group_third"]
        alone = 2 * u / tau / d
        first = float(u @ u) / tau - float((weight / d).sum()) - float((third[:, 0] * alone / d).sum()) / 2
        step_b, step_u = self.following()
        change = third[:, 0] * step_u + third[:, list(self.free)] @ step_b
        second = 2 * float(u @ step_u - u @ u) / tau - float(((change + 2 * weight) / tau / d**2).sum())
        return first, second

    @property
    def spread(self) -> float:
        """Standard error of log sigma."""
        return 1 / math.sqrt(-self.slope()[1])

    def errors(self) -> Vector:
        """(groups,): standard errors of the differences between modes and effects."""
        along = (self.cross / self.penalised[:, None]) @ self.whitened()
        return np.asarray(np.sqrt(1 / self.penalised + (along**2).sum(axis=1)))

    def at(self, variance: float) -> "Mode":
        """The same sums seen at another variance."""
        return Mode(self.b, self.u, self.total, self.free, variance)


def find_mode(search: Search, mode: Mode, tolerance: float, trace: list[str]) -> Steps:
    """Coefficients and effects at the maximum of L given the variance of `mode`, from there."""
    for _ in range(search.max_iterations):
        right = mode.gradient()
        step = mode.solve(*right)
        gain = float(right[0] @ step[0] + right[1] @ step[1])
        trace.append(f"sigma {math.sqrt(mode.variance):.6g}: step {math.sqrt(max(gain, 0.0)):.3g}")
        if gain <= tolerance**2 + NOISE * abs(mode.objective):
            return mode
        tilt, slack = mode.tilt, 1e-10 * (abs(mode.objective) + 0.1)
        for halving in range(HALVINGS):
            tried = yield from mode.after(search, step[0] * 0.5**halving, step[1] * 0.5**halving)
            rise = tried.objective - mode.objective + float(tilt @ step[0]) * 0.5**halving
            if rise >= -slack:
                mode = tried
                break
        else:
            raise unfinished(f"{HALVINGS} halvings of a step did not raise the likelihood", trace)
    raise unfinished(f"{search.max_iterations} steps at one sigma were not enough", trace)


def start_variance(fixed: Mode) -> float | None:
    """Variance at which a quadratic approximation of L around the model without group effects is largest; None for 0.

    Small groups may want a variance when large ones do not: L can have a maximum at 0 and another one inside.
    """
    values = []
    for sigma in GRID:
        mode = fixed.at(sigma**2)
        right = fixed.total["score"][list(fixed.free)], fixed.total["group_score"]
        step = mode.solve(*right)
        gain = float(right[0] @ step[0] + right[1] @ step[1]) / 2
        values.append(gain - float(np.log1p(mode.variance * mode.weight).sum()) / 2)
    rises = float(np.sum(fixed.total["group_score"] ** 2 - fixed.weight)) > 0
    best = int(np.argmax(values))
    return float(GRID[best]) ** 2 if rises or values[best] > 0 else None


def find_variance(search: Search, mode: Mode, trace: list[str]) -> Generator[Ask, Total, Mode | None]:
    """The mode at the variance where the profile of L is largest; None where it rises all the way to 0."""
    low, high, tolerance = -math.inf, math.inf, COARSE
    for _ in range(search.max_iterations):
        mode = yield from find_mode(search, mode, tolerance, trace)
        at = math.log(mode.variance) / 2
        first, second = mode.slope()
        if first < 0 and mode.variance * mode.weight.max() < NEGLIGIBLE:
            return None
        step = -first / second if second < 0 else math.copysign(LONGEST, first)
        step = math.copysign(min(abs(step), LONGEST), step)
        left = abs(step) * math.sqrt(-second) if second < 0 else math.inf
        if left > 10 * tolerance:  # else the sign may be that of the mode's error
            low, high = (at, high) if first > 0 else (low, at)
        if left <= search.tolerance and tolerance <= search.tolerance:
            return mode
        tolerance = max(search.tolerance, min(COARSE, left**2))
        if not low < at + step < high:
            step = (low + high) / 2 - at if math.isfinite(high - low) else step
        lead_b, lead_u = mode.following()
        mode = yield from mode.after(search, lead_b * step, lead_u * step, math.exp(2 * (at + step)))
        if mode.total["invalid"]:
            raise unfinished("the means left the family's range", trace)
    raise unfinished(f"{search.max_iterations} values of sigma were not enough", trace)


def unfinished(why: str, trace: Sequence[str]) -> UsageError:
    """The error of a search that does not end, with its last steps."""
    return UsageError(
        f"glmm: no convergence: {why}; want another model or max_iterations\nstep in standard errors\n"
        + "\n".join(trace[-12:])
    )
