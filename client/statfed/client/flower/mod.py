"""The protection of any Flower ClientApp, as one mod: what the app returns leaves only inside a protected sum.

    app = ClientApp(mods=[protect()])

Guarantee: of the functions that the mod is put around, no reply leaves but a packet of the agreed protection, the
party's name and token, and errors in public words. A message outside a protected sum is refused before the app sees
it, and what goes wrong later is told as an error, never answered in clear. The mod has to come first in `mods`: what
stands before it sees the packets, what stands after it (noise, say) works on the app's reply as ever.

The other end is `statfed.server.protected_grid.ProtectedGrid`.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from flwr.app import Array, ConfigRecord, Context, Error, Message, RecordDict

from statfed.client.flower.packets import ARRAYS, PACKET, packet_in, put_packet
from statfed.client.flower.party import ANSWER, SOCKET, Seats, remote
from statfed.core.averaging import Said, contribution
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.protection import Packet, text
from statfed.core.statement import failure

RECORD = "statfed"
NODE_CONFIG = "statfed-home"
PUBLIC_FAILURE, INTERNAL_FAILURE = 200, 201  # Flower error codes, as `statfed.client.flower.app` uses them

App = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, App], Message]
Home = str | Path | Callable[[Context], str | Path]
log = logging.getLogger("statfed.holder")


def protect(home: Home | None = None) -> Mod:
    """The mod. home: folder with party.toml and identity.key, or how to find it from the context of a node; without
    one, `statfed-home` of the node's configuration says it."""
    seats = Seats()

    def mod(message: Message, context: Context, call_next: App) -> Message:
        try:
            content = _answer(seats, _home(home, context), message, context, call_next)
            return Message(content, reply_to=message)
        except (Refused, UsageError, EngineError) as error:  # their texts are written to be public
            log.warning("refused: %s", " | ".join(str(error).splitlines()))
            return Message(Error(PUBLIC_FAILURE, failure(error)), reply_to=message)
        except Exception:
            log.exception("internal error")
        hidden: StatfedError = EngineError("internal error at the holder; its own log has the details")
        return Message(Error(INTERNAL_FAILURE, failure(hidden)), reply_to=message)

    return mod


def _home(home: Home | None, context: Context) -> Path:
    found = home(context) if callable(home) else home or context.node_config.get(NODE_CONFIG)
    if not found:
        raise UsageError(f"home: got none; want the folder of party.toml as {NODE_CONFIG} in the node's configuration")
    return Path(str(found)).resolve()


def _answer(seats: Seats, home: Path, message: Message, context: Context, call_next: App) -> RecordDict:
    """The content of the reply."""
    kind = message.metadata.message_type.partition(".")[0]
    records = message.content.config_records if message.has_content() else {}
    if RECORD not in records:
        raise Refused(f"{kind}: got a message outside a protected sum; want a ServerApp that uses ProtectedGrid")
    said = Said.parse(str(records[RECORD].get("json")))
    if said.kind != kind:
        raise Refused(f"message: got type {kind} for a sum of type {said.kind}; want them alike")
    packet = packet_in(message.content)
    ask = remote if (home / SOCKET).exists() else seats.ask
    place = (home, context.run_id, context.node_id)
    if said.step != "contribute" or said.facts is None:
        return _content(ask(*place, said, packet, {}))
    ask(*place, said.model_copy(update={"step": "admit"}), {}, {})
    message.content = RecordDict({k: v for k, v in message.content.items() if k not in (RECORD, PACKET, ARRAYS)})
    packet = {**packet, "request": _request(message.content)}
    reply = call_next(message, context)
    if not reply.has_content():
        raise EngineError("the app answered with an error; the holder's own log has the details")
    records_out = reply.content
    if len(records_out.metric_records) != 1 or records_out.config_records:
        raise Refused(
            f"reply: got {len(records_out.metric_records)} metric and {len(records_out.config_records)} configuration "
            "records; want one metric record and no configuration: only numbers can be averaged"
        )
    wanted = 1 if said.kind == "train" else 0
    if len(records_out.array_records) != wanted:
        raise Refused(f"reply: got {len(records_out.array_records)} array records; want {wanted} to {said.kind}")
    arrays = {k: a.numpy() for record in records_out.array_records.values() for k, a in record.items()}
    metrics = dict(next(iter(records_out.metric_records.values())))
    return _content(ask(*place, said, packet, contribution(said.facts, said.kind, arrays, metrics)))


def _request(content: RecordDict) -> bytes:
    """SHA-256 of what the app is asked. Masks and pads are bound to it, so that nodes that were sent different models
    never add up (Pasquini, Francati and Ateniese 2022)."""
    digest = hashlib.sha256()
    for name, record in sorted(content.items()):
        digest.update(json.dumps([name, type(record).__name__]).encode())
        for key, item in sorted(record.items()):
            digest.update(json.dumps(key).encode())
            if isinstance(item, Array):
                digest.update(json.dumps([item.dtype, list(item.shape)]).encode())
                digest.update(item.data)
            else:
                digest.update(repr(item).encode())
    return digest.digest()


def _content(packet: Packet) -> RecordDict:
    """A reply's records. A party's own facts, if any, go under the reserved name."""
    facts = ConfigRecord()
    if ANSWER in packet:
        facts["json"] = text(packet, ANSWER).decode()
    content = RecordDict({RECORD: facts})
    put_packet(content, {name: item for name, item in packet.items() if name != ANSWER})
    return content
