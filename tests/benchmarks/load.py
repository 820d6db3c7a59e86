"""A load client that costs little beside the server: connections in one process, each with a request in flight.

The requests are bytes made beforehand; of an answer the status and the length are read.
"""

import asyncio
import pickle
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import cast

import uvloop

from tests.benchmarks.sides import HttpSide
from tests.benchmarks.tally import Tally


class Client(asyncio.Protocol):
    """One connection: sends a request as soon as the answer to the last is complete."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, ended: asyncio.Future[None]) -> None:
        self._requests = requests
        self._tally = tally
        self._ended = ended
        self._head = b""
        self._missing: int | None = None
        self._started = time.perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's do not inherit from it
        self._send()

    def data_received(self, data: bytes) -> None:
        """Counts the bytes of the answer."""
        if self._missing is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._missing = length_of(self._head[: end + 2]) - (len(self._head) - end - 4)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            status = self._head[9:12].decode()
            self._tally.note(self._started, None if status.startswith("2") else f"status {status}")
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends, as an error unless all is over."""
        if not self._ended.done():
            self._tally.note(self._started, f"connection lost: {exc}")
            self._ended.set_result(None)

    def _send(self) -> None:
        request = None if self._tally.over else next(self._requests, None)
        if request is None:
            self._ended.set_result(None)
            self._transport.close()
            return
        self._head, self._missing = b"", None
        self._started = time.perf_counter()
        self._transport.write(request)


def length_of(head: bytes) -> int:
    """The `Content-Length` of an answer, which the service always sends."""
    lower = head.lower()
    at = lower.index(b"\r\ncontent-length:") + len(b"\r\ncontent-length:")
    return int(lower[at : lower.index(b"\r\n", at)])


async def run(side: HttpSide) -> Tally:
    """Keeps all connections busy until the time is over, or the requests are."""
    tally = Tally(side.seconds)
    loop = asyncio.get_running_loop()
    ends = []
    for number in range(side.connections):
        ended: asyncio.Future[None] = loop.create_future()
        offset = number * len(side.requests) // side.connections
        requests = islice(cycle(side.requests), offset, offset + len(side.requests) if side.once else None)

        def client(requests: Iterator[bytes] = requests, ended: asyncio.Future[None] = ended) -> Client:
            return Client(requests, tally, ended)

        await loop.create_connection(client, "127.0.0.1", side.port)
        ends.append(ended)
    await asyncio.gather(*ends)
    return tally


if __name__ == "__main__":
    uvloop.run(run(pickle.load(sys.stdin.buffer))).tell()
