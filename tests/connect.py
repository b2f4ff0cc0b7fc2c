"""A small HTTP proxy on loopback that knows CONNECT alone (RFC 9110, 9.3.6) and remembers what it could see."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Seen:
    """What a proxy saw. heads: of requests, as they came; inside: the first bytes of each tunnel."""

    url: str
    heads: list[bytes] = field(default_factory=list)
    inside: list[bytes] = field(default_factory=list)


@contextmanager
def proxy(answer: bytes = b"200 OK", wants: bytes | None = None) -> Iterator[Seen]:
    """answer: to CONNECT; wants: a line that its head has to have, else it answers 407."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen = Seen(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def served(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += caller.recv(4096)
            seen.heads.append(head)
            status = b"407 Proxy Authentication Required" if wants is not None and wants not in head else answer
            caller.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            if not status.startswith(b"200"):
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as far:
                back = threading.Thread(target=_pump, args=(far, caller, None), daemon=True)
                back.start()
                _pump(caller, far, seen.inside)
                back.join(5)

    def accept() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=served, args=(caller,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _pump(one: socket.socket, other: socket.socket, first: list[bytes] | None) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            if first is not None:
                first.append(data)
                first = None
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
