"""A protection's packets in Flower messages, and what messages weigh."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from statfed.core.protection import Packet


def put_packet(content: RecordDict, packet: Packet) -> None:
    """Add a protection's packet to a message."""
    content["packet"] = ConfigRecord({name: item for name, item in packet.items() if isinstance(item, bytes)})
    arrays = {name: Array(item) for name, item in packet.items() if not isinstance(item, bytes)}
    content["packet-arrays"] = ArrayRecord(arrays)


def packet_in(content: RecordDict) -> Packet:
    """The protection's packet in a message: bytes and arrays by name."""
    given = content.config_records.get("packet", ConfigRecord())
    arrays = content.array_records.get("packet-arrays", ArrayRecord())
    found = {name: item for name, item in given.items() if isinstance(item, bytes)}
    return found | {name: array.numpy() for name, array in arrays.items()}


def size(message: Message) -> int:
    """Bytes of arrays and packets in a message."""
    if not message.has_content():
        return 0
    arrays = sum(len(a.data) for record in message.content.array_records.values() for a in record.values())
    packet = message.content.config_records.get("packet", ConfigRecord())
    return arrays + sum(len(item) for item in packet.values() if isinstance(item, bytes))
