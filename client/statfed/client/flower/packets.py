"""A protection's packets and public arrays in Flower messages, at the holder's end."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from statfed.core.method import Arrays
from statfed.core.protection import Packet
from statfed.core.wire import Encoded, join, split

PACKET, ARRAYS = "packet", "packet-arrays"


def put_packet(content: RecordDict, packet: Packet) -> None:
    """Add a protection's packet to a message. Raises UsageError on what may not travel."""
    texts, arrays = split(packet)
    content[PACKET] = ConfigRecord({**texts})
    content[ARRAYS] = ArrayRecord(
        {name: Array(item.dtype, item.shape, "numpy.ndarray", item.data) for name, item in arrays.items()}
    )


def packet_in(content: RecordDict) -> Packet:
    """The protection's packet in a message: bytes and arrays by name. Raises Refused on anything else."""
    texts = content.config_records.get(PACKET, ConfigRecord())
    return join(texts, _encoded(content.array_records.get(ARRAYS, ArrayRecord())))


def arrays_in(record: ArrayRecord) -> Arrays:
    """Arrays by name. Raises Refused on anything that is no array of numbers."""
    return {name: np.asarray(item) for name, item in join({}, _encoded(record)).items()}


def _encoded(record: ArrayRecord) -> dict[str, Encoded]:
    return {name: Encoded(item.dtype, item.shape, item.data) for name, item in record.items()}
