"""Where a party listens for others of a linkage, and where it calls them: [direct] in policy.toml and party.toml.

Addresses of the others stand at home, beside their pinned keys. Neither a study nor the coordinator says whom a party
calls: it could have it knock at any door of its network.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from statfed.core.section import NAME, Strict

_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):([1-9][0-9]{0,4})")


def _address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if not found or int(found[3]) > 65_535:
        raise ValueError(f"got {value!r}; want host:port, as line.office.example:9443 or [2001:db8::1]:9443")
    return value


Address = Annotated[str, AfterValidator(_address)]


class Direct(Strict):
    """Lines to other parties of a linkage, beside the coordinator; open while a run is that uses them."""

    listen: Address | None = Field(
        default=None, description="host:port at which the others call this party; not set: no direct line"
    )
    peers: dict[str, Address] = Field(
        default_factory=dict, description="name to host:port of the parties that this one calls"
    )
    megabytes: int = Field(
        default=1_024, ge=1, le=65_536, description="most that waits here of what others have sent for one run"
    )
    seconds: float = Field(default=600.0, gt=0, le=86_400, description="most that one packet may take to arrive")

    @field_validator("peers")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(f"got {name!r}; want names of parties: a-z, 0-9 and hyphens")
        return value

    def lacks(self, others: set[str]) -> str | None:
        """What is missing for lines to the parties `others`; None for nothing."""
        if self.listen is None:
            return "direct: got no address to listen at; want [direct] listen in this party's own file"
        if lost := sorted(others - set(self.peers)):
            return f"direct: got no address of {', '.join(lost)}; want it in [direct.peers] of this party's own file"
        return None
