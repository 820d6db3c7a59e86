"""The PostgreSQL server of one folder: how it is made, started, found and stopped."""

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import tempfile
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from app.errors import StartupError
from app.store.embedded_programs import Programs, complaint, locked

NAME = "afterimage"
"""Of role and database."""
PORT = 5432
"""Part of the socket's name; no network port."""
START_SECONDS = 60
STOP_SECONDS = 60
POLL_SECONDS = 0.05
MAX_SOCKET_BYTES = 103
"""The limit of macOS; Linux allows 107."""
LOG = "postgresql.log"
INITDB = (f"--username={NAME}", "--auth=peer", "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync")
SETTINGS = {
    "cluster_name": NAME,
    "log_checkpoints": "off",
    "log_min_messages": "log",  # no errors of statements: the client has them, and they repeat what was sent
    "log_timezone": "UTC",
    "max_connections": "200",
    "timezone": "UTC",
}
"""Written once to `data/postgresql.conf`, where they may be changed."""
LOCKS = {"start.lock", "users.lock", "server.lock"}
OWN_FILES = LOCKS | {"data", "data.new", "socket", "pg_hba.conf", "pg_ident.conf", LOG, f"{LOG}.1", "lost+found"}
"""What may lie in the folder when there is no cluster yet, or no longer."""


class Server:
    """The server whose cluster is `home/data`; the caller lets only one process at a time start or stop it.

    Whatever writes to the data holds `server.lock`, down to the last process of the server: no process id is trusted.
    """

    def __init__(self, home: Path, programs: Programs) -> None:
        self.home = home
        self.programs = programs

    def serve(self) -> str:
        """Waits for the server that lives, or starts one, and gives its URL.

        Raises:
            StartupError: it did not start or gave no answer in time; names the log and what it says.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                last_line = self._log_text().rstrip().rpartition("\n")[2]
                raise self._failure(f"gave no answer within {START_SECONDS} s", last_line)
            try:
                with self._lock() as lock:
                    self._launch(lock)
            except BlockingIOError:
                time.sleep(POLL_SECONDS)
        return f"postgresql://{NAME}@/{NAME}?host={quote(str(self._socket_folder()), safe='')}&port={PORT}"

    def shut_down(self, start_lock: BinaryIO) -> None:
        """Stops the server if it lives; one that takes longer than a minute goes on stopping by itself.

        `start_lock` stays locked even if this process is killed meanwhile: nobody finds a server that is about to stop.
        """
        if not self._lives():
            return
        command = ("pg_ctl", "stop", "-D", "data", "-m", "fast", "-t", str(STOP_SECONDS))
        if self.programs.run(*command, cwd=self.home, inherit=start_lock).returncode == 0:
            self._remove_socket_folder()

    def _lock(self) -> BinaryIO:
        return locked(self.home / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def is_gone(self) -> bool:
        """True if not even a process of it is left, without asking it."""
        try:
            self._lock().close()
        except BlockingIOError:
            return False
        return True

    def _lives(self) -> bool:
        return not self.is_gone or self._answers()

    def _answers(self) -> bool:
        folder = self._socket_folder()
        try:
            ours = folder.stat().st_uid == self.programs.user.pw_uid
        except FileNotFoundError:
            return False
        command = ("pg_isready", "-h", str(folder), "-p", str(PORT), "-U", NAME, "-d", NAME)
        return ours and self.programs.run(*command, cwd=self.home).returncode == 0

    def _launch(self, lock: BinaryIO) -> None:
        if not (self.home / "data").exists():
            self._create(lock)
        # Left by a server that was killed; the process id in it may be another's by now.
        (self.home / "data" / "postmaster.pid").unlink(missing_ok=True)
        if (self.home / LOG).exists():
            (self.home / LOG).replace(self.home / f"{LOG}.1")
        users = {self.programs.user.pw_name, pwd.getpwuid(os.geteuid()).pw_name}
        self._write(LOG, "")
        self._write("pg_hba.conf", f"local all all peer map={NAME}\n")
        self._write("pg_ident.conf", "".join(f'{NAME} "{user}" {NAME}\n' for user in sorted(users)))
        options = {
            "hba_file": "pg_hba.conf",
            "ident_file": "pg_ident.conf",
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._make_socket_folder()),
            "unix_socket_permissions": "0700",
        }
        words = shlex.join(f"--{name}={value}" for name, value in options.items())
        # Relative paths, since pg_ctl does not quote them for its shell.
        command = ("pg_ctl", "start", "-D", "data", "-l", LOG, "-t", str(START_SECONDS), "-o", words)
        started = self.programs.run(*command, cwd=self.home, inherit=lock)
        if started.returncode != 0:
            raise self._failure("did not start", started.stdout + self._log_text())

    def _create(self, lock: BinaryIO) -> None:
        """Makes the cluster and its database; `data` appears when all of it is on disk."""
        new = self.home / "data.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir(0o700)
        self.programs.give(new)
        self._make(lock, "initdb", *INITDB, *(f"--set={name}={value}" for name, value in SETTINGS.items()), new.name)
        single_user = ("--single", "-D", new.name, "-F", "--exit_on_error=on", "template1")
        self._make(lock, "postgres", *single_user, stdin=f"CREATE DATABASE {NAME}\n")
        os.sync()  # once: an fsync of each of its thousand files takes seconds on a busy machine
        new.rename(self.home / "data")
        os.sync()

    def _make(self, lock: BinaryIO, program: str, *arguments: str, stdin: str = "") -> None:
        done = self.programs.run(program, *arguments, cwd=self.home, stdin=stdin, inherit=lock)
        if done.returncode != 0:
            raise StartupError(
                f"PostgreSQL's {program} failed in {self.home} ({complaint(done.stdout)}): "
                "mend that, or set AFTERIMAGE_POSTGRES_FOLDER to another folder"
            )

    def _write(self, name: str, text: str) -> None:
        """Writes a file for the server; not into `data`, where its user could set a link for root to follow."""
        path = self.home / name
        path.touch(0o600)
        path.write_text(text)
        self.programs.give(path)

    def _socket_folder(self) -> Path:
        return Path(os.path.realpath(self.home / "socket"))

    def _make_socket_folder(self) -> Path:
        """A new private folder, elsewhere if this one's path is too long; a comma would be read as a second folder.

        Elsewhere it is the same again after a crash: those who use the server know its path.
        """
        folder = self.home / "socket"
        elsewhere = self._socket_folder()
        if folder.is_symlink() and elsewhere.is_dir() and elsewhere.stat().st_uid == self.programs.user.pw_uid:
            for path in elsewhere.iterdir():
                path.unlink()
            return elsewhere
        self._remove_socket_folder()
        if len(os.fsencode(folder / ".s.PGSQL.5432")) > MAX_SOCKET_BYTES or "," in str(folder):
            folder.symlink_to(tempfile.mkdtemp(prefix=f"{NAME}-"))
        else:
            folder.mkdir(0o700)
        self.programs.give(folder)
        return self._socket_folder()

    def _remove_socket_folder(self) -> None:
        shutil.rmtree(self._socket_folder(), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (self.home / "socket").unlink()

    def _log_text(self) -> str:
        log = self.home / LOG
        return log.read_text(errors="replace") if log.exists() else ""

    def _failure(self, what: str, output: str) -> StartupError:
        return StartupError(
            f"PostgreSQL {what} ({complaint(output)}): see {self.home / LOG}, "
            "or set AFTERIMAGE_POSTGRES_FOLDER to another folder"
        )
