"""The carrier of a sum's stages: what ends a sum, what it goes on without, and what is said of both."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from statfed.client.flower.app import answer
from statfed.client.flower.mod import protect
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.protection import Packet, Stage
from statfed.server.carrier import Carrier
from statfed.server.grid import inprocess
from tests.flower_app import NAMES, by_home, client, federate, make_homes, with_toys

STAGE = Stage("keys", {name: {"for": name.encode()} for name in ("a", "b", "c", "keeper")})


def send(answers: Mapping[str, Packet | StatfedError], *may_drop: str) -> tuple[Any, dict[str, str]]:
    """What comes of a stage where parties answer this way, and who is lost."""
    dropped: dict[str, str] = {}

    def deliver(stage: Stage, messages: Sequence[Any]) -> dict[str, Any]:
        assert stage is STAGE
        assert messages == [("keys", name, name.encode()) for name in STAGE.packets]
        return dict(answers)

    def read(stage: Stage, name: str, reply: Any) -> Packet:
        if isinstance(reply, StatfedError):
            raise reply
        return {name: reply["x"]}

    carrier = Carrier(
        message=lambda stage, name, packet: (stage.name, name, packet["for"]),  # type: ignore[arg-type,return-value]
        deliver=deliver,
        read=read,
        silence=lambda stage: f"silent at {stage.name}",
        missing=lambda stage, names: f"{stage.name}: nothing from {' and '.join(names)}",
        may_drop=may_drop,
        drop=dropped.__setitem__,
    )
    try:
        return carrier.send(STAGE), dropped
    except StatfedError as error:
        return error, dropped


GOOD: dict[str, Packet | StatfedError] = {name: {"x": b"1"} for name in STAGE.packets}


def test_all_packets_come_back_by_party() -> None:
    assert send(GOOD) == ({name: {name: b"1"} for name in STAGE.packets}, {})


def test_who_is_silent_or_fails_has_dropped_out_where_the_sum_can_do_without() -> None:
    answers = {**GOOD, "b": EngineError("b: broke")}
    del answers["a"]
    found, dropped = send(answers, "a", "b", "c")
    assert set(found) == {"c", "keeper"}
    assert dropped == {"a": "silent at keys", "b": "b: broke"}


def test_nobody_else_may_be_silent_or_fail() -> None:
    answers = {**GOOD, "b": EngineError("b: broke")}
    del answers["a"], answers["keeper"]
    error, dropped = send(answers, "a")
    assert type(error) is EngineError
    assert str(error) == "b: broke\nkeys: nothing from keeper"
    assert dropped == {"a": "silent at keys"}


@pytest.mark.parametrize("kind", [Refused, UsageError])
def test_a_refusal_ends_the_sum_whoever_may_drop_out(kind: type[StatfedError]) -> None:
    answers = {**GOOD, "a": kind("a: no"), "b": EngineError("b: broke")}
    del answers["keeper"]
    error, dropped = send(answers, "a", "b", "c")
    assert type(error) is kind
    assert str(error) == "a: no"
    assert dropped == {"b": "b: broke"}


def test_one_refusal_among_other_errors_makes_it_a_refusal() -> None:
    error, _ = send({**GOOD, "a": UsageError("a: odd"), "b": Refused("b: no"), "c": EngineError("c: broke")})
    assert type(error) is Refused
    assert str(error) == "a: odd\nb: no\nc: broke"


def test_a_reply_with_a_packet_that_is_none_is_a_failure_of_its_party(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_toys(monkeypatch)
    homes = make_homes(tmp_path, NAMES)
    broken = Array("float64", (10**12,), "numpy.ndarray", b"\x93NUMPY\x01\x00junk")

    def spoil(message: Message, context: Any, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["holder"] == "north" and "packet-arrays" in reply.content:
            content = RecordDict({**reply.content, "packet-arrays": ArrayRecord({"padded": broken})})
            return Message(content, reply_to=message)
        return reply

    app = client(spoil, protect(by_home))
    with pytest.raises(EngineError, match=r"north: message: padded: got an \.npy header that is none"):
        federate(homes, FedAvg(), "toy-all", app=app)
    kept, grid = federate(homes, FedAvg(), "toy", app=app, rounds=1, minimum_holders=3)
    assert np.isfinite(kept.arrays["w"].numpy()).all()
    assert set(grid.dropped) == {"north"}


def test_a_holder_refuses_hostile_arrays_of_a_coordinator_in_public_words(tmp_path: Any) -> None:
    (home, *_) = make_homes(tmp_path).values()
    inprocess.InProcessGrid(client(), {"a": home})  # says whose messages these are
    content = RecordDict({"config": ConfigRecord({"statement": "{}"})})
    content["arrays"] = ArrayRecord({"w": Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00\x80\x04.")})
    message = Message(content, 1, "query.ask")
    reply = answer(message, Context(1, 1, {"home": home}, RecordDict(), {}))
    assert "header that is none" in str(reply.error.reason)
