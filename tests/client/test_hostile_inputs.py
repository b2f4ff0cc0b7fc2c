"""Whatever arrives or lies in a file, errors are those that users meet, and what travels repeats no secret."""

import importlib
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from statfed.client.data.identity import content, identity
from statfed.client.data.sources import absolute, connect
from statfed.client.flower.runner import PinnedRunner
from statfed.client.guard import chain
from statfed.client.guard.ledger import read_only
from statfed.client.guard.policy import load_policy
from statfed.core import VERSION
from statfed.core.errors import Refused, StatfedError, UsageError
from statfed.core.pilot.bundle import bundle, bundle_digest
from statfed.core.statement import Statement, outside, raise_failure
from statfed.core.terms import parse_condition
from statfed.federation.answers import load_answer
from statfed.federation.checkpoint import load_checkpoint, save
from statfed.federation.runs import read_status
from statfed.server._flwr import act_for
from statfed.server.driver import Checkpoint
from tests.fuzz import messages
from tests.hostile import MARK, blobs, documents, texts
from tests.ledgers import filled, opened
from tests.office import MEANS, Office, query
from tests.universe import CODEBOOK

COUNT = 150


@pytest.fixture(autouse=True)
def _messages_are_of_a_run() -> None:
    act_for(run=1, task=1)


def survives(read: Callable[[Any], object], inputs: Iterable[Any]) -> list[str]:
    """Messages of what was refused; anything but our own errors ends the test."""
    said = []
    for one in inputs:
        try:
            read(one)
        except StatfedError as error:
            said.append(str(error))
    assert said
    return said


@pytest.mark.parametrize(("step", "more"), [("admit", {}), ("ask", {"round": 1, "ask": "means"}), ("protect", {})])
def test_a_holder_answers_hostile_statements_with_its_own_refusals(tmp_path: Path, step: Any, more: Any) -> None:
    office = Office(tmp_path / "office", pd.DataFrame({"income": np.linspace(1.0, 9.0, 200)}))
    asked = query(**MEANS)
    made = Statement(
        version=VERSION, run="r", step=step, sizes={"office": 200}, outside=outside(asked), terms=asked, **more
    )
    survives(lambda text: office.holder.answer(text, {}), texts(made.model_dump(mode="json"), COUNT))
    office.close()


@pytest.mark.parametrize(
    "source",
    [
        f"postgres://u:{MARK}@127.0.0.1:1/db?table=t",
        f"postgres:/user:{MARK}@host",
        f"postgres:user:{MARK}@host",
        f"postgres://user:{MARK}",
        f"postgres://user:{MARK}?x@127.0.0.1:1/db?table=t",
        f"postgres://user:{MARK}/x@127.0.0.1:1/db?table=t",
    ],
)
def test_no_message_about_a_source_has_its_password(tmp_path: Path, source: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(source, tmp_path)
    assert MARK not in str(caught.value)


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n", encoding="utf-8")
    odd = ["a\0b", "~nobody-here/x", "x://[::1", "[", "**", "x" * 5000, f"duckdb:///{'x' * 300}?table=t", "\ud800.csv"]
    made = [raw.decode("utf-8", "replace") for raw in blobs(b"sqlite:///a.db?table=t", 40)]
    survives(lambda source: connect(source, tmp_path).close(), [*odd, *made])

    def named(source: str) -> None:
        try:
            identity(source, tmp_path, content)
            absolute(source, tmp_path)
        except (OSError, ValueError, RuntimeError) as error:  # which the ledger turns into a refusal
            raise UsageError(type(error).__name__) from None

    survives(named, [*odd, *made])


def test_conditions_with_numbers_that_are_none_are_refused() -> None:
    values = ("1e400", "-1e400", "nan", "inf", "9" * 400, "\ud800", "x\0")
    survives(
        lambda text: parse_condition(text, CODEBOOK),
        [f"{name} {op} {value}" for name in CODEBOOK.columns for op in ("==", "<", "in") for value in values],
    )


def test_a_damaged_policy_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    office = Office(tmp_path / "office", pd.DataFrame({"income": [1.0]}))
    good = (office.home / "policy.toml").read_bytes()

    def read(raw: bytes) -> None:
        path.write_bytes(raw)
        load_policy(path)

    survives(read, [*blobs(good, COUNT), b"a = " + b"[" * 100_000, b"x = " + b"9" * 5000])


def test_forged_entries_are_corruption_of_a_ledger(tmp_path: Path) -> None:
    filled(tmp_path / "ledger.sqlite")
    with opened(tmp_path / "ledger.sqlite") as ledger:
        ledger.refused("r", "s", "")
        good = [
            {"kind": e.kind, "run": e.run, "study": e.study, "round": e.round, "event": e.event}
            | {"facts": json.loads(e.facts), "note": e.note}
            for e in ledger.entries()
        ]
    (tmp_path / "forged").mkdir()
    path = tmp_path / "forged" / "ledger.sqlite"

    def read(document: Any) -> None:
        previous, entries = chain.GENESIS, []
        try:
            for seq, one in enumerate(document, 1):
                entries.append(chain.sealed(seq, previous, **one))
                previous = entries[-1].hash
            path.unlink(missing_ok=True)
            chain.written(path, entries)
        except Exception:  # noqa: BLE001  # it cannot be written at all
            return
        with read_only(path) as ledger:
            ledger.verify()
            ledger.spending()
            ledger.refusals(1.0)

    survives(read, documents(good, 60))


def test_damaged_files_of_a_run_are_named(tmp_path: Path) -> None:
    save(tmp_path, Checkpoint("r", 1, {"a": np.arange(5.0)}, ()), [], {"study": "00"})
    good = (tmp_path / "checkpoint.npz").read_bytes()

    def checkpoint(raw: bytes) -> None:
        (tmp_path / "checkpoint.npz").write_bytes(raw)
        load_checkpoint(tmp_path)

    def file(name: str, read: Callable[[Path], object]) -> Callable[[str], object]:
        def write(text: str) -> None:
            (tmp_path / name).write_text(text, encoding="utf-8", errors="replace")
            read(tmp_path)

        return write

    survives(checkpoint, blobs(good, COUNT))
    survives(file("status.json", read_status), texts({"state": "finished", "run": "x"}, COUNT))
    survives(file("result.json", load_answer), texts({"format": "statfed.answer/2", "run": "x"}, COUNT))


def test_what_a_holder_reports_of_a_failure_is_always_an_error_of_that_holder() -> None:
    survives(lambda text: raise_failure(text, "office"), texts({"kind": "Refused", "message": "no"}, COUNT))


def test_files_that_may_not_be_written_are_refused_in_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    path.chmod(0o640)

    def forbidden(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "chmod", forbidden)
    with pytest.raises(UsageError, match="may not read or write; want its holder's account") as caught:
        opened(path)
    assert str(path.parent) not in str(caught.value)


@pytest.mark.parametrize("shipped", messages.BUNDLES)
def test_another_bundle_is_refused_and_never_opened(
    tmp_path: Path, shipped: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that lead out of a folder, and a file that grows a thousandfold: neither is looked at."""

    def opened(*_: object, **__: object) -> None:
        pytest.fail("the bundle was opened")

    runner = PinnedRunner(None, opened, tmp_path, bundle_digest(), 0.05)  # type: ignore[arg-type]
    message = Message(RecordDict(), 7, "query.ask")
    with monkeypatch.context() as patch:
        for module, name in ((zipfile, "ZipFile"), (zipfile, "is_zipfile"), (importlib, "import_module")):
            patch.setattr(module, name, opened)
        reply = runner.answer(message, Context(1, 7, {}, RecordDict(), {}), shipped)
    assert "bundle refused" in str(reply.error.reason)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config", "arrays"])
def test_records_of_a_message_that_are_others_are_refused_in_words(tmp_path: Path, name: str) -> None:
    office = Office(tmp_path / "office", pd.DataFrame({"income": [1.0, 2.0]}))
    for record in (
        MetricRecord({"statement": 1.0}),
        ConfigRecord({"statement": [b"x"]}),
        ConfigRecord(),
        ArrayRecord(),
    ):
        message = Message(RecordDict({name: record}), 7, "query.ask")
        with pytest.raises(Refused, match="got one without a statement"):
            messages.answered(message, bundle(), office.home, str(tmp_path))
    office.close()


def test_no_pickle_is_loaded_and_no_array_is_larger_than_what_came(tmp_path: Path) -> None:
    office = Office(tmp_path / "office", pd.DataFrame({"income": np.linspace(1.0, 9.0, 200)}))
    for data in messages.DATA:
        for shape in messages.SHAPES:
            content = RecordDict({"config": ConfigRecord({"statement": "{}"})})
            content["arrays"] = ArrayRecord({"w": Array("float64", shape, "numpy.ndarray", data)})
            with pytest.raises(Refused):
                messages.answered(Message(content, 7, "query.ask"), bundle(), office.home, str(tmp_path))
    office.close()
