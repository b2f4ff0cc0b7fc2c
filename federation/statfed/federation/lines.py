"""Addresses of simulated parties that send to each other directly: ports of this machine that are free just now.

In a pilot each organisation writes its own address and the others' into its file ([direct]).
"""

import socket
from collections.abc import Iterable
from contextlib import ExitStack

from statfed.client.guard.addresses import Direct
from statfed.core.discovery import is_linkage
from statfed.core.linkage import Linking
from statfed.core.protection import named_protection
from statfed.core.terms import Protection

LOOPBACK = "127.0.0.1"


def lines(protection: Protection, names: Iterable[str]) -> dict[str, Direct]:
    """By party, where it listens and calls, of a study that says `direct`; empty for any other."""
    if not is_linkage(protection.name):
        return {}
    _, options = named_protection(protection.name, protection.options)
    if not isinstance(options, Linking) or not options.direct:
        return {}
    with ExitStack() as held:  # all at once, so that no two get the same one
        taken = {name: held.enter_context(socket.create_server((LOOPBACK, 0))) for name in sorted(names)}
        there = {name: f"{LOOPBACK}:{one.getsockname()[1]}" for name, one in taken.items()}
    return {
        name: Direct(listen=own, peers={other: at for other, at in there.items() if other != name})
        for name, own in there.items()
    }
