"""The HTTP protocol of uvicorn, with bounds on what it does not bound: the head of a request, and silence."""

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers, about; the parser has no limit, and takes quadratic time for what does not end."""

SILENCE_SECONDS = 30.0
"""How long a client may be silent before its first request, and in the middle of any."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection, which ends when the head of a request does, or the next part of its body is not there in time."""

    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _in_message = True  # the first is waited for as well
    _progressed = False
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless that has led to nothing for too long."""
        self._progressed = False
        super().data_received(data)
        self._unread_bytes = 0 if self._progressed else self._unread_bytes + len(data)
        if not self._in_message or self.transport.is_closing():
            return
        if self._unread_bytes > MAX_HEAD_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"at most {MAX_HEAD_BYTES} bytes are read")
        else:
            self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = self._in_message = True

    def on_headers_complete(self) -> None:
        """Its body follows."""
        self._in_head, self._progressed = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """What follows is up to the service."""
        self._in_message = False
        self._rest()
        super().on_message_complete()

    def _wait(self) -> None:
        self._rest()
        self._timer = self.loop.call_later(SILENCE_SECONDS, self._was_silent)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _was_silent(self) -> None:
        if self.flow.read_paused or (self.cycle and self.cycle.waiting_for_100_continue and not self._in_head):
            self._wait()  # it is the service that is slow
        else:
            self._end(HTTPStatus.REQUEST_TIMEOUT, f"{SILENCE_SECONDS:g} s of silence")

    def _end(self, status: HTTPStatus, why: str) -> None:
        """Closes the connection; says why, unless that could be in the middle of another answer."""
        self._rest()
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            detail = f"{status.phrase}: {why}"
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(detail)}\r\nconnection: close\r\n\r\n{detail}".encode()
            )
        self.transport.close()
