"""The Flower ClientApp of a data holder: carries statements to `Holder` and answers back, and nothing else.

Only the text of a public error travels. Whatever else goes wrong is written to the holder's own log, and the
coordinator learns that something failed.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from statfed.client.flower.journal import journal_of
from statfed.client.flower.packets import arrays_in, packet_in, put_packet
from statfed.client.holder import Holder
from statfed.client.pilot import studies
from statfed.client.third_party import FILE as PARTY
from statfed.client.third_party import ThirdParty, approval_of
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, StatfedError, UsageError
from statfed.core.statement import failure

PUBLIC_FAILURE = 200  # Flower error code of a refusal whose text is written to be public
INTERNAL_FAILURE = 201  # anything else; the details stay at the holder

log = logging.getLogger("statfed.holder")
app = ClientApp()


@lru_cache(maxsize=4096)
def _party(home: str) -> Holder | ThirdParty:
    folder = Path(home)
    return ThirdParty(folder) if (folder / PARTY).exists() else Holder(folder)


def answer(message: Message, context: Context) -> Message:
    """Answer one statement of the coordinator. Never raises: whatever goes wrong, only a public text leaves."""
    return _witnessed(message, context, _stated)


def correspond(message: Message, context: Context) -> Message:
    """Answer a letter of a pilot's coordinator: proposals, and what was decided of them. Never raises."""
    return _witnessed(message, context, _written)


def _stated(message: Message, home: Path) -> RecordDict:
    party = _party(str(home))
    records = message.content.array_records if message.has_content() else {}
    statement = _text(message, "statement")
    public = arrays_in(records.get("arrays") or ArrayRecord())
    reply = party.answer(statement, public, packet_in(message.content))
    content = RecordDict({"facts": ConfigRecord({"json": reply.facts.model_dump_json()})})
    if reply.packet is not None:
        put_packet(content, reply.packet)
    return content


def _written(message: Message, home: Path) -> RecordDict:
    letter = _text(message, "letter")
    try:
        rules = approval_of(home)
    except UsageError as error:
        log.error("policy: %s", error)
        raise Refused("this party's policy cannot be read; its own log says why") from None
    mail = studies.answer(home, letter, rules, datetime.now(UTC))
    return RecordDict({"facts": ConfigRecord({"json": mail.model_dump_json()})})


def _witnessed(message: Message, context: Context, reply: Callable[[Message, Path], RecordDict]) -> Message:
    """The reply; in a pilot, the message is in this party's log before it is answered, and the answer before it
    leaves."""
    try:
        home = str(context.node_config["home"])
        journal = journal_of(home)
        if journal is None:
            return _answer(message, Path(home), reply)
        salt = journal.received(message)
        return journal.answered(_answer(message, Path(home), reply), salt)
    except Exception as error:  # noqa: BLE001
        return _failed(message, error)


def _answer(message: Message, home: Path, reply: Callable[[Message, Path], RecordDict]) -> Message:
    try:
        return Message(reply(message, home), reply_to=message)
    except Exception as error:  # noqa: BLE001
        return _failed(message, error)


def _failed(message: Message, error: Exception) -> Message:
    """What is told of an error."""
    hidden: StatfedError
    if isinstance(error, Refused | UsageError):  # their text is written to be public
        log.warning("refused: %s", " | ".join(str(error).splitlines()))
        return Message(Error(PUBLIC_FAILURE, failure(error)), reply_to=message)
    if isinstance(error, LedgerCorrupt):
        log.error("ledger: %s", error)
        hidden = LedgerCorrupt("its privacy ledger does not verify; the holder's own log has the details")
    elif isinstance(error, EngineError):
        log.error("failed: %s", error)
        hidden = EngineError("a failure at the holder, such as a disk that is full; its own log has the details")
    else:
        log.error("internal error", exc_info=error)
        hidden = EngineError("internal error at the holder; its own log has the details")
    return Message(Error(INTERNAL_FAILURE, failure(hidden)), reply_to=message)


def _text(message: Message, name: str) -> str:
    """The statement or letter in a message. Raises Refused where there is none."""
    records = message.content.config_records if message.has_content() else {}
    found = records.get("config", ConfigRecord()).get(name)
    if not isinstance(found, str):
        raise Refused(f"message: got one without a {name}; want a text `{name}` in the record `config`")
    return found


app.query("admit")(answer)
app.query("ask")(answer)
app.query("protect")(answer)
app.query("release")(answer)
app.query("study")(correspond)
