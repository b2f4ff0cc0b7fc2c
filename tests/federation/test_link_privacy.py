"""Linkages with [privacy]: charged to every holder's ledger before its units are looked at, once for each draw."""

from pathlib import Path
from typing import Any

import pytest

from statfed.client.contributions import Contributions
from statfed.client.guard.ledger import read_only
from statfed.core.codebook import make_codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import restricted
from statfed.core.privacy.accountant import event_to_json
from statfed.core.resolve import resolve
from statfed.core.study import make_study
from tests.federation.test_link import CODEBOOK, answered, homes, linked, result, study, tables
from tests.federation.test_link_attacks import World, analysis

PRIVATE = {"privacy": {"epsilon": 1.0}}


def private(**more: Any) -> dict[str, Any]:
    return study({"key": "id"}) | PRIVATE | more


@pytest.mark.parametrize("by", ["helper", "ecdh"])
def test_each_ledger_is_charged_the_event_of_the_noise_and_the_result_says_epsilon(by: str, tmp_path: Path) -> None:
    fed = linked(by=by, privacy=1.0, workspace=tmp_path)
    assert fed.last is not None
    assert 50 <= result(fed)["count"].iloc[0] <= 150
    assert fed.last.result.privacy is not None
    assert fed.last.result.privacy["epsilon"] == 1.0
    assert [round(one.study_epsilon or 0, 3) for one in fed.last.spending] == [1.0, 1.0]
    noise = resolve(fed.last.terms).linked_noise
    assert noise is not None
    assert result(fed)["std_error"].iloc[0] == pytest.approx(noise.std(2 if by == "helper" else 1)["size"])
    seen = "helper" if by == "helper" else "office"
    assert any(f"everybody but {seen}, which sees the size" in note for note in fed.last.result.notes)
    for home in homes(tmp_path).values():
        with read_only(home / "ledger.sqlite") as ledger:
            kinds = [entry.kind for entry in ledger.entries()]
            (charge,) = [entry for entry in ledger.entries() if entry.kind == "charge"]
            assert charge.event == event_to_json(noise.event())
            assert kinds.index("reserve") < kinds.index("charge") < kinds.index("disclose")
            assert (ledger.linked(30), ledger.figures()) == (1, 1)


def test_totals_with_noise_are_charged_for_size_and_totals_together(tmp_path: Path) -> None:
    fed = linked("id", "total income", by="ecdh", privacy=1.0, settings={"decimals": {"income": 0}})
    assert fed.last is not None
    assert all((one.study_epsilon or 9) <= 1.0 for one in fed.last.spending)
    assert set(result(fed)) == {"name", "total", "std_error", "count"}


def test_a_linkage_that_passes_the_budget_is_refused_before_units_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = private(simulation={"lifetime_epsilon": 1.5})
    answered(tmp_path, given)
    monkeypatch.setattr(Contributions, "table", lambda *_, **__: pytest.fail("units were looked at"))
    with pytest.raises(Refused, match="privacy budget"):
        answered(tmp_path, given)
    for home in homes(tmp_path / "workspace").values():
        with read_only(home / "ledger.sqlite") as ledger:
            assert ledger.linked(30) == 1


def test_another_attempt_at_a_run_does_not_draw_noise_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.link("one", private())
    with pytest.raises(Refused, match="its noise was charged in an earlier attempt; want a new run"):
        world.link("one~2", private())
    world.link("two", private())
    with read_only(world.homes["bank"] / "ledger.sqlite") as ledger:
        assert [entry.run for entry in ledger.entries() if entry.kind == "charge"] == ["one", "two"]


def test_a_holder_whose_rules_look_at_totals_allows_those_that_nobody_sees_without_noise(tmp_path: Path) -> None:
    ruled: dict[str, Any] = {"simulation": {"disclosure": {"dominance_k": 90}}}
    asked = study({"key": "id", "reveal": "totals"}, method="total", options={"columns": ["income"]})
    given = asked | PRIVATE | ruled
    assert answered(tmp_path, given).result.privacy["epsilon"] == 1.0
    given["protection"] = {
        "name": "ecdh",
        "options": {"key": "id", "reveal": "totals", "options": {"decimals": {"income": 0}}},
    }
    with pytest.raises(Refused, match="rules of this policy beside minimum frequency cannot look"):
        answered(tmp_path, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (private(protection={"name": "fuzzy", "options": {"key": "id", "block": "id[:2]"}}), "with size; want none"),
        (study({"key": "id", "reveal": "pairs", "to": ["bank"]}) | PRIVATE, "with pairs; want it for"),
        (analysis("ols", formula="income ~ age") | PRIVATE, "with ols; want one of table, total, mean"),
        (private(privacy={"epsilon": 1, "noise": "central"}), "got central noise per record; want local"),
        (private(privacy={"epsilon": 1, "unit": "person"}), "got person; want a codebook with a column of role unit"),
        (
            private(protection={"name": "ecdh", "options": {"key": "id", "options": {"privacy": {"epsilon": 1}}}}),
            r"options: got privacy; want the study's own \[privacy\]",
        ),
        (private(privacy={"margin_of_error": 5}), "the noise of a linkage is another one; want epsilon"),
    ],
    ids=["fuzzy", "pairs", "model", "central", "person", "option", "margin"],
)
def test_noise_that_a_linkage_does_not_add_is_refused(given: dict[str, Any], said: str) -> None:
    codebook = make_codebook(CODEBOOK)
    books = {name: restricted(codebook, frame.columns) for name, frame in tables().items()}
    with pytest.raises(UsageError, match=said):
        resolve(make_study({"holders": dict.fromkeys(books, "x.parquet"), **given}).terms(codebook, books))


def test_noise_per_person_is_refused_where_the_codebook_says_who_that_is() -> None:
    columns = CODEBOOK["columns"] | {"id": {"type": "id", "role": "unit"}}
    codebook = make_codebook({"columns": columns})
    books = {name: restricted(codebook, frame.columns) for name, frame in tables().items()}
    given = private(privacy={"epsilon": 1, "unit": "person"})
    with pytest.raises(UsageError, match="got local noise per person; want local noise per record"):
        resolve(make_study({"holders": dict.fromkeys(books, "x.parquet"), **given}).terms(codebook, books))
