"""The hub's gate against callers who ask too much, too often or too slowly; test_door.py has a real listener."""

import asyncio
import asyncio.constants
from collections.abc import Callable, Mapping

import pytest
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from statfed.core.pilot.checks import HEALTH
from statfed.server.grid import _gate
from statfed.server.grid._gate import FLEET, MESSAGE, MESSAGES, OBJECTS, SMALL, Buckets, PublicGate, address_of
from statfed.server.limits import MIB, Limits

KEY = (b"flwr-public-key", b"registered")
PULL = f"{FLEET}pull-messages"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def known(headers: Mapping[str, str]) -> bool:
    return headers.get("flwr-public-key") == "registered"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Reading:
    """An application that reads bodies whole, as Flower does, and then answers. read: their lengths."""

    def __init__(self) -> None:
        self.read: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length, more = 0, True
        while more:
            message = await receive()
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.read.append(length)
        await send(START)
        await send({"type": "http.response.body", "body": b"well"})


def part(size: int, more: bool = False) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def asked(gate: PublicGate, path: str, *messages: Message, length: int = 0, **more: object) -> dict[str, str]:
    """The head of the gate's answer, its status under `status`."""
    coming, sent = list(messages or [part(length)]), []

    async def receive() -> Message:
        if not coming:
            await asyncio.Event().wait()  # nothing more ever comes
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = more.pop("headers", [KEY])
    scope: Scope = {"type": "http", "path": path, "method": "POST", "client": ("192.0.2.1", 1)} | more
    scope["headers"] = [*headers, (b"content-length", str(length).encode())]  # type: ignore[misc]
    await gate(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return {**named, "status": str(sent[0]["status"]), "body": sent[1]["body"].decode()}


def answer(gate: PublicGate, path: str, *messages: Message, **more: object) -> dict[str, str]:
    return asyncio.run(asked(gate, path, *messages, **more))  # type: ignore[arg-type]


def gate(app: ASGIApp | None = None, clock: Callable[[], float] | None = None, **limits: int) -> PublicGate:
    return PublicGate(app or Reading(), known, Limits(**limits), clock or Clock())


def unread(scope: Scope, receive: Receive, send: Send) -> object:
    pytest.fail("the application was asked")


@pytest.mark.parametrize("path", [PULL, OBJECTS, MESSAGES, f"{FLEET}register-node"])
def test_nothing_of_a_caller_without_a_registered_key_is_read(path: str) -> None:
    closed = gate(unread)  # type: ignore[arg-type]
    for headers in ([], [(b"flwr-public-key", b"another")]):
        said = answer(closed, path, part(100), length=100, headers=headers)
        assert (said["status"], said["connection"]) == ("401", "close")


@pytest.mark.parametrize(
    ("path", "most"), [(PULL, SMALL), (f"{FLEET}activate-node", SMALL), (MESSAGES, MESSAGE), (OBJECTS, 20 * MIB)]
)
def test_a_request_has_the_size_that_its_kind_needs_and_no_more(path: str, most: int) -> None:
    app = Reading()
    assert answer(gate(app, largest_request=20 * MIB), path, length=most)["status"] == "200"
    assert app.read == [most]
    said = answer(gate(unread, largest_request=20 * MIB), path, part(1), length=most + 1)  # type: ignore[arg-type]
    assert (said["status"], said["body"], said["connection"]) == ("413", "too large\n", "close")


@pytest.mark.parametrize("value", [b"11000000", b"9" * 5000, b"1e99", b"ten", b"", b"-1", "²".encode("latin-1")])
def test_a_length_beyond_the_limit_or_that_is_no_number_is_refused(value: bytes) -> None:
    headers = [KEY, (b"content-length", value)]
    assert answer(gate(unread), PULL, headers=headers)["status"] == "413"  # type: ignore[arg-type]


def test_a_request_that_does_not_say_how_long_it_is_is_refused() -> None:
    said = answer(gate(unread), OBJECTS, headers=[KEY, (b"transfer-encoding", b"chunked")])  # type: ignore[arg-type]
    assert said["status"] == "411"


def test_bytes_on_their_way_are_bounded_in_all_and_free_again_once_answered() -> None:
    limited = gate(largest_request=2 * MIB, in_flight=3 * MIB)

    async def meet() -> list[str]:
        slow = asyncio.create_task(asked(limited, OBJECTS, part(1, more=True), length=2 * MIB))
        await asyncio.sleep(0)
        busy = await asked(limited, OBJECTS, length=2 * MIB)
        small = await asked(limited, OBJECTS, length=MIB)
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        again = await asked(limited, OBJECTS, length=2 * MIB)
        return [busy["status"], busy["retry-after"], small["status"], again["status"]]

    assert asyncio.run(meet()) == ["503", "1", "200", "200"]


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads on whatever happens, and then says that all is well."""
    for _ in range(4):
        try:
            await receive()
        except Exception:  # noqa: BLE001, S112
            continue
    await send(START)
    await send({"type": "http.response.body", "body": b"well"})


def test_a_body_that_stops_coming_is_given_up_and_never_taken_for_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "GRACE", 0.02)
    app = Reading()
    for each in (app, stubborn):
        said = answer(gate(each), OBJECTS, part(10, more=True), length=20)
        assert (said["status"], said["connection"]) == ("408", "close")
    assert app.read == []


def test_nothing_is_read_of_a_body_that_comes_after_it_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "GRACE", 0.02)
    got: list[Message] = []

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            try:
                got.append(await receive())
            except Exception:  # noqa: BLE001
                late.set()

    async def meet() -> int:
        sent: list[Message] = []

        async def receive() -> Message:
            await late.wait()
            return part(10)

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "path": OBJECTS, "client": None, "headers": [KEY, (b"content-length", b"10")]}
        await gate(patient)(scope, receive, send)
        return int(sent[0]["status"])

    late = asyncio.Event()
    assert asyncio.run(meet()) == 408
    assert got == []


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/fleet", "/healthy"]
)
def test_a_node_that_is_known_reaches_the_fleet_alone(path: str) -> None:
    assert answer(gate(unread), path)["status"] == "403"  # type: ignore[arg-type]


def test_a_body_that_trickles_is_given_up_and_one_on_a_slow_line_is_not() -> None:
    def sending(rate: int, seconds: int) -> str:
        """The status of a body that comes at so many bytes a second."""
        clock, app = Clock(), Reading()

        async def meet() -> str:
            sent: list[Message] = []
            left = [seconds]

            async def receive() -> Message:
                clock.now += 1
                left[0] -= 1
                return part(rate, more=left[0] > 0)

            async def send(message: Message) -> None:
                sent.append(message)

            scope = {"type": "http", "path": OBJECTS, "client": None, "headers": [KEY]}
            await gate(app, clock)(scope, receive, send)
            return str(sent[0]["status"])

        return asyncio.run(meet())

    assert sending(125_000, 800) == "200"  # 100 MB at 1 Mbit/s
    assert sending(1, 40) == "408"


def test_an_answer_that_has_begun_ends_in_an_error_so_that_the_server_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "GRACE", 0.02)

    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await receive()

    with pytest.raises(Exception, match="got 11 bytes in time; want 20"):
        answer(gate(hasty), OBJECTS, part(11, more=True), length=20)


async def generous(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with eight MiB at once."""
    await receive()
    await send({**START, "headers": [(b"content-length", str(8 * MIB).encode())]})
    await send({"type": "http.response.body", "body": bytes(range(256)) * (8 * MIB // 256), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def test_a_reader_on_a_slow_line_gets_its_answer_whole_and_one_that_does_not_read_is_given_up() -> None:
    def read(rate: int) -> int:
        """Bytes of an answer that is read at so many a second."""
        clock, got = Clock(), bytearray()

        async def receive() -> Message:
            return part(0)

        async def send(message: Message) -> None:
            got.extend(message.get("body", b""))
            clock.now += len(message.get("body", b"")) / rate

        scope = {"type": "http", "path": OBJECTS, "client": None, "headers": [KEY]}
        try:
            asyncio.run(gate(generous, clock)(scope, receive, send))
        except TimeoutError:
            return -len(got)
        assert bytes(got[:512]) == bytes(range(256)) * 2
        return len(got)

    assert read(125_000) == 8 * MIB
    assert -8 * MIB < read(1000) < 0


def test_a_failure_within_the_limits_is_not_hidden() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("of the application")

    with pytest.raises(LookupError):
        answer(gate(broken), PULL)


def test_who_is_refused_too_often_is_not_listened_to_for_a_while_and_who_is_known_always_is() -> None:
    clock = Clock()
    limited = gate(clock=clock, refusals_per_minute=5)
    guess = {"headers": [(b"flwr-public-key", b"guessed")]}
    assert [answer(limited, PULL, **guess)["status"] for _ in range(7)] == ["401"] * 5 + ["429"] * 2
    assert answer(limited, HEALTH, headers=[])["status"] == "429"
    assert answer(limited, PULL)["status"] == "200"  # from the same address, behind one proxy say
    assert answer(limited, PULL, client=("192.0.2.2", 1), **guess)["status"] == "401"
    clock.now += 13
    assert answer(limited, HEALTH, headers=[])["status"] == "200"  # a fifth of a minute's has come back
    for _ in range(100):
        assert answer(limited, PULL)["status"] == "200"  # polls of a node that is known cost nothing
    assert answer(limited, PULL, **guess)["status"] == "401"


def test_errors_of_the_application_count_and_its_being_busy_does_not() -> None:
    def saying(status: int) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({**START, "status": status})
            await send({"type": "http.response.body", "body": b""})

        return app

    for status, want in ((404, ["404"] * 5 + ["429"]), (503, ["503"] * 6)):
        limited = gate(saying(status), refusals_per_minute=5)
        said = [answer(limited, HEALTH, headers=[]) for _ in range(6)]
        assert [one["status"] for one in said] == want
        assert {one["connection"] for one in [*said, answer(limited, PULL)]} == {"close"}


def test_health_takes_no_body_keeps_no_connection_and_says_whether_it_knows_who_signs() -> None:
    assert answer(gate(unread), HEALTH, length=1)["status"] == "413"  # type: ignore[arg-type]
    said = answer(gate(), HEALTH, headers=[])
    assert (said["status"], said["connection"]) == ("200", "close")
    assert "x-statfed-node" not in said
    assert answer(gate(), HEALTH)["x-statfed-node"] == "known"
    assert answer(gate(), HEALTH, headers=[(b"flwr-public-key", b"x")])["x-statfed-node"] == "unknown"


def test_no_more_addresses_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "MOST_REMEMBERED", 3)
    buckets = Buckets(5, Clock())
    for number in range(10):
        buckets.take(str(number))
    assert len(buckets._left) == 3


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3", "2001:db8::"),
        ("2001:db8::ffff:2:3", "2001:db8::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("not one", "unknown"),
    ],
)
def test_an_address_of_ipv6_is_its_network_and_one_of_ipv4_itself(client: str, address: str) -> None:
    assert address_of((client, 1)) == address


def test_limits_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="want largest_request, 2097152, or more"):
        Limits(largest_request=2 * MIB, in_flight=MIB)
