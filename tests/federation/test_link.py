"""Linkages as studies: from holders' tables to a released result, under policies and ledgers, as of the plain join."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from statfed.client.guard.ledger import read_only
from statfed.core.errors import Refused, StatfedError, UsageError
from statfed.core.linkage import read_analysis
from statfed.core.study import make_study
from statfed.federation import Federation, Options, run_study

CODEBOOK = {
    "columns": {
        "id": {"type": "id"},
        "region": {"type": "category", "categories": ["A", "B", "C"]},
        "age": {"type": "integer", "low": 18, "high": 90},
        "sector": {"type": "category", "categories": ["x", "y"]},
        "income": {"type": "number", "low": 0, "high": 1000},
        "works": {"type": "boolean"},
    }
}
SIZE = 300


def tables() -> dict[str, pd.DataFrame]:
    """An office and a bank with 200 units each, 100 of them in both, in other orders."""
    rng = np.random.default_rng(7)
    ids = np.array([f"P{i:04d}" for i in rng.permutation(SIZE)])
    office = {"region": rng.choice(["A", "B", "C"], 200), "age": rng.integers(18, 90, 200)}
    bank = {"sector": rng.choice(["x", "y"], 200, p=[0.9, 0.1]), "income": rng.integers(0, 1000, 200) * 1.0}
    bank["works"] = np.arange(200) % 3 == 0
    return {
        "office": pd.DataFrame({"id": ids[:200], **office}),
        "bank": pd.DataFrame({"id": rng.permutation(ids[100:]), **bank}),
    }


def joined() -> pd.DataFrame:
    found = tables()
    return found["office"].merge(found["bank"], on="id")


def linked(
    key: str = "id", analysis: str = "", *, changes: Mapping[str, pd.DataFrame] | None = None, **more: Any
) -> Federation:
    fed = Federation(tables() | dict(changes or {}), CODEBOOK, workspace=more.pop("workspace", None))
    fed.link(key, analysis, **more)
    return fed


def result(fed: Federation) -> pd.DataFrame:
    assert fed.last is not None
    return fed.last.result.to_pandas()


@pytest.mark.parametrize("by", ["helper", "ecdh"])
def test_the_number_of_matches_is_that_of_the_plain_join(by: str) -> None:
    assert result(linked(by=by))["count"].tolist() == [len(joined())]


def test_a_table_across_holders_is_that_of_the_plain_join_and_small_cells_leave_nobody() -> None:
    found = result(linked("id", "table rows=region columns=sector", minimum_frequency=5))
    plain: Any = joined().groupby(["region", "sector"]).size()
    shown = {(str(a), str(b)): n for a, b, n in zip(found["region"], found["sector"], found["count"], strict=True)}
    true = {(str(a), str(b)): int(n) for (a, b), n in plain.items()}
    small = {cell for cell, count in true.items() if count < 5}
    assert small, "want a table with small cells"
    for cell, count in true.items():
        if cell in small:
            assert pd.isna(shown.get(cell, np.nan)), cell
        else:
            assert shown[cell] == count, cell


def test_a_regression_across_holders_is_that_of_the_plain_join() -> None:
    found = result(linked("id", "ols income ~ age + C(region)")).set_index("name")
    true = smf.ols("income ~ age + C(region)", joined()).fit()
    assert found["estimate"].to_numpy() == pytest.approx(true.params[found.index].to_numpy(), rel=1e-5)
    assert found["std_error"].to_numpy() == pytest.approx(true.bse[found.index].to_numpy(), rel=1e-5)


def test_conditions_hold_before_units_are_matched_and_missing_values_make_no_unit() -> None:
    found = tables()
    found["bank"].loc[found["bank"].index[:60], "income"] = np.nan
    fed = linked("id", "mean income", changes=found, where=["age >= 40", "sector = x"])
    plain = found["office"].merge(found["bank"], on="id").query("age >= 40 and sector == 'x'").dropna()
    assert result(fed)["mean"].tolist() == pytest.approx([plain["income"].mean()], rel=1e-6)
    assert result(fed)["count"].tolist() == [len(plain)]


def test_a_day_is_one_key_however_it_is_stored() -> None:
    days = pd.date_range("2020-01-01", periods=30)
    stored = {"stamps": days, "text": days.strftime("%Y-%m-%d"), "days": days.date}
    for name in ("text", "days"):
        fed = Federation({"a": pd.DataFrame({"id": stored["stamps"]}), "b": pd.DataFrame({"id": stored[name]})})
        fed.link("id")
        assert result(fed)["count"].tolist() == [30], name


@pytest.mark.parametrize(
    ("decimals", "said"),
    [
        (2, "decimals: got 2; want them by column: decimals.income=2"),
        ({"incom": 2}, "decimals: got 'incom'; want one of income"),
    ],
)
def test_decimals_of_encrypted_totals_are_said_by_column(decimals: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        linked("id", "total income", by="ecdh", settings={"decimals": decimals})


def test_a_linkage_that_there_is_not_is_told_which_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"got 'hepler'; .* of linkages one of ecdh, fuzzy, helper, spu \(did you mean h"
    ):
        linked(by="hepler")


@pytest.mark.parametrize("attributes", [5, "id", {"id,id[:2]": {}}], ids=str)
def test_attributes_of_a_fuzzy_linkage_are_options_by_part(attributes: Any) -> None:
    with pytest.raises(UsageError, match=r"attributes: got .*; want"):
        linked("id", by="fuzzy", block="id[:2]", settings={"attributes": attributes})


@pytest.mark.parametrize("given", [{"by": "fuzzy"}, {"settings": {"none": 1}}], ids=["block", "options"])
def test_options_that_do_not_suit_are_refused_before_a_holder_is_asked(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statfed.federation.run.drive", lambda *_, **__: pytest.fail("a holder was asked"))
    with pytest.raises(UsageError, match=r"block: got none|options: got none"):
        linked(**given)


def homes(workspace: Path) -> dict[str, Path]:
    return {path.parent.name.split("-")[0]: path.parent for path in workspace.glob("**/policy.toml")}


@pytest.mark.parametrize("by", ["helper", "ecdh"])
def test_pairs_are_told_to_the_named_holder_alone(by: str, tmp_path: Path) -> None:
    linked(by=by, to="bank", workspace=tmp_path)
    kept = {name: sorted((home / "links").glob("*")) for name, home in homes(tmp_path).items()}
    assert kept["office"] == []
    (path,) = kept["bank"]
    assert path.stat().st_mode & 0o077 == 0
    assert set(pd.read_parquet(path)["id:exact"]) == set(joined()["id"])


def test_every_linkage_is_an_entry_of_each_ledger(tmp_path: Path) -> None:
    for _ in range(2):
        linked("id", "mean income", workspace=tmp_path)
    for home in homes(tmp_path).values():
        with read_only(home / "ledger.sqlite") as ledger:
            assert ledger.linked(30) == 2
            assert ledger.figures() >= 2


OFF = dict.fromkeys(("dominance_k", "p_percent", "residual_df", "parameters_per_record"), "off")


def study(protection: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"method": "count", "protection": {"name": "helper", "options": dict(protection)}} | more


def answered(tmp_path: Path, given: Mapping[str, Any], changes: Mapping[str, pd.DataFrame] | None = None) -> Any:
    sources = {}
    for name, frame in (tables() | dict(changes or {})).items():
        sources[name] = str(tmp_path / f"{name}.parquet")
        if changes or not Path(sources[name]).exists():  # a file that is written again is another state of the data
            frame.to_parquet(sources[name])
    from statfed.core.codebook import make_codebook

    read = make_study({"holders": sources, **given})
    return run_study(read, Options(codebook=make_codebook(CODEBOOK), workspace=tmp_path / "workspace"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (study({"key": "id"}, simulation={"rules": "standard"}), "linkage: got helper, not allowed"),
        (study({"key": "id", "minimum_frequency": 2}, simulation={"disclosure": {"minimum_frequency": 3}}), "minimum"),
        (
            study({"key": "id", "reveal": "totals"}, method="total", options={"columns": ["income"]})
            | {"simulation": {"disclosure": {"dominance_k": 90}}},
            "rules of this policy beside minimum frequency cannot look",
        ),
        (
            study({"key": "id", "reveal": "totals"}, method="total", options={"columns": ["income"]})
            | {"simulation": {"disclosure": OFF | {"joint_share": 50}}},
            "rules of this policy beside minimum frequency cannot look",
        ),
        (study({"key": "id"}, simulation={"disclosure": {"zeros": "protect", "minimum_frequency": 3}}), "cannot look"),
    ],
)
def test_holders_refuse_what_their_policies_do_not_allow(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        answered(tmp_path, given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (study({"key": "nothing"}), "nothing"),
        (study({}), "key: missing"),
        (study({"key": "id", "reveal": "totals"}), "got totals without an analysis of them"),
        (study({"key": "id", "to": ["office"]}), r"want both \(--reveal pairs --to NAME\) or neither"),
        (study({"key": "id", "reveal": "pairs", "to": ["me"]}), "want holders of the study"),
        (study({"key": "id", "block": "id"}), "want a key alone"),
        (study({"key": "id"}, where=["age > income"]), "income"),
        (
            study({"key": "id", "reveal": "totals"}, method="ols", options={"formula": "income ~ age:C(sector)"}),
            "those of one holder",
        ),
        (study({"key": "id", "reveal": "totals"}, method="quantile", options={"columns": ["income"]}), "quantile"),
    ],
)
def test_a_study_that_cannot_be_linked_says_what_was_got_and_wanted(
    given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        answered(tmp_path, given)


def test_a_key_of_several_units_is_refused_and_a_cap_that_is_too_small(tmp_path: Path) -> None:
    twice = tables()["office"]
    twice.loc[twice.index[1], "id"] = twice["id"].iloc[0]
    with pytest.raises(StatfedError, match="several units have"):
        answered(tmp_path, study({"key": "id"}), {"office": twice})
    with pytest.raises(StatfedError, match="cap"):
        answered(tmp_path, study({"key": "id", "cap": 150}))


def test_a_second_study_of_the_same_units_would_tell_few_by_its_difference_and_is_refused(tmp_path: Path) -> None:
    ruled: dict[str, Any] = {"simulation": {"disclosure": {"minimum_frequency": 3}}}
    first = study({"key": "id"}, where=["age >= 40"], **ruled)
    table = first | study({"key": "id", "reveal": "totals"}, method="table", options={"rows": ["region"]})
    assert answered(tmp_path, first).result.tables["matched"][0]["count"] > 10
    for second in (first, table):
        with pytest.raises(Refused, match="units were matched with those of bank in another run"):
            answered(tmp_path, second)


def test_fewer_matches_than_the_minimum_are_not_told_how_many(tmp_path: Path) -> None:
    others = tables()["bank"]
    others["id"] = [f"Q{i}" for i in range(195)] + list(tables()["office"]["id"][:5])
    with pytest.raises(StatfedError, match="fewer than 10 units match, or none"):
        answered(tmp_path, study({"key": "id"}), {"bank": others})


def test_a_column_of_two_holders_is_of_neither(tmp_path: Path) -> None:
    both = tables()["bank"].assign(age=30)
    given = study({"key": "id", "reveal": "totals"}, method="mean", options={"columns": ["age"]})
    with pytest.raises(UsageError, match="age at office and bank"):
        answered(tmp_path, given, {"bank": both})


def test_fuzzy_keys_match_with_their_quality_estimated() -> None:
    rng = np.random.default_rng(4)
    first = ["anna", "peter", "lucia", "hans", "maria", "john", "greta", "noah", "olivia", "paolo", "emma", "liam"]
    last = ["rossi", "jones", "novak", "schmidt", "lopez", "smith", "dupont", "silva", "jansen", "muller", "costa"]
    names = np.array([f"{one} {other}" for one in first for other in last])
    people = pd.DataFrame(
        {
            "name": rng.choice(names, 400),
            "birth": pd.to_datetime(rng.integers(0, 9000, 400), unit="D").strftime("%Y-%m-%d"),
            "town": [f"{i:05d}" for i in rng.integers(10_000, 99_999, 400)],
        }
    )
    office, bank = people[:300].copy(), people[100:].copy()
    bank.loc[bank.index[:30], "name"] = bank["name"].iloc[:30].str.replace("a", "e")
    fed = Federation(
        {"office": office, "bank": bank}, types={"name": "text", "birth": "date", "town": "text"}, disclosure="none"
    )
    found = fed.link("name,birth,town", by="fuzzy", block="town[:2],birth[:4]")
    (row,) = found.to_pandas().to_dict("records")
    assert 180 <= row["count"] <= 240  # keys are drawn afresh: what has no partner is alike by chance
    assert row["units_in_both_lower"] <= 200 <= row["units_in_both_upper"]


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("table rows=region columns=sector", ("table", {"rows": ["region"], "columns": ["sector"]})),
        ("ols income ~ age + C(region)", ("ols", {"formula": "income ~ age + C(region)"})),
        ("glm y ~ x family=poisson", ("glm", {"formula": "y ~ x", "family": "poisson"})),
        ("mean income,age by=region", ("mean", {"columns": ["income", "age"], "by": ["region"]})),
        ("count", ("count", {})),
    ],
)
def test_an_analysis_in_one_line_is_its_name_and_options(line: str, read: tuple[str, dict[str, Any]]) -> None:
    assert read_analysis(line) == read


def test_what_is_kept_of_units_and_pairs_shows_nothing_of_them() -> None:
    from statfed.core.linkage import Pairs, Units

    for one in (Units({"id": ["secret"]}), Pairs(np.array([7]), np.array([0]))):
        assert dataclasses.is_dataclass(one)
        assert "7" not in repr(one)
        assert "secret" not in repr(one)


def test_corrected_figures_come_out_of_a_fuzzy_linkage_by_cell() -> None:
    from statfed.scenarios._data.registers import registers

    sides = registers(300, 0.8, 0.1, 11)
    office, bank = (pd.DataFrame(side.columns) for side in sides)
    random = np.random.default_rng(2)
    office["region"] = random.choice(["north", "south"], 300)
    office["income"] = random.integers(0, 100, 300)
    types: dict[str, Any] = dict.fromkeys(("given_name", "surname", "street"), "text") | {"region": "category"}
    fed = Federation(
        {"office": office, "bank": bank},
        types=types | dict.fromkeys(("postcode", "birth_date"), "id"),
        disclosure="none",
    )
    key = "given_name:name,surname:name,street:name,postcode:digits,birth_date:exact"
    how: dict[str, Any] = {"by": "fuzzy", "block": "surname:soundex,birth_date:exact,postcode:digits"}
    found = fed.link(key, "total income by=region", estimate="coverage", **how)
    assert list(found.tables)[:4] == ["corrected", "totals", "coverage", "rates"]
    first = found.tables["corrected"][0]
    assert first["region"] is None
    lower, upper = float(str(first["lower"])), float(str(first["upper"]))
    wide = upper - lower  # keys are drawn anew every time: one interval in twenty misses the truth, by little
    assert lower - wide <= 240 <= upper + wide
    assert wide < 60
    assert {row["region"] for row in found.tables["totals"]} == {None, "north", "south"}
    with pytest.raises(UsageError, match="want total or coverage"):
        fed.link(key, "count by=region", **how)
    with pytest.raises(UsageError, match="got total under helper"):
        fed.link(key, "count by=region", estimate="total")
    with pytest.raises(UsageError, match="weight under fuzzy"):
        fed.link(key, "total income by=region weight=income", estimate="total", **how)
