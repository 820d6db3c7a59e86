"""What surrounds the service: its event loop, the word that it has started, and garbage collection."""

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.loops.auto import auto_loop_factory

from app.errors import StartupError

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """What it returns, run on the event loop that the server uses: uvloop, where that is to be had."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(main)


def settle() -> None:
    """Tells the garbage collector that what is loaded now stays, and to look less often at what comes.

    Rows of an import live for a batch and are many: with the usual thresholds the collector walks through all modules
    again and again, a tenth of an import's processor time.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


class Announced:
    """ASGI wrapper: tells when the application has started, or in one line why it could not."""

    def __init__(self, app: ASGIApp, started: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._app = app
        self._started = started
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything through; the traceback of a StartupError gives way to its message."""

        async def announce(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                settle()
                self._started()
            elif message["type"] == "lifespan.startup.failed":
                kind, _, text = message["message"].strip().rpartition("\n")[2].partition(": ")
                if kind == f"{StartupError.__module__}.{StartupError.__qualname__}":
                    self._failed(text)
                    logging.getLogger("uvicorn.error").disabled = True
            await send(message)

        await self._app(scope, receive, announce if scope["type"] == "lifespan" else send)
