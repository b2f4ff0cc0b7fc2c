"""The Flower ClientApp of a data holder: carries statements to `Holder` and answers back, and nothing else.

Only the text of a public error travels. Whatever else goes wrong is written to the holder's own log, and the
coordinator learns that something failed.
"""

import logging
from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from statfed.client.flower.packets import arrays_in, packet_in, put_packet
from statfed.client.holder import Holder
from statfed.client.third_party import FILE as PARTY
from statfed.client.third_party import ThirdParty
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
    """Answer one message of the coordinator. Never raises: whatever goes wrong, only a public text leaves."""
    try:
        party = _party(str(context.node_config["home"]))
        records = message.content.array_records if message.has_content() else {}
        statement = _statement(message)
        public = arrays_in(records.get("arrays") or ArrayRecord())
        reply = party.answer(statement, public, packet_in(message.content))
        content = RecordDict({"facts": ConfigRecord({"json": reply.facts.model_dump_json()})})
        if reply.packet is not None:
            put_packet(content, reply.packet)
        return Message(content, reply_to=message)
    except (Refused, UsageError) as error:  # their text is written to be public
        log.warning("refused: %s", " | ".join(str(error).splitlines()))
        return Message(Error(PUBLIC_FAILURE, failure(error)), reply_to=message)
    except LedgerCorrupt as error:
        log.error("ledger: %s", error)
        hidden: StatfedError = LedgerCorrupt("its privacy ledger does not verify; the holder's own log has the details")
    except EngineError as error:
        log.error("failed: %s", error)
        hidden = EngineError("a failure at the holder, such as a disk that is full; its own log has the details")
    except Exception:
        log.exception("internal error")
        hidden = EngineError("internal error at the holder; its own log has the details")
    return Message(Error(INTERNAL_FAILURE, failure(hidden)), reply_to=message)


def _statement(message: Message) -> str:
    """The statement in a message. Raises Refused where there is none."""
    records = message.content.config_records if message.has_content() else {}
    found = records.get("config", ConfigRecord()).get("statement")
    if not isinstance(found, str):
        raise Refused("message: got one without a statement; want a text `statement` in the record `config`")
    return found


app.query("admit")(answer)
app.query("ask")(answer)
app.query("protect")(answer)
app.query("release")(answer)
