"""Sequential trees: the same from one holder, from five, and from a slow and obvious computation on a data frame."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask, Question, read_question
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.utility import margins
from statfed.core.terms import Terms
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, own_table
from statfed.strategies.analyses import cart as analysis
from statfed.strategies.analyses._classes import Axis, axis_of
from statfed.strategies.synthesis import cart
from tests.federate import codebook_of, federate, split, table_of

BOOK = codebook_of(
    {
        "region": ["n", "s", "w", "x"],
        "age": {"type": "integer", "low": 15, "high": 90, "required": True},
        "hours": ("number", 0, 80),
        "works": "boolean",
    }
)
CLASSES, SMALLEST, DEPTH = 9, 12, 5


def people(n: int, seed: int) -> pd.DataFrame:
    """Nobody lives in x; hours are missed by those that do not work, and here and there."""
    rng = np.random.default_rng(seed)
    age, region = rng.integers(15, 91, n), rng.choice(["n", "s", "w"], n, p=[0.5, 0.3, 0.2])
    works = rng.random(n) < np.where((age < 65) == (region != "w"), 0.8, 0.1)
    hours = np.where(works, np.clip(rng.normal(34 + 4 * (region == "n"), 8), 0, 80), np.nan)
    frame = pd.DataFrame({"region": region, "age": age, "hours": hours, "works": works})
    frame["works"] = frame["works"].astype("boolean").where(rng.random(n) < 0.97)
    return frame


def fitted(frames: list[pd.DataFrame], book: Codebook = BOOK, **options: Any) -> Any:
    def ask(analysis: str, **more: Any) -> Any:
        return federate(analysis, frames, book, **more)

    given = {"classes": CLASSES, "smallest": SMALLEST, "depth": DEPTH, **options}
    return cart.fit(ask, book, cart.Options(**given))


def cells_of(frame: pd.DataFrame, axes: dict[str, Axis]) -> pd.DataFrame:
    """The cells of every record, by counting edges."""
    found = {}
    for name, axis in axes.items():
        last = axis.cells - 1
        if axis.levels:
            texts = frame[name].map(lambda v: v if isinstance(v, str) else v if pd.isna(v) else str(bool(v)).lower())
            found[name] = [last if pd.isna(text) else axis.levels.index(text) for text in texts]
        else:
            found[name] = [last if pd.isna(v) else sum(v >= edge for edge in axis.edges[1:-1]) for v in frame[name]]
    return pd.DataFrame(found)


def loglik(cells: Any) -> float:
    counts = Counter(cells)
    return 2 * sum(n * math.log(n / len(cells)) for n in counts.values())


def slow_ways(axis: Axis, cells: pd.Series, target: pd.Series, ordered: bool) -> list[set[int]]:
    classes = axis.cells - axis.missing
    if not axis.levels:
        below = [set(range(k)) for k in range(1, classes)]
        return below + ([one | {classes} for one in below] + [{classes}] if axis.missing else [])
    modal = max(sorted(set(target)), key=lambda cell: (target == cell).sum())
    score = target if ordered else (target == modal).astype(int)
    there = sorted(set(cells))
    along = sorted(there, key=lambda cell: score[cells == cell].mean())
    found = [set(along[:k]) for k in range(1, len(along))] + [{cell} for cell in there]
    empty = set(range(axis.cells)) - set(there)
    return [one | empty if 2 * cells.isin(one).sum() >= len(cells) else one for one in found]


def slow_tree(records: pd.DataFrame, axes: dict[str, Axis], name: str, depth: int = 0) -> Any:
    """Nested: (column, cells that go left, left, right), or the counts of a leaf."""
    target = records[name]
    leaf = dict(sorted(Counter(target).items()))
    if depth == DEPTH or len(records) < 2 * SMALLEST or len(leaf) == 1:
        return leaf
    best, found = 0.0, None
    for by in list(axes)[: list(axes).index(name)]:
        tried = []
        for left in slow_ways(axes[by], records[by], target, not axes[name].levels):
            goes = records[by].isin(left)
            fits = SMALLEST <= goes.sum() <= len(records) - SMALLEST
            gain = loglik(target[goes]) + loglik(target[~goes]) - loglik(target) if fits else -math.inf
            tried.append((gain, left))
        top = max((gain for gain, _ in tried), default=-math.inf)
        if top > best + 1e-9 * max(best, 1):
            best, found = next((gain, (by, left)) for gain, left in tried if gain >= top - 1e-9 * max(top, 1))
    if found is None:
        return leaf
    goes = records[found[0]].isin(found[1])
    sides = [slow_tree(records[side], axes, name, depth + 1) for side in (goes, ~goes)]
    return (found[0], sorted(found[1]), *sides)


def nested(model: Any, name: str, node: int = 0) -> Any:
    """A tree of a model in the form of `slow_tree`."""
    told, names = model["trees"][name], list(model["axes"])
    for k, one in enumerate(told["splits"]):
        if one["node"] == node:
            sides = [nested(model, name, 2 * k + side) for side in (1, 2)]
            return (names[one["by"]], one["left"], *sides)
    return dict(zip(*told["leaves"][str(node)], strict=True))


def slow_records(trees: dict[str, Any], axes: dict[str, Axis], count: int, seed: int) -> pd.DataFrame:
    """Cells, record by record, on the random numbers that `generate` draws."""
    rng, made = np.random.default_rng(seed), pd.DataFrame(index=range(count))
    for name, axis in axes.items():
        chances, cells = rng.random(count), []
        for i in range(count):
            tree = trees[name]
            while isinstance(tree, tuple):
                tree = tree[2] if made[tree[0]][i] in tree[1] else tree[3]
            rest = chances[i] * sum(tree.values())
            below = np.cumsum(list(tree.values())) <= rest
            cells.append(next(cell for cell, passed in zip(tree, below, strict=True) if not passed))
        made[name] = cells
        if not axis.levels:
            rng.random(count)  # places within classes
    return made


def test_trees_and_records_are_those_of_an_obvious_computation_on_pooled_data() -> None:
    frame = people(700, 1)
    model = fitted(split(frame, 5, seed=2))
    axes = {name: axis_of(BOOK, name, CLASSES) for name in BOOK.columns}
    pooled = cells_of(frame, axes)
    slow = {name: slow_tree(pooled, axes, name) for name in axes}
    assert {name: nested(model, name) for name in axes} == slow
    assert sum(len(one["splits"]) for one in model["trees"].values()) > 20
    made = Coded(BOOK, dict(cart.generate(model, BOOK, 300, np.random.default_rng(3))))
    assert cells_of(frame_of(made), axes).equals(slow_records(slow, axes, 300, 3))


def frame_of(made: Coded) -> pd.DataFrame:
    from statfed.federation.synthetic import frame_of as shown

    return shown(made)


def test_one_holder_and_five_have_the_same_model_and_the_same_records() -> None:
    frame = people(900, 4)
    one, five = fitted([frame]), fitted(split(frame, 5))
    assert one == five
    made, other = (cart.generate(model, BOOK, 500, np.random.default_rng(1)) for model in (one, five))
    for name in BOOK.columns:
        assert np.array_equal(made[name], other[name], equal_nan=True)


def test_levels_that_are_asked_about_in_portions_give_the_same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = people(900, 5)
    whole = fitted([frame])
    monkeypatch.setattr(analysis, "MOST_ENTRIES", 700)
    assert fitted(split(frame, 2)) == whole


def test_leaves_have_the_fewest_records_that_were_asked_for_and_trees_the_depth() -> None:
    frame = people(900, 6)
    model = fitted([frame], smallest=40, depth=2)
    for name in BOOK.columns:
        leaves = model["trees"][name]["leaves"].values()
        assert sum(sum(counts) for _, counts in leaves) == 900
        assert min(sum(counts) for _, counts in leaves) >= 40
        assert len(leaves) <= 4
    flat = fitted([frame], depth=0)
    assert all(not one["splits"] for one in flat["trees"].values())


def test_interactions_and_missing_values_are_as_in_the_original() -> None:
    frame, fresh = people(5_000, 7), people(5_000, 8)
    model = fitted([frame], classes=16)
    made = Coded(BOOK, dict(cart.generate(model, BOOK, 5_000, np.random.default_rng(9))))
    original, other = own_table(frame, BOOK), own_table(fresh, BOOK)
    found = margins(original, made, other, np.random.default_rng(1), ways=3)
    assert found.baseline is not None
    assert found.value < found.baseline * 1.25
    assert (made.columns["region"] != 3).all()
    idle = made.columns["works"] == 0
    assert made.missing("hours")[idle].all()
    assert not made.missing("age").any()


def test_no_value_is_copied_where_a_cell_has_many() -> None:
    frame = people(900, 10)
    made = cart.generate(fitted([frame]), BOOK, 900, np.random.default_rng(1))
    hours = made["hours"][~np.isnan(made["hours"])]
    assert not np.isin(hours, frame["hours"]).any()


def test_the_order_of_columns_is_an_option() -> None:
    model = fitted([people(500, 11)], columns=("works", "age"))
    assert list(model["axes"]) == ["works", "age"]
    assert not model["trees"]["works"]["splits"]
    with pytest.raises(UsageError, match="columns: got 2; want 1 to 100, each once"):
        federate("cart", [people(20, 1)], BOOK, columns=("age", "age"))
    with pytest.raises(UsageError, match="got no records"):
        fitted([people(20, 1).iloc[:0]])


def test_a_holder_whose_rules_are_on_refuses_and_so_does_a_release_that_has_rules() -> None:
    frame = people(400, 12)
    with Federation({"a": frame[:200], "b": frame[200:]}, BOOK, seed=1) as fed:
        made = fit(fed, "cart", {"smallest": 20, "depth": 3})
        assert made.coded(50, seed=1).count == 50
        with pytest.raises(UsageError, match="has no differentially private form"):
            fit(fed, "cart", {}, privacy={"epsilon": 1.0})
    holders = {"a": frame[:130], "b": frame[130:270], "c": frame[270:]}
    with (
        Federation(holders, BOOK, seed=1, disclosure="standard") as fed,
        pytest.raises(UsageError, match="cart: got rules of a release and no"),
    ):
        fit(fed, "cart", {})
    with (
        Federation(holders, BOOK, seed=1, rules="standard", protection="secure-aggregation") as fed,
        pytest.raises(Refused, match="what leaves is declared: tree_0, tree_1"),
    ):
        fit(fed, "cart", {})


def question() -> Question[analysis.Options]:
    terms = Terms(method="cart", options={"classes": 4}, codebook=BOOK, holders=("a",), seed=1)
    return read_question(terms)[1]


WIDTH = 3 + 5


def asked(splits: list[list[int]], nodes: list[list[int]]) -> Ask:
    rows = [[-1] * WIDTH, *([*row, *[0] * (WIDTH - len(row))] for row in splits)]
    return Ask("cells", {"splits": np.array(rows), "nodes": np.array(nodes).reshape(len(nodes), 2)})


@pytest.mark.parametrize(
    ("splits", "nodes", "message"),
    [
        ([[0, 0, 0, 1]], [[0, 1]], "got a split that is none"),
        ([[2, 1, 0, 1]], [[2, 1]], "got a split that is none"),
        ([[1, 0, 0, 7]], [[1, 1]], "got a split that is none"),
        ([[1, 0, 0, 1], [1, 0, 0, 1]], [[1, 1]], "got a split that is none"),
        ([[9, 0, 0, 1]], [[1, 0]], "got a split that is none"),
        ([], [[0, 1]], "got a node that is no leaf"),
        ([], [[7, 0]], "got a node that is no leaf"),
        ([], [[0, 0], [0, 0]], "got a node that is no leaf"),
        ([[1, 0, 0, 1]], [[1, 0]], "got a node that is no leaf"),
        ([], [], "want some"),
    ],
)
def test_asks_that_are_not_about_leaves_of_trees_are_refused(
    splits: list[list[int]], nodes: list[list[int]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        analysis.parts(question(), asked(splits, nodes))


def test_an_ask_that_takes_back_what_was_asked_is_refused() -> None:
    first, grown = asked([], [[0, 0], [1, 0]]), asked([[1, 0, 0, 1]], [[1, 1], [1, 2]])
    assert analysis.follows(question(), [first], grown) == ""
    assert "a second time" in analysis.follows(question(), [first], asked([], [[0, 0]]))
    other = asked([[1, 0, 0, 0, 1]], [[2, 0]])
    assert "got trees that are not those of before" in analysis.follows(question(), [first, grown], other)


def test_groups_of_classes_are_those_of_their_numbers() -> None:
    frame = people(200, 13)
    axis = axis_of(BOOK, "hours", 12)
    rng = np.random.default_rng(1)
    for groups in (
        [min(cell // 3, 4) for cell in range(axis.cells)],
        [0, 1, *rng.integers(0, 4, axis.cells - 4), 2, 3],
    ):
        table = table_of(frame, BOOK)
        merged = axis.merged([int(group) for group in groups])
        found = table.expr.select(found=merged.expr(table)).to_pyarrow().column("found").to_numpy()
        want = np.array(groups)[cells_of(frame[["hours"]], {"hours": axis})["hours"]]
        assert np.array_equal(found, want)
