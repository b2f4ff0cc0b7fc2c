"""The protection of any Flower ServerApp, as a `Grid`: a strategy's round of messages becomes one protected sum.

    protected = ProtectedGrid(grid, strategy, limit=10.0, most_examples=100_000)
    strategy.start(grid=protected, initial_arrays=arrays)

What the strategy sends to each node goes out as it is, with the protection's packet beside it; what comes back is one
reply, whose arrays and metrics are the averages over the nodes weighted by their numbers of examples and whose own
number of examples is the total. An average over one such reply is that reply, so a strategy whose next model is a
function of the weighted average does what it would do with all replies. One that looks at each reply is refused.

Nothing else passes: `query` messages, `push_messages` and `pull_messages` are refused. The other end is the mod
`statfed.client.flower.mod.protect`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from pydantic import ValidationError

from statfed.core.averaging import (
    Facts,
    Joined,
    Kind,
    Said,
    agreement_of,
    averages,
    layout_of,
    make_facts,
)
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError, harmless
from statfed.core.protection import Agreement, Coordinator, Packet, Stage, conduct, default_minimum, named_protection
from statfed.core.statement import raise_failure
from statfed.server._averaging_strategies import check_strategy
from statfed.server._flwr import AWAY, NodeInfo, Run
from statfed.server.carrier import Carrier
from statfed.server.packets import packet_in, put_packet

RECORD = "statfed"
RESERVED = (RECORD, "packet", "packet-arrays")

log = logging.getLogger("statfed.coordinator")


@dataclass(frozen=True)
class _Session:
    facts: Facts
    agreement: Agreement
    coordinator: Coordinator


class ProtectedGrid(Grid):
    """A Flower Grid whose replies to training and evaluation are protected averages.

    strategy: the one that will be started on this grid; `_averaging_strategies` says which. limit: largest absolute
    value of a parameter of a reply; most_examples: largest number of examples of a node; train_metrics,
    evaluate_metrics: largest absolute value by name of each metric that the app reports beside the number of examples.
    These are public, a node that exceeds one refuses, and precision follows from them: a node's part is rounded to
    2^-60 (2^-28 when `narrow`) of limit * most_examples * nodes. minimum_holders: fewest nodes of a sum; default every
    one, or more than two thirds where the protection survives dropout. averages_only: declares that a strategy class of
    your own uses replies by their weighted average alone. stage_timeout: seconds for a stage that no training waits
    for.

    Raises UsageError on what does not fit, Refused when a node refuses, EngineError when too few nodes are left.
    `dropped` has, after a sum, the nodes that it did without, with what happened.
    """

    def __init__(
        self,
        grid: Grid,
        strategy: Strategy,
        *,
        limit: float,
        most_examples: int,
        train_metrics: Mapping[str, float] | None = None,
        evaluate_metrics: Mapping[str, float] | None = None,
        protection: str = "secure-aggregation",
        options: Mapping[str, Any] | None = None,
        minimum_holders: int | None = None,
        narrow: bool = False,
        averages_only: bool = False,
        stage_timeout: float = 300.0,
    ) -> None:
        check_strategy(strategy, averages_only)
        module, read = named_protection(protection, options or {})
        self._grid, self._requires, self._stage_timeout = grid, module.REQUIRES, stage_timeout
        self._third_parties, self._minimum = tuple(module.third_parties(read)), minimum_holders
        self._public: dict[str, Any] = {
            "protection": protection,
            "options": read.model_dump(mode="json"),
            "weight": getattr(strategy, "weighted_by_key", "num-examples"),
            "most_examples": most_examples,
            "limit": limit,
            "narrow": narrow,
            "train_metrics": dict(train_metrics or {}),
            "evaluate_metrics": dict(evaluate_metrics or {}),
        }
        make_facts(run=0, session=1, holders=("a",), parties={"a": ""}, minimum_holders=1, **self._public)
        self._joined: dict[int, Joined] = {}
        self._session: _Session | None = None
        self._sessions = self._sums = 0
        self.dropped: dict[str, str] = {}

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that may train: third parties of the protection are not among them."""
        nodes = list(self._grid.get_node_ids())
        if not self._third_parties:
            return nodes
        self._hello(nodes, "train")
        return [n for n in nodes if n in self._joined and self._joined[n].name not in self._third_parties]

    def get_nodes(self) -> Iterable[NodeInfo]:
        chosen = set(self.get_node_ids())
        return [info for info in self._grid.get_nodes() if info.node_id in chosen]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:  # noqa: ARG002
        raise UsageError("push_messages: a protected sum takes several exchanges; want send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:  # noqa: ARG002
        raise UsageError("pull_messages: a protected sum takes several exchanges; want send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """One reply with the averages over all nodes that `messages` go to; none when there are no messages."""
        sent = list(messages)
        asked = {message.metadata.dst_node_id: message for message in sent}
        if not sent:
            return []
        if len(asked) != len(sent):
            raise UsageError(f"messages: got {len(sent)} to {len(asked)} nodes; want one a node")
        kind, given = _kind(sent), _arrays(sent)
        minimum = default_minimum(len(sent), self._requires) if self._minimum is None else self._minimum
        self.dropped = self._hello(list(asked), sent[0].metadata.message_type)
        requests = {self._joined[node].name: message for node, message in asked.items() if node in self._joined}
        if self.dropped and len(requests) < minimum:
            raise EngineError(f"hello: got {len(requests)} nodes; want at least {minimum}{_lines(self.dropped)}")
        session = self._agreed(requests, minimum, sent[0].metadata.message_type, given[1])
        self._sums += 1
        try:
            carrier = self._carrier(session.facts, kind, requests, timeout)
            aggregate = conduct(session.coordinator.total(layout_of(session.facts, kind)), carrier.send)
        except StatfedError as error:
            self._session = None
            raise type(error)(f"{error}{_lines(self.dropped)}") from error
        if self.dropped:  # the next sum begins with fresh keys, so that who was away can come back
            self._session = None
            self._joined = {node: one for node, one in self._joined.items() if one.name not in self.dropped}
            log.warning("sum %d: without %s", self._sums, "; ".join(f"{n}: {w}" for n, w in self.dropped.items()))
        return [_reply(session.facts, kind, averages(session.facts, kind, aggregate.total), given, sent[0])]

    def _hello(self, nodes: Sequence[int], message_type: str) -> dict[str, str]:
        """Learn names and tokens of nodes that are not known yet. Returns which do not answer, with what happened.

        Raises EngineError when one answers otherwise than the mod does.
        """
        said = Said(step="hello", kind=cast(Kind, message_type.partition(".")[0]))
        new = sorted(node for node in nodes if node not in self._joined)
        if not new:
            return {}
        messages = [Message(_content(said), node, message_type) for node in new]
        replies = self._grid.send_and_receive(messages, timeout=self._stage_timeout)
        found = {reply.metadata.src_node_id: reply for reply in replies}
        silent = {f"node {node}": "no answer to hello" for node in new if node not in found}
        known = {one.name: node for node, one in self._joined.items()}
        for node, reply in sorted(found.items()):
            if reply.has_error() and reply.error.code in AWAY:
                silent[f"node {node}"] = harmless(reply.error.reason or "not there", 1000)
                continue
            one = _joined(reply, f"node {node}")
            if known.get(one.name) in nodes:
                raise Refused(f"hello: nodes {known[one.name]} and {node} both say that they are {one.name}")
            self._joined.pop(known.get(one.name, -1), None)
            known[one.name] = node
            self._joined[node] = one
            self._sessions = max(self._sessions, one.session)
        return silent

    def _agreed(self, requests: Mapping[str, Message], minimum: int, message_type: str, given: ArrayRecord) -> _Session:
        """The session of these holders, a new one if anything that they agreed on has changed."""
        if clash := sorted(set(requests) & set(self._third_parties)):
            raise UsageError(f"messages: {clash[0]} is a third party of the protection; want none to it")
        if self._third_parties:
            self._hello(list(self._grid.get_node_ids()), message_type)
        tokens = {one.name: one.token for one in self._joined.values()}
        if absent := sorted(set(self._third_parties) - set(tokens)):
            raise UsageError(f"protection: got no node of the third parties {', '.join(absent)}; want one of each")
        holders = tuple(sorted(requests))
        wanted = self._public | {
            "run": self._grid.run.run_id,
            "holders": holders,
            "parties": {name: tokens[name] for name in sorted({*holders, *self._third_parties})},
            "minimum_holders": minimum,
            "arrays": {name: tuple(array.shape) for name, array in given.items()},
        }
        if self._session is not None and self._session.facts == make_facts(session=self._sessions, **wanted):
            return self._session
        self._sessions += 1
        facts = make_facts(session=self._sessions, **wanted)
        agreement = agreement_of(facts)
        module, _ = named_protection(facts.protection, facts.options)
        self._session = _Session(facts, agreement, module.coordinator(agreement))
        return self._session

    def _carrier(self, facts: Facts, kind: Kind, requests: Mapping[str, Message], timeout: float | None) -> Carrier:
        """What carries the stages of one sum to the nodes and back."""
        nodes = {one.name: node for node, one in self._joined.items()}
        names = {node: name for name, node in nodes.items()}
        message_type = next(iter(requests.values())).metadata.message_type
        short = self._stage_timeout if timeout is None else min(timeout, self._stage_timeout)
        said = Said(step="stage", kind=kind, number=self._sums, facts=facts)

        def message(stage: Stage, name: str, packet: Packet) -> Message:
            if stage.carries:
                asked = requests[name]
                step = said.model_copy(update={"step": "contribute", "stage": stage.name})
                meta = asked.metadata
                content = _content(step, asked.content)
                made = Message(content, meta.dst_node_id, meta.message_type, ttl=meta.ttl, group_id=meta.group_id)
            else:
                made = Message(_content(said.model_copy(update={"stage": stage.name})), nodes[name], message_type)
            put_packet(made.content, packet)
            return made

        def deliver(stage: Stage, messages: Sequence[Message]) -> dict[str, Message]:
            replies = self._grid.send_and_receive(messages, timeout=timeout if stage.carries else short)
            return {names[node]: reply for reply in replies if (node := reply.metadata.src_node_id) in names}

        def read(stage: Stage, name: str, reply: Message) -> Packet:  # noqa: ARG001
            content = _checked(reply, name).content
            try:
                return packet_in(content)
            except Refused as error:
                raise EngineError(f"{name}: {error}") from None

        return Carrier(
            message=message,
            deliver=deliver,
            read=read,
            silence=lambda stage: f"no answer to {stage.name}",
            missing=lambda stage, absent: "\n".join(f"{name}: no answer to {stage.name}" for name in absent),
            may_drop=facts.holders if facts.minimum_holders < len(facts.holders) else (),
            drop=lambda name, why: self.dropped.update({name: why.removeprefix(f"{name}: ")}),
        )


def _kind(messages: Sequence[Message]) -> Kind:
    types = {message.metadata.message_type for message in messages}
    kind = next(iter(types)).partition(".")[0]
    if len(types) != 1 or kind not in ("train", "evaluate"):
        raise UsageError(
            f"messages: got types {', '.join(sorted(types))}; want one, of train or evaluate, "
            "whose replies are numbers to average"
        )
    return cast(Kind, kind)


def _arrays(messages: Sequence[Message]) -> tuple[str, ArrayRecord]:
    """The array record that every message carries, alike in names and shapes: replies have to be like it."""
    found = []
    for message in messages:
        if clash := sorted(set(message.content) & set(RESERVED)):
            raise UsageError(f"messages: got a record {clash[0]}; want another name: that one is reserved")
        found.append(list(message.content.array_records.items()))
    shapes = {
        str([(key, sorted((n, tuple(a.shape)) for n, a in record.items())) for key, record in one]) for one in found
    }
    if len(shapes) != 1 or len(found[0]) > 1 or (not found[0] and _kind(messages) == "train"):
        raise UsageError("messages: want one array record in each, the same names and shapes to every node")
    return found[0][0] if found[0] else ("arrays", ArrayRecord())


def _lines(reasons: Mapping[str, str]) -> str:
    return "".join(f"\n  {name}: {why}" for name, why in sorted(reasons.items()))


def _content(said: Said, content: RecordDict | None = None) -> RecordDict:
    return RecordDict({**(content or {}), RECORD: ConfigRecord({"json": said.model_dump_json()})})


def _checked(reply: Message, who: str) -> Message:
    """A reply of the mod. Raises what it reported, or EngineError on an answer that is not its."""
    if reply.has_error():
        raise_failure(reply.error.reason or "no reason given", who)
    if RECORD not in reply.content.config_records:
        raise EngineError(f"{who}: answered without protection; want ClientApp(mods=[protect()]) on every node")
    return reply


def _joined(reply: Message, who: str) -> Joined:
    try:
        return Joined.model_validate_json(str(_checked(reply, who).content.config_records[RECORD]["json"]))
    except (KeyError, ValidationError):
        raise EngineError(f"{who}: got an answer that is no hello; want ClientApp(mods=[protect()])") from None
    except EngineError as error:
        raise EngineError(f"hello: {error}; want ClientApp(mods=[protect()]) on every node") from None


def _reply(
    facts: Facts,
    kind: Kind,
    average: tuple[int, Mapping[str, Any], Mapping[str, float]],
    given: tuple[str, ArrayRecord],
    first: Message,
) -> Message:
    """The one reply. Arrays keep the floating-point type that was sent; averages of whole numbers are float64."""
    weight, arrays, metrics = average
    content = RecordDict({"metrics": MetricRecord({**metrics, facts.weight: weight})})
    if kind == "train":
        key, sent = given
        types = {name: array.dtype if array.dtype.startswith("float") else "float64" for name, array in sent.items()}
        content[key] = ArrayRecord({name: Array(np.asarray(arrays[name], types[name])) for name in sent})
    return Message(content, reply_to=first)
