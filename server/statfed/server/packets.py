"""A protection's packets in Flower messages, and what messages weigh."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from statfed.core.method import Arrays
from statfed.core.protection import Packet
from statfed.core.wire import Encoded, encode, join, split

PACKET, ARRAYS = "packet", "packet-arrays"


def put_packet(content: RecordDict, packet: Packet) -> None:
    """Add a protection's packet to a message. Raises UsageError on what may not travel."""
    texts, arrays = split(packet)
    content[PACKET] = ConfigRecord({**texts})
    content[ARRAYS] = ArrayRecord({name: _array(item) for name, item in arrays.items()})


def packet_in(content: RecordDict) -> Packet:
    """The protection's packet in a message: bytes and arrays by name. Raises Refused on anything else."""
    texts = content.config_records.get(PACKET, ConfigRecord())
    arrays = content.array_records.get(ARRAYS, ArrayRecord())
    return join(texts, {name: Encoded(item.dtype, item.shape, item.data) for name, item in arrays.items()})


def arrays_out(arrays: Arrays) -> ArrayRecord:
    """Named arrays as a Flower record."""
    return ArrayRecord({name: _array(encode(item, name)) for name, item in arrays.items()})


def size(message: Message) -> int:
    """Bytes of arrays and packets in a message."""
    if not message.has_content():
        return 0
    arrays = sum(len(a.data) for record in message.content.array_records.values() for a in record.values())
    packet = message.content.config_records.get(PACKET, ConfigRecord())
    return arrays + sum(len(item) for item in packet.values() if isinstance(item, bytes))


def _array(item: Encoded) -> Array:
    return Array(item.dtype, item.shape, "numpy.ndarray", item.data)
