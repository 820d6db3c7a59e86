"""What requests see of the end of the service."""

import asyncio
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import of
from app.errors import UnavailableError

RETRY_SECONDS = 1


class Stopping:
    """ASGI middleware: once the service is told to stop, each answer is the last one of its connection.

    A request that takes longer than the service may go on is answered 503.
    """

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything through; adds a header to responses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def send_and_close(message: Message) -> None:
            nonlocal began
            began = True
            if message["type"] == "http.response.start" and self._stopping.is_set():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_and_close)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            if not began:
                late = UnavailableError(
                    "the service is stopping, and the request took longer than it can wait "
                    "(AFTERIMAGE_STOP_TIMEOUT_SECONDS); a write may have been stored nevertheless: "
                    "sent again with the same id it does no harm",
                    RETRY_SECONDS,
                )
                await of(Request(scope), late)(scope, receive, send_and_close)


async def told_to_stop(request: Request) -> asyncio.Event:
    """Set when the service is told to stop."""
    event: asyncio.Event = request.app.state.stopping
    return event


ToldToStop = Annotated[asyncio.Event, Depends(told_to_stop)]
