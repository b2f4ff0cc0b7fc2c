"""A linkage in a pilot: approved by everybody, the helper too; pairs at the named holder; one attempt."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Budget, Dataset, HolderName, load_policy, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, serving, studies
from statfed.client.third_party import approval_of, write_party
from statfed.core.codebook import make_codebook
from statfed.core.errors import EngineError, Pending, Refused, StatfedError
from statfed.core.study import make_study
from statfed.federation import pilot as pilots
from statfed.federation.pilot import run_number
from statfed.federation.run import Options
from statfed.server.pilot import hub
from statfed.server.pilot.office import Settings, create
from tests.federation.test_pilot import _until, background, hub_up
from tests.federation.test_pilot import free_port as free_port
from tests.pilots import Pilot

HOLDERS = ("bank", "office")
COLUMNS: dict[str, dict[str, dict[str, Any]]] = {
    "office": {"id": {"type": "id"}, "region": {"type": "category", "categories": ["n", "s"]}},
    "bank": {"id": {"type": "id"}, "sector": {"type": "category", "categories": ["x", "y"]}},
}
BOOKS = {name: make_codebook({"columns": columns}) for name, columns in COLUMNS.items()}


def linking_pilot(root: Path, port: int = 1, helper: str = "helper") -> Pilot:
    """Two holders with 60 of 90 units in common, and a home for a helper; everybody has joined."""
    office = create(root / "trade", Settings(name="trade", host="127.0.0.1", port=port))
    frames = {
        "office": pd.DataFrame({"id": [f"u{i}" for i in range(90)], "region": ["n", "s"] * 45}),
        "bank": pd.DataFrame({"id": [f"u{i}" for i in range(30, 120)], "sector": ["x", "x", "y"] * 30}),
    }
    for name in HOLDERS:
        office.sign(joining.request(root / name, name, "holder"))
    write_party(root / helper, helper, ("helper", "fuzzy"))
    office.sign(joining.request(root / helper, helper, "third-party"))
    joined: dict[str, dict[str, Any]] = {}
    for name in (*HOLDERS, helper):
        joining.join(root / name, joining.look(root / name, office.kit(name)))
    for name in HOLDERS:
        frames[name].to_csv(root / name / "units.csv", index=False)
        joined |= COLUMNS[name]
        policy = made(
            "rehearsal",
            holder=HolderName(name=name),
            dataset=Dataset(id=name, path="units.csv", records=90, persons=90, codebooks=(BOOKS[name].digest(),)),
            budget=Budget(unit="record", epsilon=3.0, delta=1e-6),
        )
        linkages = ("helper", "helper:pairs", "ecdh", "fuzzy")
        allow = policy.allow.model_copy(update={"third_parties": (helper,), "linkages": linkages})
        write_policy(policy.model_copy(update={"allow": allow}), root / name / "policy.toml")
        (root / f"{name}.codebook.toml").write_text(toml_of(COLUMNS[name]))
    (root / "joined.codebook.toml").write_text(toml_of(joined))
    return Pilot(root, office, frames)


def toml_of(columns: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, column in columns.items():
        lines += [f"[columns.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in column.items())]
    return "\n".join(lines) + "\n"


def propose(pilot: Pilot, by: str = "helper", *, runs: int = 1, table: bool = False, **options: Any) -> int:
    """The number of a linkage that is proposed."""
    study = make_study(
        {
            "method": "table" if table else "count",
            "options": {"rows": ["region"], "columns": ["sector"]} if table else {},
            "holders": list(HOLDERS),
            "codebook": "joined.codebook.toml",
            "codebooks": {name: f"{name}.codebook.toml" for name in HOLDERS},
            "engine": "pilot",
            "protection": {"name": by, "options": {"key": "id", "reveal": "totals" if table else "size"} | options},
        }
    )
    return pilots.propose(pilot.office, study, pilot.root, runs=runs).proposal.number


def approve(pilot: Pilot, number: int, *names: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for name in names:
        studies.decide(pilot.home(name), number, "approved", approval_of(pilot.home(name)), now=now, reason="")


def agreed(pilot: Pilot, number: int, *parties: str) -> None:
    pilot.post(number, names=parties)
    approve(pilot, number, *parties)
    pilot.post(number, names=parties)


def test_a_table_of_the_matched_is_the_joins_once_the_helper_has_approved_too(tmp_path: Path) -> None:
    pilot = linking_pilot(tmp_path)
    number, everybody = propose(pilot, runs=2, table=True), (*HOLDERS, "helper")
    pilot.post(number, names=everybody)
    approve(pilot, number, *HOLDERS)
    pilot.post(number, names=everybody)
    with pytest.raises(Pending, match="helper: has not decided"):
        pilot.run(number)
    approve(pilot, number, "helper")
    pilot.post(number, names=everybody)
    answer = pilot.run(number)
    joined = pilot.frames["office"].merge(pilot.frames["bank"], on="id")
    wanted = joined.groupby(["region", "sector"]).size()
    found = {(row["region"], row["sector"]): row["count"] for row in answer.result.tables["cells"]}
    assert found == wanted.to_dict()
    for name in HOLDERS:
        with Ledger.read_only(pilot.home(name) / "ledger.sqlite") as ledger:
            assert ledger.linked(30.0) == 1
    assert not (pilot.home("helper") / "ledger.sqlite").exists()
    assert pilot.run(number).result.tables == answer.result.tables, "the same study again"
    with pytest.raises(Refused, match="approved for 2, and run as often"):
        pilot.run(number)


def test_pairs_are_written_at_the_named_holder_and_nowhere_else(tmp_path: Path) -> None:
    pilot = linking_pilot(tmp_path)
    number = propose(pilot, reveal="pairs", to=["bank"])
    agreed(pilot, number, *HOLDERS, "helper")
    answer = pilot.run(number)
    (path,) = (pilot.home("bank") / "links").glob("*.parquet")
    kept = pq.read_table(path).to_pydict()
    assert sorted(next(value for key, value in kept.items() if key != "pair")) == sorted(f"u{i}" for i in range(30, 90))
    assert path.stat().st_mode & 0o077 == 0
    assert path.stem == answer.run
    assert not (pilot.home("office") / "links").exists()
    assert not [one for one in pilot.root.rglob("*.parquet") if one != path], "the coordinator has no pairs"


def test_a_linkage_without_a_helper_needs_no_third_party(tmp_path: Path) -> None:
    pytest.importorskip("rbcl")
    pilot = linking_pilot(tmp_path)
    number = propose(pilot, "ecdh")
    agreed(pilot, number, *HOLDERS)
    assert pilot.run(number).result.tables["matched"][0]["count"] == 60


def test_a_linkage_is_one_attempt_and_what_it_paid_for_stays_paid(tmp_path: Path) -> None:
    pilot = linking_pilot(tmp_path)
    number = propose(pilot, runs=2)
    agreed(pilot, number, *HOLDERS, "helper")
    seen: list[str] = []

    def cut(party: str, message: Any, reply: Any) -> None:
        seen.append(party)
        if party == "helper" and seen.count("helper") > 3:
            raise EngineError("helper: cut off")

    pilot.meddle = cut
    with pytest.raises(StatfedError):
        pilot.run(number)
    for name in HOLDERS:
        with Ledger.read_only(pilot.home(name) / "ledger.sqlite") as ledger:
            assert ledger.linked(30.0) == 1, "entered before units were looked at"
    pilot.meddle = lambda *_: None
    assert pilot.run(number).result.tables["matched"][0]["count"] == 60, "another run of the same study"
    for name in HOLDERS:
        with Ledger.read_only(pilot.home(name) / "ledger.sqlite") as ledger:
            assert ledger.linked(30.0) == 2


def test_a_holder_whose_policy_lists_no_linkage_refuses_and_says_which_key(tmp_path: Path) -> None:
    pilot = linking_pilot(tmp_path)
    path = pilot.home("bank") / "policy.toml"
    policy = load_policy(path)
    write_policy(policy.model_copy(update={"allow": policy.allow.model_copy(update={"linkages": ()})}), path)
    number = propose(pilot)
    agreed(pilot, number, *HOLDERS, "helper")
    with pytest.raises(Refused, match=r"(?s)bank: .*linkage: got helper"):
        pilot.run(number)


@pytest.mark.processes
def test_a_linkage_runs_over_the_hub_of_a_pilot(tmp_path: Path, free_port: int) -> None:
    pilot = linking_pilot(tmp_path, free_port)
    number, names = propose(pilot, reveal="pairs", to=["bank"]), (*HOLDERS, "helper")

    def serve_all(stop: threading.Event) -> None:
        serving_all = [
            threading.Thread(target=serving.serve, args=(tmp_path / name, stop, lambda *_: None)) for name in names
        ]
        for thread in serving_all:
            thread.start()
        for thread in serving_all:
            thread.join()

    with background(serve_all), hub_up(pilot.office):
        _until(lambda: all(hub.connected(pilot.office).values()), 240)
        assert hub.correspond(pilot.office, [number]) == {}
        approve(pilot, number, *names)
        assert hub.correspond(pilot.office, [number]) == {}
        answer = run_number(pilot.office.root, number, Options(), notify=lambda _: None)
        assert answer.result.tables["matched"][0]["count"] == 60
        end = time.monotonic() + 240
        while not (pilot.home("bank") / "links" / f"{answer.run}.parquet").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
