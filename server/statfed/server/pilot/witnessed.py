"""A Flower `Grid` that writes every message of a pilot's run into the coordinator's log, and exchanges logs' heads."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from statfed.core.errors import Contradicted, Refused
from statfed.core.pilot.audit import CONTRADICTED, Fact, Head, record_all
from statfed.core.pilot.crosscheck import REPLIED, SENT
from statfed.core.pilot.witness import (
    HEADS,
    MOST_HEADS,
    RECORD,
    Noted,
    Said,
    Witness,
    about,
    content_digest,
    text_digest,
)
from statfed.server._flwr import NodeInfo, Run

_WITH_OTHERS = ("query.admit", "query.release")
"""Messages with which heads of the other parties go: once at a run's beginning and end, or logs would grow with the
square of the parties."""


class WitnessedGrid(Grid):
    """`inner`, with one entry in the log of `folder` for each message sent and one for each reply.

    names: of the parties, by node; pins: their keys, by name. Raises Contradicted on a reply whose party has shown
    another history before, which is written down; EngineError where the log cannot be written: nothing is sent then.
    """

    def __init__(self, inner: Grid, folder: Path, names: Mapping[int, str], pins: Mapping[str, str]) -> None:
        self._inner, self._folder, self._names, self._pins = inner, folder, names, pins
        self._witness = Witness(folder)
        self._salts = {node: secrets.token_hex(16) for node in names}

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
        return self._inner.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._inner.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(self._sent(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._replied(list(self._inner.pull_messages(message_ids)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As `inner` does, written down before anything is sent and before any reply is used."""
        return self._replied(list(self._inner.send_and_receive(self._sent(list(messages)), timeout=timeout)))

    def _sent(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, written down, with the head of the log that has them."""
        events: list[tuple[str, dict[str, Fact]]] = []
        read: dict[str, dict[str, Fact]] = {}  # statements, which are often one to all
        for message in messages:
            node = message.metadata.dst_node_id
            digest, size = content_digest(message.content, self._salts[node])
            said = str(message.content.config_records.get("config", ConfigRecord()).get("statement", ""))
            if said not in read:
                read[said] = about(said)
            facts: dict[str, Fact] = {"to": self._name(node), "digest": digest, "size": size}
            facts |= {"type": message.metadata.message_type} | read[said]
            events.append((SENT, facts))
        head = record_all(self._folder, events)
        others = self._witness.newest()
        for message in messages:
            node = message.metadata.dst_node_id
            told = others if message.metadata.message_type in _WITH_OTHERS else ()
            fitting = tuple(one for one in told if one.whose != self._name(node))[:MOST_HEADS]
            records = dict(message.content)  # one content can be of several messages
            records[RECORD] = ConfigRecord({**Said(self._salts[node], head, fitting).record()})
            message.content = RecordDict(records)
        return list(messages)

    def _replied(self, replies: Sequence[Message]) -> list[Message]:
        """The replies, written down with their heads, and without these."""
        events: list[tuple[str, dict[str, Fact]]] = []
        wrong: Contradicted | None = None
        for reply in replies:
            name, salt = self._name(reply.metadata.src_node_id), self._salts.get(reply.metadata.src_node_id, "")
            if reply.has_error():
                digest, size = text_digest(reply.error.reason or "", salt)
                more: dict[str, Fact] = {"outcome": "error", "code": reply.error.code}
            else:
                digest, size = content_digest(reply.content, salt)
                more = {"outcome": "answer"}
                try:
                    if head := self._head(name, reply.content, salt):
                        more[HEADS] = [Noted(name, head).facts()]
                except Refused as error:
                    events.append((CONTRADICTED, {"whose": name, "what": str(error), **_shown(reply.content)}))
                    wrong = wrong or Contradicted(f"{name}: {error}")
                reply.content.pop(RECORD, None)
            events.append((REPLIED, {"from": name, "digest": digest, "size": size, **more}))
        record_all(self._folder, events)
        if wrong is not None:
            raise wrong
        return list(replies)

    def _head(self, name: str, content: RecordDict, salt: str) -> Head | None:
        """The head that came with a reply, where it is new. Raises Refused where it contradicts what was noted."""
        found = content.config_records.get(RECORD)
        if found is None:
            return None
        try:
            said = Said.parse(found)
            if said.salt != salt or said.heads:
                raise ValueError("got another salt, or heads of others; want what belongs to this answer")
        except ValueError as error:
            raise Refused(f"audit: {error}") from None
        new = said.head is not None and self._witness.check(name, self._pins.get(name, ""), said.head, "")
        return said.head if new else None

    def _name(self, node: int) -> str:
        return self._names.get(node, "unknown")


def _shown(content: RecordDict) -> dict[str, Fact]:
    """The head that contradicts, which is the proof of it."""
    try:
        head = Said.parse(content.config_records[RECORD]).head
    except (ValueError, KeyError):
        return {}
    return {} if head is None else {"head": head.facts()}
