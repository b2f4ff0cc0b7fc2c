"""The joint system of many tables: the same intervals as from the cross-classification of all columns at once."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from statfed.core.conditions import comparable
from statfed.core.errors import Refused, UsageError
from statfed.core.terms import parse_condition
from statfed.server.disclosure import joint as module
from statfed.server.disclosure.audit import Attacker
from statfed.server.disclosure.boxes import Box, both, condition, from_json, membership, population, to_json
from statfed.server.disclosure.joint import Figure, joint
from statfed.server.disclosure.sums import published_sums
from tests.federate import codebook_of

LEVELS = {name: [f"{name}{i}" for i in range(size)] for name, size in (("a", 3), ("b", 2), ("c", 3), ("d", 2))}
BOOK = codebook_of({**LEVELS, "age": ("number", 0, 99)})
NAMES = tuple(LEVELS)


def margins(counts: np.ndarray, by: tuple[str, ...]) -> list[tuple[Box, float]]:
    axes = [NAMES.index(name) for name in by]
    summed = counts.sum(axis=tuple(i for i in range(4) if i not in axes))
    codes = itertools.product(*(LEVELS[name] for name in by))
    return [
        ({n: frozenset({c}) for n, c in zip(by, cell, strict=True)}, float(v))
        for cell, v in zip(codes, summed.reshape(-1), strict=True)
    ]


@pytest.mark.parametrize(
    "tables", [[("a", "b"), ("b", "c"), ("c", "d")], [("a", "b"), ("b", "c"), ("a", "c")], [("a",), ("d",)]]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_intervals_are_those_of_the_whole_cross_classification(tables: list[tuple[str, ...]], seed: int) -> None:
    counts = np.random.default_rng(seed).negative_binomial(1.0, 0.1, (3, 2, 3, 2))
    known = [pair for by in tables[:-1] for pair in margins(counts, by)]
    rows = margins(counts, tables[-1])
    figures = [Figure(box, value) for box, value in known]
    new = np.array([value for _, value in rows])
    sums = published_sums([(str(i),) for i in range(len(rows))], [], [{}])
    shown = np.arange(len(rows)) % 3 > 0
    system, values = joint(sums, [box for box, _ in rows], new, figures, BOOK, 0)
    free = np.ones(len(values), bool)
    pinned = system.padded(shown.astype(float), 1.0, 0.0, 0.0) > 0
    low, high = np.where(pinned, values, 0.0), np.where(pinned, values, np.inf)
    attacker = Attacker(system.sums, values, free, low, high)

    cells = list(itertools.product(*(LEVELS[n] for n in NAMES)))

    def inside(box: Box) -> list[float]:
        return [float(all(c in box.get(n, {c}) for n, c in zip(NAMES, cell, strict=True))) for cell in cells]

    fixed = known + [rows[i] for i in range(len(rows)) if shown[i]]
    matrix, right = np.array([inside(box) for box, _ in fixed]), np.array([value for _, value in fixed])
    for i in np.flatnonzero(~shown):
        cost = np.array(inside(rows[i][0]))
        ends = [linprog(sign * cost, A_eq=matrix, b_eq=right, bounds=(0, None)) for sign in (1, -1)]
        if ends[1].status == 3:
            assert attacker.width(int(i)) == np.inf
        else:
            assert attacker.width(int(i)) == pytest.approx(
                -float(ends[1].fun or 0.0) - float(ends[0].fun or 0.0), abs=1e-4
            )


def test_what_contradicts_and_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = published_sums([("0",), ("1",)], [], [{}])
    boxes: list[Box] = [{"b": frozenset({"b0"})}, {"b": frozenset({"b1"})}]
    counts = np.array([10.0, 20.0])
    everybody = Figure({}, 25.0)
    with pytest.raises(Refused, match="as if the data had changed"):
        joint(sums, boxes, counts, [everybody], BOOK, 0)
    joint(sums, boxes, counts, [Figure({}, 33.0)], BOOK, 0)  # three records miss b
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(Refused, match="too much was released"):
        joint(sums, boxes, counts, [Figure({"a": frozenset({"a0"})}, 12.0)], BOOK, 0)


def test_boxes_of_conditions_are_what_the_conditions_say() -> None:
    ages = np.array([16.9, 17.0, 17.5, 18.0])

    def holds(text: str) -> list[bool]:
        found: Any = condition(parse_condition(text, BOOK), BOOK.columns["age"])
        return [any(low <= (v, 0) and (v, 1) <= high for low, high in found) for v in ages]

    assert holds("age >= 17") == [False, True, True, True]
    assert holds("age > 17") == [False, False, True, True]
    assert holds("age < 17.5") == [True, True, False, False]
    assert holds("age <= 17.5") == [True, True, True, False]
    assert holds("age = 17") == [False, True, False, False]
    assert holds("age != 17") == [True, False, True, True]
    assert holds("age < 17 or age > 17.5") == [True, False, False, True]
    assert holds("age <= 17 or age >= 17") == [True] * 4
    assert holds("age in (17, 18)") == [False, True, False, True]
    assert holds("age is not null") == [True] * 4
    joined: Any = condition(parse_condition("age < 18 or age < 17", BOOK), BOOK.columns["age"])
    assert joined == condition(parse_condition("age < 18", BOOK), BOOK.columns["age"])
    for text in ("a = a1 or age >= 17", "age is null", "age is null or age < 3"):
        with pytest.raises(Refused, match="nothing is released"):
            population([parse_condition(text, BOOK)], [], BOOK)
        with pytest.raises(UsageError, match="compared with earlier ones"):
            comparable([parse_condition(text, BOOK)])
    comparable([parse_condition(text, BOOK) for text in ("age < 18 or age > 20", "a is not null")])
    where = [parse_condition(text, BOOK) for text in ("a != a1", "age >= 17", "age < 18", "b in b0,b1")]
    box = population(where, ["c"], BOOK)
    assert from_json(to_json(box)) == box
    assert box["a"] == frozenset({"a0", "a2"})
    assert both(box, {"a": frozenset({"a1"})})["a"] == frozenset()


def test_classes_are_told_apart_only_where_a_figure_does() -> None:
    boxes: list[Box] = [{"a": frozenset({"a0"})}, {"a": frozenset({"a0", "a1", "a2"})}, {}]
    assert membership(boxes, "a", LEVELS["a"], rest=False).shape == (3, 2)
    assert membership(boxes, "a", LEVELS["a"], rest=True).shape == (3, 3)
    spans: list[Box] = [{"age": (((0.0, 0), (20.0, 0)),)}, {"age": (((0.0, 0), (21.0, 0)),)}]
    assert membership(spans, "age", (), rest=False).shape == (2, 3)  # below 20, 20 to 21, elsewhere
    with pytest.raises(Refused, match="another one than in earlier releases"):
        membership([*boxes, {"a": (((0.0, 0), (1.0, 0)),)}], "a", LEVELS["a"], rest=False)
