"""A Flower `Grid` that waits for replies in short steps and looks after the processes it depends on.

Flower's own grid sleeps three seconds between looks and waits for ever for a party that has died.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from statfed.core.errors import EngineError
from statfed.server._flwr import UNAVAILABLE, NodeInfo, ObjectPushError, Pulling, Run, set_id, set_source

T = TypeVar("T")

LONGEST_PAUSE = 0.5
GRACE = 1.0


class PollingGrid(Grid):
    """`inner` with its own push and pull loop.

    check: called in every step; it raises EngineError once a process has ended that the federation cannot do without.
    lost: nodes that have ended and that it can do without, with how; a message to one is answered with that error at
    once, and it stays listed, so that strategies that wait for all nodes do not wait for ever. poll: seconds between
    the first looks; later ones are a twentieth of the time waited apart, at most half a second, so that waiting costs
    a long round next to nothing. Any failure to reach the SuperLink is an EngineError.
    """

    def __init__(
        self,
        inner: Grid,
        check: Callable[[], None],
        poll: float = 0.05,
        lost: Callable[[], Mapping[int, str]] = dict,
    ) -> None:
        self._inner = inner
        self._check = check
        self._lost = lost
        self._poll = poll
        if isinstance(inner, Pulling):
            inner.gone = lost

    def set_run(self, run: Run) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return {*self._reach(self._inner.get_node_ids), *self._reach(self._lost)}

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._reach(self._inner.get_nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages. Raises EngineError if the SuperLink did not take every one of them."""
        batch = list(messages)
        if not batch:
            return []
        pushed = list(self._reach(lambda: self._inner.push_messages(batch)))
        if len(pushed) != len(batch) or not all(pushed):
            taken = sum(map(bool, pushed))
            raise EngineError(f"messages not taken by the SuperLink: got {taken} of {len(batch)}; want all")
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = list(message_ids)
        return self._reach(lambda: self._inner.pull_messages(wanted))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies.

        Returns when all have come, or after `timeout` seconds those that came.
        Raises EngineError as soon as a process has ended that the federation cannot do without.
        """
        self._check()
        batch = list(messages)
        lost = self._reach(self._lost)
        replies = [_unavailable(message, lost) for message in batch if message.metadata.dst_node_id in lost]
        batch = [message for message in batch if message.metadata.dst_node_id not in lost]
        waiting = dict(zip(self.push_messages(batch), batch, strict=True))
        begin = time.monotonic()
        while waiting:
            self._check()
            came = [one for one in self.pull_messages(waiting) if one.metadata.reply_to_message_id in waiting]
            for reply in came:
                message = waiting.pop(reply.metadata.reply_to_message_id, None)
                if message is not None:  # else it is the second one
                    replies.append(_from(reply, message.metadata.dst_node_id))
            lost = self._reach(self._lost)
            for name, message in list(waiting.items()):
                if message.metadata.dst_node_id in lost:
                    replies.append(_unavailable(waiting.pop(name), lost))
            waited = time.monotonic() - begin
            pause = max(self._poll, min(LONGEST_PAUSE, waited / 20))
            if timeout is not None:
                pause = min(pause, timeout - waited)
            if not waiting or (pause <= 0 and not came):  # one reply that was slow to read is no silence of the others
                break
            if not came:
                time.sleep(pause)
        return replies

    def _reach(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (httpx.HTTPError, ObjectPushError, ValueError) as error:
            end = time.monotonic() + GRACE
            while time.monotonic() < end:  # if a process has just died, that is the better message
                self._check()
                time.sleep(0.05)
            raise EngineError(f"SuperLink: got {type(error).__name__}: {error}; want an answer") from error


def _unavailable(message: Message, lost: Mapping[int, str]) -> Message:
    """The answer of a node that has ended."""
    set_id(message, message.metadata.message_id or "unsent")
    node = message.metadata.dst_node_id
    return _from(Message(Error(UNAVAILABLE, lost[node]), reply_to=message), node)


def _from(reply: Message, node: int) -> Message:
    """A reply, said to be from `node`: Flower names the SuperLink or the caller where none of the nodes has sent it."""
    if reply.has_error():
        set_source(reply, node)
    return reply
