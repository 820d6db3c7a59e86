"""Gives every request an id, and logs and counts what became of it."""

import re
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from app.api.headers import first_field
from app.api.metrics import RequestMetrics

HEADER = "X-Request-ID"
FIELD = HEADER.lower().encode()

_USABLE = re.compile(r"[\w.-]{1,64}", re.ASCII)

_LONG = re.compile(r"[^/]{37,}")
"""In a path: longer than an id, and perhaps a key that somebody has put there."""

log = structlog.get_logger("app.requests")


class RequestLog:
    """ASGI middleware: takes the client's `X-Request-ID` or makes one, and sends it back with the answer."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything through; adds a header to responses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = first_field(scope, FIELD)
        request_id = given if _USABLE.fullmatch(given) else str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).append(HEADER, request_id)
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)  # for this task, which ends with the request
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            self._log.exception("request failed")
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.observe(scope, status, seconds)
            path = _LONG.sub("…", scope["path"])
            self._log.info("request", method=scope["method"], path=path, status=status, ms=round(seconds * 1000, 1))
