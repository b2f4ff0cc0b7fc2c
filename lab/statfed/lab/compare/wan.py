"""Time over lines between organisations: modelled from measured bytes and stages, and always called so.

In each stage every holder gets a message and answers it, at the same time as the others: the slowest line decides. A
coordinator is taken to have the bandwidth of all holders together. Processor time comes on top; it is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from statfed.lab.compare.trial import Role


@dataclass(frozen=True)
class Line:
    """A holder's line to the coordinator. bandwidth: Mbit/s; latency: ms there and back."""

    id: str
    title: str
    bandwidth: float
    latency: float


LINES = (
    Line("national", "offices of one country: 1 Gbit/s, 10 ms", 1000.0, 10.0),
    Line("office", "offices of a region: 100 Mbit/s, 40 ms", 100.0, 40.0),
    Line("remote", "between continents: 10 Mbit/s, 250 ms", 10.0, 250.0),
)


def seconds(roles: Sequence[Role], line: Line) -> float:
    """Modelled seconds on the line: a latency for every stage, and the bytes of the holder that moves most."""
    holders = [role for role in roles if role.role != "coordinator"]
    stages = max((role.messages for role in holders), default=0)
    most = max((role.sent + role.received for role in holders), default=0)
    return stages * line.latency / 1e3 + 8.0 * most / (line.bandwidth * 1e6)
