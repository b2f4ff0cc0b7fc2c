"""Rules of a codebook: read at load, evaluated as the database does, obeyed by every record that a model draws."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.conditions import parse_where
from statfed.core.errors import UsageError
from statfed.core.synthesis import Fitted
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.edits import clauses, drawn, obeys, truth
from statfed.federation.synthetic import Synthesizer, fit, own_table
from tests.federate import codebook_of, table_of

COLUMNS = {
    "age": ("integer", 0, 99),
    "wage": ("number", 0, 1000),
    "employed": "boolean",
    "region": ["n", "s", "w"],
    "born": {"type": "date", "low": "1920-01-01", "high": "2025-12-31"},
}
BOOK = codebook_of(COLUMNS)
RULES = ("age >= 16 or employed = false", "region != w or wage < 500")


def ruled(*rules: str) -> Codebook:
    return make_codebook({**BOOK.model_dump(mode="json"), "rules": rules})


def records(n: int, seed: int) -> Coded:
    """Uniform, a tenth missing of each column."""
    rng = np.random.default_rng(seed)
    gone = rng.random((5, n)) < 0.1
    columns = {
        "age": np.where(gone[0], np.nan, rng.integers(0, 100, n)),
        "wage": np.where(gone[1], np.nan, rng.integers(0, 11, n) * 100.0),
        "employed": np.where(gone[2], -1, rng.integers(0, 2, n)),
        "region": np.where(gone[3], -1, rng.integers(0, 3, n)),
        "born": np.where(gone[4], np.nan, rng.integers(-3650, 18250, n)),
    }
    return Coded(BOOK, columns)


ATOMS = st.sampled_from(
    [
        *("age >= 18", "age < 65", "age in (1, 2, 50)", "age not between 10 and 20", "age != 3", "age is null"),
        *("wage = 500", "wage <= 300", "wage is not null", "employed = true", "employed != true", "region in n,s"),
        *("region = w", "not region = n", "region is null", "born < 1990-06-01", "born >= 2000-01-01"),
    ]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda each: f"({' '.join(each)})"),
        inner.map(lambda one: f"not ({one})"),
    ),
    max_leaves=4,
)


@settings(max_examples=25, deadline=None)
@given(CONDITIONS, st.integers(0, 5))
def test_conditions_are_true_false_and_open_of_the_records_of_which_they_are_so_in_the_database(
    condition: str, seed: int
) -> None:
    table = records(40, seed)
    frame = pd.DataFrame(
        {
            "age": pd.array(table.columns["age"], "Int64"),
            "wage": table.columns["wage"],
            "employed": pd.array([None if c < 0 else bool(c) for c in table.columns["employed"]], "boolean"),
            "region": [None if c < 0 else "nsw"[c] for c in table.columns["region"]],
            "born": pd.array(table.columns["born"], "Int64"),
        }
    )
    found = table_of(frame, BOOK)
    for clause in parse_where((condition,), BOOK):
        asked = found.expr.select(row=found.expr.age, holds=found.holds(clause)).to_pyarrow()
        want = [{True: 1, False: -1, None: 0}[value] for value in asked.column("holds").to_pylist()]
        assert truth(table, clause).tolist() == want, str(clause)


def test_of_a_column_that_is_not_there_nothing_is_known() -> None:
    table = records(50, 1).only(["age", "region"])
    for rule in ("wage is null", "wage is not null", "wage > 5", "wage in (1, 2)"):
        (clause,) = parse_where((rule,), BOOK)
        assert not truth(table, clause).any()
    assert obeys(table, parse_where(("wage > 5 or age >= 50",), BOOK)).all()


def test_a_codebook_without_rules_has_the_digest_that_it_had_and_one_with_some_another() -> None:
    assert "rules" not in BOOK.model_dump(mode="json")
    with_rules = ruled(*RULES)
    assert with_rules.digest() != BOOK.digest()
    assert make_codebook(with_rules.model_dump(mode="json")) == with_rules
    assert len(clauses(with_rules)) == 2


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("ages >= 16", "rules.0: got 'ages"),
        ("age >= old", "want a finite number"),
        ("region = x", "want =, != or in, and codes of n, s, w"),
        ("age", "want =, !="),
        ("age > 1 and " * 90 + "age > 1", "rules.0"),
    ],
)
def test_rules_that_have_no_meaning_under_the_codebook_are_refused_at_load(rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ruled(rule)


def test_no_drawn_record_breaks_a_rule_and_the_others_are_spread_as_the_model_has_them() -> None:
    book = ruled(*RULES)
    dummy = Synthesizer(Fitted("dummy", book, fit_dummy(book)))
    table = dummy.coded(20_000, seed=3)
    assert table.count == 20_000
    assert obeys(table, clauses(book)).all()
    free = Synthesizer(Fitted("dummy", BOOK, fit_dummy(BOOK))).coded(200_000, seed=4)
    assert 0.02 < 1 - obeys(free, clauses(book)).mean() < 0.5
    wanted = free.take(obeys(free, clauses(book)))
    for name, near in (("age", 1.0), ("wage", 10.0)):
        assert abs(np.nanmean(table.columns[name]) - np.nanmean(wanted.columns[name])) < near
    for name in ("region", "employed"):
        got, want = (np.bincount(t.columns[name] + 1) / t.count for t in (table, wanted))
        assert np.abs(got - want).max() < 0.015


def fit_dummy(book: Codebook) -> dict[str, object]:
    from statfed.strategies.synthesis.dummy import Options
    from statfed.strategies.synthesis.dummy import fit as fit_dummy

    def ask(*_: object, **__: object) -> object:
        raise AssertionError

    return dict(fit_dummy(ask, book, Options()))  # type: ignore[arg-type]


def test_a_model_under_which_hardly_a_record_obeys_is_refused_after_few_draws() -> None:
    book, drew = ruled("age = 7"), []

    def generate(count: int) -> Coded:
        drew.append(count)
        table = records(count, len(drew))
        return Coded(BOOK, {**table.columns, "age": np.where(np.arange(count) % 200 == 0, 7.0, 8.0)})

    with pytest.raises(UsageError, match=r"rules: got .* drawn records that obey them; want at least 1%"):
        drawn(generate, book, 500)
    assert 10_000 <= sum(drew) < 100_000
    assert drawn(generate, BOOK, 500).count == 500


def test_rules_hold_of_fewer_records_than_asked_at_once() -> None:
    book = ruled("age < 3")
    made = Synthesizer(Fitted("dummy", book, fit_dummy(book))).coded(300, seed=1)
    assert made.count == 300
    assert np.nanmax(made.columns["age"]) <= 2


def test_federation_fits_under_a_codebook_with_rules() -> None:
    from statfed.federation.federation import Federation

    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"employed": rng.random(200) < 0.4, "region": rng.choice(["n", "s"], 200)})
    book = make_codebook(
        {
            "columns": {"employed": {"type": "boolean"}, "region": {"type": "category", "categories": ["n", "s"]}},
            "rules": ["region = n or employed = true"],
        }
    )
    with Federation({"a": frame[:120], "b": frame[120:]}, book) as fed:
        made = fit(fed, "margins", {}).sample(500, seed=2)
    assert not ((made["region"] == "s") & ~made["employed"]).any()
    assert own_table(made, book).count == 500
