"""Impossible cells against values one by one; households drawn with their sizes, ties and rules."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.synthesis import Fitted
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.edits import clauses, obeys
from statfed.core.synthetic.folding import Plan
from statfed.core.terms import Privacy, Terms
from statfed.federation.folding import folded, unfolded
from statfed.federation.synthetic import Synthesizer, fit, frame_of
from statfed.lab.laws.frames import codebook_of
from statfed.lab.laws.walk import finished
from statfed.strategies.analyses._classes import axis_of
from statfed.strategies.analyses._dual import nearest
from statfed.strategies.analyses._graph import Measured, forbidding, junction
from statfed.strategies.analyses._merging import merged_alike
from statfed.strategies.analyses._zeros import cuts_of, marks_of, sides_of, zeros_of
from statfed.strategies.synthesis import _graphical

RULES = (
    "a >= 3 or c is null",
    "a < 3 or c is not null",
    "d != x or n <= 2.5",
    "e = true or n > 4",
    "d in (x, y) or day < 2020-02-01",
    "a != 5",
    "a = 2 or d = x or e = true",
)
BOOK = codebook_of(
    {
        "a": {"type": "integer", "low": 1, "high": 6, "required": True},
        "c": {"type": "integer", "low": 0, "high": 400},
        "n": ("number", 0, 5),
        "d": ["x", "y", "z"],
        "e": "boolean",
        "day": {"type": "date", "low": "2020-01-01", "high": "2020-03-31"},
    },
    rules=RULES,
)
VALUES: dict[str, list[float]] = {
    "a": [*range(1, 7)],
    "c": [*range(401), np.nan],
    "d": [0, 1, 2, -1],
    "e": [0, 1, -1],
    "day": [*range(18262, 18353), np.nan],
}


def test_pairs_of_cells_are_impossible_where_no_two_values_in_them_obey() -> None:
    cuts = cuts_of(BOOK)
    axes = [axis_of(BOOK, name, 12, cuts=cuts.get(name, ())) for name in BOOK.columns]
    sides = sides_of(BOOK, axes)
    found = zeros_of(sides, [np.arange(axis.cells) for axis in axes])
    assert {*found} == {(0,), (0, 1), (2, 3), (2, 4), (3, 5)}  # of the rule over three columns none
    ends = np.array(axes[2].edges)
    values = VALUES | {"n": [*ends[:-1], *np.nextafter(ends[1:], -1), np.nan]}
    for key, never in found.items():
        names = [axes[place].name for place in key]
        grid = np.array([*product(*(values[name] for name in names))], np.float64)
        table = Coded(BOOK, {n: grid[:, i].astype(np.int64 if n in "de" else float) for i, n in enumerate(names)})
        cells = tuple(axes[p].places(table.columns[axes[p].name], table.missing(axes[p].name)) for p in key)
        possible = np.zeros(never.shape, np.bool_)
        rules = [clause for clause in clauses(BOOK) if {*clause.columns} == {*names}]
        possible[tuple(each[obeys(table, rules)] for each in cells)] = True
        np.testing.assert_array_equal(never, ~possible)


def test_cells_that_rules_tell_apart_are_not_merged() -> None:
    axes = [axis_of(BOOK, name, 12, cuts=cuts_of(BOOK).get(name, ())) for name in BOOK.columns]
    sides, marks = sides_of(BOOK, axes), marks_of(sides_of(BOOK, axes), axes)
    groups = [
        merged_alike(np.zeros(axis.cells), 10, not axis.levels, mark) for axis, mark in zip(axes, marks, strict=True)
    ]
    assert groups[0].tolist() == [0, 0, 1, 1, 2, 3]  # 1 and 2 have no c, 5 is impossible
    assert groups[1].tolist() == [0] * (axes[1].cells - 1) + [1]  # missing
    assert {*zeros_of(sides, groups)} == {(0,), (0, 1), (2, 3), (2, 4), (3, 5)}


def test_the_nearest_model_without_impossible_cells_is_that_of_a_general_optimiser() -> None:
    rng, total = np.random.default_rng(2), 4000.0
    zeros = {(0, 1): np.array([[0, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool), (2,): np.array([False, False, True])}
    tree = junction((3, 4, 3), [(0, 1), (1, 2)])
    true = np.where(zeros[0, 1][:, :, None] | zeros[2,], 0, rng.dirichlet(np.ones(36)).reshape(3, 4, 3))
    true = total * true / true.sum()
    told = [
        Measured((0, 1), true.sum(axis=2) + rng.normal(0, 9, (3, 4)), np.full((3, 4), 9.0), {}),
        Measured((1, 2), true.sum(axis=0) + rng.normal(0, 9, (4, 3)), np.full((4, 3), 9.0), {}),
        Measured((0,), true.sum(axis=(1, 2)), np.full(3, 3.0), {}),
    ]
    base = forbidding(tree, zeros)
    places = [tree.holding(one) for one in ((0, 1), (1, 2))]

    def loss(values: Any) -> float:
        logs = np.where(zeros[0, 1][:, :, None] | zeros[2,], -1e6, values.reshape(3, 4, 3))
        table = np.exp(logs - logs.max())
        table /= table.sum()
        seen = (table.sum(axis=2), table.sum(axis=0), table.sum(axis=(1, 2)))
        off = sum(float((((total * s - one.values) / one.noise) ** 2).sum()) for s, one in zip(seen, told, strict=True))
        return 0.5 * off + 100 * float(np.where(table > 0, table * np.log(np.maximum(table, 1e-300)), 0).sum())

    found = nearest(tree, told, total, zeros, 500)
    assert len(base) == len(found) == 2
    one, two = (found[place] for place in places if place is not None)
    assert (one[zeros[0, 1]] == 0).all()
    assert (two[:, 2] == 0).all()
    table = one[:, :, None] * two[None] / np.maximum(two.sum(axis=1), 1e-300)[None, :, None]
    logs = np.log(np.maximum(table, 1e-12)).ravel()
    start, step = loss(logs), np.random.default_rng(3)
    best = optimize.minimize(loss, logs, method="BFGS", options={"maxiter": 3000})
    assert start <= best.fun + 0.02
    assert start < min(loss(logs + step.normal(0, 0.05, 36)) for _ in range(50))


MEMBERS = codebook_of(
    {
        "home": {"type": "id", "role": "unit"},
        "age": {"type": "integer", "low": 0, "high": 99, "required": True},
        "relation": {"type": "category", "categories": ["head", "spouse", "child"], "required": True},
        "works": {"type": "boolean"},
    },
    rules=["relation != child or age < 18", "relation = child or age >= 18"],
)
PLAN = Plan(3, ("relation", "age-"))


def households(count: int, seed: int = 0) -> pd.DataFrame:
    """Ages of spouses are correlated by 0.8, children are under 18, a tenth of all do not say whether they work."""
    rng, rows = np.random.default_rng(seed), []
    for home in range(count):
        head = rng.normal(50, 11)
        members = [("head", head)]
        if rng.random() < 0.6:
            members.append(("spouse", 50 + 0.8 * (head - 50) + 0.6 * 11 * rng.normal()))
        children = int(rng.random() < (0.5 if len(members) > 1 else 0.15))
        members += [("child", rng.uniform(0, 18)) for _ in range(children)]
        for relation, age in members:
            whole = int(age) if relation == "child" else int(np.clip(age, 18, 95))
            rows.append((f"h{home}", whole, relation, None if rng.random() < 0.1 else bool(whole > 25)))
    return pd.DataFrame(rows, columns=["home", "age", "relation", "works"])


@pytest.fixture(scope="module")
def real() -> Any:
    return folded(households(1500), MEMBERS, PLAN)


def modelled(method: str, frame: pd.DataFrame, codebook: Codebook, epsilon: float) -> Fitted:
    terms = Terms(
        method=method,
        options={"classes": 40} | ({"coarse": 6, "rounds": 1, "more": 4} if method == "aim" else {}),
        codebook=codebook,
        holders=("a", "b"),
        seed=1,
        privacy=Privacy.model_validate({"epsilon": epsilon, "noise": "central"}),
    )
    found = finished(terms, {"a": frame[::2], "b": frame[1::2]}, seed=1)
    return Fitted(method, codebook, _graphical.model(found, codebook, 40))


def spouses(frame: pd.DataFrame) -> float:
    there = frame[frame["relation_2"].eq("spouse").fillna(False)]
    return float(np.corrcoef(there["age_1"].astype(float), there["age_2"].astype(float))[0, 1])


def test_households_are_drawn_with_their_sizes_ties_and_rules_and_without_rejection(real: Any) -> None:
    assert spouses(real.frame) == pytest.approx(0.8, abs=0.03)
    model = modelled("aim", real.frame, real.codebook, 1000.0)
    columns = _graphical.generate(model.model, real.codebook, 5000, np.random.default_rng(3))
    raw = Coded(real.codebook, dict(columns))
    assert obeys(raw, clauses(real.codebook)).all()  # as the model draws them: nothing is drawn anew
    made = frame_of(raw)
    assert spouses(made) == pytest.approx(spouses(real.frame), abs=0.08)
    sizes, want = (f["members"].value_counts(normalize=True).sort_index() for f in (made, real.frame))
    assert np.abs(sizes - want).max() < 0.02
    members = unfolded(made, real.codebook)
    assert len(members) == int(made["members"].sum())
    assert members["home"].nunique() == len(made)
    assert (members["relation"].eq("child") == (members["age"] < 18)).all()
    assert members["works"].isna().mean() == pytest.approx(0.1, abs=0.03)  # of members, not of slots
    lone = np.random.default_rng(1).permutation(members["age"].astype(float))  # what persons by themselves would give
    first = members["relation"].eq("head").to_numpy()
    both = np.flatnonzero(first[:-1] & members["relation"].eq("spouse").to_numpy()[1:])
    assert abs(np.corrcoef(lone[both], lone[both + 1])[0, 1]) < 0.1


def test_noise_that_hides_everything_else_leaves_every_slot_with_its_size(real: Any) -> None:
    model = modelled("mst", real.frame[:300], real.codebook, 0.1)
    columns = _graphical.generate(model.model, real.codebook, 5000, np.random.default_rng(3))
    assert obeys(Coded(real.codebook, dict(columns)), clauses(real.codebook)).all()


def test_methods_that_do_not_keep_slots_are_refused_with_advice(real: Any) -> None:
    from statfed.federation.federation import Federation

    with Federation({"a": real.frame}, real.codebook, seed=1) as asked:
        with pytest.raises(UsageError, match="want mst, aim or cart"):
            fit(asked, "margins", {})
        copula = fit(asked, "copula", {"classes": 16})
        with pytest.raises(UsageError, match=r"want at least 80%.*mst, aim and cart keep slots to members"):
            copula.sample(100, seed=1)
        trees = fit(asked, "cart", {"classes": 24}).sample(1500, seed=1)
        dummy = fit(asked, "dummy", {}).sample(200, seed=1)
    assert spouses(trees) > 0.6
    for made in (trees, dummy):
        unfolded(made, real.codebook)
    assert isinstance(Synthesizer(Fitted("dummy", real.codebook, {})).summary(), str)
