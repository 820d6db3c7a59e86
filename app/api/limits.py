"""Keeps the service answering under any load: bounds on what is in flight, on size, on time, on each caller's rate."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Caller
from app.api.headers import first_field
from app.api.problems import of, too_large
from app.errors import UnavailableError
from app.settings import Settings
from app.traffic import Kind, Traffic

if TYPE_CHECKING:
    from app.api.rate import RateLimit

RETRY_SECONDS = 1

UPLOADS = "/v1/admin/imports"
"""Bodies there have a limit of their own."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How many requests may be in flight, how long one may take, and what counts those of each caller."""

    in_flight: dict[Kind, int]
    timeout_seconds: float
    body_bytes: int
    rate: "RateLimit | None"


class Limits:
    """ASGI middleware: 503 when too much is in flight or a request takes too long, 429 when one caller asks too often.

    Routes of administrators take as long as they need, event streams as long as what they follow.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits, traffic: Traffic) -> None:
        """The requests are counted in `traffic`, for whoever wants to know."""
        self._app = app
        self._limits = limits
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request pass, or answers it."""
        caller: Caller | None = scope.get("state", {}).get("caller")
        if caller is None:  # what anyone may ask, and what is no request
            await self._app(scope, receive, send)
            return
        if self._limits.rate is not None:
            send, refusal = await self._limits.rate.count(caller, send)
            if refusal is not None:
                await of(Request(scope), refusal)(scope, receive, send)
                return
        if scope["path"] != UPLOADS and _announced_bytes(scope) > self._limits.body_bytes:
            await of(Request(scope), too_large(self._limits.body_bytes))(scope, receive, send)
            return
        kind = kind_of(scope["method"], scope["path"])
        if kind is None:
            await self._app(scope, receive, send)
            return
        in_flight = self._traffic.in_flight[kind]
        if in_flight >= self._limits.in_flight[kind]:
            full = UnavailableError(
                f"{in_flight} {kind} are in flight, which is the limit; send it again later", RETRY_SECONDS
            )
            await of(Request(scope), full)(scope, receive, send)
            return
        with self._traffic.counted(kind):
            if kind is Kind.EVENT_STREAMS:
                await self._app(scope, receive, send)
            else:
                await self._in_time(scope, receive, send)

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def send_and_note(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        deadline = asyncio.timeout(self._limits.timeout_seconds)
        try:
            async with deadline:
                await self._app(scope, receive, send_and_note)
        except TimeoutError:
            if not deadline.expired() or began:
                raise
            late = UnavailableError(
                f"the request took longer than {self._limits.timeout_seconds:g} s "
                "(AFTERIMAGE_REQUEST_TIMEOUT_SECONDS); a write may have been stored nevertheless: "
                "sent again with the same id or Idempotency-Key it does no harm",
                RETRY_SECONDS,
            )
            await of(Request(scope), late)(scope, receive, send)


def _announced_bytes(scope: Scope) -> int:
    """What `Content-Length` says; a body without it is counted as it comes, by DirectRoutes or FastAPI."""
    length = first_field(scope, b"content-length")
    return int(length) if length.isdecimal() else 0


def most_in_flight(settings: Settings) -> dict[Kind, int]:
    """How many requests of each kind a process answers at once."""
    return {
        Kind.WRITES: settings.max_writes_in_flight,
        Kind.SEARCHES: settings.max_searches_in_flight,
        Kind.EVENT_STREAMS: settings.max_event_streams,
    }


def kind_of(method: str, path: str) -> Kind | None:
    """What a request asks for; None for other administration and metrics."""
    if path.startswith(f"{UPLOADS}/") and path.endswith("/events"):
        return Kind.EVENT_STREAMS
    if path.startswith("/v1/admin") or not path.startswith("/v1/"):
        return None
    if path.startswith("/v1/memories") and method in ("POST", "DELETE"):
        return Kind.WRITES
    return Kind.SEARCHES
