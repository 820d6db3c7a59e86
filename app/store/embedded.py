"""The service's own PostgreSQL, shared by all who use the same folder."""

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

from app.errors import StartupError
from app.folders import refuse_unwritable

if sys.platform != "win32":
    import fcntl

    from app.store.embedded_programs import SYSTEM_FOLDER, find_programs, locked, make_folder
    from app.store.embedded_server import OWN_FILES, Server


class EmbeddedPostgres:
    """One user of a folder's server; any number may live at once, in one process or in several.

    `home` is where the data really is: root's is below `/var/lib/afterimage`. Two locks in it make the sharing safe:
    `start.lock`, held while the server is started or stopped, and `users.lock`, which all users share. The kernel
    releases them however a process ends.
    """

    def __init__(self, folder: Path, version: int = 18) -> None:
        self._folder = self.home = Path(os.path.realpath(folder))
        if sys.platform != "win32" and os.geteuid() == 0:
            self.home = SYSTEM_FOLDER / hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        self._version = version
        self._user: BinaryIO | None = None

    def start(self) -> str:
        """Starts the server unless it runs, and gives its URL; takes about a second the first time.

        Raises:
            StartupError: it cannot run here.
        """
        if sys.platform == "win32":
            raise StartupError(
                "the service has no PostgreSQL of its own on Windows: "
                "set AFTERIMAGE_PG_HOST or AFTERIMAGE_DATABASE_URL to a server"
            )
        refuse_unwritable(self._folder, "AFTERIMAGE_POSTGRES_FOLDER")  # root's too, who keeps nothing in it
        try:
            return self._start()
        except OSError as error:
            raise StartupError(
                f"the service's own PostgreSQL cannot use {self.home} ({error}): "
                "mend that, or set AFTERIMAGE_POSTGRES_FOLDER to another folder"
            ) from error

    def _start(self) -> str:
        self._server = Server(self.home, find_programs(self._version))
        make_folder(self.home, 0o755 if os.geteuid() == 0 else 0o700)
        self._refuse_other_files()
        with locked(self.home / "start.lock", fcntl.LOCK_EX):
            self._refuse_other_version()
            user = locked(self.home / "users.lock", fcntl.LOCK_SH)
            try:
                url = self._server.serve()
            except BaseException:
                user.close()
                raise
            self._user = user
            return url

    def revive(self) -> bool:
        """Starts the server again if it has died; False if it lives, or somebody is starting or stopping it.

        Raises:
            StartupError: it does not start.
        """
        with (
            contextlib.suppress(BlockingIOError),
            locked(self.home / "start.lock", fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            if self._user is not None and self._server.is_gone:
                self._server.serve()
                return True
        return False

    @property
    def has_users(self) -> bool:
        """True if a process, this one too, uses the server."""
        if not (self.home / "users.lock").exists():
            return False
        try:
            locked(self.home / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB).close()
        except BlockingIOError:
            return True
        return False

    def stop(self) -> None:
        """Stops the server if this was its last user."""
        if self._user is None:
            return
        with locked(self.home / "start.lock", fcntl.LOCK_EX) as start_lock:
            self._user.close()
            self._user = None
            with contextlib.suppress(BlockingIOError), locked(self.home / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._server.shut_down(start_lock)

    def _refuse_other_files(self) -> None:
        others = sorted(set(os.listdir(self.home)) - OWN_FILES)
        if others and not (self.home / "data").exists():
            raise StartupError(
                f"{self.home} holds other files, such as {others[0]}: "
                "set AFTERIMAGE_POSTGRES_FOLDER to an empty folder or to one that is not there yet"
            )

    def _refuse_other_version(self) -> None:
        data = self.home / "data"
        if data.exists() and (found := (data / "PG_VERSION").read_text().strip()) != str(self._version):
            raise StartupError(
                f"{data} is of PostgreSQL {found} and this is PostgreSQL {self._version}: "
                "bring the data over with pg_dump, or set AFTERIMAGE_POSTGRES_FOLDER to another folder"
            )
