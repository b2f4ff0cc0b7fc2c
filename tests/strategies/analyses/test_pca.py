"""`pca` against numpy and scikit-learn on the pooled data."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from statfed.core.errors import UsageError
from statfed.core.result import Result
from tests.federate import codebook_of, federate, split

NAMES = ["a", "b", "c", "d"]
CODEBOOK = codebook_of(dict.fromkeys(NAMES, ("number", -1000000.0, 1000000.0)) | {"sex": ["f", "m"]})


def mixed(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4)) * [1, 5, 0.2, 2] + [1e5, 0, -3, 7]
    frame = pd.DataFrame(values, columns=NAMES)
    frame["a"] = frame["a"].where(rng.random(n) < 0.9)
    return frame


def loadings(result: Result) -> np.ndarray:
    return result.to_pandas("loadings").pivot(index="component", columns="name", values="loading")[NAMES].to_numpy()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 5), n=st.integers(12, 60), scale=st.booleans())
def test_equals_pooled_scikit_learn_up_to_the_stated_sign(seed: int, holders: int, n: int, scale: bool) -> None:
    frame = mixed(seed, n)
    result = federate("pca", split(frame, holders, seed), CODEBOOK, columns=NAMES, scale=scale)
    pooled = frame.dropna()
    values = ((pooled - pooled.mean()) / (pooled.std() if scale else 1)).to_numpy()
    reference = PCA(svd_solver="full").fit(values)
    shown = result.to_pandas("components")
    assert shown["eigenvalue"].to_numpy() == pytest.approx(reference.explained_variance_, rel=1e-8, abs=1e-9)
    assert shown["explained"].to_numpy() == pytest.approx(reference.explained_variance_ratio_, rel=1e-8, abs=1e-10)
    assert shown["cumulative"].iloc[-1] == pytest.approx(1)
    wanted = reference.components_
    wanted = wanted * np.sign(wanted[np.arange(4), np.abs(wanted).argmax(axis=1)])[:, None]
    assert loadings(result) == pytest.approx(wanted, abs=1e-6)
    assert result.facts["observations"] == len(pooled)


def test_a_tie_of_loadings_has_one_sign_whatever_the_split() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=50)
    frame = pd.DataFrame({"a": a, "b": -a + rng.normal(size=50)})
    signs = set()
    for seed in range(8):
        result = federate("pca", split(frame, 3, seed), CODEBOOK, columns=["a", "b"], scale=True)
        signs.add(tuple(np.sign([float(row["loading"] or 0) for row in result.tables["loadings"]])))
    assert signs == {(1.0, -1.0, 1.0, 1.0)}


def test_only_the_components_asked_for_are_released() -> None:
    result = federate("pca", [mixed(0, 30)], CODEBOOK, columns=NAMES, components=2)
    assert [row["component"] for row in result.tables["components"]] == [1, 2]
    assert len(result.tables["loadings"]) == 8
    assert result.to_pandas()["cumulative"].iloc[-1] < 1


def test_a_constant_column_has_no_loading_and_is_refused_when_scaled() -> None:
    frame = mixed(0, 30)
    frame["d"] = 0.1 + 0.2
    result = federate("pca", split(frame, 3), CODEBOOK, columns=NAMES)
    assert result.to_pandas()["eigenvalue"].iloc[-1] == pytest.approx(0, abs=1e-9)
    with pytest.raises(UsageError, match="d: got no variation"):
        federate("pca", split(frame, 3), CODEBOOK, columns=NAMES, scale=True)


def test_equal_eigenvalues_are_noted() -> None:
    frame = pd.DataFrame({"a": [1.0, -1, 0, 0], "b": [0.0, 0, 1, -1]})
    assert any("eigenvalues" in note for note in federate("pca", [frame], CODEBOOK, columns=["a", "b"]).notes)


@pytest.mark.parametrize(
    ("frame", "options", "wanted"),
    [
        (pd.DataFrame({"a": [1.0], "b": [2.0]}), {}, "got 1 records complete in a, b; want at least 2"),
        (pd.DataFrame({"a": [], "b": []}), {}, "got 0 records"),
        (pd.DataFrame({"a": [1.0, 1], "b": [2.0, 2]}), {}, "a, b: got no variation"),
        (pd.DataFrame({"a": [1.0, 2], "b": [2.0, 3]}), {"components": 3}, "components: got 3; want 2 at most"),
        (pd.DataFrame({"a": [1.0, 2]}), {"columns": ["a", "sex"]}, "sex: got type category"),
    ],
)
def test_what_has_no_components_is_refused(frame: pd.DataFrame, options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate("pca", [frame, frame[:0]], CODEBOOK, **({"columns": ["a", "b"]} | options))
