"""What surrounds the service: its event loop, its socket, the word that it has started, and garbage collection."""

import asyncio
import errno
import gc
import ipaddress
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.loops.auto import auto_loop_factory

from app.errors import StartupError

T = TypeVar("T")

MEND_HOST = "set --host or AFTERIMAGE_HOST to 127.0.0.1, 0.0.0.0 or another address of this machine"


def run(main: Coroutine[Any, Any, T]) -> T:
    """What it returns, run on the event loop that the server uses: uvloop, where that is to be had."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(main)


def listen(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything is started."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise StartupError(f"the host {host} is unknown ({error}); {MEND_HOST}") from None
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartupError(f"{host} is no address of this machine; {MEND_HOST}") from None
        raise StartupError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop the program that uses it, "
            "or choose another with --port or AFTERIMAGE_PORT"
        ) from None


def is_loopback(host: str) -> bool:
    """True if nobody outside this machine can reach a server that listens on the host."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


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
