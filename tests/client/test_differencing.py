"""Exact releases that tell about a few records when subtracted: an attacker's pairs, and a brute-force reference."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.client.guard.differencing import FILE, Releases, TableOf, guard, populations
from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.disclosure import Rules
from statfed.core.errors import LedgerCorrupt, Refused, UsageError
from statfed.core.method import Cells, Model, Question, read_question
from statfed.core.table import Table
from statfed.core.terms import Terms, parse_condition
from tests.federate import codebook_of, table_of
from tests.postgres import Server, postgres  # noqa: F401  # a fixture

REGIONS = ["n", "s", "e"]
COLUMNS: dict[str, Any] = {
    "age": "integer",
    "income": "number",
    "region": REGIONS,
    "sex": ["f", "m"],
    "works": "boolean",
}
CODEBOOK = codebook_of(COLUMNS)
FIVE = Rules(minimum_frequency=5)
Disclosed = Cells | Model


def ask(
    where: Sequence[str] = (), columns: Sequence[str] = ("age",), codebook: Codebook = CODEBOOK, seed: int = 1
) -> Question[Any]:
    conditions = parse_where(where, codebook)
    query = Terms(
        method="describe",
        options={"columns": columns},
        codebook=codebook,
        where=conditions,
        holders=("a",),
        seed=seed,
    )
    return read_question(query)[1]


def people(n: int = 60, **columns: Any) -> pd.DataFrame:
    base = {
        "age": [20 + i % 40 for i in range(n)],
        "income": [float(i) for i in range(n)],
        "region": [REGIONS[i % 3] for i in range(n)],
        "sex": ["f" if i % 2 else "m" for i in range(n)],
        "works": [i % 2 == 0 for i in range(n)],
    }
    return pd.DataFrame(base | columns)


def changed(frame: pd.DataFrame, row: int, **values: Any) -> pd.DataFrame:
    copy = frame.astype(object)
    for name, value in values.items():
        copy.loc[row, name] = value
    return copy


def reader(frame: pd.DataFrame) -> TableOf:
    return lambda codebook, _: table_of(frame, codebook)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / FILE


def admit(
    file: Path,
    frame: pd.DataFrame,
    question: Question[Any],
    discloses: Disclosed = Cells(),  # noqa: B008  # frozen
    *,
    fingerprint: str = "today",
    rules: Rules = FIVE,
) -> None:
    with Releases(file, dataset="people") as releases:
        releases.admit("run", question.terms.digest(), question, discloses, fingerprint, reader(frame), rules)


def recorded(file: Path) -> int:
    with Releases(file, dataset="people") as releases:
        return len(releases.past())


TEEN = changed(people(), 0, age=18, region="n")
ONE_MISSING = changed(people(), 0, sex=None, income=None)

ATTACKS: dict[str, tuple[pd.DataFrame, tuple[Question[Any], Disclosed], tuple[Question[Any], Disclosed]]] = {
    "one age less": (TEEN, (ask(["age >= 18"]), Cells()), (ask(["age >= 19"]), Cells())),
    "a negated condition": (TEEN, (ask(), Cells()), (ask(["age != 18"]), Cells())),
    "one missing value": (ONE_MISSING, (ask(), Model(1, ("age",))), (ask(), Model(1, ("age", "income")))),
    "a further dimension": (ONE_MISSING, (ask(), Cells(("region",))), (ask(), Cells(("region", "sex")))),
    "few in one common cell, many in all": (
        changed(people(), 0, age=18).assign(age=lambda f: f["age"].where(f["region"] != "s", 18)),
        (ask(), Cells(("region",))),
        (ask(["age >= 19"]), Cells(("region",))),
    ),
    "a cell of a table less a narrower query": (
        TEEN,
        (ask(), Cells(("region",))),
        (ask(["region = n", "age >= 19"]), Cells()),
    ),
    "the same the other way round": (
        TEEN,
        (ask(["region = n", "age >= 19"]), Cells()),
        (ask(), Cells(("region", "sex"))),
    ),
    "two cells of a table less a narrower query": (
        TEEN,
        (ask(), Cells(("region",))),
        (ask(["region in n,s", "age >= 19"]), Cells(("sex",))),
    ),
    "available cases less complete cases": (
        changed(people(), 0, income=None).assign(age=lambda f: f["age"].where(f.index < 56)),
        (ask(columns=["age"]), Cells()),
        (ask(), Model(1, ("age", "income"))),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_pair_that_isolates_one_record_is_refused_and_not_recorded(name: str, file: Path) -> None:
    frame, first, second = ATTACKS[name]
    admit(file, frame, *first)
    before = recorded(file)
    with pytest.raises(Refused, match="differencing rule"):
        admit(file, frame, *second)
    assert recorded(file) == before


def test_a_condition_that_is_shifted_over_nobody_is_refused_like_one_over_few(file: Path) -> None:
    """Otherwise shifting it until the answer is refused finds somebody's value."""
    frame = people()
    admit(file, frame, ask(["age >= 30"]), Cells(("region",)))
    with pytest.raises(Refused, match="differencing rule"):
        admit(file, frame, ask(["age > 29.5"]), Cells(("region",)))
    admit(file, frame, ask(["age >= 30"]), Cells(("region",)))


def test_harmless_pairs_are_admitted(file: Path) -> None:
    frame = people()
    for question, discloses in (
        (ask(), Cells()),
        (ask(), Cells(("region",))),
        (ask(), Cells(("region", "sex"))),
        (ask(["sex = f"]), Cells()),
        (ask(["age >= 30"]), Cells(("region",))),
        (ask(["region = n"]), Model(2, ("age", "income"))),
    ):
        admit(file, frame, question, discloses)


def test_refusals_are_the_same_text_whatever_the_data_and_the_threshold(tmp_path: Path) -> None:
    texts = set()
    for i, (frame, minimum) in enumerate(((TEEN, 2), (changed(TEEN, 1, age=18), 20), (TEEN, 50))):
        file = tmp_path / f"{i}.sqlite"
        admit(file, frame, ask())
        with pytest.raises(Refused) as refusal:
            admit(file, frame, ask(["age >= 19"]), rules=Rules(minimum_frequency=minimum))
        texts.add(str(refusal.value))
    assert len(texts) == 1
    assert not any(sign.isdigit() for sign in texts.pop())


WHERES = ["age >= 18", "age >= 19", "age < 21", "age != 20", "region = n", "region in n,s", "region != e", "sex = f"]
queries = st.tuples(
    st.lists(st.sampled_from(WHERES), max_size=2, unique=True),
    st.sets(st.sampled_from(["income", "sex", "works"]), max_size=2),
    st.sets(st.sampled_from(["region", "sex"]), max_size=2),
)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.lists(st.tuples(queries, queries), min_size=6, max_size=6))
def test_refused_exactly_when_pandas_finds_a_small_symmetric_difference(seed: int, pairs: Any) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 200))
    frame = pd.DataFrame(
        {
            "age": drawn(rng, n, [17, 18, 19, 20, 21, 22, None], [0.2, 0.03, 0.2, 0.2, 0.2, 0.16, 0.01]),
            "income": drawn(rng, n, [1.0, None], [0.97, 0.03]),
            "region": drawn(rng, n, [*REGIONS, None], [0.4, 0.4, 0.19, 0.01]),
            "sex": drawn(rng, n, ["f", "m", None], [0.5, 0.47, 0.03]),
            "works": drawn(rng, n, [True, False, None], [0.5, 0.47, 0.03]),
        }
    )
    table = table_of(frame, CODEBOOK)
    for first, second in pairs:
        new, old = (populations(ask(w), Cells(tuple(by), (), tuple(c)))[0] for w, c, by in (second, first))
        counts = brute_force(frame, first, second)
        small = any(0 < count < 5 for count in counts)
        shifted = any(text.startswith("age") for text in {*first[0]} ^ {*second[0]})
        small |= shifted and not any(counts)  # none are as telling as few where a condition on a number is shifted
        try:
            guard(table, [old], [new], FIVE)
            refused = False
        except Refused:
            refused = True
        assert refused == small, (first, second)


def drawn(rng: np.random.Generator, n: int, values: Sequence[Any], shares: Sequence[float]) -> "pd.Series[Any]":
    return pd.Series([values[i] for i in rng.choice(len(values), n, p=shares)], dtype=object)


def selected(frame: pd.DataFrame, where: Sequence[str]) -> "pd.Series[bool]":
    keep = pd.Series(True, index=frame.index)
    for text in where:
        name, op, value = text.split(" ")
        column = frame[name]
        known = column.notna()
        if op in ("=", "in", "!="):
            wanted: list[Any] = [float(value)] if name == "age" else value.split(",")
            keep &= known & (column.isin(wanted) != (op == "!="))
        else:
            number = column.astype(float)
            keep &= known & {"<": number < float(value), ">=": number >= float(value)}[op]
    return keep


def brute_force(frame: pd.DataFrame, first: Any, second: Any) -> list[int]:
    """Sizes, by common cells, of the one-sided differences: of the populations, and cut to each other's conditions."""
    sets = []
    for (where, complete, by), (others, _, _) in ((first, second), (second, first)):
        whole = selected(frame, where) & frame[[*complete, *by]].notna().all(axis=1)
        sets.append((whole, whole & selected(frame, [c for c in others if c.split(" ")[0] in by])))
    common = sorted(first[2] & second[2])
    counts: list[int] = []
    for one, other in zip(*sets, strict=True):
        for difference in (one & ~other, other & ~one):
            few = frame[difference]
            counts += few.groupby(common).size().tolist() if common else [len(few)]
    return counts


def test_exact_repeats_are_admitted_and_add_nothing_even_with_another_seed(file: Path) -> None:
    admit(file, TEEN, ask(["age >= 18", "sex = f"]), Cells(("region", "works")))
    size = recorded(file)
    again = ask(["sex = f", "age >= 18", "sex = f"], seed=2)
    admit(file, TEEN, again, Cells(("works", "region")))
    assert recorded(file) == size


def test_the_same_population_of_data_that_changed_a_little_is_refused(file: Path) -> None:
    frame = people(60)
    admit(file, frame, ask(["age >= 18"]), fingerprint="january")
    for changed_by in (-4, 0, 4):
        with pytest.raises(Refused, match="differencing rule"):
            admit(file, people(60 + changed_by), ask(["age >= 18"]), fingerprint="february")
        with pytest.raises(Refused, match="differencing rule"):  # another way to write the same population
            admit(file, people(60 + changed_by), ask(["age > 17.5"]), fingerprint="february")
    admit(file, people(65), ask(["age >= 18"]), fingerprint="february")
    admit(file, frame, ask(["age >= 18"]), fingerprint="january")


def test_a_past_population_is_compared_whatever_data_it_was_released_from(file: Path) -> None:
    admit(file, TEEN, ask(), fingerprint="january")
    with pytest.raises(Refused, match="differencing rule"):
        admit(file, pd.concat([TEEN, people(20)]), ask(["age >= 19"]), fingerprint="february")


def test_a_codebook_that_reads_a_value_as_missing_does_not_hide_a_difference(file: Path) -> None:
    admit(file, people(), ask(), Model(1, ("income",)))
    other = codebook_of(COLUMNS | {"income": {"type": "number", "missing": [59]}})
    with pytest.raises(Refused, match=r"missing codes .*: income; want"):
        admit(file, people(), ask(codebook=other), Model(1, ("income",)))


def test_a_codebook_without_a_column_used_before_does_not_hide_a_difference(file: Path) -> None:
    admit(file, TEEN, ask(["age >= 19"]), Model(1))
    narrow = codebook_of({name: column for name, column in COLUMNS.items() if name != "age"})
    with pytest.raises(Refused, match="differencing rule"):
        admit(file, TEEN, ask(columns=["income"], codebook=narrow), Model(1))


def test_without_a_minimum_frequency_nothing_is_refused_but_all_is_recorded(file: Path) -> None:
    off = Rules(minimum_frequency=None)
    admit(file, TEEN, ask(), Model(1), rules=off)
    admit(file, TEEN, ask(["age >= 19"]), Model(1), rules=off)
    assert recorded(file) == 2
    with pytest.raises(Refused, match="differencing rule"):
        admit(file, TEEN, ask(["age > 16"]), Model(1, ("sex",)))


def test_every_past_population_is_compared_when_they_need_more_than_one_query() -> None:
    frame = changed(people(400, age=[20 + i // 5 for i in range(400)]), 5, age=22)
    past = [populations(ask([f"age >= {age}"]), Model(1))[0] for age in range(22, 62)]
    table = table_of(frame, CODEBOOK)
    for age, few in ((21, True), (63, False)):
        for ordered in (past, past[::-1]):
            new = populations(ask([f"age >= {age}"]), Model(1))
            if few:
                with pytest.raises(Refused, match="differencing rule"):
                    guard(table, ordered, new, FIVE)
            else:
                guard(table, ordered, new, FIVE)


def test_conditions_select_what_the_holders_table_selects(tmp_path: Path) -> None:
    from statfed.client.data.tables import connect, open_table

    frame = changed(TEEN, 3, age=None, region=None, works=None)
    frame.to_csv(tmp_path / "people.csv", index=False)
    texts = [*WHERES, "age <= 30", "age > 30", "age = 25", "works = true", "works != true", "works in true,false"]
    with connect("people.csv", tmp_path) as source:
        whole = open_table(source, CODEBOOK)
        for text in texts:
            condition = parse_condition(text, CODEBOOK)
            theirs = open_table(source, CODEBOOK, (condition,)).aggregate(n=ibis._.count())
            assert whole.filter(whole.holds(condition)).aggregate(n=ibis._.count()) == theirs, text


def test_postgresql_refuses_what_duckdb_refuses(postgres: Server, file: Path) -> None:  # noqa: F811
    types = {"age": "bigint", "income": "float8", "region": "text", "sex": "text", "works": "boolean"}
    connection = ibis.postgres.connect(
        host="127.0.0.1", port=postgres.port, user="holder", password=postgres.password, database="test"
    )
    try:
        for i, (frame, first, second) in enumerate(ATTACKS.values()):
            name = f"people_{i}"
            postgres.load(name, types, frame)
            table = Table(connection.table(name), CODEBOOK, embedded=False)
            with Releases(file.with_name(f"{name}.sqlite"), dataset=name) as releases:
                releases.admit("a", "0" * 64, *first, "today", lambda *_, t=table: t, FIVE)
                with pytest.raises(Refused, match="differencing rule"):
                    releases.admit("b", "1" * 64, *second, "today", lambda *_, t=table: t, FIVE)
    finally:
        connection.disconnect()


def test_the_file_is_private_append_only_and_holds_no_value(file: Path) -> None:
    admit(file, people(60, income=[123456.25] * 60), ask(["age >= 18"], ["income"]), Cells(("region",), ("income",)))
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"123456" not in file.read_bytes()
    with sqlite3.connect(file) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("DELETE FROM entries")
    db.close()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _edit(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("DROP TRIGGER never_update")
        db.execute("UPDATE entries SET facts = replace(facts, '>=', '<') WHERE seq > 1")
    db.close()


def _replace(file: Path) -> None:
    file.write_text("no database")


@pytest.mark.parametrize("damage", [_cut, _edit, _replace, Path.unlink])
def test_a_damaged_or_missing_record_lets_nothing_out(file: Path, damage: Callable[[Path], None]) -> None:
    admit(file, TEEN, ask(["age >= 18"]))
    damage(file)
    with pytest.raises(LedgerCorrupt, match=r"releases\.sqlite.*no exact release leaves"):
        admit(file, TEEN, ask(["age >= 19"]))


def test_a_query_that_fails_lets_nothing_out(file: Path) -> None:
    def fails(codebook: Codebook, columns: Sequence[str]) -> Table:
        raise UsageError("age: not a column of the data")

    with Releases(file, dataset="people") as releases, pytest.raises(UsageError):
        releases.admit("run", "0" * 64, ask(), Cells(), "today", fails, FIVE)
    assert recorded(file) == 0
    with pytest.raises(Refused, match="want dataset other"):
        Releases(file, dataset="other")


def test_two_processes_cannot_each_release_one_half_of_a_pair(file: Path) -> None:
    admit(file, TEEN, ask(["sex = f"]))
    both = threading.Barrier(2)
    outcomes: list[str] = []

    def one(where: str) -> None:
        waited = False

        def table_of_(codebook: Codebook, columns: Sequence[str]) -> Table:
            nonlocal waited
            if not waited:  # both have read the file and found no other: now they race
                waited = True
                both.wait()
            return table_of(TEEN, codebook)

        with Releases(file, dataset="people") as releases:
            try:
                releases.admit(where, "0" * 64, ask([where]), Model(1), "today", table_of_, FIVE)
                outcomes.append("admitted")
            except Refused:
                outcomes.append("refused")

    threads = [threading.Thread(target=one, args=(where,)) for where in ("age >= 18", "age >= 19")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["admitted", "refused"]
