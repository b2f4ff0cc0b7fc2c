"""What a holder can send to the coordinator that it should not: each lie ends the run with its name, or changes nothing
but what is its own to say. The lies are told in a run that was kept, by one party of three."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Array, Error, Message, RecordDict
from flwr.common.serde_utils import metadata_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from statfed.client.flower import _flwr as holder_flwr
from statfed.core.errors import EngineError, Refused, StatfedError, harmless
from statfed.core.statement import failure, raise_failure
from statfed.server import _flwr as coordinator_flwr
from statfed.server._flwr import act_for, set_source
from statfed.server.grid._polling import PollingGrid
from tests.fuzz.messages import SPEECH, Lie, lied, pieces
from tests.fuzz.sessions import Recording, recorded, twin

Change = Callable[[Message, Recording], Sequence[Message]]


@pytest.fixture(autouse=True)
def _messages_are_of_a_run() -> None:
    act_for(run=1, task=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    studies = [("mean", {"columns": ["age"]}, name) for name in ("plain", "secure-aggregation", "multi-party")]
    found = recorded(tmp_path_factory.mktemp("recorded"), studies)
    return {one.study.terms.protection.name: one for one in found}


def told(recording: Recording, number: int, change: Change, party: str = "cbs") -> Any:
    """The estimate where the reply of that number of a party is another; else the error."""
    node, count = recording.nodes[party], 0

    def changed(replies: Sequence[Message]) -> Iterator[Message]:
        nonlocal count
        for reply in replies:
            mine = reply.metadata.src_node_id == node
            count += mine
            yield from change(reply, recording) if mine and count == number else (reply,)

    try:
        return recording.again(changed).result.tables["estimates"][0]["estimate"]
    except StatfedError as error:
        return error


def facts(**changes: Any) -> Change:
    """Other facts in a reply."""

    def change(reply: Message, _: Recording) -> Sequence[Message]:
        record = reply.content.config_records["facts"]
        record["json"] = json.dumps(json.loads(str(record["json"])) | changes)
        return [reply]

    return change


def sent(made: Callable[[np.ndarray[Any, Any]], object]) -> Change:
    """Other arrays in a reply."""

    def change(reply: Message, _: Recording) -> Sequence[Message]:
        record = reply.content.array_records["packet-arrays"]
        for name, item in list(record.items()):
            record[name] = Array(np.asarray(made(item.numpy())))
        return [reply]

    return change


def error(reason: str) -> Change:
    """An error instead of a reply."""

    def change(reply: Message, _: Recording) -> Sequence[Message]:
        vars(reply)["_content"], vars(reply)["_error"] = None, Error(200, reason)
        return [reply]

    return change


def as_another(reply: Message, recording: Recording) -> Sequence[Message]:
    set_source(reply, recording.nodes["istat"])
    return [reply]


def earlier(reply: Message, recording: Recording) -> Sequence[Message]:
    """The party's first reply once more, in place of this one."""
    first = next(one.reply for one in recording.sent if one.reply.metadata.src_node_id == reply.metadata.src_node_id)
    return [twin(first)]


def test_a_kept_run_gives_the_same_figure_again(runs: dict[str, Recording]) -> None:
    figures = {name: told(one, 0, lambda reply, _: [reply]) for name, one in runs.items()}
    assert set(figures.values()) == {figures["plain"]}


@pytest.mark.parametrize("size", [0, -1, 2**41, 10**30, 1.5, "forty", None, True])
def test_a_size_that_no_dataset_has_names_its_holder(runs: dict[str, Recording], size: object) -> None:
    found = told(runs["plain"], 1, facts(size=size))
    assert isinstance(found, EngineError)
    assert str(found).startswith("cbs: ")


@pytest.mark.parametrize(
    ("number", "change", "words"),
    [
        (1, facts(holder="istat"), "cbs: the answer says it is from istat"),
        (2, facts(round=7), "cbs: got a contribution to sum 7; want sum 1"),
        (2, facts(seconds=float("nan")), "cbs: got an answer that is not a Receipt"),
        (2, facts(seconds=float("inf")), "cbs: got a Receipt with a number that is not finite"),
        (2, facts(ledger_head="\x1b[2J"), "cbs: got an answer that is not a Receipt"),
        (2, facts(rules=["x"] * 1000), "cbs: got an answer that is not a Receipt"),
        (1, as_another, "istat: got an answer that was not asked for, or a second one"),
        (1, lambda reply, _: [reply, twin(reply)], "cbs: got an answer that was not asked for, or a second one"),
        (1, lambda *_: [], "no answer from cbs"),
        (2, earlier, "cbs: got an answer that is not a Receipt"),
        (2, sent(lambda array: np.zeros(7, array.dtype)), "cbs"),
        (2, sent(lambda array: array * np.nan), "cbs"),
        (2, sent(lambda array: array.astype("<f2") if array.dtype.kind == "f" else array.astype("?")), "cbs"),
    ],
)
def test_what_is_no_answer_ends_the_run_with_the_name(
    runs: dict[str, Recording], number: int, change: Change, words: str
) -> None:
    found = told(runs["plain"], number, change)
    assert isinstance(found, EngineError)
    assert words in str(found)


@pytest.mark.parametrize("protection", ["secure-aggregation", "multi-party"])
def test_an_answer_to_another_stage_is_none(runs: dict[str, Recording], protection: str) -> None:
    recording = runs[protection]
    party = "cbs" if protection == "secure-aggregation" else "node-2"
    present = [one.reply for one in recording.sent if one.party == party]
    stages = [json.loads(str(reply.content.config_records["facts"]["json"])).get("stage") for reply in present]
    number = next(place for place, stage in enumerate(stages, 1) if stage)
    found = told(recording, number, facts(stage="other"), party)
    assert isinstance(found, EngineError)
    assert f"{party}: got an answer to stage other" in str(found)


def test_a_total_out_of_range_is_no_figure_and_noise_in_its_words_is_noticed(runs: dict[str, Recording]) -> None:
    recording = runs["secure-aggregation"]
    replies = [one.reply for one in recording.sent if one.party == "cbs"]
    number = next(n for n, r in enumerate(replies, 1) if r.content.array_records.get("packet-arrays"))
    found = told(recording, number, sent(lambda array: array ^ array.dtype.type(1 << (8 * array.itemsize - 2))))
    assert isinstance(found, EngineError)
    assert "out of range" in str(found) or "outside the agreed range" in str(found)


@pytest.mark.parametrize("said", SPEECH)
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_a_party_says_moves_no_cursor_and_speaks_for_nobody_else(
    runs: dict[str, Recording], said: str, wrapped: bool
) -> None:
    reason = failure(Refused(said)) if wrapped else said
    found = told(runs["plain"], 1, error(reason))
    assert isinstance(found, StatfedError)
    lines = str(found).split("\n")
    assert len(str(found)) < 10_000
    assert lines[0].startswith("cbs: ")
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines[1:] if not line.startswith("  ")] == ["2 of 3 holders had agreed; nothing was spent"]


@pytest.mark.parametrize(
    "kind", ["SystemExit", "KeyboardInterrupt", "MemoryError", "os.system", "", 1, ["Refused"], {}]
)
def test_the_kind_of_a_failure_names_no_class_but_ours(kind: object) -> None:
    with pytest.raises(EngineError, match=r"^cbs: "):
        raise_failure(json.dumps({"kind": kind, "message": "x"}), "cbs")


def test_words_of_others_are_cut_and_set_in() -> None:
    assert harmless("a\n b\x07") == "a\n   b\\x07"
    assert len(harmless("x" * 10**6)) < 6000


def test_a_piece_that_is_named_a_million_times_is_never_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("put together")

    message = Message(RecordDict(), 7, "query.ask")
    name, objects = pieces(message, 20)
    vars(message.metadata)["_message_id"] = name
    whole = coordinator_flwr.arrived(message.metadata, dict(objects))
    assert not whole.has_error()  # the control: pieces that come again are no fault by themselves
    name, objects = pieces(message, 5_000)
    for room in (coordinator_flwr, holder_flwr):
        monkeypatch.setattr(room, "inflate_object_from_contents", never)
    vars(message.metadata)["_message_id"] = name
    there = coordinator_flwr.arrived(message.metadata, dict(objects))
    assert "want at most" in str(there.error.reason)
    here = holder_flwr.arrived(metadata_to_proto(message.metadata), dict(objects))
    assert not here.content


def test_a_message_is_whose_the_superlink_says_whatever_it_says_itself() -> None:
    claimed, real = Message(RecordDict(), 7, "query.ask"), Message(RecordDict(), 7, "query.ask")
    set_source(claimed, 99)
    objects = {n: o.deflate() for n, o in get_all_nested_objects(claimed).items()}
    vars(real.metadata)["_message_id"] = claimed.object_id
    assert coordinator_flwr.arrived(real.metadata, objects).metadata.src_node_id == real.metadata.src_node_id != 99


def test_replies_that_nobody_waits_for_are_not_taken_for_others() -> None:
    asked = Message(RecordDict(), 7, "query.ask")
    coordinator_flwr.set_id(asked, "one")
    good = Message(RecordDict(), reply_to=asked)
    coordinator_flwr.set_id(asked, "unknown")
    stray = Message(RecordDict(), reply_to=asked)

    inner = SimpleNamespace(push_messages=lambda _: ["one"], pull_messages=lambda _: [stray, good, good])
    grid = PollingGrid(cast(Grid, inner), lambda: None)
    assert grid.send_and_receive([asked], timeout=1.0) == [good]


def test_a_reply_that_is_slow_to_read_is_no_silence_of_the_others() -> None:
    asked = [Message(RecordDict(), node, "query.ask") for node in (7, 8)]
    for message, name in zip(asked, ("one", "two"), strict=True):
        coordinator_flwr.set_id(message, name)
    replies = [[Message(RecordDict(), reply_to=message)] for message in asked]

    def slow(_: object) -> list[Message]:
        time.sleep(0.3)
        return replies.pop(0)

    grid = PollingGrid(
        cast(Grid, SimpleNamespace(push_messages=lambda _: ["one", "two"], pull_messages=slow)), lambda: None
    )
    assert len(list(grid.send_and_receive(asked, timeout=0.2))) == 2


def test_what_a_lost_node_announced_is_not_waited_for() -> None:
    from flwr.proto.message_pb2 import Message as ProtoMessage
    from flwr.proto.message_pb2 import Metadata as ProtoMetadata
    from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
    from flwr.proto.node_pb2 import Node
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse

    looks: list[str] = []

    def never(request: Any) -> PullObjectResponse:
        looks.append(request.object_id)
        return PullObjectResponse(object_found=True)

    announced = ProtoMessage(metadata=ProtoMetadata(src_node_id=7, message_id="m", message_type="query.ask"))
    came = PullAppMessagesResponse(messages_list=[announced], message_object_trees=[ObjectTree(object_id="m")])
    client = SimpleNamespace(PullMessages=lambda _: came, PullObject=never, ConfirmMessageReceived=lambda _: None)
    kind = type("Grid", (coordinator_flwr._grid_class(),), {"run": SimpleNamespace(run_id=3)})
    grid: Any = object.__new__(kind)
    grid._client, grid.node = client, Node(node_id=1)
    grid.gone = lambda: {7: "its connection ended"} if looks else {}
    (reply,) = grid.pull_messages(["one"])
    assert reply.has_error()
    assert looks == ["m"]


def test_lies_found_by_the_fuzzer_name_their_party(runs: dict[str, Recording]) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(60):
        for recording in runs.values():
            try:
                lied(recording, Lie("cbs", 1 + seed % 3, seed))
                outcomes["figure"] = outcomes.get("figure", 0) + 1
            except StatfedError as caught:
                kind = type(caught).__name__
                outcomes[kind] = outcomes.get(kind, 0) + 1
    assert outcomes["Broken"] > 30


def test_a_node_pulls_objects_of_its_own_messages_alone() -> None:
    """Whoever guesses what another party sent, knows its SHA-256."""
    tree = ObjectTree(object_id="aa", children=[ObjectTree(object_id="bb")])
    deleted = []

    def confirm(request: Any, state: Any, store: Any) -> ConfirmMessageReceivedResponse:
        deleted.append(request.message_object_id)
        return ConfirmMessageReceivedResponse()

    handlers = SimpleNamespace(
        pull_messages=lambda request, state, store: PullMessagesResponse(  # noqa: ARG005
            message_object_trees=[tree] if request.node.node_id == 1 else []
        ),
        pull_object=lambda request, state: PullObjectResponse(object_found=True, object_content=b"secret"),  # noqa: ARG005
        confirm_message_received=confirm,
    )
    addressed = coordinator_flwr.Addressed(handlers)
    for node in (1, 2):
        addressed.pull_messages(request=PullMessagesRequest(node=Node(node_id=node)), state=None, store=None)

    def pulled(node: int, name: str) -> bytes:
        asked = PullObjectRequest(node=Node(node_id=node), object_id=name)
        return bytes(addressed.pull_object(request=asked, state=None).object_content)

    def confirmed(node: int) -> None:
        said = ConfirmMessageReceivedRequest(node=Node(node_id=node), message_object_id="aa")
        addressed.confirm_message_received(request=said, state=None, store=None)

    assert [pulled(1, name) for name in ("aa", "bb", "cc")] == [b"secret", b"secret", b""]
    assert [pulled(2, name) for name in ("aa", "bb", "cc")] == [b"", b"", b""]
    confirmed(2)
    assert deleted == []
    confirmed(1)
    assert (deleted, pulled(1, "bb")) == (["aa"], b"")
