"""Targets: what travels between parties, and what a run, a ledger or a model left on a disk."""

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from statfed.client.data.identity import content, identity
from statfed.client.guard.ledger import read_only
from statfed.client.guard.refusals import Refusal, refusals
from statfed.client.guard.restoring import restore
from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.identity import load_identity
from statfed.core.statement import Admission, Closing, Present, Receipt, Statement, outside, raise_failure, understood
from statfed.core.study import make_study
from statfed.core.terms import Terms
from statfed.core.wire import Encoded, decode, join, split
from statfed.federation import Federation, load_answer, resume_study
from statfed.federation.checkpoint import load_checkpoint, save
from statfed.federation.homes import placed
from statfed.federation.models import load_model, save_model
from statfed.federation.published import kept_in
from statfed.federation.run import Options
from statfed.federation.runs import read_status
from statfed.server.disclosure.memory import open_memory
from statfed.server.driver import Checkpoint
from tests.fuzz.mutations import blobs, documents
from tests.fuzz.records import FRAME
from tests.fuzz.trial import Target
from tests.ledgers import filled

_DEEP = "[" * 100_000
TEXTS = (_DEEP, '{"a":' * 100_000, "1" * 100_000, '{"a":1e400}', '"\\ud800"', "", "null", "[]", '{"version":' + _DEEP)
ARRAYS = (np.arange(12.0).reshape(3, 4), np.arange(5), np.zeros((0, 3)), np.array(True), np.arange(4, dtype="<f4"))
MODEL = {"region": ["A", "B"] * 15, "x": np.linspace(0.0, 1.0, 30), "y": [True, False] * 15}

STATUS = {"state": "finished", "run": "r", "engine": "ray", "title": "t", "attempt": 1}
REFUSAL = json.dumps(asdict(Refusal("1", "t", "r", "s", "mean", "ask", "means", "Refused", "why"))).encode() + b"\n"


def _json(good: Any) -> st.SearchStrategy[str]:
    """Documents as texts that are JSON, or are damaged as texts."""
    plain = json.dumps(good).encode()
    texts = documents(good).map(lambda made: json.dumps(made).replace("Infinity", "1e400"))
    return texts | blobs(plain).map(lambda raw: raw.decode("utf-8", "replace"))


def _statement(text: str, _folder: Path) -> None:
    Statement.parse(text, VERSION)


def _reply(given: tuple[Any, str], _folder: Path) -> None:
    model, text = given
    understood(model, text, VERSION, "coordinator", lambda table: {k: v for k, v in table.items() if k != "version"})


def _failure(text: str, _folder: Path) -> None:
    raise_failure(text, "office")


def _array(given: tuple[bytes, str, tuple[int, ...]], _folder: Path) -> None:
    data, kind, shape = given
    found = decode(Encoded(kind, shape, data), "a")
    if found.nbytes > len(data):
        raise AssertionError("an array that is larger than what came")


def _packet(given: tuple[dict[str, Any], dict[str, Any]], _folder: Path) -> None:
    join(*given)


def _written(name: str, read: Any, given: str | bytes, folder: Path) -> None:
    raw = given.encode("utf-8", "replace") if isinstance(given, str) else given
    (folder / name).write_bytes(raw)
    read(folder)


def _ledger(raw: bytes, folder: Path) -> None:
    path = folder / "ledger.sqlite"
    path.write_bytes(raw)
    for beside in (f"{path}-wal", f"{path}-shm", f"{path}-journal"):
        Path(beside).unlink(missing_ok=True)
    with read_only(path) as ledger:
        ledger.verify()
        ledger.spending()
        ledger.entries()


def _restored(raw: bytes, folder: Path) -> None:
    (folder / "ledger.sqlite").write_bytes(raw)
    restore(folder, None, None)


def _model(raw: bytes, folder: Path) -> None:
    path = folder / "x.statfed"
    path.write_bytes(raw)
    load_model(path).predict(pd.DataFrame(MODEL))


def _resumed(raw: bytes, folder: Path) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "study.toml").write_bytes(raw)
    (run / "status.json").write_text('{"state": "interrupted", "run": "run"}')
    resume_study(run, Options(runs=folder))


def _memory(text: str, folder: Path) -> None:
    path = folder / "memory.jsonl"
    path.write_text(text, encoding="utf-8", errors="replace")
    path.chmod(0o600)
    with open_memory(path) as memory:
        str(memory)


def _home(raw: bytes, folder: Path) -> None:
    (folder / "refusals.jsonl").write_bytes(raw)
    os.chmod(folder / "refusals.jsonl", 0o600)  # noqa: PTH101
    refusals(folder)


def _identity(raw: bytes, folder: Path) -> None:
    path = folder / "x.parquet"
    path.write_bytes(raw)
    try:
        identity(str(path), folder, content)
    except (OSError, ValueError, RuntimeError) as error:  # which the ledger turns into a refusal
        raise UsageError(type(error).__name__) from None


def _key(folder: Path) -> None:
    load_identity(folder, "", {})


def _places(raw: bytes, folder: Path) -> None:
    (folder / "b-1").mkdir(exist_ok=True)
    (folder / "b-1" / "data.keys").write_bytes(raw)
    placed(make_study({"method": "count", "holders": {"a": "a.csv", "b": "b.csv"}}), folder)


def targets(folder: Path) -> tuple[Target, ...]:
    """folder: where samples are made, by runs in memory."""
    with Federation({"a": FRAME.head(20), "b": FRAME.tail(9), "c": FRAME.head(29)}, seed=1) as asked:
        asked.count(by="region")
        answer, terms = asked.last, asked.last.terms if asked.last else None
    if answer is None or terms is None:
        raise AssertionError("an answer that was not kept")
    halves = {name: pd.DataFrame(MODEL) for name in ("a", "b")}
    with Federation(halves, seed=1) as trained:
        trained.train({"name": "mlp", "hidden": 2}, target="y", features=["x", "region"], rounds=1)
        if trained.last is None:
            raise AssertionError("a model that was not kept")
        model = save_model(trained.last, folder / "model.statfed").read_bytes()
    filled(folder / "ledger.sqlite")
    ledger = (folder / "ledger.sqlite").read_bytes()
    save(folder, Checkpoint("r", 1, {"a": np.arange(5.0)}, ()), [(0.5, 0.5)], {"study": "00"})
    checkpoint = (folder / "checkpoint.npz").read_bytes()
    parts = {"version": VERSION, "run": "r", "step": "ask", "round": 1, "ask": "means", "sizes": {"a": 20}}
    statement = Statement(**parts, outside=outside(terms), terms=terms).model_dump(mode="json")
    replies = (
        Admission(holder="a", size=20, persons=20, ledger_head="00"),
        Receipt(holder="a", run="r", round=1, seconds=1.0, ledger_head="00"),
        Present(holder="a", stage="keys", seconds=0.1),
        Closing(
            holder="a", unit="record", study_epsilon=1.0, history_epsilon=1.0, filter_epsilon=1.0, budget_epsilon=2.0,
            delta=1e-6, disclosures=0, ledger_head="00",
        ),
    )  # fmt: skip
    texts, arrays = split({"key": b"0" * 32, "v": ARRAYS[0]})
    encoded = [one for array in ARRAYS for one in split({"a": array})[1].values()]
    kinds = ("object", "float64", "")
    forged = st.sampled_from(encoded).flatmap(
        lambda one: st.tuples(blobs(one.data), st.sampled_from((one.dtype, *kinds)), st.just(one.shape))
    )
    packets = st.tuples(documents(dict.fromkeys(texts, "x")), st.just(arrays)) | st.tuples(
        st.just(dict(texts)), st.dictionaries(st.sampled_from(("v", "key", "")), st.sampled_from(encoded))
    )
    study = b'method = "count"\nseed = 1\n[holders]\na = "a.csv"\nb = "b.csv"\n'
    return (
        Target("statement", _json(statement), _statement, TEXTS),
        Target(
            "replies",
            st.sampled_from(replies).flatmap(
                lambda one: _json({"version": VERSION, **one.model_dump(mode="json")}).map(lambda t: (type(one), t))
            ),
            _reply,
            tuple((Admission, text) for text in TEXTS),
        ),
        Target("failure", _json({"kind": "Refused", "message": "no"}), _failure, TEXTS, share=0.3),
        Target("arrays", forged, _array, ((b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535, "float64", (3,)),)),
        Target("packets", packets, _packet),
        Target("terms", documents(terms.model_dump(mode="json")).map(_canonical), _terms, share=0.5),
        Target("result.json", _json(answer.to_dict()), partial(_written, "result.json", load_answer), TEXTS),
        Target("status.json", _json(STATUS), partial(_written, "status.json", read_status), TEXTS, 0.3),
        Target("checkpoint", blobs(checkpoint), partial(_written, "checkpoint.npz", load_checkpoint)),
        Target("resumed study", blobs(study), _resumed, share=0.3),
        Target("ledger", blobs(ledger), _ledger, (b"", b"SQLite format 3\0", ledger[:100])),
        Target("ledger restored", blobs(ledger), _restored, (b"",), share=0.3),
        Target("model", blobs(model), _model, (b"", b"PK\x03\x04", b"\x93NUMPY"), share=0.5),
        Target("releases", _json({"format": 1, "asked": {}, "cells": []}), _memory, TEXTS, share=0.3),
        Target("refusals", blobs(REFUSAL), _home, share=0.3),
        Target("identity", blobs(model, study), _identity, share=0.3),
        Target("identity key", blobs(b"00" * 32 + b"\n"), partial(_written, "identity.key", _key), share=0.3),
        Target("kept back", _json({"a": {"b": 1}}), partial(_written, "parameters.json", kept_in), TEXTS, 0.3),
        Target("data of homes", blobs(b"record\npath:/a\ncontent:00"), _places, share=0.3),
    )


def _canonical(made: Any) -> str:
    return json.dumps(made)


def _terms(text: str, _folder: Path) -> None:
    try:
        Terms.model_validate(json.loads(text)).digest()
    except ValueError as error:  # as who reads them turns it into a refusal
        raise UsageError(type(error).__name__) from None
