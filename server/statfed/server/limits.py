"""What the hub of a pilot puts up with: rate, size and time, for callers known and unknown."""

from typing import Self

from pydantic import Field, model_validator

from statfed.core.section import Strict

MIB = 2**20


class Limits(Strict):
    """What [limits] of a coordinator's pilot.toml says.

    connections, connections_per_address: at once, from the first packet on. connects_per_minute, refusals_per_minute:
    from one address, as token buckets of a minute's size; refused is whatever is not answered well. largest_request,
    in_flight: bytes of one request, and of all that are held in memory until they are answered. slowest: bytes a second
    that a body or an answer has to move at the least, after half a minute. Of IPv6 an address is a network of 64 bits.
    """

    connections: int = Field(default=512, ge=8, le=65536)
    connections_per_address: int = Field(default=64, ge=4)
    connects_per_minute: int = Field(default=1200, ge=10)
    refusals_per_minute: int = Field(default=30, ge=5)
    largest_request: int = Field(default=256 * MIB, ge=MIB)
    in_flight: int = Field(default=1024 * MIB, ge=MIB)
    slowest: int = Field(default=32 * 1024, ge=1)

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.in_flight < self.largest_request:
            raise ValueError(f"in_flight: got {self.in_flight}; want largest_request, {self.largest_request}, or more")
        return self


LOOPBACK = Limits(
    connections=65536, connections_per_address=65536, connects_per_minute=10**9, refusals_per_minute=10**9
)
"""Of a federation on one machine, whose holders all have one address."""
