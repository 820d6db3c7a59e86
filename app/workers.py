"""Several processes on one listening socket: starts them, starts again one that dies, and ends them all."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from uvicorn.config import STARTUP_FAILURE

from app.api import rate  # noqa: F401 - once for all workers, as `embedded` and `postgresql`
from app.api.peers import Peers
from app.listener import refuse_new
from app.logs import configure_logs
from app.main import create_app
from app.server import STOP_SIGNALS, Server
from app.serving import settle
from app.settings import Settings
from app.store import embedded, postgresql  # noqa: F401 - once for all workers, which would import them each

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 30.0
"""Before a worker that died is started again; twice as long each time, until one has lived for the longest pause."""

MARGIN_SECONDS = 2.0
"""Workers end by themselves in the time they have; this long after it they are killed."""

CLEAN = (0, -signal.SIGTERM)
"""How a worker ends that was told to; the second, when it had only just begun."""

log = structlog.get_logger(__name__)


class Place:
    """The place of one worker, whichever process fills it."""

    def __init__(self, number: int, start: Callable[[int, Connection], BaseProcess]) -> None:
        self.number = number
        self._start = start
        self._pause = FIRST_PAUSE_SECONDS
        self._started_at = 0.0
        self.process: BaseProcess | None = None
        self.start_at = 0.0
        self.ready = False
        self.problem: str | None = None
        self.status: int | None = 0

    def fill(self) -> None:
        """Starts a process if there is none and it is time for one."""
        if self.process is not None or time.monotonic() < self.start_at:
            return
        self.news, theirs = multiprocessing.Pipe(duplex=False)
        self._started_at = time.monotonic()
        self.problem = None
        with theirs:
            self.process = self._start(self.number, theirs)

    def look(self) -> bool:
        """Hears what the process has to say: that it is ready, or why it cannot start; True if it has ended."""
        while self.process is not None and self.news.poll():
            try:
                self.problem = self.news.recv()
                self.ready = self.problem is None
            except EOFError:
                self._bury(self.process)
                return True
        return False

    def _bury(self, process: BaseProcess) -> None:
        process.join()
        self.news.close()
        if not self.ready and self.problem is None:
            self.problem = f"worker {self.number} ended with status {process.exitcode} before it could answer"
        if time.monotonic() - self._started_at > MAX_PAUSE_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
        self.start_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
        self.status = process.exitcode
        self.process = None
        self.ready = False


class Supervisor:
    """Serves with as many processes as the settings say, and does none of the work itself.

    It is told once that all can answer, or why one cannot start. Later on, a worker that cannot start is tried again
    while the others serve. If the supervisor is killed, the workers end as if they were told to.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, started: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._started = started
        self._failed = failed
        self._places = [Place(number, self._start) for number in range(settings.workers)]
        self._signals, self._signalled = multiprocessing.Pipe(duplex=False)
        self._life = multiprocessing.Pipe(duplex=False)
        self._serving = False
        self._pid = os.getpid()

    def run(self) -> int:
        """Serves until it is told to stop; answers the exit status."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        settle()
        with tempfile.TemporaryDirectory(prefix="afterimage-") as folder:
            self._figures = Path(folder)
            try:
                return self._serve()
            finally:
                for process in self._processes():
                    process.kill()
                    process.join()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._pid:  # a worker that has not come so far as to have a handler of its own
            os._exit(0)
        self._signalled.send(number)

    def _serve(self) -> int:
        while not self._signals.poll():
            for place in self._places:
                place.fill()
            pauses = [place.start_at - time.monotonic() for place in self._places if place.process is None]
            ended = self._listen(max(0.0, min(pauses)) if pauses else None)
            if self._serving:
                for place in ended:
                    reason = place.problem or f"status {place.status}"
                    log.error("a worker has ended and is started again", worker=place.number, reason=reason)
            elif problems := [place.problem for place in self._places if place.problem is not None]:
                self._failed(problems[0])
                self._stop()
                return STARTUP_FAILURE
            elif all(place.ready for place in self._places):
                self._serving = True
                self._started()
        self._signals.recv()
        return self._stop()

    def _stop(self) -> int:
        """Ends all workers; a second signal kills them."""
        told = [place for place in self._places if place.process is not None]
        for process in self._processes():
            process.terminate()
        closes = time.monotonic() + self._settings.stop_delay_seconds
        self._await_ends(closes)
        refuse_new(self._listener)  # for all workers, which wait a moment before they stop listening
        self._listener.close()
        self._await_ends(closes + self._settings.stop_timeout_seconds + MARGIN_SECONDS)
        if self._processes() and self._signals.poll():
            return 128 + int(self._signals.recv())
        return 0 if all(place.process is None and place.status in CLEAN for place in told) else 1

    def _await_ends(self, deadline: float) -> None:
        """Returns when all workers have ended, at a signal, or at that time of the monotonic clock."""
        while self._processes() and not self._signals.poll() and (left := deadline - time.monotonic()) > 0:
            self._listen(left)

    def _listen(self, seconds: float | None) -> list[Place]:
        """Waits for news of a worker, or for a signal; answers the places whose process has ended."""
        wait([self._signals, *(place.news for place in self._places if place.process is not None)], seconds)
        return [place for place in self._places if place.look()]

    def _processes(self) -> list[BaseProcess]:
        return [place.process for place in self._places if place.process is not None]

    def _start(self, number: int, news: Connection) -> BaseProcess:
        # A copy of this process shares the memory of all modules with it; elsewhere a copy may be unsound.
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        peers = Peers(self._figures, number)
        process: BaseProcess = context.Process(
            target=work, args=(self._settings, peers, self._listener, news, self._life, not self._serving)
        )
        process.start()
        return process


def work(
    settings: Settings,
    peers: Peers,
    listener: socket.socket,
    news: Connection,
    life: tuple[Connection, Connection],
    decides_model: bool,
) -> None:
    """What a worker does; ends the process.

    `life` is a pipe, as (reader, writer), whose writer the supervisor alone keeps: it is at its end when that has died.
    A worker that takes the place of another does not decide the model: another service may have been started since.
    """
    supervisor, writer = life
    writer.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the supervisor has it too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    configure_logs(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(worker=peers.worker)
    server = Server(
        create_app(settings, peers, decides_model=decides_model),
        settings,
        started=lambda: news.send(None),
        failed=news.send,
        supervised=True,
    )
    threading.Thread(target=_end_with, args=[supervisor, server], daemon=True).start()
    sys.exit(server.serve_on(listener))


def _end_with(supervisor: Connection, server: Server) -> None:
    supervisor.poll(None)
    server.stop_orphaned()
