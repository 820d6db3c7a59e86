"""A primary and a standby of it, made by the wheel's pg_basebackup."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.store.embedded import EmbeddedPostgres
from app.store.embedded_programs import find_programs, make_folder
from tests.conftest import execute
from tests.servers import removed, socket_folder


@dataclass(frozen=True)
class Pair:
    """Their URLs, and the servers themselves, which can be killed and started."""

    primary: str
    standby: str
    primary_server: EmbeddedPostgres
    standby_server: EmbeddedPostgres

    @property
    def read_host(self) -> str:
        return socket_folder(self.standby)


@asynccontextmanager
async def running_pair(folder: Path) -> AsyncIterator[Pair]:
    primary = EmbeddedPostgres(folder / "primary")
    standby = EmbeddedPostgres(folder / "standby")
    with removed(primary), removed(standby):
        url = primary.start()
        with (primary.home / "pg_hba.conf").open("a") as rules:
            rules.write("local replication all peer map=afterimage\n")
        await execute(url, "SELECT pg_reload_conf()")
        _copy(url, standby)
        yield Pair(url, standby.start(), primary, standby)


def _copy(url: str, standby: EmbeddedPostgres) -> None:
    """Gives a server a copy of the data of another, whose standby it is then."""
    programs = find_programs(18)
    make_folder(standby.home, 0o755 if os.geteuid() == 0 else 0o700)
    data = standby.home / "data"
    data.mkdir(0o700)
    programs.give(data)
    source = ("-h", socket_folder(url), "-p", "5432", "-U", "afterimage")
    command = ("pg_basebackup", *source, "-D", data.name, "--checkpoint=fast", "--write-recovery-conf", "--no-sync")
    done = programs.run(*command, cwd=standby.home)
    assert done.returncode == 0, done.stdout
