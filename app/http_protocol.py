"""The HTTP protocol of uvicorn, with bounds on what it does not bound: connections, heads of requests, silence.

It sends head and body of an answer together, which uvicorn does one after the other.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.gathered_writes import GatheredWrites
from app.logs import SeldomWarnings

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers, about; the parser has no limit, and takes quadratic time for what does not end."""

SILENCE_SECONDS = 30.0
"""How long a client may be silent before its first request, and in the middle of any."""

UNREAD_SECONDS = 60.0
"""How long a client may take nothing of an answer that waits for it."""

FAREWELL_SECONDS = 1.0
"""How long a connection that was refused stays, to hear what it sends: closed before that, it may miss its answer."""

FAREWELLS = 100
"""So many of them; more are closed at once."""

RETRY_SECONDS = 1


class Door:
    """Lets in so many connections at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._warnings = SeldomWarnings()
        self.leaving = 0

    def lets_in(self, connections: int) -> bool:
        """Whether there is room, `connections` counting the new one; a warning is logged now and then if not."""
        if connections <= self._limit:
            return True
        self._warnings.warn("connections are refused", limit=self._limit, setting="AFTERIMAGE_MAX_CLIENT_CONNECTIONS")
        return False


class BoundedProtocol(HttpToolsProtocol):
    """One connection, which ends when the head of a request does, or the next part of its body is not there in time."""

    _refused = False
    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _in_message = True  # the first is waited for as well
    _progressed = False
    _unread_bytes = 0

    def __init__(self, door: Door, *uvicorns: Any, **named: Any) -> None:
        super().__init__(*uvicorns, **named)
        self._door = door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request, or refuses whatever it will be."""
        self._gathered = GatheredWrites(transport, self.loop)
        super().connection_made(self._gathered)  # type: ignore[arg-type]
        if self._door.lets_in(len(self.connections)):
            self._wait()
        else:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no longer."""
        self._rest()
        if self._reading_timer is not None:
            self._reading_timer.cancel()
        self._door.leaving -= self._refused
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless that has led to nothing for too long."""
        if self._refused:
            return
        self._progressed = False
        super().data_received(data)
        self._unread_bytes = 0 if self._progressed else self._unread_bytes + len(data)
        if not self._in_message or self.transport.is_closing():
            return
        if self._unread_bytes > MAX_HEAD_BYTES:
            self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"at most {MAX_HEAD_BYTES} bytes are read")
        else:
            self._wait()

    def pause_writing(self) -> None:
        """The client is slower than the answer: begins to watch that it goes on."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()

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

    def on_response_complete(self) -> None:
        """An answer is complete: sent before the log tells of it."""
        self._gathered.send()
        super().on_response_complete()

    def _watch(self, left: int) -> None:
        self._reading_timer = self.loop.call_later(UNREAD_SECONDS, self._look_again, left)

    def _look_again(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch(left)
        else:
            self.transport.abort()

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
            self._answer(status, why)
        self.transport.close()

    def _refuse(self) -> None:
        """Answers before anything is asked, and counts no longer as a connection of the service."""
        self._refused = True
        self._door.leaving += 1
        self.connections.discard(self)
        self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open", f"retry-after: {RETRY_SECONDS}")
        if self._door.leaving > FAREWELLS:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._timer = self.loop.call_later(FAREWELL_SECONDS, self.transport.close)

    def _answer(self, status: HTTPStatus, why: str, *headers: str) -> None:
        detail = f"{status.phrase}: {why}"
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(detail)}",
            "connection: close",
            *headers,
        )
        self.transport.write("\r\n".join([*lines, "", detail]).encode())
