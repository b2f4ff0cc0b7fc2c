"""A runner whose SuperNode has gone on to another message is not left waiting for the first one.

Flower's node says nothing of a message that it stops receiving because the run has ended: the task stays announced, its
objects never come, and every study of that holder waited until hundreds of looks for them had been in vain.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse

from statfed.client.flower import _flwr
from statfed.client.flower._flwr import Tasks


class Api:
    """A SuperNode's Runtime API. stored: is the message there; available: are its objects; next_: of other tasks."""

    def __init__(self, *, stored: bool, available_after: int, next_: list[str]) -> None:
        self.stored, self.available_after, self.next, self.looks = stored, available_after, next_, 0
        self.given = False

    def PullMessages(self, _: Any) -> PullAppMessagesResponse:
        if not self.stored or self.given:
            return PullAppMessagesResponse()
        self.given = True  # as Flower does: a message is given once
        return PullAppMessagesResponse(messages_list=[ProtoMessage()], message_object_trees=[ObjectTree(object_id="a")])

    def PullObject(self, _: Any) -> Any:
        self.looks += 1
        there = self.looks > self.available_after
        return SimpleNamespace(object_found=True, object_available=there, object_content=b"x" if there else b"")

    def AcquireTask(self, _: Any) -> Any:
        return SimpleNamespace(token=self.next.pop(0) if self.next else "")


def tasks(api: Api, monkeypatch: pytest.MonkeyPatch) -> tuple[Tasks, Any]:
    monkeypatch.setattr(_flwr, "WAITING", 0.05)
    token = SimpleNamespace(value="first")
    made: Any = Tasks(api, token)  # type: ignore[arg-type]
    return made, token


@pytest.mark.parametrize("stored", [True, False])
def test_a_message_that_never_comes_is_given_up_for_the_next_task(
    stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, token = tasks(Api(stored=stored, available_after=10**9, next_=["", "second"]), monkeypatch)
    assert made._objects(Node(node_id=1), 1, 0.01) is None
    assert token.value == "second"


def test_a_message_that_is_slow_is_waited_for_as_long_as_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made, token = tasks(Api(stored=True, available_after=12, next_=[]), monkeypatch)
    found = made._objects(Node(node_id=1), 1, 0.01)
    assert found is not None
    assert found[2] == {"a": b"x"}
    assert token.value == "first"
