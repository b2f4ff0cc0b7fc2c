"""Private margins: one question, tables that agree and are no negative, and without noise those of the exact form."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit
from statfed.lab.laws.walk import finished
from statfed.strategies.synthesis import margins
from tests.federate import codebook_of

LEVELS = {"a": list("wxyz"), "b": list("pqr"), "c": list("mno")}
BOOK = codebook_of(
    {name: {"type": "category", "categories": codes, "required": name != "c"} for name, codes in LEVELS.items()}
)


def people(n: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.choice(4, n, p=[0.5, 0.3, 0.17, 0.03])
    b = np.where(rng.random(n) < 0.6, np.minimum(a, 2), rng.integers(0, 3, n))
    c = np.where(rng.random(n) < 0.5, b, rng.integers(0, 3, n))
    codes = {name: np.array(LEVELS[name], object)[each] for name, each in zip("abc", (a, b, c), strict=True)}
    codes["c"][rng.random(n) < 0.1] = None
    return pd.DataFrame(codes)


def fitted(frame: pd.DataFrame, privacy: Any, **options: Any) -> Any:
    half = len(frame) // 2
    with Federation({"h": frame[:half], "i": frame[half:]}, BOOK, seed=1) as fed:
        return fit(fed, "margins", options, privacy)


def over(frame: pd.DataFrame, privacy: Any) -> Any:
    """An ask of three holders, with noise or without."""
    holders = {f"h{i}": frame.iloc[i::3] for i in range(3)}

    def ask(analysis: str, **options: Any) -> Result:
        terms = Terms(method=analysis, options=options, codebook=BOOK, holders=tuple(holders), seed=1, privacy=privacy)
        found = finished(terms, holders, seed=1)
        assert isinstance(found, Result)
        return found

    return ask


def test_without_noise_the_private_form_has_the_tables_of_the_exact_one_and_missing_values() -> None:
    frame, options = people(1000), margins.Options()
    exact = margins.fit(over(frame, None), BOOK, options)
    private = margins.fit_private(over(frame, Privacy(epsilon=1000, noise="central")), BOOK, options)
    joint = margins.fitted(private, BOOK)
    assert joint.shape == (4, 3, 4)
    for one, other in zip(exact["tables"], private["tables"], strict=True):
        assert one["columns"] == other["columns"]
        levels = {name: [*LEVELS[name], "none"][: joint.shape["abc".index(name)]] for name in one["columns"]}
        first, second = levels
        full = frame.fillna("none")
        want = pd.crosstab(full[first], full[second]).reindex(levels[first], columns=levels[second], fill_value=0)
        assert other["counts"] == pytest.approx(want.to_numpy().ravel(), abs=1e-2)
        known = want.loc[LEVELS[first], LEVELS[second]].to_numpy().ravel()
        assert one["counts"] == pytest.approx(known)
        axes = ["abc".index(name) for name in levels]
        assert joint.sum(axis=({0, 1, 2} - {*axes}).pop()) == pytest.approx(want.to_numpy() / 1000, abs=1e-4)
    drawn = margins.generate(private, BOOK, 20_000, np.random.default_rng(1))
    assert (drawn["c"] == -1).mean() == pytest.approx(frame["c"].isna().mean(), abs=0.01)


def test_a_column_that_nobody_has_a_value_of_is_refused_or_missing_and_moves_no_other() -> None:
    frame = people(1000).assign(c=None)
    with pytest.raises(UsageError, match="no record with values of a and c"):
        margins.fit(over(frame, None), BOOK, margins.Options())
    private = margins.fit_private(over(frame, Privacy(epsilon=2, noise="central")), BOOK, margins.Options())
    drawn = margins.generate(private, BOOK, 20_000, np.random.default_rng(1))
    assert (drawn["c"] == -1).mean() > 0.95
    shares = np.bincount(drawn["a"], minlength=4) / 20_000
    assert shares == pytest.approx([(frame["a"] == code).mean() for code in LEVELS["a"]], abs=0.03)


def test_noisy_tables_agree_and_their_records_are_near_the_original() -> None:
    frame = people(1000).dropna()
    model = fitted(frame, {"epsilon": 1.0, "noise": "central"})
    assert model.fitted.origin["kind"] == "differentially private"
    assert len(model.fitted.origin["questions"]) == 1
    assert model.fitted.origin["epsilon"] <= 1.0
    joint = margins.fitted(model.fitted.model, BOOK)
    for first, second in combinations("abc", 2):
        want = pd.crosstab(frame[first], frame[second], normalize=True).reindex(
            index=[*LEVELS[first], "none"][: joint.shape["abc".index(first)]],
            columns=[*LEVELS[second], "none"][: joint.shape["abc".index(second)]],
            fill_value=0.0,
        )
        axes = ["abc".index(name) for name in (first, second)]
        made = joint.sum(axis=({0, 1, 2} - {*axes}).pop())
        assert 1e-4 < np.abs(made - want.to_numpy()).sum() / 2 < 0.06
    assert model.coded(100, 1).count == 100


def test_tables_agree_as_the_nearest_that_do() -> None:
    """Two tables with a shared column, none negative: the least squares solution in closed form."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(50, 5, (3, 4)), rng.normal(70, 5, (4, 2))
    found = margins.agreeing({("a", "b"): first, ("b", "c"): second})
    rows = np.zeros((4, 20))
    for i in range(4):
        rows[i, [4 * a + i for a in range(3)]] = 1
        rows[i, [12 + 2 * i, 13 + 2 * i]] = -1
    noisy = np.concatenate([first.ravel(), second.ravel()])
    want = noisy - rows.T @ np.linalg.solve(rows @ rows.T, rows @ noisy)
    assert np.concatenate([each.ravel() for each in found.values()]) == pytest.approx(want)


def test_cells_below_zero_are_given_up_and_tables_still_agree() -> None:
    rng = np.random.default_rng(2)
    noisy: dict[tuple[str, ...], Any] = {pair: rng.normal(3, 6, (4, 4)) for pair in combinations("abcd", 2)}
    found = margins.agreeing(noisy)
    assert min(each.min() for each in found.values()) == 0
    for name in "abcd":
        said = [each.sum(axis=1 - pair.index(name)) for pair, each in found.items() if name in pair]
        assert np.ptp(said, axis=0).max() < 1e-4 * found["a", "b"].sum()
    with pytest.raises(UsageError, match="want records, or less noise"):
        margins.agreeing({pair: -each for pair, each in noisy.items()})


def test_tables_whose_zeros_contradict_each_other_are_refused() -> None:
    diagonal, other = [5.0, 0, 0, 5], [0.0, 5, 5, 0]
    book = codebook_of({name: ["0", "1"] for name in "abc"})
    pairs = [(["a", "b"], diagonal), (["b", "c"], diagonal), (["a", "c"], other)]
    model = {"columns": ["a", "b", "c"], "tables": [{"columns": on, "counts": counts} for on, counts in pairs]}
    with pytest.raises(UsageError, match="whose zeros leave no cell"):
        margins.fitted(model, book)
