"""The folder of the private copies that imports read; replicas may share it."""

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from app.errors import TooLargeError, UnavailableError
from app.own_thread import OwnThread
from app.sources import as_text, snapshot


class Spool:
    """One copy for each import, by its id."""

    id: UUID
    """The same for all processes that use the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> None:
        """Makes the folder.

        Raises:
            OSError: it cannot be made or written.
        """
        self.id = await asyncio.to_thread(self._identify)

    @property
    def place(self) -> str:
        """The folder and its machine, for people."""
        return f"{as_text(self._folder)} on {socket.gethostname()}"

    def copy(self, import_id: UUID) -> Path:
        """Where the copy lies, or will."""
        return self._folder / f"{import_id}.sqlite"

    def remove(self, import_id: UUID) -> None:
        """Removes the copy, or what there is of it."""
        self.copy(import_id).unlink(missing_ok=True)
        self._partial(import_id).unlink(missing_ok=True)

    @contextmanager
    def removed_unless_taken(self, import_id: UUID) -> Iterator[Path]:
        """Where a copy is to be made; it is removed if no import comes of it."""
        try:
            yield self.copy(import_id)
        except BaseException:
            self.remove(import_id)
            raise

    async def take(self, import_id: UUID, path: Path) -> None:
        """Takes a snapshot of a file; whoever is cancelled meanwhile goes on when it is made, and can remove it.

        Raises:
            SourceError: it cannot be imported; says what was found and what was expected.
            UnavailableError: there is no room for it.
        """
        thread = OwnThread("snapshot")
        try:
            await thread.run(partial(snapshot, path, self.copy(import_id)))
        finally:
            thread.stop()

    async def receive(self, import_id: UUID, body: AsyncIterator[bytes], max_bytes: int) -> str:
        """Streams a body to disk; answers its SHA-256.

        Raises:
            TooLargeError: it is larger than `max_bytes`.
            UnavailableError: there is no room for it.
        """
        try:
            partial = self._partial(import_id)
            digest = await _write(body, partial, max_bytes)
            partial.replace(self.copy(import_id))
        except OSError as error:
            raise UnavailableError(f"the upload cannot be written to {self._folder}: {error.strerror}") from error
        return digest

    async def copies(self) -> list[tuple[Path, float]]:
        """Copies, also partial ones, and for how many seconds nobody has written to them."""
        return await asyncio.to_thread(self._copies)

    def _partial(self, import_id: UUID) -> Path:
        return self._folder / f"{import_id}.sqlite.partial"

    def _copies(self) -> list[tuple[Path, float]]:
        found = []
        for path in self._folder.glob("*.sqlite*"):
            with suppress(OSError):  # another process has removed it
                found.append((path, time.time() - path.stat().st_mtime))
        return found

    def _identify(self) -> UUID:
        """Makes folder and id on first use; the id is on the disk before it has its name."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        marker = self._folder / "id"
        candidate = self._folder / f"id.{uuid4()}"
        try:
            with candidate.open("w", encoding="ascii") as file:
                file.write(candidate.suffix[1:])
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                marker.hardlink_to(candidate)
        finally:
            candidate.unlink(missing_ok=True)
        try:
            return UUID(marker.read_text(encoding="ascii"))
        except ValueError:
            raise OSError(f"the file id in it holds no id of a spool folder; remove {marker}") from None


async def _write(body: AsyncIterator[bytes], path: Path, max_bytes: int) -> str:
    digest = hashlib.sha256()
    size = 0
    await asyncio.to_thread(path.touch, mode=0o600)
    with path.open("wb") as file:
        async for chunk in body:
            size += len(chunk)
            if size > max_bytes:
                raise TooLargeError(f"the file is larger than {max_bytes} bytes (AFTERIMAGE_MAX_UPLOAD_BYTES)")
            digest.update(chunk)
            await asyncio.to_thread(file.write, chunk)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    return digest.hexdigest()
