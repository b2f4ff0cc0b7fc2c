"""Coefficients of models over matched units: as figures of a scenario, and by the plain join, for its reference."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from statfed.core.result import Result
from statfed.core.scenario import Figure, Figures, Reference

Vector = NDArray[np.float64]


def figures_of(model: str, result: Result) -> dict[str, Figure]:
    """`MODEL/NAME` with its 95 % limits, and `MODEL/NAME/error`, its standard error, of each coefficient."""
    limits = result.conf_int().set_index("name")
    found: dict[str, Figure] = {}
    for row in result.tables["coefficients"]:
        name, value = str(row["name"]), row["estimate"]
        if not isinstance(value, float):
            found |= {f"{model}/{name}": Figure(None), f"{model}/{name}/error": Figure(None)}
            continue
        low, high = (float(limits[end][name]) for end in ("lower", "upper"))
        found[f"{model}/{name}"] = Figure(value, low, high)
        found[f"{model}/{name}/error"] = Figure(float(row["std_error"]))  # type: ignore[arg-type]
    return found


def design(frame: pd.DataFrame, names: Iterable[str]) -> Vector:
    """(n, names): the intercept, numbers and booleans, and indicators named `C(column)[T.level]`."""
    columns = []
    for name in names:
        column, _, level = name.removeprefix("C(").replace(")", "").partition("[T.")
        values = np.ones(len(frame)) if column == "Intercept" else frame[column].to_numpy()
        columns.append(values.astype(str) == level.removesuffix("]") if level else values.astype(float))
    return np.column_stack(columns).astype(np.float64)


def least_squares(model: str, x: Vector, y: Vector, names: Iterable[str]) -> Reference:
    """Ordinary least squares by a QR decomposition, and standard errors from the residual variance."""
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ y)
    inverse = np.linalg.inv(r)
    variance = ((y - x @ beta) ** 2).sum() / (len(y) - x.shape[1])
    errors: Vector = np.sqrt(variance * (inverse**2).sum(axis=1))
    return _named(model, names, np.asarray(beta, np.float64), errors)


def logistic(model: str, x: Vector, y: NDArray[np.bool_], names: Iterable[str]) -> Reference:
    """Maximum likelihood by scikit-learn, without a penalty; standard errors from the expected information."""
    centre, scale = x[:, 1:].mean(axis=0), x[:, 1:].std(axis=0)
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200)
    fitted.fit((x[:, 1:] - centre) / scale, y)
    slopes = fitted.coef_[0] / scale
    first = float(np.ravel(fitted.intercept_)[0]) - float(slopes @ centre)
    beta: Vector = np.concatenate([[first], slopes])
    p = 1 / (1 + np.exp(-(x @ beta)))
    information = x.T @ (x * (p * (1 - p))[:, None])
    return _named(model, names, beta, np.sqrt(np.diag(np.linalg.inv(information))))


def _named(model: str, names: Iterable[str], beta: Vector, errors: Vector) -> Reference:
    found: dict[str, float] = {}
    for name, value, error in zip(names, beta.tolist(), errors.tolist(), strict=True):
        found |= {f"{model}/{name}": value, f"{model}/{name}/error": error}
    return found


def in_errors(figures: Figures, pooled: Mapping[str, float]) -> float:
    """Largest error of a coefficient in its standard errors, or of a standard error relative to it; infinite where one
    is not released. Figures of other kinds are left out."""
    worst = 0.0
    for name, error in pooled.items():
        if name.endswith("/error"):
            value, own = figures[name.removesuffix("/error")].value, figures[name].value
            if value is None or own is None:
                return math.inf
            worst = max(worst, abs(value - pooled[name.removesuffix("/error")]) / error, abs(own - error) / error)
    return worst
