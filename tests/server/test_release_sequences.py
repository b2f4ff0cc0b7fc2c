"""Random sequences of tables of one population, and an attacker who reads all of them.

It is written apart from the system that the releases are audited with: all cells of the full cross-classification are
unknowns, each figure that was shown is an equation, and two linear programs (whole numbers where they leave a doubt)
tell what each small group may be."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import LinearConstraint, milp

from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.randomness import stream
from statfed.core.result import Result
from statfed.core.terms import parse_condition
from statfed.server.disclosure.history import Asked
from statfed.server.disclosure.memory import open_memory
from statfed.server.disclosure.release import release
from tests.federate import codebook_of, federate

LEVELS = {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"], "c": ["c0", "c1"]}
BOOK = codebook_of({**LEVELS, "x": ("number", 0, 100)})
NAMES = tuple(LEVELS)
CELLS = list(itertools.product(*LEVELS.values()))
FEWEST = 5
RULES = Rules(minimum_frequency=FEWEST, dominance_k=None, p_percent=None)


def population(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(1.2, 0.09, len(CELLS))
    frame = pd.DataFrame([cell for cell, n in zip(CELLS, counts, strict=True) for _ in range(n)], columns=list(NAMES))
    return frame.assign(x=rng.uniform(1, 99, len(frame)))


def questions(seed: int, many: int) -> list[tuple[tuple[str, ...], str]]:
    rng = np.random.default_rng(seed + 1000)
    subsets = [s for k in (1, 2, 3) for s in itertools.combinations(NAMES, k)]
    found = []
    for _ in range(many):
        by = subsets[rng.integers(len(subsets))]
        column = NAMES[rng.integers(3)]
        code = LEVELS[column][rng.integers(len(LEVELS[column]))]
        filters = ["", "", f"{column} = {code}", f"{column} != {code}"]
        found.append((by, filters[rng.integers(4)]))
    return found


def answered(frame: pd.DataFrame, by: tuple[str, ...], where: str, memory: Any) -> Result:
    conditions = (where,) if where else ()
    exact = federate("table", [frame], BOOK, where=conditions, rows=list(by))
    parsed = tuple(parse_condition(one, BOOK) for one in conditions)
    asked = Asked(f"{by}{where}", "table", parsed, (), (), {"h": "one"}, BOOK)
    return release(exact, BOOK, RULES, source=stream(1), seconds=0.5, asked=asked, memory=memory)


def figures(result: Result, by: tuple[str, ...], where: str) -> list[tuple[np.ndarray, float]]:
    """Which cells each shown figure is the sum of."""
    found = []
    name, equal, code = "", "", ""
    if where:
        name, equal, code = where.split()
    for row in (*result.tables["cells"], *result.tables["margins"]):
        if row["count"] is None:
            continue
        held = []
        for cell in CELLS:
            at = dict(zip(NAMES, cell, strict=True))
            in_row = all(row[n] in (None, at[n]) for n in by)
            held.append(in_row and (not where or (at[name] == code) == (equal == "=")))
        found.append((np.array(held, float), float(str(row["count"]))))
    return found


def named_groups(frame: pd.DataFrame, known: list[tuple[np.ndarray, float]]) -> list[tuple[str, ...]]:
    """Groups of 1 to FEWEST - 1 records, by codes of one, two or three columns, whose number follows from figures."""
    matrix, right = np.array([row for row, _ in known]), np.array([value for _, value in known])
    found = []
    for size in (1, 2, 3):
        for by in itertools.combinations(range(3), size):
            for codes in itertools.product(*(LEVELS[NAMES[i]] for i in by)):
                inside = np.array([all(c[i] == v for i, v in zip(by, codes, strict=True)) for c in CELLS], float)
                true = int((frame[[NAMES[i] for i in by]] == list(codes)).all(axis=1).sum())
                if not 0 < true < FEWEST:
                    continue
                rows = LinearConstraint(matrix, right, right)
                ends = [
                    milp(sign * inside, constraints=rows, integrality=np.ones(len(CELLS)), bounds=None)
                    for sign in (1, -1)
                ]
                if all(one.status == 0 for one in ends) and ends[0].fun + ends[1].fun > -0.5:
                    found.append(codes)
    return found


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 10])  # 10: a group of which no cell is known, and the sum is
def test_no_small_group_follows_from_a_sequence_of_releases(tmp_path: Path, seed: int) -> None:
    frame, known, refused = population(seed), [], 0
    for by, where in questions(seed, 14):
        with open_memory(tmp_path / "m") as memory:
            try:
                result = answered(frame, by, where, memory)
            except Refused:
                refused += 1
                continue
        known += figures(result, by, where)
    assert known
    assert refused < 5
    assert len(known) > 60
    assert named_groups(frame, known) == []


def test_the_attacker_of_this_file_finds_groups_where_releases_are_not_compared() -> None:
    hit = 0
    for seed in range(6):
        frame, known = population(seed), []
        for by, where in questions(seed, 8):
            known += figures(answered(frame, by, where, None), by, where)
        hit += len(named_groups(frame, known)) > 0
    assert hit >= 4
