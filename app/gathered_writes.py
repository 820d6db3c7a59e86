"""Small writes to a connection, sent together."""

import asyncio
from typing import Any

GATHERED_BYTES = 64 * 1024
"""Of answers, about; more is not held back."""


class GatheredWrites:
    """A transport that sends together what is written until it is told to, or the step of the event loop ends.

    A call to the kernel and a packet are a twentieth of what a small answer costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends it when told to, when this step has ended, or now if there is much."""
        if not self._parts:
            self._loop.call_soon(self.send)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > GATHERED_BYTES:
            self.send()

    def write_eof(self) -> None:
        """Sends all, and that it was all."""
        self.send()
        self._transport.write_eof()

    def close(self) -> None:
        """Closes once all is sent."""
        self.send()
        self._transport.close()

    def send(self) -> None:
        """Sends what was written, if that is still possible."""
        if self._parts and not self._transport.is_closing():
            self._transport.write(b"".join(self._parts))
        self._parts.clear()
        self._bytes = 0
