"""Clients that ask without a rest, each over one connection."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.02
"""After a refusal; so short that the load stays."""


@dataclass
class Tally:
    """What clients were answered; seconds are those of answers other than 503."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    late: int = 0
    """Refused when their time was over; they may have been stored."""

    def quantile(self, share: float) -> float:
        """The time within which this share of the answers came."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))]


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]
) -> tuple[int, dict[str, str], bytes]:
    """Sends a request and reads the answer: status, headers, body."""
    content = json.dumps(body).encode()
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def press(address: str, path: str, body: Callable[[], dict[str, Any]], until: float, tally: Tally) -> None:
    """One client: the next request as soon as there is an answer, until then (monotonic)."""
    reader, writer = await asyncio.open_connection(urlsplit(address).hostname, urlsplit(address).port)
    while (began := time.monotonic()) < until:
        status, headers, content = await ask(reader, writer, path, body())
        tally.statuses[status] += 1
        if status == 503:
            tally.without_retry_after += "retry-after" not in headers
            tally.late += b"took longer" in content
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            tally.seconds.append(time.monotonic() - began)
    writer.close()
    await writer.wait_closed()
