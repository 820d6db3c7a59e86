"""The HTTP server of one process: uvicorn's, with an end of its own."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app.descriptors import room_for_clients
from app.http_protocol import BoundedProtocol, Door
from app.listener import refuse_new
from app.serving import Announced
from app.settings import Settings

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than clients keep theirs, so none is closed as it is used again."""

REQUESTS_SHARE = 2 / 3
"""Of the time to stop, for open requests; the rest is for what is behind them."""

LINGER_SECONDS = 0.5
"""An idle connection is closed only now: a request may be on its way on it."""

CUT_SECONDS = 0.5
"""For saying so to those whose request is cut off."""

POLL_SECONDS = 0.02

HANDSHAKE_SECONDS = 0.1
"""How long a connection that a client has begun may take to be completed."""

HANDSHAKE_SHARE = 1 / 10
"""The most of the time to stop that this wait takes."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Ends in this order when it is told to stop: readiness, listening, open requests, the application.

    The second signal ends the process at once, and so does the end of the time it has. What was answered is stored by
    then, and what was begun is found again at the next start. After a clean stop the exit status is 0.

    One that is supervised shares its listening socket, and may stop alone: the supervisor, which stops them all, keeps
    the kernel from beginning connections and handles the second signal.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        started: Callable[[], None],
        failed: Callable[[str], None],
        *,
        supervised: bool = False,
    ) -> None:
        """`started` and `failed` are called when the application has started, or has said why it cannot."""
        super().__init__(
            uvicorn.Config(
                Announced(app, started, failed),
                lifespan="on",
                ws="none",
                http=partial(BoundedProtocol, Door(room_for_clients(settings))),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._stopping: asyncio.Event = app.state.stopping
        self._delay_seconds = settings.stop_delay_seconds
        self._timeout_seconds = settings.stop_timeout_seconds
        self._cut_at: float | None = None
        self._supervised = supervised
        self._orphaned = False

    def serve_on(self, listener: socket.socket) -> int:
        """Serves until it is told to stop; answers the exit status."""
        try:
            self.run(sockets=[listener])
        except SystemExit:  # uvicorn's way to say that the application did not start
            return STARTUP_FAILURE
        return 1 if self.lifespan.should_exit else 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's: nothing is raised again at the end, and so the exit status tells of a clean one."""
        self._loop = asyncio.get_running_loop()
        for number in [signal.SIGTERM] if self._supervised else STOP_SIGNALS:
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to stop; the second time it ends the process, unless a supervisor sees to that."""
        del frame
        if not self._captured_signals:
            self._captured_signals.append(sig)
            self._loop.call_soon_threadsafe(self._begin_to_stop)
        elif not self._supervised:
            os._exit(128 + sig)

    def stop_orphaned(self) -> None:
        """Stops if it has not begun to; for a thread that finds that the supervisor has died."""
        self._orphaned = True
        if not self._captured_signals:
            os.kill(os.getpid(), signal.SIGTERM)

    def _begin_to_stop(self) -> None:
        log.info("stopping", delay_seconds=self._delay_seconds, timeout_seconds=self._timeout_seconds)
        delay = self._delay_seconds if self.started else 0
        last = threading.Timer(delay + self._timeout_seconds, self._give_up)
        last.daemon = True
        last.start()
        self._cut_at = self._loop.time() + delay + self._timeout_seconds * REQUESTS_SHARE
        self._stopping.set()
        self._loop.call_later(delay, setattr, self, "should_exit", True)

    def _give_up(self) -> None:
        """Runs in a thread, so that nothing that hangs can keep it from running."""
        log.error(
            "the service did not stop in time and is ended",
            setting="AFTERIMAGE_STOP_TIMEOUT_SECONDS",
            value=self._timeout_seconds,
        )
        os._exit(1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, answers what was asked on those there are, and closes the application."""
        await self._stop_listening(sockets or [])
        try:
            async with asyncio.timeout_at(self._cut_at):
                await self._finish_requests()
        except TimeoutError:
            await self._cut_requests()
        await self.lifespan.shutdown()
        log.info("stopped")

    async def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        """Takes the connections first that the kernel has made or begun: to close the socket would reset them."""
        if self._orphaned or not self._supervised:
            for listener in sockets:
                refuse_new(listener)
        await asyncio.sleep(min(HANDSHAKE_SECONDS, HANDSHAKE_SHARE * self._timeout_seconds))
        copies = [listener.dup() for listener in sockets]
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        for listener in copies:
            with listener, suppress(BlockingIOError):
                listener.setblocking(False)
                while True:
                    connection, _ = listener.accept()
                    await self._loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def _finish_requests(self) -> None:
        """Each answer closes its connection by now, as the application says so in its head."""
        linger = self._loop.time() + LINGER_SECONDS
        while self.server_state.connections or self.server_state.tasks:
            if self._loop.time() > linger:
                for connection in list(self.server_state.connections):
                    connection.shutdown()
            await asyncio.sleep(POLL_SECONDS)

    async def _cut_requests(self) -> None:
        tasks = list(self.server_state.tasks)
        log.warning("requests took too long to end and are cut off", count=len(tasks))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_SECONDS)
