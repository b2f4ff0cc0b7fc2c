"""The limit on the size of requests at the SuperLink's public listener: a small one, at a real server on loopback."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import Message, Receive, Scope, Send

from statfed.server.grid._superlink import FLEET, HEALTH, LARGEST_REQUEST, PublicGate

LIMIT = 1000
PATH = f"{FLEET}pull-messages"
read: list[int] = []
api = FastAPI()


@api.post(PATH)
async def whole(request: Request) -> int:
    """Read the body as Flower does, and remember how much there was."""
    read.append(len(await request.body()))
    return read[-1]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server behind the gate."""
    config = uvicorn.Config(PublicGate(api, LIMIT), lifespan="off", ws="none", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def request(port: int, *parts: bytes) -> tuple[int, bytes]:
    """Send the parts one by one; the status and the rest of what comes back until the server hangs up."""
    read.clear()
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = connection.makefile("rb").read()
    return int(answer.split()[1]), answer


def head(*fields: str) -> bytes:
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def chunk(size: int) -> bytes:
    return f"{size:x}\r\n".encode() + b"x" * size + b"\r\n"


def test_a_request_of_the_largest_size_passes_whole(port: int) -> None:
    fields = (f"Content-Length: {LIMIT}", "Connection: close")
    assert request(port, head(*fields), b"x" * LIMIT)[0] == 200
    assert read == [LIMIT]
    chunks = [chunk(LIMIT // 2)] * 2
    assert request(port, head("Transfer-Encoding: chunked", "Connection: close"), *chunks, b"0\r\n\r\n")[0] == 200
    assert read == [LIMIT]


def test_a_larger_one_is_refused_by_what_it_says_before_it_comes(port: int) -> None:
    assert request(port, head(f"Content-Length: {LIMIT + 1}"))[0] == 413
    assert read == []


def test_a_body_that_grows_beyond_the_limit_is_cut_off_and_never_taken_for_whole(port: int) -> None:
    status, answer = request(port, head("Transfer-Encoding: chunked"), chunk(LIMIT), chunk(1))
    assert status == 413
    assert b"connection: close" in answer.lower()
    assert read == []


def gate(*messages: Message, app: object = None, **scope: object) -> list[Message]:
    """What a gate with a limit of 10 bytes sends on `messages`."""
    coming, sent = list(messages), []

    async def receive() -> Message:
        if not coming:
            pytest.fail("read on after the limit")  # no Exception, so that no application swallows it
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asked: Scope = {"type": "http", "path": HEALTH, "method": "POST", "headers": []} | scope
    asyncio.run(PublicGate(app, 10)(asked, receive, send))  # type: ignore[arg-type]
    return sent


def body(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


START: Message = {"type": "http.response.start", "status": 200, "headers": []}


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads on whatever happens, and then says that all is well."""
    for _ in range(4):
        try:
            await receive()
        except Exception:  # noqa: BLE001, S112
            continue
    await send(START)
    await send({"type": "http.response.body", "body": b"well"})


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins to answer before it reads."""
    await send(START)
    while True:
        await receive()


def test_an_application_that_swallows_the_error_reads_no_further_and_does_not_answer() -> None:
    sent = gate(body(6), body(6), app=stubborn)
    assert [message.get("status") for message in sent] == [413, None]
    assert [m.get("status") for m in gate(*[body(2)] * 4, app=stubborn)] == [200, None]


def test_an_answer_that_has_begun_ends_in_an_error_so_that_the_server_hangs_up() -> None:
    with pytest.raises(Exception, match="got more than 10 bytes"):
        gate(body(11), app=hasty)


def test_a_failure_within_the_limit_is_not_hidden() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("of the application")

    with pytest.raises(LookupError):
        gate(app=broken)


@pytest.mark.parametrize("value", [b"11", b"9" * 5000, b"1e99", b"ten", b""])
def test_a_length_beyond_the_limit_or_that_is_no_number_is_refused(value: bytes) -> None:
    sent = gate(headers=[(b"content-length", b"3"), (b"content-length", value)])
    assert sent[0]["status"] == 413


def test_the_limit_is_256_mib_unless_said_otherwise() -> None:
    assert LARGEST_REQUEST == 256 * 1024 * 1024
    assert PublicGate(stubborn)._limit == LARGEST_REQUEST
