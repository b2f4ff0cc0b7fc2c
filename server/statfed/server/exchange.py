"""Messages of one run with every holder: statements out, checked facts back.

Admission and release need every holder: one that refuses, fails or stays silent ends the run with its name. A
protected sum can do without some where the protection survives that.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import BaseModel, ValidationError

from statfed.core import VERSION
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError, harmless
from statfed.core.method import Ask
from statfed.core.progress import Progress
from statfed.core.protection import Aggregate, Packet, Rounds, Stage, conduct
from statfed.core.resolve import Resolved
from statfed.core.statement import Admission, Closing, Present, Statement, Step, outside, raise_failure
from statfed.server.carrier import Carrier, joined
from statfed.server.engine import Session
from statfed.server.packets import arrays_out, packet_in, put_packet, size

SHORT = 60.0  # seconds that admission and release may take

for _name in ("flwr", "flwr.serverapp"):
    logging.getLogger(_name).setLevel(logging.ERROR)

Ended = Literal["", "finished", "withheld"]
Facts = TypeVar("Facts", bound=BaseModel)


@dataclass
class Traffic:
    """What one sum moved: bytes of arrays and packets, all parties together."""

    down: int = 0
    up: int = 0
    stages: int = 0


class Exchange:
    """One run's messages. done: sums that an interrupted run had finished before this one goes on.

    sizes: every holder's public number of records, known after admission. dropped: holders that a protected sum did
    without, with what happened.
    """

    def __init__(self, session: Session, study: Resolved, run: str, progress: Progress, done: int = 0) -> None:
        self._session, self._study, self._run, self._done, self._progress = session, study, run, done, progress
        self._terms, self._outside = study.terms, outside(study.terms)
        wanted = {*study.holders, *study.third_parties}
        if set(session.nodes) != wanted:
            raise EngineError(f"holders: got {', '.join(sorted(session.nodes))}; want {', '.join(sorted(wanted))}")
        if study.protection.REQUIRES.identities and not session.remembers:
            raise UsageError(
                f"protection {study.terms.protection.name}: keeps secrets between messages, and this engine may answer "
                "each from another process; want engine inprocess or processes"
            )
        self._names = {node: name for name, node in session.nodes.items()}
        self._survives = study.minimum_holders < len(study.holders)
        if self._survives:
            session.survive(study.holders)
        self.sizes: dict[str, int] = {}
        self.dropped: dict[str, str] = {}

    def statement(self, step: Step, number: int = 0, ask: Ask | None = None, stage: str = "", ended: Ended = "") -> str:
        """The JSON of one statement."""
        return Statement(
            version=VERSION,
            run=self._run,
            step=step,
            round=number,
            ask=ask.name if ask else "",
            share=ask.share if ask else 0.0,
            stage=stage,
            sizes=self.sizes,
            done=self._done,
            withheld=ended == "withheld",
            finished=ended == "finished",
            outside=self._outside,
            terms=self._terms,
        ).model_dump_json()

    def exchange(self, messages: Sequence[Message], timeout: float, what: str) -> dict[str, Message]:
        """Replies by party name. Raises EngineError naming the parties that were not asked or did not answer."""
        asked = {self._names[m.metadata.dst_node_id] for m in messages}
        gone = sorted(set(self._terms.holders) - asked)
        if gone:
            raise EngineError(f"{what}: {', '.join(gone)} not connected; want every holder")
        replies = self._delivered(messages, timeout)
        silent = sorted(asked - set(replies))
        if silent:
            raise EngineError(f"{what}: no answer from {', '.join(silent)} within {timeout:g} s")
        return replies

    def _delivered(self, messages: Sequence[Message], timeout: float) -> dict[str, Message]:
        """Replies by party name, in the order of the names."""
        waiting = {m.metadata.dst_node_id: self._names[m.metadata.dst_node_id] for m in messages}
        replies = {}
        for reply in self._session.grid.send_and_receive(messages, timeout=timeout):
            node = reply.metadata.src_node_id
            if node not in waiting:
                raise EngineError(
                    f"{self._names.get(node, 'a node that is no party')}: got an answer that was not asked for, or a "
                    "second one; want one to each message"
                )
            replies[waiting.pop(node)] = reply
        return {name: replies[name] for name in sorted(replies)}

    def requests(self, step: Step, number: int = 0, ask: Ask | None = None, ended: Ended = "") -> dict[str, Message]:
        """One statement to every holder, with an ask's public parameters."""
        config = ConfigRecord({"statement": self.statement(step, number, ask, ended=ended)})
        content: dict[str, ConfigRecord | ArrayRecord] = {"config": config}
        if ask and ask.arrays:
            content["arrays"] = arrays_out(ask.arrays)
        nodes = self._session.nodes
        return {name: Message(RecordDict(dict(content)), nodes[name], f"query.{step}") for name in self._terms.holders}

    def ask(self, step: Step, timeout: float, ended: Ended = "") -> dict[str, Message]:
        """Send one statement to every holder."""
        return self.exchange(list(self.requests(step, ended=ended).values()), timeout, step)

    def total(
        self,
        rounds: Rounds,
        requests: Callable[[], Mapping[str, Message]],
        kind: type[Facts],
        number: int,
        what: str,
        timeout: float,
    ) -> tuple[Aggregate, dict[str, Facts], Traffic]:
        """One protected sum: the protection's stages, with `requests` (one a holder) in the one that carries them.

        Raises what a party reported. A holder that is silent or fails has dropped out where the protection survives
        that; one that refuses ends the run.
        """
        facts: dict[str, Facts] = {}
        traffic = Traffic()
        asked = cache(requests)
        said = cache(lambda stage: ConfigRecord({"statement": self.statement("protect", number, stage=stage)}))

        def message(stage: Stage, name: str, packet: Packet) -> Message:
            if stage.carries:
                return _with_packet(asked()[name], packet)
            content = RecordDict({"config": said(stage.name)})
            put_packet(content, packet)
            return Message(content, self._session.nodes[name], "query.protect")

        def deliver(stage: Stage, messages: Sequence[Message]) -> dict[str, Message]:  # noqa: ARG001
            replies = self._delivered(messages, timeout)
            traffic.stages += 1
            traffic.down += sum(map(size, messages))
            traffic.up += sum(map(size, replies.values()))
            return replies

        def read(stage: Stage, name: str, reply: Message) -> Packet:
            fact = facts_of(reply, kind if stage.carries else Present, name)
            if isinstance(fact, Present) and fact.stage != stage.name:
                raise EngineError(f"{name}: got an answer to stage {harmless(fact.stage, 80)}; want {stage.name}")
            if getattr(fact, "run", self._run) != self._run:
                raise EngineError(f"{name}: got a contribution to another run; want run {self._run}")
            if getattr(fact, "round", number) != number:
                raise EngineError(f"{name}: got a contribution to sum {fact.round}; want sum {number}")  # type: ignore[attr-defined]
            try:
                packet = packet_in(reply.content)
            except Refused as error:
                raise EngineError(f"{name}: {error}") from None
            if stage.carries:
                facts[name] = fact  # type: ignore[assignment]
            return packet

        def missing(stage: Stage, names: Sequence[str]) -> str:
            label = what if stage.carries else f"{what}, {stage.name}"
            return f"{label}: no answer from {', '.join(names)} within {timeout:g} s"

        carrier = Carrier(
            message=message,
            deliver=deliver,
            read=read,
            silence=lambda _: f"no answer within {timeout:g} s",
            missing=missing,
            may_drop=self._terms.holders if self._survives else (),
            drop=self.dropped.__setitem__,
        )

        try:
            aggregate = conduct(rounds, carrier.send)
        except EngineError as error:
            lost = "".join(f"\n  {name}: {why}" for name, why in sorted(self.dropped.items()))
            raise EngineError(f"{error}{lost}") from error
        return aggregate, facts, traffic

    def admit(self) -> dict[str, Admission]:
        """Every holder's admission. When one refuses, all are asked to release and every refusal is named."""
        self._progress("ask holders to admit the study", 0, 1)
        replies = self.ask("admit", SHORT * 5)
        errors: list[StatfedError] = []
        plans: dict[str, Admission] = {}
        for name, reply in replies.items():
            try:
                plans[name] = facts_of(reply, Admission, name)
            except StatfedError as error:
                errors.append(error)
        if errors:
            others = f"\n{len(plans)} of {len(replies)} holders had agreed; nothing was spent" if plans else ""
            raise joined(errors, others)
        self._progress("ask holders to admit the study", 1, 1)
        return plans

    def release(self, timeout: float, ended: Ended = "") -> dict[str, Closing]:
        """Free what was reserved and not spent; every holder's closing account, as far as holders that dropped out
        can give theirs. Third parties forget their secrets. ended: with a result, or with none on seeing totals."""
        others = [name for name in self._session.nodes if name not in self._terms.holders]
        if others:
            config = ConfigRecord({"statement": self.statement("release")})
            nodes = self._session.nodes
            self._delivered(
                [Message(RecordDict({"config": config}), nodes[n], "query.release") for n in others], timeout
            )
        if not self.dropped:
            replies = self.ask("release", timeout, ended)
            return {name: facts_of(reply, Closing, name) for name, reply in replies.items()}
        closings = {}
        for name, reply in self._delivered(list(self.requests("release", ended=ended).values()), timeout).items():
            try:
                closings[name] = facts_of(reply, Closing, name)
            except EngineError:
                if name not in self.dropped:
                    raise
        return closings


def facts_of(reply: Message, kind: type[Facts], holder: str) -> Facts:
    """The facts in a reply. Raises what the holder reported, or EngineError on an answer that is not of this kind."""
    if reply.has_error():
        raise_failure(reply.error.reason or "no reason given", holder)
    try:
        facts = kind.model_validate_json(str(reply.content.config_records["facts"]["json"]))
    except (KeyError, ValidationError):
        raise EngineError(f"{holder}: got an answer that is not a {kind.__name__}") from None
    said = getattr(facts, "holder", holder)
    if said != holder:
        raise EngineError(f"{holder}: the answer says it is from {harmless(said, 80)}; want {holder}")
    if not all(math.isfinite(value) for value in dict(facts).values() if isinstance(value, float)):
        raise EngineError(f"{holder}: got a {kind.__name__} with a number that is not finite")
    return facts


def _with_packet(message: Message, packet: Packet) -> Message:
    """A message with a packet of its own: Flower's strategies give one content to all messages of a round."""
    content = RecordDict(dict(message.content))
    put_packet(content, packet)
    return Message(content, message.metadata.dst_node_id, message.metadata.message_type)
