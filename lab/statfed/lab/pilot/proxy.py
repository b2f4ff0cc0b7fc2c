"""A line that fails: a TCP proxy on the loopback, between one party and the hub, which cuts, stalls, slows and repeats.

Where the machine permits neither namespaces with traffic control nor a firewall, this is the network: it sees what a
network sees, bytes under TLS, and does to them what a network or somebody on it can do.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["cut", "refuse", "stall", "drop", "reset", "double"]
_CHUNK = 16384
_TICK = 0.2


@dataclass
class Line:
    """What the line does now. delay: seconds each way; rate: bytes a second each way, None for all; fault: none, or

    cut: connections end at once, and new ones too; refuse: new ones end at once; stall: bytes are held; drop: bytes are
    lost without a word, connections stay (half-open); reset: each connection ends after `after` bytes; double: every
    byte that comes from the party goes on twice. Changes hold at once, for open connections too.
    """

    delay: float = 0.0
    rate: float | None = None
    fault: Fault | None = None
    after: int = 4096


@dataclass
class Proxy:
    """Forwards connections to `target`, as `line` says. taken: what the party sent over its last few connections."""

    target: tuple[str, int]
    line: Line = field(default_factory=Line)
    taken: list[bytearray] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def heal(self) -> None:
        """A line without faults. What was held or lost stays so: connections from before it end."""
        broken = self.line.fault in ("drop", "double")
        self.line.fault, self.line.delay, self.line.rate = None, 0.0, None
        if broken:
            self.cut()

    def cut(self) -> None:
        """End all open connections."""
        with self._lock:
            opened, self._open = self._open, set()
        for one in opened:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def replay(self, seconds: float = 2.0) -> int:
        """Send the hub again what the party sent over earlier connections, each over a new one. How many it was."""
        with self._lock:
            recorded = [bytes(one) for one in self.taken]
        for content in recorded:
            with contextlib.suppress(OSError), socket.create_connection(self.target, timeout=seconds) as again:
                again.sendall(content)
                while again.recv(_CHUNK):
                    pass
        return len(recorded)

    def _serve(self, listener: socket.socket) -> None:
        listener.settimeout(_TICK)
        while not self._stopped.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            if self.line.fault in ("cut", "refuse"):
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """One connection, both ways, until either end closes it or the line does."""
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            client.close()
            return
        recorded = bytearray()
        with self._lock:
            self._open |= {client, server}
            self.taken = [*self.taken[-3:], recorded]
        try:
            with client, server, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
                ready.register(client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, client)
                self._pump(ready, client, recorded)
        finally:
            with self._lock:
                self._open -= {client, server}

    def _pump(self, ready: selectors.BaseSelector, client: socket.socket, recorded: bytearray) -> None:
        carried = 0
        while not self._stopped.is_set() and self.line.fault != "cut":
            if self.line.fault == "stall":
                time.sleep(_TICK / 10)
                continue
            for key, _ in ready.select(_TICK):
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                content = source.recv(_CHUNK)
                carried += len(content)
                if not content or (self.line.fault == "reset" and carried > self.line.after):
                    return
                self._pass(content, key.data, recorded if source is client else None)

    def _pass(self, content: bytes, to: socket.socket, recorded: bytearray | None) -> None:
        line = self.line
        if line.delay or line.rate:
            time.sleep(line.delay + (len(content) / line.rate if line.rate else 0.0))
        if line.fault == "drop":
            return
        if recorded is not None and len(recorded) < 1 << 20:
            recorded += content
        to.sendall(content * 2 if line.fault == "double" and recorded is not None else content)


@contextlib.contextmanager
def proxy(target: tuple[str, int], port: int = 0) -> Iterator[Proxy]:
    """A proxy that is up. port: where it listens on the loopback; 0 for any that is free."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        made = Proxy(target)
        made.port = listener.getsockname()[1]
        thread = threading.Thread(target=made._serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made._stopped.set()
            made.cut()
            thread.join()
