"""Messages of one run with every holder: statements out, checked facts back. Training and queries share it.

Every exchange needs every holder: one that refuses, fails or stays silent ends it with its name.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from pydantic import BaseModel, ValidationError

from statfed.core import VERSION
from statfed.core.analysis import Arrays, Ask
from statfed.core.errors import EngineError, Refused, StatfedError
from statfed.core.progress import Progress
from statfed.core.query import Query
from statfed.core.statement import Closing, Statement, Step, raise_failure
from statfed.core.study import Terms
from statfed.server.engine import Session

SHORT = 60.0  # seconds that admission and release may take

for _name in ("flwr", "flwr.serverapp"):
    logging.getLogger(_name).setLevel(logging.ERROR)

Facts = TypeVar("Facts", bound=BaseModel)


class Exchange:
    """One run's messages. done: rounds that an interrupted run had finished before this one goes on."""

    def __init__(self, session: Session, terms: Terms | Query, run: str, progress: Progress, done: int = 0) -> None:
        self._session, self._terms, self._run, self._done, self._progress = session, terms, run, done, progress
        if set(session.nodes) != set(terms.holders):
            raise EngineError(
                f"holders: got {', '.join(sorted(session.nodes))}; want {', '.join(sorted(terms.holders))}"
            )
        self._names = {node: name for name, node in session.nodes.items()}

    def statement(self, step: Step, number: int = 0, ask: str = "") -> str:
        """The JSON of one statement."""
        return Statement(
            version=VERSION, run=self._run, step=step, round=number, ask=ask, done=self._done, terms=self._terms
        ).model_dump_json()

    def exchange(self, messages: Sequence[Message], timeout: float, what: str) -> dict[str, Message]:
        """Replies by holder name. Raises EngineError naming the holders that were not asked or did not answer."""
        asked = {self._names[m.metadata.dst_node_id] for m in messages}
        if asked != set(self._session.nodes):
            gone = sorted(set(self._session.nodes) - asked)
            raise EngineError(f"{what}: {', '.join(gone)} not connected; want every holder")
        replies = {}
        for reply in self._session.grid.send_and_receive(messages, timeout=timeout):
            replies[self._names[reply.metadata.src_node_id]] = reply
        silent = sorted(asked - set(replies))
        if silent:
            raise EngineError(f"{what}: no answer from {', '.join(silent)} within {timeout:g} s")
        return {name: replies[name] for name in sorted(replies)}

    def ask(self, step: Step, timeout: float, number: int = 0, ask: Ask | None = None) -> dict[str, Message]:
        """Send one statement to every holder, with an ask's public parameters."""
        config = ConfigRecord({"statement": self.statement(step, number, ask.name if ask else "")})
        content: dict[str, ConfigRecord | ArrayRecord] = {"config": config}
        if ask and ask.arrays:
            content["arrays"] = arrays_out(ask.arrays)
        messages = [Message(RecordDict(dict(content)), node, f"query.{step}") for node in self._session.nodes.values()]
        return self.exchange(messages, timeout, f"{step} {ask.name if ask else ''}".strip())

    def admit(self, kind: type[Facts]) -> dict[str, Facts]:
        """Every holder's plan. When one refuses, all are asked to release and every refusal is named."""
        self._progress("ask holders to admit the study", 0, 1)
        replies = self.ask("admit", SHORT * 5)
        errors: list[StatfedError] = []
        plans = {}
        for name, reply in replies.items():
            try:
                plans[name] = facts_of(reply, kind, name)
            except StatfedError as error:
                errors.append(error)
        if errors:
            others = f"\n{len(plans)} of {len(replies)} holders had agreed; nothing was spent" if plans else ""
            raise joined(errors, others)
        self._progress("ask holders to admit the study", 1, 1)
        return plans

    def release(self, timeout: float) -> dict[str, Closing]:
        """Free what was reserved and not spent; every holder's closing account."""
        return {name: facts_of(reply, Closing, name) for name, reply in self.ask("release", timeout).items()}


def joined(errors: Sequence[StatfedError], others: str = "") -> StatfedError:
    """Several holders' errors as one; a refusal among them makes it a refusal."""
    kind = Refused if any(isinstance(error, Refused) for error in errors) else errors[0].__class__
    return kind("\n".join(str(error) for error in errors) + others)


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
        raise EngineError(f"{holder}: the answer says it is from {said}; want {holder}")
    return facts


def arrays_out(arrays: Arrays) -> ArrayRecord:
    """Named arrays as a Flower record."""
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})


def arrays_in(reply: Message, holder: str) -> Mapping[str, object]:
    """Named arrays of a reply. Raises EngineError where there are none."""
    try:
        return {name: array.numpy() for name, array in reply.content.array_records["arrays"].items()}
    except (KeyError, ValueError):
        raise EngineError(f"{holder}: got an answer without arrays; want its contribution") from None
