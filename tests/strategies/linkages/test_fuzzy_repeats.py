"""A holder that has its guesses several times in its list, so that they weigh 1, 2, 4 ... or fill a cell.

The attacks succeed on figures that count pairs as they come; here are they on those that are told."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.linkage import Outcome, Units, linked
from statfed.scenarios._data.registers import registers
from statfed.strategies.linkages import _fuzzy_parties, fuzzy
from statfed.strategies.linkages._fuzzy_sums import Value, told
from statfed.strategies.linkages._fuzzy_told import counted, error, limits, spread, step, stepped
from tests.strategies.linkages.fuzzily import Keys, agreed, keys_of, parties_of

STREET = "street:name"


def rows(keys: Keys, places: Sequence[int]) -> dict[str, list[str | None]]:
    return {name: [values[place] for place in places] for name, values in keys.items()}


def list_of(keys: Keys, known: int, guesses: Sequence[int], weights: Sequence[int], alike: bool) -> Keys:
    """The first `known` records, then each guess as often as it weighs. alike: with streets that differ by a letter."""
    places = [*range(known), *np.repeat(guesses, weights).tolist()]
    made = rows(keys, places)
    if alike:
        made[STREET] = [
            f"{value or ''}{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i, value in enumerate(made[STREET])
        ]
    return made


def test_a_list_with_a_record_too_often_is_linked(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_of(registers(100, 1.0, 0.0, 7)[0])
    agreement = agreed(200, threshold=0.8)
    for times, refused in ((2, False), (3, True)):
        units = {"bank": Units(keys), "office": Units(list_of(keys, 80, [90], [times], False))}
        if refused:
            with pytest.raises(Refused, match="same key in more than the agreed 2 records") as told:
                parties_of(agreement, units)
            assert "3" not in str(told.value)
            monkeypatch.setattr(_fuzzy_parties, "_repeated", lambda *_: (0, 0.0))  # a holder that does not check itself
            with pytest.raises(Refused, match="one encoding more often than the agreed 2 times"):
                linked(fuzzy.coordinator(agreement), parties_of(agreement, units))
        else:
            assert linked(fuzzy.coordinator(agreement), parties_of(agreement, units)).size == 80
    nobody: dict[str, list[str | None]] = {name: [*values[:60], *[None] * 40] for name, values in keys.items()}
    units = {"bank": Units(nobody), "office": Units(nobody)}  # records without a key are no repetition
    assert linked(fuzzy.coordinator(agreement), parties_of(agreement, units)).size == 60
    assert fuzzy.Options.model_fields["repeats"].json_schema_extra == {"weaker": "above"}


def weighed(there: Sequence[int], **options: Any) -> Outcome:
    """What is told of a list with 150 matches and eight guesses that weigh 1, 2 ... 128, `there` of them right."""
    keys = keys_of(registers(400, 1.0, 0.0, 7)[0])
    guesses, weights = list(range(200, 208)), [2**power for power in range(8)]
    bank = rows(keys, [*range(150), *(guesses[i] for i in there), *range(250, 400 - len(there))])
    office = list_of(keys, 150, guesses, weights, True)
    count = max(len(next(iter(side.values()))) for side in (bank, office))
    units = {"bank": Units(bank), "office": Units(office)}
    agreement = agreed(count, threshold=0.8, block=("birth_date:exact",), **options)
    for order in (("bank", "office"), ("office", "bank")):
        object.__setattr__(agreement, "holders", order)
        parties: dict[str, Any] = parties_of(agreement, units)
        outcome = linked(fuzzy.coordinator(agreement), parties)
    return outcome


@pytest.mark.parametrize("there", [[7, 5, 3, 1, 0], [7, 6, 2]], ids=str)
def test_guesses_that_weigh_one_two_four_are_read_off_a_figure(there: Sequence[int]) -> None:
    outcome = weighed(there)
    assert outcome.size is not None
    assert 145 <= outcome.size <= 150 + len(there)  # a guess counts once, however often it is there; ties not at all
    assert set(outcome.figures) == {
        *_fuzzy_parties.FIGURES,
        "capped:bank",
        "capped:office",
    } - {"size"}
    in_steps: NDArray[Any] = np.asarray(outcome.figures["matched"])
    assert (in_steps % step(128) == 0).all()
    assert np.asarray(outcome.figures["linked"]).sum() == outcome.size
    for name in ("precision", "recall"):  # of some 400 records, of which one person has 128: next to nothing is told
        assert len(set(np.asarray(outcome.figures[name]).ravel().tolist())) <= 6


@pytest.mark.parametrize(
    ("weight", "want"), [(1, 1), (2, 2), (7, 8), (9, 10), (100, 100), (512, 600), (0.0007, 0.0008), (0.011, 0.02)]
)
def test_a_step_is_smaller_than_a_record_weighs(weight: float, want: float) -> None:
    assert step(weight) == pytest.approx(want)


def test_what_is_told_in_steps_is_finer_or_limits_are_narrower() -> None:
    random = np.random.default_rng(1)
    for _ in range(300):
        value, weight = random.uniform(0.001, 1), 10 ** random.uniform(-4, 0)
        width = random.uniform(0, 0.2)
        low, high = limits(value - width, value + width, value, weight)
        assert low <= value - width + 1e-9
        assert high >= value + width - 1e-9
        assert len({stepped(value + shift * weight, weight) for shift in np.linspace(0, 0.5, 50)}) <= 2
        assert stepped(value, weight) == pytest.approx(value, abs=max(step(weight), 0.01 * value) / 2 + 1e-9)
        assert value <= error(value) <= 1.11 * value
        root = random.normal(size=(2, 2)) * 10 ** random.uniform(-6, 0, 2)
        told = spread(root @ root.T)
        assert (np.linalg.eigvalsh(told) >= -1e-18).all()
        assert told == pytest.approx(told.T)
    assert counted([1234.0, 3.0], 5).tolist() == [1235.0, 5.0]
    assert (error(0.0), stepped(0.0, 0.01)) == (0.0, 0.0)


def filled(copies: int, owner: str, **options: Any) -> tuple[Outcome, dict[str, Any]]:
    """A cell of one person at the bank, whom the office has so often, with streets that differ by letters."""
    a, b = registers(500, 0.7, 0.1, 3)
    mine, theirs = keys_of(a), keys_of(b)
    target = 0
    bait = list_of(mine, 0, [target], [copies], True)
    office = {name: [*values[: 500 - copies], *bait[name]] for name, values in theirs.items()}
    region = np.random.default_rng(5).choice(2, 500, p=(0.6, 0.4)).astype(float)
    region[target] = 2
    income = np.full(500, 1_000.0)
    income[target] = 77_777.0
    units = {"bank": Units(mine, {"region": region, "income": income}), "office": Units(office)}
    columns = {"by": {"region": ("north", "south", "tiny")}, "values": {"income": Value(low=0, high=100_000)}}
    agreement = agreed(500, **({"estimate": "total", "owner": owner, "threshold": 0.76, **columns} | options))
    parties: dict[str, Any] = parties_of(agreement, units)
    return linked(fuzzy.coordinator(agreement), parties), parties


def test_a_cell_of_one_person_is_told_who_is_often_in_the_others_list(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, parties = filled(15, "bank")
    assert outcome.result is not None
    assert max(parties["linkage-unit"]._counted.most) >= 12
    assert outcome.result.tables["corrected"][3] == {"region": "tiny"} | dict.fromkeys(
        ("links", "estimate", "std_error", "lower", "upper")
    )
    assert outcome.result.tables["totals"][3]["naive"] is None
    assert outcome.result.tables["corrected"][0]["links"] % 20 == 0  # type: ignore[operator]
    with pytest.raises(Refused, match="more than the agreed 20 pairs"):
        filled(21, "bank")
    with pytest.raises(Refused, match="may be of fewer records than the agreed 10"):
        filled(100, "bank")
    monkeypatch.setattr(_fuzzy_parties, "shown_cells", lambda *counts: told(*counts[:3]))
    attacked, _ = filled(15, "bank")  # as it was: the cell has 15 links, of one person
    assert attacked.result is not None
    naive: Any = attacked.result.tables["totals"][3]["naive"]
    assert naive / 77_777 == pytest.approx(round(naive / 77_777), abs=1e-4)
    assert naive >= 12 * 77_777
