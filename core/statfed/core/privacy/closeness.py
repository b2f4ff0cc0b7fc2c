"""How close summed discrete Gaussian noise on many whole numbers is to rounded continuous Gaussian noise.

Rounded continuous noise on whole-numbered sums is post-processing of the Gaussian mechanism, round(S + N) = S +
round(N) for whole S, so the accountants for Gaussian noise on sampled sums hold for it as they stand, and for drawn
noise as far as its law is the same. `apart` bounds the difference for d numbers, each with the sum of h draws from
N_Z(0, sigma^2).

Write s^2 = h sigma^2, X for one such sum, p for N_Z(0, s^2), w for the law of round(N(0, s^2)), Q = sum x_i^2 / s^2.

1. *Sums of draws.* With weights exp(-x^2 / 2 a^2) and exp(-x^2 / 2 b^2) the convolution at x is exp(-x^2 / 2 (a^2 +
   b^2)) times a sum of exp(-(y - c x)^2 / 2 r^2) over whole y, r^2 = a^2 b^2 / (a^2 + b^2) >= sigma^2 / 2, which by
   Poisson summation is sqrt(2 pi) r (1 + e) with |e| <= 3 exp(-pi^2 sigma^2). So h - 1 convolutions move the logarithm
   of the probability by at most tau = 10 (h - 1) exp(-pi^2 sigma^2) (Kairouz, Liu and Steinke 2021, convolutions of
   discrete Gaussians).
2. *One number.* By symmetry w(x) / p(x) = (1 + z) E[exp(-U^2 / 2 s^2) cosh(x U / s^2)] for U uniform on [-1/2, 1/2],
   with 0 <= z <= 3 exp(-2 pi^2 s^2) (Poisson summation of the normalisation). Put a = |x| / s^2 and v = 1 / s^2.
   Above: cosh y <= exp(y^2 / 2), then Hoeffding's lemma for U^2 in [0, 1/4]; below: Jensen's inequality and
   ln cosh y >= y^2 / 2 - y^4 / 12. Both give |ln(w/p) - (a^2 - v) / 24| <= (a^4 + v^2) / 512 + z. And without any
   condition w/p <= (1 + z) exp(a^2 / 8).
3. *All numbers, likely ones.* Where |Q - d| <= y = 2 sqrt(d t) + 2 t, the sum over numbers is at most
   y / (24 s^2) + ((d + y)^2 + d) / (512 s^4) + d (z + tau): `log_ratio`.
4. *Unlikely ones.* Under p, E exp(l Q) <= (1 - 2 l)^(-d/2) for l > 0 (sub-Gaussian: Canonne, Kamath and Steinke 2020,
   corollary 17, and mixing over a normal variable) and E exp(-l Q) <= (1 + 2 l)^(-d/2) to within 1 + z (ratio of
   normalisations), so Q leaves that range with probability 2 exp(-t) at most (Laurent and Massart 2000, lemma 1, whose
   proof uses no more). Under w, by the last line of 2, the same with l shifted by 1 / (8 s^2), which costs a factor
   exp((d + y) / (8 s^2) + d z), and under the law of X one of exp(d tau). Where these are at most 2, `failure` is
   4 exp(-t).
"""

import math

_T = 600.0
_ROUNDING = 1.01  # of the few float operations below


def apart(sigma: float, draws: int, entries: int) -> tuple[float, float]:
    """(log_ratio, failure) of the drawn noise against rounded continuous noise of variance draws * sigma^2.

    Outside a set of outcomes that has probability at most `failure` under either law, the logarithms of their
    probabilities differ by at most `log_ratio`. (infinity, 1) where the proof does not reach.
    """
    square = draws * sigma**2
    spread = 2.0 * math.sqrt(entries * _T) + 2.0 * _T
    tiny = entries * (3.0 * math.exp(-2.0 * math.pi**2 * square) + sums_apart(sigma, draws))
    if sigma < 1.0 or (entries + spread) / (8.0 * square) + tiny > math.log(2.0):
        return math.inf, 1.0
    ratio = spread / (24.0 * square) + ((entries + spread) ** 2 + entries) / (512.0 * square**2) + tiny
    return _ROUNDING * ratio, 4.0 * math.exp(-_T)


def sums_apart(sigma: float, draws: int) -> float:
    """Most that ln P differs between a sum of `draws` draws from N_Z(0, sigma^2) and N_Z(0, draws sigma^2)."""
    return 10.0 * (draws - 1) * math.exp(-(math.pi**2) * sigma**2)
