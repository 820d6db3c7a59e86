"""Checks all that the service needs and changes nothing: `afterimage doctor`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from app.doctor.check import Check, Verdict
from app.doctor.machine import check_machine
from app.doctor.postgresql import check_postgresql
from app.doctor.sqlite import check_sqlite
from app.errors import StartupError
from app.settings import config_path, load_settings


async def report() -> int:
    """Prints a line for each check; answers 1 if anything is wrong, else 0."""
    wrong = False
    async with aclosing(examine()) as checks:  # what was opened is closed, even if nobody reads on
        async for check in checks:
            print(f"{check.verdict:<5} {check.name:<14} {check.text}", flush=True)
            wrong |= check.verdict is Verdict.WRONG
    return int(wrong)


async def examine() -> AsyncGenerator[Check]:
    """The checks in the order in which they depend on each other."""
    try:
        settings = load_settings()
    except StartupError as error:
        yield Check.failed("settings", error)
        return
    where = config_path()
    yield Check.passed("settings", f"backend {settings.backend}, {where if where.exists() else 'no settings file'}")
    if settings.backend == "sqlite":
        for check in check_sqlite(settings.sqlite_path):
            yield check
    else:
        async with aclosing(check_postgresql(settings)) as checks:
            async for check in checks:
                yield check
    for check in check_machine(settings):
        yield check
