"""The connections to a SQLite file: one writer that commits in groups, and several readers."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.errors import AfterImageError, StartupError, UnavailableError
from app.logs import describe
from app.store import migrate
from app.store.protocol import StoreLoad
from app.store.sqlite.work_connection import Work, WorkConnection

READERS = 4

MAX_GROUP = 256
"""Writes that share one commit at most."""

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"

T = TypeVar("T")

POLL_SECONDS = 0.01

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class QueuedWrite:
    """What waits for the writer."""

    work: Work[Any]
    answer: asyncio.Future[Any]
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """True for who comes first: the writer's thread, to run it, or the caller, who no longer waits for it."""
        return self._turn.acquire(blocking=False)


class SqliteConnections:
    """One file in WAL mode; every commit reaches the disk (synchronous=FULL)."""

    def __init__(
        self, path: Path, acquire_timeout_seconds: float = 30.0, statement_timeout_seconds: float = 30.0
    ) -> None:
        """How long to wait for a reader, the writer, or another process that writes; and for what runs then."""
        self._path = path
        self._acquire_timeout_seconds = acquire_timeout_seconds
        self._statement_timeout_seconds = statement_timeout_seconds
        self._queue: asyncio.Queue[QueuedWrite | None] = asyncio.Queue()
        self._readers: list[WorkConnection] = []
        self._free: asyncio.Queue[WorkConnection] = asyncio.Queue()
        self._count = 0
        self._wait_seconds = 0.0

    async def open(self) -> None:
        """Opens the file, making it if it is not there, and brings its tables up to date.

        Raises:
            StartupError: the file cannot be used, or is not ours.
        """
        opening = asyncio.ensure_future(self._open())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(StartupError):
                await opening
                await self.close()  # the thread of a connection that nobody closes keeps the process alive
            raise

    async def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._writer = await self._connect()
        except (OSError, sqlite3.Error) as error:
            raise StartupError(
                f"the SQLite file {self._path} cannot be opened: {error}; "
                "check AFTERIMAGE_SQLITE_PATH and its permissions"
            ) from None
        try:
            await self._refuse_foreign_file()
            await self._write_ahead(self._writer)
            await self._migrate()
            for _ in range(READERS):
                self._readers.append(await self._connect())
                self._free.put_nowait(self._readers[-1])
        except sqlite3.Error as error:
            await self._disconnect()
            raise StartupError(f"the SQLite file {self._path} cannot be used: {error}") from None
        except BaseException:
            await self._disconnect()
            raise
        self._task = asyncio.create_task(self._write(), name="sqlite-writer")

    async def _write_ahead(self, connection: WorkConnection) -> None:
        """Switches the file to a write-ahead log.

        Others may do so at the same moment, and here alone SQLite does not wait for them by itself.
        """
        until = time.monotonic() + self._acquire_timeout_seconds
        while True:
            try:
                await connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Commits what is queued and closes the file."""
        await self._queue.put(None)
        await self._task
        await self._disconnect()

    async def read(self, work: Work[T]) -> T:
        """Runs statements on a reader, which sees everything that was committed before.

        Raises:
            UnavailableError: none became free in time, or the statements took too long.
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._acquire_timeout_seconds):
                connection = await self._free.get()
        except TimeoutError:
            raise self._too_busy("no reader became free") from None
        finally:
            self._note(began)
        reading = asyncio.ensure_future(
            connection.run(partial(connection.in_time, work, self._statement_timeout_seconds))
        )

        def give_back(_: object) -> None:
            self._free.put_nowait(connection)
            if not reading.cancelled():
                reading.exception()  # nobody may be there any more to be told

        reading.add_done_callback(give_back)
        try:
            return await asyncio.shield(reading)  # whoever is cancelled does not end it
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"SQLite does not answer: {self._reason(error)}") from error

    async def write(self, work: Work[T]) -> T:
        """Runs statements in a transaction; answers once they are on the disk.

        What is waiting at the same time shares a commit, each under a savepoint of its own: one that fails takes no
        other with it.

        Raises:
            UnavailableError: its turn did not come in time, or it could not be stored.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        write = QueuedWrite(work, answer)
        began = time.perf_counter()
        self._queue.put_nowait(write)
        try:
            await asyncio.wait({answer}, timeout=self._acquire_timeout_seconds)
            if not answer.done() and write.take():
                raise self._too_busy("the writer did not become free")
            return await answer
        finally:
            write.take()  # nobody waits any more: what has not begun never does
            answer.cancel()
            self._note(began)

    def _too_busy(self, what: str) -> UnavailableError:
        seconds = f"{self._acquire_timeout_seconds:g} s (AFTERIMAGE_ACQUIRE_TIMEOUT_SECONDS)"
        return UnavailableError(f"SQLite is busy, {what} within {seconds}; send it again later")

    def _reason(self, error: Exception) -> str:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
            return str(error)
        return (
            f"the statements ran longer than {self._statement_timeout_seconds:g} s "
            "(AFTERIMAGE_STATEMENT_TIMEOUT_SECONDS)"
        )

    def load(self) -> StoreLoad:
        """How busy the readers are, and how many writes wait; a write's waiting lasts until it is on the disk."""
        return StoreLoad(READERS + 1, self._free.qsize(), self._queue.qsize(), self._count, self._wait_seconds)

    def _note(self, began: float) -> None:
        self._count += 1
        self._wait_seconds += time.perf_counter() - began

    async def _write(self) -> None:
        while (first := await self._queue.get()) is not None:
            group = [first]
            stopping = False
            while len(group) < MAX_GROUP and not self._queue.empty():
                item = self._queue.get_nowait()
                if item is None:
                    stopping = True
                    break
                group.append(item)
            await self._commit(group)
            if stopping:
                return

    async def _commit(self, group: list[QueuedWrite]) -> None:
        group = [write for write in group if not write.answer.done()]
        if not group:
            return
        try:
            results = await self._writer.run(partial(self._store, group))
        except Exception as error:  # noqa: BLE001 - handed to every caller
            results = [UnavailableError(f"SQLite did not store: {self._reason(error)}")] * len(group)
            await self._roll_back()
        for write, result in zip(group, results, strict=True):
            if write.answer.done():
                continue
            if isinstance(result, Exception):
                write.answer.set_exception(result)
            else:
                write.answer.set_result(result)

    def _store(self, group: list[QueuedWrite], connection: sqlite3.Connection) -> list[Any]:
        """The result of each write, or the error that undid it; in the writer's thread."""
        connection.execute("BEGIN IMMEDIATE")
        results = [self._attempt(write.work, connection) if write.take() else None for write in group]
        connection.execute("COMMIT")
        return results

    async def _roll_back(self) -> None:
        """Makes the writer usable again, by a new connection if there is no other way."""
        try:
            if self._writer.in_transaction:
                await self._writer.execute("ROLLBACK")
        except (sqlite3.Error, ValueError) as error:
            log.warning("the SQLite file is opened again", path=str(self._path), reason=describe(error))
            with suppress(sqlite3.Error, ValueError):
                await self._writer.close()
            with suppress(sqlite3.Error):
                self._writer = await self._connect()

    def _attempt(self, work: Work[Any], connection: sqlite3.Connection) -> Any:
        """The result of the work, or the error that undid it."""
        connection.execute("SAVEPOINT work")
        try:
            result = self._writer.in_time(work, self._statement_timeout_seconds, connection)
        except sqlite3.OperationalError as error:
            if not connection.in_transaction:  # ended within a change, SQLite has undone the group
                raise
            _undo(connection)
            return UnavailableError(f"SQLite did not store: {self._reason(error)}")
        except (AfterImageError, sqlite3.Error, ValueError) as error:
            _undo(connection)
            return error
        connection.execute("RELEASE work")
        return result

    async def _connect(self) -> WorkConnection:
        connection = WorkConnection(self._path, self._acquire_timeout_seconds)
        await connection
        try:
            await connection.prepare()
        except BaseException:
            await connection.close()  # its thread would keep the process alive
            raise
        return connection

    async def _disconnect(self) -> None:
        while self._readers:  # each once its work has ended
            connection = await self._free.get()
            self._readers.remove(connection)
            await connection.close()
        await self._writer.close()

    async def _refuse_foreign_file(self) -> None:
        async with self._writer.execute(TABLES) as cursor:
            refuse_foreign(self._path, {row["name"] for row in await cursor.fetchall()})

    async def _migrate(self) -> None:
        """Applies migrations in one transaction; BEGIN IMMEDIATE makes starting processes wait for each other."""
        await self._writer.execute("BEGIN IMMEDIATE")
        try:
            await self._writer.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations "
                "(version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
            )
            async with self._writer.execute("SELECT coalesce(max(version), 0) FROM schema_migrations") as cursor:
                row = await cursor.fetchone()
            for migration in migrate.pending("sqlite", row[0] if row else 0):
                for statement in statements(migration.sql):
                    await self._writer.execute(statement)
                await self._writer.execute("INSERT INTO schema_migrations (version) VALUES (?)", (migration.version,))
                log.info("migrated", version=migration.version)
            await self._writer.execute("COMMIT")
        except (sqlite3.Error, StartupError):
            if self._writer.in_transaction:
                await self._writer.execute("ROLLBACK")
            raise


def _undo(connection: sqlite3.Connection) -> None:
    connection.execute("ROLLBACK TO work")
    connection.execute("RELEASE work")


def refuse_foreign(path: Path, tables: Set[str]) -> None:
    """Raises StartupError if these are the tables of another program."""
    if not tables or "schema_migrations" in tables:
        return
    if "code_memory" in tables:
        new = path.with_name("afterimage.db")
        raise StartupError(
            f"{path} is an AI-AfterImage file, which this service imports and never changes; run: "
            f"AFTERIMAGE_SQLITE_PATH={new} afterimage migrate --sqlite {path} "
            f"and set storage.sqlite.path (or AFTERIMAGE_SQLITE_PATH) to {new}"
        )
    raise StartupError(
        f"{path} is a database of another program (tables: {', '.join(sorted(tables)[:5])}); "
        "set AFTERIMAGE_SQLITE_PATH to another file"
    )


def statements(script: str) -> list[str]:
    """A script in single statements: `executescript` would commit first."""
    found: list[str] = []
    current = ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found
