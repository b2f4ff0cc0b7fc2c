"""Corrected figures of `fuzzy`: against plain sums over the same links, against the truth, and who sees what."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Outcome, Party, Units, linked
from statfed.core.linkage_errors.totals import corrected_counts, corrected_totals
from statfed.core.randomness import Stream
from statfed.scenarios._data.registers import registers
from statfed.strategies.linkages import _encodings, _fuzzy_columns, _fuzzy_parties, _fuzzy_sums, fuzzy
from statfed.strategies.linkages._fuzzy_estimates import coarse
from statfed.strategies.linkages._fuzzy_sums import Drawn, Plan, Value, deal, matrix, opened, product, told
from statfed.strategies.linkages._fuzzy_told import step
from tests.strategies.linkages.fuzzily import ATTRIBUTES, BLOCKS, agreed, keys_of, parties_of

BOTH = ("bank", "office")
REGIONS = ("north", "south", "tiny")
COLUMNS: dict[str, Any] = {
    "estimate": "coverage",
    "by": {"region": REGIONS},
    "values": {"income": Value(low=0, high=100_000)},
    "threshold": 0.76,
}


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and orders of this run are always the same, so that figures are."""
    random = np.random.default_rng(2)
    for module in (_encodings, _fuzzy_parties, _fuzzy_columns):
        monkeypatch.setattr(module, "os", SimpleNamespace(urandom=random.bytes))


def corrected(owner: str, size: int = 500, **options: Any) -> tuple[Outcome, dict[str, Any], dict[str, Any]]:
    """What comes out, the parties, and the truth with the owner's columns by record."""
    sides = dict(zip(BOTH, registers(size, 0.7, 0.1, 3), strict=True))
    random = np.random.default_rng(5)
    columns = {
        "region": random.choice(3, size, p=(0.6, 0.39, 0.01)).astype(float),
        "income": np.round(random.lognormal(7, 0.5, size), 2),
    }
    units = {name: Units(keys_of(side), columns if name == owner else {}) for name, side in sides.items()}
    agreement = agreed(size + 40, **(COLUMNS | {"owner": owner} | options))
    parties: dict[str, Party] = parties_of(agreement, units)
    outcome = linked(fuzzy.coordinator(agreement), parties)
    other = next(name for name in BOTH if name != owner)
    both = np.isin(sides[owner].person, sides[other].person)
    return outcome, dict(parties), {"both": both, "person": sides[owner].person, **columns}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("owner", BOTH)
def test_sums_on_shares_are_not_those_over_the_links(owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fuzzy_sums, "_MESSAGE", 900)  # a hundred records a message
    outcome, parties, truth = corrected(owner)
    done, rates = parties["linkage-unit"]._counted, parties["linkage-unit"]._counted.rates()
    weights = done.weights(BOTH.index(owner))[parties[owner]._order[: len(truth["region"])]].astype(float)
    assert weights.sum() == done.weights(0).sum()  # padding has no pairs
    cells = [truth["region"] == place for place in range(3)]
    counts = np.array([weights[cell].sum(0) for cell in cells])
    assert outcome.result is not None
    whole, *rows = outcome.result.tables["corrected"]
    assert [row["region"] for row in rows] == list(REGIONS)
    shown = told(counts[:, 0], counts[:, 1], 10, done.most)
    by, _ = coarse(done, rates)
    steps = step(done.most[0]), step(sum(done.most))
    assert shown.tolist() == [True, False, False]
    assert [row["links"] for row in rows[1:]] == [None, None]
    assert rows[0]["links"] == pytest.approx(counts[0, 0], abs=steps[0] / 2)
    assert float(rows[0]["links"] or 0.5) % steps[0] == 0
    plain = corrected_counts(rates, counts[:1, 0], counts[:1, 1])
    assert rows[0]["estimate"] == pytest.approx(plain.cells[0].value, abs=sum(steps))
    assert rows[0]["std_error"] == pytest.approx(plain.cells[0].std_error, rel=0.1)
    everywhere = corrected_counts(rates, [weights[:, 0].sum()], [weights[:, 1].sum()]).total
    assert whole["region"] is None
    assert whole["estimate"] == pytest.approx(everywhere.value, abs=sum(steps))
    assert float(whole["links"] or 0.5) % steps[0] == 0
    value = truth["income"]
    sums = [(weights[some].T @ (value[some] ** power)) for power in (1, 2) for some in (cells[0], slice(None))]
    assert np.diag(by.realised) == pytest.approx(np.diag(rates.correction.realised), rel=0.1)
    of = corrected_totals(by, sums[0][:1], sums[0][1:], links_squared=sums[2][:1], blocked_squared=sums[2][1:])
    total, first, *_ = outcome.result.tables["totals"]
    assert first["estimate"] == pytest.approx(of.cells[0].value, rel=1e-5)
    assert first["std_error"] == pytest.approx(of.cells[0].std_error, rel=1e-3)
    assert first["naive"] == pytest.approx(sums[0][0], rel=1e-6)
    assert total["naive"] == pytest.approx(sums[1][0], rel=1e-6)


@pytest.mark.usefixtures("seeded")
def test_corrected_figures_miss_the_truth_further_than_their_limits() -> None:
    outcome, _, truth = corrected("office", 600)
    assert outcome.result is not None
    tables = outcome.result.tables
    both = truth["both"]
    matches, total = tables["corrected"][0], tables["totals"][0]
    for row, true in ((matches, both.sum()), (total, truth["income"][both].sum())):
        assert row["lower"] <= true <= row["upper"]
        assert 0 < row["std_error"] < 0.1 * true  # type: ignore[operator]
    population = tables["coverage"][0]
    assert population["lower"] <= 600 * 600 / both.sum() <= population["upper"]
    assert [row["estimate"] for row in tables["coverage"][3:]] == [600, 600]  # without the padding
    recall = next(row for row in tables["rates"] if row["name"] == "recall")
    assert 0.5 < recall["lower"] < recall["upper"] <= 1  # type: ignore[operator]
    assert outcome.result.undeclared == ()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 4), st.booleans(), st.integers(0, 2**32))
def test_shares_add_up_to_something_else_than_the_sums(size: int, cells: int, whole: bool, seed: int) -> None:
    random, stream = np.random.default_rng(seed), Stream(seed.to_bytes(16, "big"))
    plan = Plan("a", "b", size, cells, {"v": Value(low=-9, high=40, whole=whole)})
    cell = random.integers(-1, cells, size)
    value = np.round(random.uniform(-9, 40, size), 0 if whole else 2)
    weights = random.integers(0, 5, (size, 2)).astype(np.uint64)
    rows = matrix(plan, cell, {"v": value}, stream)
    of_owner, of_unit = deal(plan, stream)
    masks, own = Drawn(of_owner[:16], plan.width), Drawn(of_unit[:16], 2)
    hidden, apart = rows - masks.rows(size), weights - own.rows(size)
    owner = np.frombuffer(of_owner[16:], np.uint64).reshape(2, -1) + product(apart, rows)
    unit = Drawn(of_unit[16:], plan.width).rows(2) + product(Drawn(of_unit[:16], 2).rows(size), hidden)
    counts, values = opened(plan, owner + unit)
    for place in range(cells):
        here = weights[cell == place].astype(float)
        assert counts[:, place].tolist() == here.sum(0).tolist()
        for power in (1, 2):
            exact = here.T @ value[cell == place] ** power
            assert values["v"][:, power - 1, place] == pytest.approx(exact, rel=1e-6, abs=1e-4)


def test_what_is_sent_of_cells_and_weights_tells_of_them() -> None:
    """The same records twice: no word of what the unit or the owner is sent comes again, and bits are even."""
    plan = Plan("a", "b", 2_000, 3, {})
    cells = np.zeros(2_000, np.int64)
    seen = []
    for seed in (b"1" * 16, b"2" * 16):
        of_owner, of_unit = deal(plan, Stream(seed))
        rows = matrix(plan, cells, {}, Stream(bytes(16)))
        weights = np.ones((2_000, 2), np.uint64) - Drawn(of_unit[:16], 2).rows(2_000)
        seen.append(np.concatenate([(rows - Drawn(of_owner[:16], 3).rows(2_000)).ravel(), weights.ravel()]))
    assert not set(seen[0].tolist()) & set(seen[1].tolist())
    for words in seen:
        assert abs(np.unpackbits(words.view(np.uint8)).mean() - 0.5) < 0.005


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8), st.integers(3, 12))
def test_a_cell_below_the_minimum_is_told_or_follows_from_the_rest(cells: list[tuple[int, int]], minimum: int) -> None:
    links, others = np.array(cells, float).T
    shown = told(links, links + others, minimum)
    often = told(links * 4, links * 4 + others * 7, minimum, (4, 7))  # every record four times, and its pairs seven
    assert often.tolist() == shown.tolist()
    assert (links[shown] >= minimum).all()
    assert ((others[shown] == 0) | (others[shown] >= minimum)).all()
    if not shown.all() and shown.any():
        for kind in (links, others):
            left = kind[~shown].sum()
            assert left == 0 or left >= minimum


def test_a_value_outside_its_bounds_or_too_fine_for_them_is_added_up() -> None:
    with pytest.raises(Refused, match="outside its codebook"):
        corrected("office", 60, values={"income": Value(low=0, high=10)})
    with pytest.raises(UsageError, match="too small beside its bounds"):
        corrected("office", 400, values={"income": Value(low=0, high=1e12)})


def test_rates_that_do_not_follow_are_told() -> None:
    with pytest.raises(Refused, match=r"error rates do not follow|hardly more"):
        corrected("office", 200, threshold=0.96, level=0.96)  # no pair is false
    with pytest.raises(Refused, match="above the threshold"):
        corrected("office", 300, threshold=None, level=1.0, precision=0.9)


def test_a_party_that_sends_another_number_of_words_is_believed() -> None:
    plan = Plan("a", "b", 10, 2, {})
    of_owner, of_unit = deal(plan, Stream(bytes(16)))
    options = fuzzy.Options.model_validate(
        {"attributes": ATTRIBUTES, "block": BLOCKS, "estimate": "total", "owner": "a", "by": {"r": ("x", "y")}}
    )
    units = Units({"k": ["1"] * 10}, {"r": np.zeros(10)})
    owner, unit = _fuzzy_columns.Owner(plan, units, options), _fuzzy_columns.Weigher(plan, of_unit)
    owner.dealt(of_owner)
    with pytest.raises(Refused, match="want 10 rows"):
        unit.take(owner.masked(np.arange(10))[:-8])
    with pytest.raises(Refused, match="two words a record"):
        owner.weigh(bytes(8))
    with pytest.raises(Refused, match="two words a cell"):
        unit.opened(bytes(8))
    with pytest.raises(Refused, match="do not add up"):
        unit.opened(bytes(32))
    with pytest.raises(Refused, match="no links to weigh by"):
        unit.weights()
    for wrong in (of_owner, of_unit):
        with pytest.raises(Refused, match="another length"):
            (owner.dealt if wrong is of_unit else lambda it: _fuzzy_columns.Weigher(plan, it))(wrong)
    assert "private" in repr(owner) + repr(unit) + repr(Drawn(bytes(16), 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"owner": "bank"}, "want them together"),
        ({"by": {"region": ("a",)}}, "want them together"),
        ({"owner": "bank", "by": {"region": ("a",)}}, "with an estimate"),
        ({"estimate": "total", "owner": "bank", "by": {"region": ()}}, "without levels"),
        ({"estimate": "total", "level": 0.3}, "at least the floor"),
        ({"estimate": "total", "level": 0.9, "threshold": 0.8}, "at most the threshold"),
    ],
)
def test_options_of_corrected_figures_that_cannot_be_are_taken(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fuzzy.Options.model_validate({"attributes": ATTRIBUTES, "block": BLOCKS, **options})


def test_what_roles_learn_of_corrected_figures_leaves_one_out() -> None:
    rows = fuzzy.learns(agreed(10, **COLUMNS, owner="office"), "totals")
    learned: NDArray[Any] = np.array([(row.role, row.learns) for row in rows])
    assert any("each cell of office" in text for role, text in learned if role == "linkage-unit")
    assert any("records with a key" in text for role, text in learned if role == "coordinator")
    assert any(role == "office" for role, _ in learned)
    with pytest.raises(UsageError, match="got size; want totals"):
        fuzzy.learns(agreed(10, **COLUMNS, owner="office"), "size")
    assert fuzzy.figures(agreed(10, **COLUMNS, owner="office")) > fuzzy.figures(agreed(10)) + 3 * 10


@pytest.mark.parametrize("value", [0.9908, 1.0, 1.02])
def test_a_rate_near_one_has_a_lower_limit_of_nothing(value: float) -> None:
    """In the logit of .99 an error of .07 reaches down to 0."""
    from statfed.core.linkage_errors.estimate import Estimate
    from statfed.strategies.linkages._fuzzy_estimates import _limited

    scale: Any = "logit" if value < 1 else "plain"
    _, _, low, high = _limited(Estimate("recall", value, 0.07, scale))
    assert 0.5 < low < 0.95
    assert high == 1.0
    assert _limited(Estimate("recall", 0.8, 0.01, "logit"))[2] == pytest.approx(0.78, abs=0.01)
