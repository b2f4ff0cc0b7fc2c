"""Several releases of one data set: whoever reads all of them learns no more of a small group than the first one told.

Each attack takes figures apart that are safe one by one. It holds if a later release hides what would close the gap, or
is refused; the arithmetic of the attacker is written out where something is left to compute with."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.result import Result
from statfed.federation import Federation

FREQUENT = Rules(dominance_k=None, p_percent=None)
CELLS = {("A", "f"): 3, ("A", "m"): 35, ("B", "f"): 30, ("B", "m"): 36}


def book(**columns: Any) -> Codebook:
    return make_codebook(
        {
            "columns": {
                "region": {"type": "category", "categories": ["A", "B"]},
                "sex": {"type": "category", "categories": ["f", "m"]},
                "age": {"type": "integer", "low": 0, "high": 99},
                "income": {"type": "number", "low": 0, "high": 1000},
            }
            | columns
        }
    )


def people(cells: Mapping[tuple[str, str], int], **more: Any) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [(r, s) for (r, s), n in cells.items() for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["region", "sex"])
    frame["age"] = rng.integers(20, 80, len(frame))
    frame["income"] = rng.uniform(10, 100, len(frame))
    for name, values in more.items():
        frame[name] = values
    return frame.sample(frac=1.0, random_state=2)


@contextmanager
def office(frame: pd.DataFrame, codebook: Codebook | None = None, rules: Rules = FREQUENT) -> Iterator[Federation]:
    with Federation(
        {"n": frame.iloc[::2], "s": frame.iloc[1::2]}, codebook or book(), disclosure=rules, seed=1
    ) as made:
        yield made


def shown(result: Result, **keys: Any) -> Any:
    """A row's count, None where it is not shown."""
    tables = itertools.chain(*(result.tables.get(name, ()) for name in ("cells", "margins", "estimates")))
    return next(row["count"] for row in tables if all(row[key] == value for key, value in keys.items()))


def test_a_filter_does_not_show_what_a_table_hid() -> None:
    with office(people(CELLS)) as asked:
        whole = asked.table("region", "sex")
        assert shown(whole, region="A", sex="f") is None
        assert shown(whole, region="A", sex=None) == 38
        men = asked.count("region", where="sex = m")
        assert shown(men, region="A") is None  # 38 - 35 would be 3
        not_women = asked.count("region", where="sex != f")
        assert shown(not_women, region="A") is None


def test_a_table_that_comes_after_a_filter_hides_the_rest() -> None:
    with office(people(CELLS)) as asked:
        assert shown(asked.count("region", where="sex = m"), region="A") == 35
        try:
            later = asked.table("region")
        except Refused:
            return
        assert shown(later, region="A") is None


def test_a_lower_threshold_and_a_shifted_limit_do_not_isolate_two_records() -> None:
    frame = people({("A", "f"): 40, ("A", "m"): 40, ("B", "f"): 40, ("B", "m"): 40})
    frame["age"] = 30
    frame.iloc[[0, 1], frame.columns.get_loc("age")] = 16
    with office(frame) as asked:
        everybody = asked.count("region")
        assert shown(everybody, region="A") == 80
        asked._rules = FREQUENT.model_copy(update={"minimum_frequency": 5})
        try:
            later = asked.count("region", where="age >= 17")
        except Refused:
            return
        gaps = [80 - n for region in "AB" if (n := shown(later, region=region)) is not None]
        assert not any(0 < gap < 5 for gap in gaps)


def test_shifted_class_limits_do_not_isolate_the_records_between_them() -> None:
    frame = people({("A", "f"): 60, ("A", "m"): 60, ("B", "f"): 60, ("B", "m"): 60})
    frame["age"] = [30] * 120 + [20] * 3 + [50] * 117
    with office(frame) as asked:
        first = asked.ask("histogram", column="age", edges=[0, 20, 40, 99])
        assert [row["count"] for row in first.tables["cells"]] == [0, 123, 117]
        try:
            second = asked.ask("histogram", column="age", edges=[0, 21, 40, 99])
        except Refused:
            return
        counts = [row["count"] for row in second.tables["cells"]]
        assert counts[0] is None
        assert counts[1] is None  # 123 - 120 would be 3


def test_one_missing_value_is_not_placed_by_a_second_table() -> None:
    frame = people({("A", "f"): 30, ("A", "m"): 30, ("B", "f"): 30, ("B", "m"): 30})
    frame.loc[frame.index[frame["region"] == "B"][0], "sex"] = None
    with office(frame) as asked:
        crossed = asked.table("region", "sex")
        assert crossed.facts["missing"] is None
        assert shown(crossed, region="B", sex=None) == 59
        try:
            later = asked.table("region")
        except Refused:
            return
        assert shown(later, region="B") is None
        assert shown(later, region=None) is None


def test_repeated_random_rounding_returns_its_draw_in_every_table() -> None:
    with office(people(CELLS), rules=FREQUENT.model_copy(update={"method": "random-round"})) as asked:
        tables = [asked.table("region", "sex") for _ in range(4)]
        assert all(one.tables == tables[0].tables for one in tables)
        draws = [shown(tables[0], region=r, sex=None) for r in "AB"]
        for where in ((), ("age >= 1",), ("age >= 2",), ("age <= 98",)):  # leaves out nobody
            assert [shown(asked.ask("table", rows=["region"], where=where), region=r) for r in "AB"] == draws


def test_one_method_of_treatment_a_data_set() -> None:
    with office(people(CELLS)) as asked:
        asked.table("region", "sex")
        for update in ({"method": "round"}, {"method": "controlled-round"}, {"method": "random-round", "base": 3}):
            asked._rules = FREQUENT.model_copy(update=update)
            with pytest.raises(Refused, match="one method a data set"):
                asked.table("region", "sex")
    with office(people(CELLS), rules=FREQUENT.model_copy(update={"method": "round", "base": 5})) as asked:
        asked.table("region", "sex")
        asked._rules = FREQUENT.model_copy(update={"method": "round", "base": 3})
        with pytest.raises(Refused, match="one method a data set"):
            asked.table("region", "sex")


def test_the_same_question_has_the_same_pattern_and_other_figures_of_it_too() -> None:
    with office(people(CELLS)) as asked:
        first = asked.table("region", "sex")
        hidden = [row["status"] for row in first.tables["cells"]]
        assert "suppressed" in hidden
        assert asked.table("region", "sex").tables == first.tables
        for method in ("mean", "total", "variance"):
            rows = asked.ask(method, columns=["income"], by=["region", "sex"]).tables["estimates"]
            assert [row["status"] for row in rows] == hidden, method
        crossed = asked.ask("chisq", columns=["region", "sex"])
        assert [row["status"] for row in crossed.tables["cells"]] == hidden
        assert all(row["status"] == "suppressed" for row in crossed.tables["tests"])


def test_a_total_that_a_table_hid_as_dominated_is_not_shown_by_another_method() -> None:
    frame = people({("A", "f"): 13, ("B", "f"): 40, ("B", "m"): 40})
    frame["income"] = 10.0
    frame.loc[frame.index[frame["region"] == "A"][0], "income"] = 900.0
    with office(frame, rules=Rules()) as asked:
        table = asked.table("region", value="income")
        assert shown(table, region="A") is None
        for method in ("total", "mean", "variance"):
            rows = asked.ask(method, columns=["income"], by=["region"]).tables["estimates"]
            assert next(row for row in rows if row["region"] == "A")["status"] == "suppressed", method
        everything = asked.total("income").tables["estimates"][0]
        rest = asked.ask("total", columns=["income"], where=["region = B"]).tables["estimates"][0]
        assert everything["estimate"] is None or rest["estimate"] is None


def test_a_second_hierarchy_does_not_give_away_what_the_first_one_hid() -> None:
    rng = np.random.default_rng(5)
    areas = [f"a{i:02d}" for i in range(12)]
    counts = rng.integers(1, 30, 12)
    frame = people({("A", "f"): int(counts.sum())})
    frame["area"] = np.repeat(areas, counts)

    def hierarchy(size: int) -> Codebook:
        parents = {area: f"g{i // size}" for i, area in enumerate(areas)}
        return book(area={"type": "category", "categories": areas, "parents": parents})

    unsafe = {area for area, n in zip(areas, counts, strict=True) if n < 10}
    with office(frame, hierarchy(2)) as asked:
        first = asked.table("area")
        asked.codebook = hierarchy(3)
        try:
            second = asked.table("area")
        except Refused:
            second = None
    known = equations(first, hierarchy(2)) + (equations(second, hierarchy(3)) if second else [])
    assert unsafe
    assert recovered(known, areas) & unsafe == set()


def equations(result: Result, codebook: Codebook) -> list[tuple[set[str], float]]:
    """Every figure that is shown, with the areas that it is the sum of."""
    parents, found = codebook.columns["area"].parents, []
    for row in (*result.tables["cells"], *result.tables["margins"]):
        if row["count"] is not None:
            code = row["area"]
            areas = {a for a in parents if code is None or code in (a, parents[a])}
            found.append((areas, float(str(row["count"]))))
    return found


def recovered(known: list[tuple[set[str], float]], areas: list[str]) -> set[str]:
    """Areas whose number follows from the figures, by two linear programs each."""
    from scipy.optimize import linprog

    matrix = np.array([[float(a in inside) for a in areas] for inside, _ in known])
    right = np.array([value for _, value in known])
    found = set()
    for i, area in enumerate(areas):
        cost = np.eye(len(areas))[i]
        ends = [linprog(sign * cost, A_eq=matrix, b_eq=right, bounds=(0, None)) for sign in (1, -1)]
        if all(one.status == 0 for one in ends) and ends[0].fun + ends[1].fun > -0.999:
            found.add(area)
    return found


def test_three_tables_of_two_columns_do_not_fix_a_small_cell_that_nobody_asked_for() -> None:
    """All two-way tables of 2 x 2 x 2 cells leave one free number, and two empty cells fix it: 4 records lie in one."""
    counts = {("f", "x", "p"): 40, ("f", "x", "q"): 4, ("f", "y", "q"): 30}
    counts |= dict.fromkeys([("m", "x", "p"), ("m", "x", "q"), ("m", "y", "q")], 30)
    rows = [key for key, n in counts.items() for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["sex", "u", "v"]).sample(frac=1.0, random_state=1)
    frame["region"], frame["age"], frame["income"] = "A", 30, 1.0
    two = {name: {"type": "category", "categories": codes} for name, codes in (("u", ["x", "y"]), ("v", ["p", "q"]))}
    with office(frame, book(**two)) as asked:
        found = []
        for by in (("sex", "u"), ("sex", "v"), ("u", "v")):
            try:
                found.append(asked.table(*by))
            except Refused:
                break
        complete = len(found) == 3 and all(row["count"] is not None for one in found for row in one.tables["cells"])
        assert not complete


def test_rosters_that_differ_by_fewer_holders_than_three_are_refused(tmp_path: Path) -> None:
    parts = {}
    for i in range(6):
        parts[f"h{i}"] = tmp_path / f"h{i}.parquet"
        people({("A", "f"): 30, ("A", "m"): 30, ("B", "f"): 30, ("B", "m"): 30}).to_parquet(parts[f"h{i}"])

    def ask(names: str) -> Result:
        holders = {f"h{i}": parts[f"h{i}"] for i in names}
        with Federation(holders, book(), disclosure=FREQUENT, workspace=tmp_path / "w") as asked:
            return asked.count("region")

    assert shown(ask("012345"), region="A") == 360
    for fewer in ("01234", "0123"):
        with pytest.raises(Refused, match="too few of them differ"):
            ask(fewer)
    assert shown(ask("012"), region="A") == 180
    with pytest.raises(Refused, match="too few of them differ"):
        ask("013")


def test_ordinary_questions_are_answered_one_after_the_other() -> None:
    rng = np.random.default_rng(3)
    frame = people({("A", "f"): 220, ("A", "m"): 180, ("B", "f"): 260, ("B", "m"): 240})
    frame["branch"] = rng.choice(["x", "y", "z"], len(frame))
    branch = {"type": "category", "categories": ["x", "y", "z"]}
    with office(frame, book(branch=branch), rules=Rules()) as asked:
        results = [
            asked.table("region", "sex"),
            asked.table("branch"),
            asked.table("region", "branch"),
            asked.table("sex", "branch", value="income"),
            asked.mean("income", by="region"),
            asked.mean("income", by="sex", where="age >= 40"),
            asked.total("income"),
            asked.count("branch", where="region = A"),
            asked.ask("histogram", column="age", edges=[0, 30, 45, 60, 99]),
            asked.ols("income ~ age + C(region)"),
            asked.describe(["income", "age"]),
            asked.ask("chisq", columns=["region", "sex"]),
        ]
    rows = [row for one in results for table in one.tables.values() for row in table if "status" in row]
    assert {row["status"] for row in rows} == {"released"}


def test_data_that_changed_under_the_same_name_are_refused(tmp_path: Path) -> None:
    path = {name: tmp_path / f"{name}.parquet" for name in "ns"}
    frame = people({("A", "f"): 30, ("A", "m"): 30, ("B", "f"): 30, ("B", "m"): 30})

    def ask() -> Result:
        with Federation(dict(path), book(), disclosure=FREQUENT, workspace=tmp_path / "w") as asked:
            return asked.count("region")

    for name, part in zip("ns", (frame.iloc[::2], frame.iloc[1::2]), strict=True):
        part.to_parquet(path[name])
    before = ask()
    assert ask().tables == before.tables
    changed = frame.iloc[::2].assign(region="A")
    changed.to_parquet(path["n"])
    with pytest.raises(Refused, match="as if the data had changed"):
        ask()
