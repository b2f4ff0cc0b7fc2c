"""Values that many have: a class of their own, so that no synthetic record has a value near them instead."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from statfed.client.guard.admission import bounded_ask
from statfed.client.guard.policy import Limits
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask
from statfed.core.resolve import resolve
from statfed.core.synthesis import Model
from statfed.core.terms import Privacy, Terms
from statfed.lab.laws.walk import finished
from statfed.strategies.analyses._classes import alone, axis_of
from statfed.strategies.synthesis import _graphical, cart, copula
from statfed.strategies.synthesis._axes import drawn, unmerged
from tests.federate import codebook_of, federate, split, table_of

COUNT = 2000
COLUMNS: dict[str, Any] = {
    "income": {"type": "number", "low": -500, "high": 100_000, "required": True},
    "hours": {"type": "number", "low": 0, "high": 90, "spikes": [40, 37.5]},
    "wage": {"type": "integer", "low": 0, "high": 9_999, "required": True},
}
BOOK = codebook_of(COLUMNS)
PLAIN = codebook_of({name: {k: v for k, v in one.items() if k != "spikes"} for name, one in COLUMNS.items()})
SHARES = {("income", 0.0): 0.4, ("income", 100_000.0): 0.05, ("hours", 40.0): 0.35, ("hours", 37.5): 0.15}


def people(seed: int = 1) -> pd.DataFrame:
    """Two fifths without income, a twentieth at the top code; half of the hours are one of two values."""
    rng = np.random.default_rng(seed)
    what, hours = rng.random(COUNT), np.clip(rng.normal(38, 8, COUNT), 0, 90)
    income = np.where(what < 0.4, 0.0, np.where(what > 0.95, 100_000.0, rng.lognormal(9, 1, COUNT).clip(1, 99_000)))
    hours = rng.permutation(np.where(what < 0.35, 40.0, np.where(what < 0.5, 37.5, hours)))
    return pd.DataFrame({"income": income, "hours": hours, "wage": np.where(income > 0, income // 12, 0).astype(int)})


def asking(frames: list[pd.DataFrame], book: Codebook) -> Callable[..., Any]:
    def ask(analysis: str, **options: Any) -> Any:
        return federate(analysis, frames, book, **options)

    return ask


def private(frames: list[pd.DataFrame], book: Codebook) -> Model:
    names = tuple(f"h{i}" for i in range(len(frames)))
    terms = Terms(
        method="mst",
        options={"classes": 24},
        codebook=book,
        holders=names,
        seed=1,
        privacy=Privacy(epsilon=2.0, noise="central"),
    )
    return _graphical.model(finished(terms, dict(zip(names, frames, strict=True))), book, 24)


METHODS: dict[str, tuple[Callable[[list[pd.DataFrame], Codebook], Model], Any]] = {
    "mst": (private, _graphical),
    "cart": (
        lambda frames, book: cart.fit(asking(frames, book), book, cart.Options(classes=24, smallest=60, depth=4)),
        cart,
    ),
    "copula": (lambda frames, book: copula.fit(asking(frames, book), book, copula.Options(classes=24)), copula),
}


@pytest.mark.parametrize("method", METHODS)
def test_values_that_many_have_come_as_often_and_quantiles_are_nearer_than_without(method: str) -> None:
    frame = people()
    fit, module = METHODS[method]
    near, model = {}, fit([frame], BOOK)
    if method == "copula":
        assert model == fit(split(frame, 3), BOOK)
    for told, book in ((model, BOOK), (fit([frame], PLAIN), PLAIN)):
        made = module.generate(told, book, 20_000, np.random.default_rng(2))
        near[book is BOOK] = ks_2samp(made["hours"], frame["hours"]).statistic
        for (name, value), share in SHARES.items():
            if book is BOOK or name == "income":
                assert (made[name] == value).mean() == pytest.approx(share, abs=0.03), (name, value)
        assert (made["wage"] == 0).mean() == pytest.approx((frame["wage"] == 0).mean(), abs=0.03)
    assert near[True] < near[False] / 2


def test_a_class_of_one_value_is_counted_and_drawn_as_that_value() -> None:
    axis = axis_of(BOOK, "income", 12)
    values = np.array([-500.0, -1e-300, -0.0, 0.0, 5e-324, 1e-300, 99_999.999, 100_000.0])
    places = axis.places(values, np.zeros(len(values), np.bool_))
    table = table_of(pd.DataFrame({"income": values, "hours": 1.0, "wage": 1}), BOOK)
    found = table.expr.select(found=axis.expr(table)).to_pyarrow().column("found").to_numpy()
    assert np.array_equal(found, places)
    single = np.flatnonzero(alone(axis))
    assert [axis.edges[cell] for cell in single] == [-500.0, 0.0, 100_000.0]
    assert places.tolist().count(single[1]) == 3  # -0, 0, and what is smaller than any number of full precision
    made = drawn(axis, BOOK.columns["income"], np.repeat(single, 50), np.random.default_rng(1))
    assert np.array_equal(np.unique(made), [-500.0, 0.0, 100_000.0])
    assert not alone(axis_of(BOOK, "income", 7)).any()  # few classes are equal ones


def test_ends_that_are_no_whole_numbers_and_dates_have_classes_of_their_own() -> None:
    book = codebook_of(
        {
            "n": {"type": "integer", "low": -3.5, "high": 1000.5},
            "d": {"type": "date", "low": "1900-01-01", "high": "2020-12-31", "spikes": ["2000-01-01"]},
        }
    )
    for name, wanted in (("n", {-3.0, 0.0, 1000.0}), ("d", {-25567.0, 10957.0, 18627.0})):
        edges = axis_of(book, name, 20).edges
        assert {low for low, high in pairwise(edges) if high - low == 1.0} >= wanted
        assert list(edges) == sorted(set(edges))
    assert make_codebook(book.model_dump(mode="json")) == book
    assert book.model_dump(mode="json")["columns"]["d"]["spikes"] == ["2000-01-01"]


def test_a_codebook_without_spikes_has_the_digest_that_it_had() -> None:
    assert "spikes" not in str(PLAIN.model_dump(mode="json"))
    assert PLAIN.digest() != BOOK.digest()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "number", "low": 0, "high": 9, "spikes": [10]}, "spikes: got 10; want values of the column"),
        ({"type": "integer", "low": 0, "high": 9, "spikes": [1.5]}, "spikes: got 1.5; want values of the column"),
        ({"type": "number", "spikes": [1]}, "spikes: got some for type number without low and high"),
        ({"type": "boolean", "spikes": [1]}, "spikes: got some for type boolean"),
        ({"type": "number", "low": 0, "high": 9, "spikes": [1, 1]}, "spikes: got a value twice"),
    ],
)
def test_spikes_that_are_no_values_of_a_column_are_refused(column: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        codebook_of({"x": column})


def test_cells_of_a_group_are_drawn_by_weights_without_the_noise_below_0() -> None:
    axis = axis_of(codebook_of({"x": {"type": "category", "categories": list("abcd"), "required": True}}), "x", 9)
    axis = axis.merged([0, 0, 0, 1])
    cells = unmerged(axis, np.repeat([0, 1], [60_000, 5]), np.array([5.0, -1.0, 2.0, -3.0]), np.random.default_rng(1))
    shares = np.bincount(cells[:60_000], minlength=4) / 60_000
    assert shares == pytest.approx(np.array([4.5, 0, 1.5, 0]) / 6, abs=0.01)
    assert (cells[60_000:] == 3).all()


def test_counts_of_pairs_are_held_to_the_cells_of_the_largest_pair_and_a_table_to_all() -> None:
    levels = {f"c{i}": {"type": "category", "categories": [str(k) for k in range(10)]} for i in range(4)}
    book, names = codebook_of(levels), tuple(levels)
    for method, options in (("aim", {}), ("mst", {}), ("marginals", {"columns": names})):
        terms = Terms(method=method, options=options, codebook=book, holders=("a",), seed=1)
        study = resolve(terms)
        ask: Ask = next(study.method.coordinate(study.question))
        bounded_ask(Limits(cells=100), study, ask, 1)
        with pytest.raises(Refused, match="got 100 cells"):
            bounded_ask(Limits(cells=99), study, ask, 1)
    study = resolve(Terms(method="table", options={"rows": names}, codebook=book, holders=("a",), seed=1))
    with pytest.raises(Refused, match="got 10,000 cells"):
        bounded_ask(Limits(cells=100), study, next(study.method.coordinate(study.question)), 1)
