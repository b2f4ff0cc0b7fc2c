"""What a party of a pilot writes down of each message: one entry before it is answered, one before the answer leaves.

What cannot be written down is not answered, and an answer that cannot be is not sent. A home of no pilot has no log.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict

from statfed.client.pilot.joining import Own, standing
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.pilot.audit import CONTRADICTED, COORDINATOR, FILE, OWNER, Fact, record
from statfed.core.pilot.crosscheck import ANSWERED, RECEIVED
from statfed.core.pilot.witness import HEADS, RECORD, Noted, Said, Witness, about, content_digest, plain, text_digest

log = logging.getLogger("statfed.holder")
_FACTS = 100_000  # characters of an answer's facts in which its ledger's head is looked for


@dataclass
class Journal:
    """The log of one home, as the app of a party uses it. Every error but Refused is an EngineError, for this party's
    eyes: its text may name files."""

    home: Path
    witness: Witness

    def received(self, message: Message) -> str:
        """Write down a message, with the heads that came with it. The salt of its digest, and of its answer's.

        Raises Refused where the coordinator's log contradicts what this party has noted of it, which is written down
        too; EngineError where nothing can be written.
        """
        content = message.content if message.has_content() else RecordDict()
        found = content.config_records.get(RECORD)
        try:
            said = Said.parse(found) if found is not None else Said(secrets.token_hex(16))
        except ValueError as error:
            raise Refused(f"audit: {error}") from None
        digest, size = content_digest(content, said.salt)
        facts: dict[str, Fact] = {"digest": digest, "size": size, "type": plain(message.metadata.message_type)}
        facts |= about(str(content.config_records.get("config", ConfigRecord()).get("statement", "")))
        with _private():
            own = standing(self.home)
            if own is None:
                raise EngineError(f"{self.home}: got a log without {OWNER} beside it; want the home as it was joined")
            if heads := self._new(own, said, message.metadata.run_id):
                facts[HEADS] = [one.facts() for one in heads]
            record(self.home, RECEIVED, facts)
        return said.salt

    def answered(self, reply: Message, salt: str) -> Message:
        """Write down an answer, and send this log's head along with it. Raises EngineError where it cannot be written:
        the answer is not to leave then."""
        facts: dict[str, Fact]
        if reply.has_error():
            digest, size = text_digest(reply.error.reason or "", salt)
            facts = {"digest": digest, "size": size, "outcome": "error", "code": reply.error.code}
        else:
            digest, size = content_digest(reply.content, salt)
            facts = {"digest": digest, "size": size, "outcome": "answer", **_ledger(reply)}
        with _private():
            head = record(self.home, ANSWERED, facts)
        if not reply.has_error():
            reply.content[RECORD] = ConfigRecord({**Said(salt, head).record()})
        return reply

    def _new(self, own: Own, said: Said, run: int) -> list[Noted]:
        """The heads that are new here. The coordinator's own has to go on from what is known of it. One of another
        party that contradicts is that party's doing or the coordinator's: it is written down, and `verify` judges."""
        new: list[Noted] = []
        if said.head is not None:
            try:
                if self.witness.check(COORDINATOR, own.pilot.coordinator, said.head, run):
                    new.append(Noted(COORDINATOR, said.head))
            except Refused as error:
                self._contradicted(COORDINATOR, said.head.facts(), error)
                raise
        for one in said.heads:
            pin = own.parties.root.get(one.whose)
            if pin is None:  # a party that this home has not joined with yet
                continue
            try:
                if self.witness.check(one.whose, pin, one.head):
                    new.append(one)
            except Refused as error:
                self._contradicted(one.whose, one.head.facts(), error)
        return new

    def _contradicted(self, whose: str, head: dict[str, Fact], error: Refused) -> None:
        log.error("%s", error)
        record(self.home, CONTRADICTED, {"whose": whose, "what": str(error), "head": head})


def journal_of(home: str) -> Journal | None:
    """The journal of a home; None where it is of no pilot."""
    folder = Path(home)
    return _journal(folder) if (folder / OWNER).exists() or (folder / FILE).exists() else None


@lru_cache(maxsize=4096)
def _journal(home: Path) -> Journal:
    return Journal(home, Witness(home))


@contextmanager
def _private() -> Iterator[None]:
    """Words for the user of this machine, as an error whose words do not travel."""
    try:
        yield
    except UsageError as error:
        raise EngineError(str(error)) from None


def _ledger(reply: Message) -> dict[str, Fact]:
    """The head of this party's ledger, as its answer tells it."""
    text = str(reply.content.config_records.get("facts", ConfigRecord()).get("json", ""))[:_FACTS]
    _, there, rest = text.partition('"ledger_head":"')
    return {"ledger": rest.partition('"')[0][:64]} if there else {}
