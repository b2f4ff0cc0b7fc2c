"""Who may ask a SuperLink what, how much of it, how often and how slowly: gates in front of Flower's application.

Flower's Control and Runtime APIs have no authentication of their own, and its Fleet API reads a request into memory
before it checks whose it is. The public gate therefore answers `/v1/fleet/*` and `/health` alone, and reads no body of
a caller whose key is not registered: that is in the headers, signed. What it refuses is counted by address, and whoever
is refused too often is not listened to for a while, unless its key is known. The private gate answers everything to
requests with a secret.
"""

import asyncio
import hmac
import logging
import math
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from statfed.core.pilot.checks import HEALTH, NODE_HEADER
from statfed.server.limits import MIB, Limits

SECRET_HEADER = "x-statfed-secret"  # noqa: S105  the header's name
FLEET = "/v1/fleet/"
OBJECTS, MESSAGES = f"{FLEET}push-object", f"{FLEET}push-messages"
SMALL = 64 * 1024
"""Bytes of a request that carries no contribution."""
MESSAGE = 8 * MIB
"""Bytes of a message without its contents: the names of its objects."""
GRACE = 30.0
"""Seconds before a body has to have moved at the slowest rate."""
PIECE = 64 * 1024
"""Bytes of an answer that are handed over at once."""
MOST_REMEMBERED = 10_000
"""Addresses that are remembered at once."""

WORDS = {
    401: "refused: no registered key",
    403: "refused",
    408: "too slow: the rest of the request did not come",
    411: "refused: the request does not say how long it is",
    413: "too large",
    429: "refused too often: wait a minute",
    503: "busy: too much on its way at once; try again",
}

log = logging.getLogger("statfed.hub")


class Buckets:
    """A token bucket for each address, which holds a minute's worth and is full at first."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def empty(self, address: str) -> bool:
        """Is nothing left for this address?"""
        return self._now(address) < 1

    def take(self, address: str) -> bool:
        """Take one token: is nothing left after it?"""
        left = max(0.0, self._now(address) - 1)
        self._left.pop(address, None)
        self._left[address] = left, self._clock()
        if len(self._left) > MOST_REMEMBERED:  # the one that was refused the longest ago is forgotten
            del self._left[next(iter(self._left))]
        return left < 1

    def _now(self, address: str) -> float:
        left, at = self._left.get(address, (self._most, 0.0))
        return min(self._most, left + (self._clock() - at) * self._most / 60)


def address_of(client: tuple[str, int] | None) -> str:
    """Whose tokens a caller takes: an address of IPv4, a network of 64 bits of IPv6.

    >>> address_of(("2001:db8::1", 1)), address_of(("::ffff:192.0.2.1", 1))
    ('2001:db8::', '192.0.2.1')
    """
    try:
        found = ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)


class PublicGate:
    """Lets through what a node that is known needs, within limits, and nothing else.

    known: is a registered node's key proved in these headers? Asked before anything of a body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        known: Callable[[Mapping[str, str]], bool],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._known = known
        self._limits = limits
        self._clock = clock
        self._refused = Buckets(limits.refusals_per_minute, clock)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"connection refused: got {scope['type']}; want http")
        address = address_of(scope.get("client"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        known = self._known(headers)
        if self._refused.empty(address) and not known:  # who is known may share an address with who is not
            return await _refuse(429, scope, receive, send)
        said = [500]  # unless an answer comes
        try:
            await self._judged(headers, known, scope, receive, _watched(send, said))
        finally:
            if said[0] >= 400 and said[0] != 503 and self._refused.take(address):
                log.warning("%s: refused too often, and not listened to for a while", address)

    async def _judged(
        self, headers: Mapping[str, str], known: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Refuse by what the head says, or let the body come."""
        path, fleet = scope["path"], scope["path"].startswith(FLEET)
        length = _declared(scope)
        if not (fleet or path == HEALTH):
            await _refuse(403, scope, receive, send)
        elif "transfer-encoding" in headers:
            await _refuse(411, scope, receive, send)
        elif length > self._largest(path):
            await _refuse(413, scope, receive, send)
        elif path == HEALTH:
            await self._app(scope, receive, _closing(send, _known_in_words(headers, known)))
        elif not known:
            await _refuse(401, scope, receive, send)
        elif self._held + length > self._limits.in_flight:
            await _refuse(503, scope, receive, send)
        else:
            self._held += int(length)
            try:
                await self._timed(int(length), scope, receive, self._paced(send))
            finally:
                self._held -= int(length)

    def _largest(self, path: str) -> int:
        """Bytes that a request may have."""
        largest = {OBJECTS: self._limits.largest_request, MESSAGES: MESSAGE, HEALTH: 0}.get(path, SMALL)
        return min(largest, self._limits.largest_request)

    async def _timed(self, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, which reads a body that has to keep coming. It never takes a part for the whole."""
        begun = self._clock()
        came, whole, late, answered = 0, False, False, False

        async def timed() -> Message:
            nonlocal came, whole, late
            if whole:
                return await receive()
            left = begun + GRACE + came / self._limits.slowest - self._clock()
            try:
                if late:
                    raise TimeoutError
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                late = True
                raise _TooSlow(f"request: got {came} bytes in time; want {length}") from None
            came += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            return message

        async def guarded(message: Message) -> None:
            nonlocal answered
            if not late:  # else what the application says of the cut-off body is not the answer
                answered = True
                await send(message)

        try:
            await self._app(scope, timed, guarded)
        except Exception:
            if not late or answered:  # an answer that has begun cannot become another: the connection is closed
                raise
        if late and not answered:
            await _refuse(408, scope, receive, send)

    def _paced(self, send: Send) -> Send:
        """Sends an answer in pieces, each once the ones before are on their way, and gives up one that does not move.

        uvicorn counts a connection as idle once all of an answer is handed over, and closes it after a while.
        """
        begun, sent = self._clock(), 0

        async def pieces(message: Message) -> None:
            nonlocal sent
            body = message.get("body", b"")
            for start in range(0, len(body), PIECE) if len(body) > PIECE else ():
                left = begun + GRACE + sent / self._limits.slowest - self._clock()
                piece = bytes(body[start : start + PIECE])
                await asyncio.wait_for(send({**message, "body": piece, "more_body": True}), left)
                sent += len(piece)
            await send(message if len(body) <= PIECE else {**message, "body": b""})

        return pieces


class _TooSlow(Exception):
    """Raised where the application reads on, so that it never takes a part for the whole."""


class PrivateGate:
    """Lets through requests that carry the secret. It is compared in constant time."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"connection refused: got {scope['type']}; want http")
        got = [value for name, value in scope["headers"] if name == SECRET_HEADER.encode("ascii")]
        if len(got) != 1 or not hmac.compare_digest(got[0], self._secret):
            return await _refuse(401, scope, receive, send)
        return await self._app(scope, receive, send)


async def _refuse(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in plain words and close the connection, instead of reading what is still to come."""
    headers = {"connection": "close"} | ({"retry-after": "1"} if status == 503 else {})
    await PlainTextResponse(WORDS[status] + "\n", status, headers)(scope, receive, send)


def _closing(send: Send, headers: Mapping[str, str]) -> Send:
    """Adds headers to an answer, after which the connection is closed: callers that are not known keep none open."""
    more = [(name.encode(), value.encode()) for name, value in {**headers, "connection": "close"}.items()]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sent


def _known_in_words(headers: Mapping[str, str], known: bool) -> dict[str, str]:
    """To who signs as a node does, whether its key is registered."""
    return {NODE_HEADER: "known" if known else "unknown"} if any(one.startswith("flwr-") for one in headers) else {}


def _watched(send: Send, said: list[int]) -> Send:
    """Notes the status of an answer. After one that is not well the connection is closed."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            said[0] = message["status"]
            if said[0] >= 400:
                kept = [(name, value) for name, value in message.get("headers", ()) if name != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await send(message)

    return sent


def _declared(scope: Scope) -> float:
    """The length that a request says it has; infinite if that is no number."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if not all(value.isdigit() and len(value) < 16 for value in lengths):
        return math.inf
    return max(map(int, lengths), default=0)
