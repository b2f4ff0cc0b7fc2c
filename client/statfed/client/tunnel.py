"""A program's own connections to its like at another party, through a direct line.

Some programs bring a protocol of their own and talk on sockets. Theirs are Unix sockets in a folder that its owner
alone can open; each connection to one of them becomes a stream of the direct line (`statfed.client.direct`), under the
same keys, and at the other end a connection to that party's program. Nothing of it is ever on a port of its own.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK = 2**18
"""Bytes that are read at once: what one message of a line carries."""
log = logging.getLogger("statfed.holder")
Call = Callable[[Iterator[bytes]], Any]
"""Opens a stream: chunks out to chunks in, with `cancel`."""


def connected(path: Path) -> socket.socket:
    """A connection to a Unix socket of this machine. Raises OSError."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def read(link: socket.socket) -> Iterator[bytes]:
    """What comes out of a connection, until its end."""
    with suppress(OSError):
        while chunk := link.recv(CHUNK):
            yield chunk


def write(link: socket.socket, chunks: Iterable[bytes]) -> None:
    """Put chunks into a connection, then say that there are no more. A line that breaks ends it both ways."""
    try:
        for chunk in chunks:
            link.sendall(chunk)
        link.shutdown(socket.SHUT_WR)
    except Exception as error:  # noqa: BLE001
        log.debug("tunnel: %s", type(error).__name__)
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


class Tunnel:
    """Listens at a Unix socket and carries each connection over a line, until it is closed."""

    def __init__(self, path: Path, call: Call) -> None:
        self._call, self._open = call, True
        self._links: list[tuple[socket.socket, Any]] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self._open:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._open:
                    link.close()
                    return
                stream = self._call(read(link))
                self._links.append((link, stream))
            threading.Thread(target=write, args=(link, stream), daemon=True).start()

    def close(self) -> None:
        """End it, and every connection that it carries."""
        with self._lock:
            self._open = False
            links, self._links = self._links, []
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link, stream in links:
            stream.cancel()
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
