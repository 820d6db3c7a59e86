"""What a client may keep a connection waiting with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
import uvicorn

from app import http_protocol
from app.http_protocol import FAREWELLS, MAX_HEAD_BYTES, BoundedProtocol, Door

SILENCE_SECONDS = 1.0

LIMIT = 5

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def length_of_body(_: Any, receive: Any, send: Any) -> None:
    """Answers how long the body was."""
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    text = str(length).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


async def without_end(_: Any, receive: Any, send: Any) -> None:
    """Answers zeros until the client is gone."""
    await receive()
    gone = asyncio.create_task(receive())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not gone.done():
        await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await asyncio.sleep(0)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await (without_end if scope["path"] == "/endless" else length_of_body)(scope, receive, send)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(http_protocol, "SILENCE_SECONDS", SILENCE_SECONDS)
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", SILENCE_SECONDS)
    protocol: Any = partial(BoundedProtocol, Door(LIMIT))
    config = uvicorn.Config(echo, port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def answers(port: int, *parts: bytes, pause_seconds: float = 0.0) -> bytes:
    """All that is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        async with asyncio.timeout(20 * SILENCE_SECONDS):
            return await reader.read()
    except ConnectionError:  # closed while there was more to send
        return b""
    finally:
        writer.close()


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("begin", [HEAD + b"X-A: ", b"GET /", HEAD + b"X-"])
async def test_a_head_that_does_not_end_is_refused(port: int, begin: bytes) -> None:
    answer = await answers(port, begin, *[b"a" * 16_384] * 5)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert str(MAX_HEAD_BYTES).encode() in answer


BODY = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(BODY),
        b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n" % len(BODY),
        b"Content-Length: 5\r\nContent-Length: %d\r\n" % len(BODY),
        b"Content-Length : %d\r\n" % len(BODY),
        b"Content-Length: +%d\r\n" % len(BODY),
        b"Transfer-Encoding: xchunked\r\n",
        b"X-A: a\r\n Transfer-Encoding: chunked\r\n",
    ],
)
async def test_a_body_whose_end_is_in_doubt_is_refused_with_all_that_follows(port: int, framing: bytes) -> None:
    answer = await answers(port, HEAD + framing + b"\r\n" + BODY)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_chunks_that_say_nothing_end_the_connection(port: int) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for endless in (b"1;x=", b"0\r\nX-Trailer: "):
        assert await answers(port, head, endless, *[b"a" * 16_384] * 30) == b""


@pytest.mark.parametrize("begin", [b"", b"GET / HT", HEAD, HEAD + b"Content-Length: 9\r\n\r\nhalf"])
async def test_silence_in_the_middle_ends_the_connection(port: int, begin: bytes) -> None:
    answer = await answers(port, begin)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


async def test_a_slow_client_that_goes_on_is_heard_to_the_end(port: int) -> None:
    body = [b"x" * 1000] * 16
    head = HEAD + b"Connection: close\r\nContent-Length: 16000\r\n\r\n"
    parts = [head[:9], head[9:20], head[20:], *body]
    assert (await answers(port, *parts, pause_seconds=SILENCE_SECONDS / 8)).endswith(b"16000")


async def test_large_bodies_and_many_requests_on_one_connection_are_served(port: int) -> None:
    body = b"x" * (40 * MAX_HEAD_BYTES)
    sent = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answer = await answers(port, sent, sent, LAST)
    assert answer.count(str(len(body)).encode()) == 2
    assert answer.count(b"200 OK") == 3


async def test_a_client_that_waits_for_leave_to_go_on_gets_it(port: int) -> None:
    head = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    answer = await answers(port, head, b"body", pause_seconds=SILENCE_SECONDS / 5)
    assert answer.startswith(b"HTTP/1.1 100 ")
    assert answer.endswith(b"4")


async def test_connections_beyond_the_limit_are_refused_and_the_others_are_served(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "SILENCE_SECONDS", 30)
    async with AsyncExitStack() as open_ones:
        inside = [await connection(port, open_ones) for _ in range(LIMIT)]
        for sent in (LAST, HEAD, b""):
            answer = await answers(port, sent)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nretry-after: 1\r\n" in answer
        for reader, writer in inside:
            writer.write(LAST)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")


async def test_who_is_refused_does_not_stay(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "FAREWELL_SECONDS", 0.1)
    monkeypatch.setattr(http_protocol, "SILENCE_SECONDS", 30)
    async with AsyncExitStack() as open_ones:
        for _ in range(LIMIT):
            await connection(port, open_ones)
        refused = [await connection(port, open_ones) for _ in range(2 * FAREWELLS)]
        for reader, _ in refused:
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        while not all([await is_reset(writer) for _, writer in refused]):
            await asyncio.sleep(0.01)


async def test_there_is_room_again_when_connections_end(port: int) -> None:
    async with AsyncExitStack() as open_ones:
        for _ in range(LIMIT + 1):
            await connection(port, open_ones)
    while not (await answers(port, LAST)).startswith(b"HTTP/1.1 200 OK"):
        await asyncio.sleep(0.01)


async def test_who_does_not_read_the_answer_is_cut_off_and_who_reads_slowly_is_not(port: int) -> None:
    async with AsyncExitStack() as open_ones:
        asked = b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stalled, slow = [await connection(port, open_ones) for _ in range(2)]
        for _, writer in (stalled, slow):
            writer.write(asked)
        async with asyncio.timeout(20 * SILENCE_SECONDS):
            while not await is_reset(stalled[1]):
                assert await slow[0].read(2**20)
                await asyncio.sleep(SILENCE_SECONDS / 10)
        assert await slow[0].read(2**20)
        assert not slow[1].transport.is_closing()


async def connection(port: int, open_ones: AsyncExitStack) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    open_ones.callback(writer.close)
    return reader, writer


async def is_reset(writer: asyncio.StreamWriter) -> bool:
    """Whether nobody hears any more what is sent."""
    writer.write(b"x")
    try:
        await writer.drain()
    except ConnectionError:
        return True
    return writer.transport.is_closing()
