"""The command line: `afterimage`, and `python -m app`."""

import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from uuid import UUID

import typer

from app.errors import AfterImageError, ConflictError, InvalidInputError, StartupError

if TYPE_CHECKING:  # each command imports what it needs: none waits for what the others need
    from app.access import Key
    from app.imports import ImportOptions
    from app.settings import Settings
    from app.store.protocol import Store

T = TypeVar("T")

cli = typer.Typer(
    help="AfterImage: a memory server for coding agents.", no_args_is_help=True, pretty_exceptions_enable=False
)


def main() -> None:
    """Runs a command; an error is one line on standard error and exit status 1."""
    if isinstance(sys.stdout, TextIOWrapper):  # code holds what not every terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli()
    except AfterImageError as error:
        print(f"afterimage: {error}", file=sys.stderr)
        sys.exit(1)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve; 1 if absent.")] = None,
) -> None:
    """Runs the service."""
    gc.disable()  # until all is loaded, of which nothing is garbage
    from app.listener import listen
    from app.main import create_app
    from app.server import Server

    settings = _settings(host=host, port=port, workers=workers)
    if settings.backend == "sqlite" and settings.workers > 1:
        raise StartupError(
            f"SQLite is for one process, and AFTERIMAGE_WORKERS is {settings.workers}; leave that at 1, "
            "or set AFTERIMAGE_BACKEND=postgresql"
        )
    listener = listen(settings.host, settings.port)
    address = "http://{}:{}".format(*listener.getsockname()[:2])

    def started() -> None:
        print(f"AfterImage is at {address}, its API at {address}/docs; Ctrl-C ends it", file=sys.stderr)

    def failed(reason: str) -> None:
        print(f"afterimage: {reason}", file=sys.stderr)

    if settings.workers > 1:
        from app.workers import Supervisor

        sys.exit(Supervisor(settings, listener, started, failed).run())
    sys.exit(Server(create_app(settings), settings, started, failed).serve_on(listener))


@cli.command()
def migrate(
    sqlite: Annotated[Path, typer.Option(help="The AI-AfterImage file.")],
    validate: Annotated[bool, typer.Option(help="Compare every row afterwards.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
    project: Annotated[str | None, typer.Option(help="Where the memories go; `default` if absent.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=10_000, help="Rows per transaction.")] = None,
) -> None:
    """Imports an AI-AfterImage file into the configured store."""
    from app.imports import ImportOptions
    from app.serving import run

    settings = _settings(quiet=True)
    _refuse_empty([project])
    options = ImportOptions(project, validate=validate, dry_run=dry_run, batch_size=batch_size)
    job = run(_migrate(settings, _absolute(sqlite), options))
    sys.exit(0 if job else 1)


async def _migrate(settings: "Settings", path: Path, options: "ImportOptions") -> bool:
    """True if every row was taken and none differs."""
    from app.audit import Audit
    from app.main import open_imports, open_store
    from app.migration_report import follow, print_report
    from app.models import ImportState
    from app.serving import settle
    from app.sources import shown_name

    async with AsyncExitStack() as stack:
        store = await open_store(settings, settings.embedding_model, stack)
        imports = await open_imports(settings, store)
        audit = Audit(store.keys)
        async with audit.record(
            None, "import.start", source=shown_name(path), project=options.project, dry_run=options.dry_run
        ) as action:
            claimed = await imports.begin(path, options)
            action.came_to(claimed.job.id, project=claimed.job.project)
        print("Starting migration...", flush=True)
        settle()
        job = await follow(imports, claimed)
        findings = await imports.problems(job)
    print_report(job, findings)
    return job.state is ImportState.COMPLETED and not findings


@cli.command()
def export(
    sqlite: Annotated[Path, typer.Option(help="The AI-AfterImage file to write.")],
    project: Annotated[list[str] | None, typer.Option(help="Only of this project; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Writes the memories of the configured store into an AI-AfterImage file."""
    from app.serving import run

    settings = _settings(quiet=True)
    _refuse_empty(project)
    failed = run(_export(settings, _absolute(sqlite), project, overwrite=force))
    sys.exit(1 if failed else 0)


async def _export(settings: "Settings", path: Path, projects: list[str] | None, *, overwrite: bool) -> int:
    """How many memories could not be written."""
    from app import export_report
    from app.audit import Audit
    from app.export_run import ExportRun
    from app.main import open_store
    from app.sources import shown_name

    if path == settings.sqlite_path.resolve():
        raise ConflictError(f"{path} is the service's own file (AFTERIMAGE_SQLITE_PATH); name another")
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        store = await open_store(settings, settings.embedding_model, stack)
        await _name_unknown(store, projects)
        run = ExportRun(store, path, projects, overwrite=overwrite)
        async with Audit(store.keys).record(None, "export.start", file=shown_name(path), projects=projects):
            await export_report.follow(run)
    export_report.print_report(run, time.monotonic() - began)
    return run.counts.failed


keys_cli = typer.Typer(help="Makes, lists and revokes the keys that clients send.", no_args_is_help=True)
cli.add_typer(keys_cli, name="keys")


@keys_cli.command(name="create")
def create_key(
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[str, typer.Option(help="Of `read`, `write` and `admin`, separated by commas.")],
    projects: Annotated[str | None, typer.Option(help="Those it sees, separated by commas; absent: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="A time as 2030-01-31, or a span as 90d or 12h.")] = None,
) -> None:
    """Makes a key and prints it, this once; from the first one on every request needs one."""
    from app.audit import Audit, key_details
    from app.key_text import describe_key, key_asked_for
    from app.main import open_keys

    settings = _settings(quiet=True)
    asked = key_asked_for(name, scope, projects, expires)

    async def make(store: "Store") -> str:
        wanted = asked.name, asked.scopes, asked.projects, asked.expires_at
        async with Audit(store.keys).record(None, "key.create", **key_details(*wanted)) as action:
            key, text = await open_keys(settings, store).create(*wanted)
            action.came_to(key.id)
        print(f"{describe_key(key)}\nThe key, which is shown this once:", file=sys.stderr)
        return text

    print(_with_store(settings, make))


@keys_cli.command(name="list")
def list_keys() -> None:
    """Lists all keys, newest first, without their secrets."""
    from app.key_text import describe_key

    settings = _settings(quiet=True)
    for key in _with_store(settings, lambda store: store.keys.all()):
        print(describe_key(key))


@keys_cli.command(name="revoke")
def revoke_key(key_id: Annotated[UUID, typer.Argument(metavar="ID", help="As `list` shows it.")]) -> None:
    """Revokes a key, from the next request on."""
    from app.audit import Audit
    from app.key_text import describe_key
    from app.main import open_keys

    settings = _settings(quiet=True)

    async def revoke(store: "Store") -> "Key":
        async with Audit(store.keys).record(None, "key.revoke", key_id) as action:
            key = await open_keys(settings, store).revoke(key_id)
            action.came_to(name=key.name)
        return key

    print(describe_key(_with_store(settings, revoke)))


def _with_store(settings: "Settings", work: "Callable[[Store], Awaitable[T]]") -> T:
    """Runs something on the open store."""
    from app.main import open_store
    from app.serving import run

    async def on_store() -> T:
        async with AsyncExitStack() as stack:
            return await work(await open_store(settings, settings.embedding_model, stack))

    return run(on_store())


@cli.command(name="doctor")
def examine() -> None:
    """Checks all that the service needs, changes nothing, and says how to mend what is wrong."""
    from app import doctor
    from app.serving import run

    sys.exit(run(doctor.report()))


@cli.command()
def stats() -> None:
    """Prints what the store holds, as JSON."""
    from app import embedding_status

    settings = _settings(quiet=True)
    found = _with_store(settings, embedding_status.stats_of)
    print(json.dumps(asdict(found), indent=2, default=str))


@cli.command()
def embed(
    status: Annotated[bool, typer.Option("--status", help="Print how far they are; also without options.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="First queue anew what was given up, and what lacks a vector.")
    ] = False,
) -> None:
    """Prints which embedding models are in use, how far their vectors are, and why some could not be made."""
    from app import embedding_status
    from app.audit import Audit

    settings = _settings(quiet=True)

    async def look(store: "Store") -> str:
        if restart:
            async with Audit(store.keys).record(None, "embed.restart") as action:
                failed, missing = await embedding_status.restart(store)
                action.came_to(failed=failed, missing=missing)
            print(f"Queued anew: {failed} that were given up, {missing} that were missing.", flush=True)
        if restart and not status:
            return "A running service makes them; afterimage embed --status shows how far it is."
        return embedding_status.describe(await embedding_status.status_of(store, settings.embedding_model))

    print(_with_store(settings, look))


@cli.command()
def search(
    query: Annotated[str, typer.Argument(help="Plain English, identifiers or code.")],
    mode: Annotated[Literal["fts", "semantic", "hybrid"], typer.Option(help="How to search.")] = "hybrid",
    project: Annotated[list[str] | None, typer.Option(help="Only in this project; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=100, help="Hits at most.")] = None,
) -> None:
    """Searches the store and prints the hits, best first."""
    from app.main import open_searches, open_store
    from app.models import Scope
    from app.search import SearchMode
    from app.serving import run

    settings = _settings(quiet=True)
    _refuse_empty(project)

    async def find() -> None:
        async with AsyncExitStack() as stack:
            store = await open_store(settings, settings.embedding_model, stack)
            await _name_unknown(store, project)
            searches = await open_searches(settings, store, stack, SearchMode(mode))
            hits = await searches.search(
                SearchMode(mode),
                query,
                Scope(projects=project),
                limit or settings.max_results,
                settings.relevance_threshold,
            )
            for hit in hits:
                memory = hit.memory
                print(f"{hit.score:.3f}  {memory.file_path}  ({memory.project}, {memory.timestamp:%Y-%m-%d %H:%M})")
                print("\n".join(f"       {line}" for line in memory.new_code.splitlines()[:5]))

    run(find())


def _absolute(path: Path) -> Path:
    """The path without links and `~`; of a link that leads to itself that is the link."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def _refuse_empty(projects: Sequence[str | None] | None) -> None:
    if "" in (projects or ()):
        raise InvalidInputError("--project is empty; name a project, or leave the option out")


async def _name_unknown(store: "Store", projects: Sequence[str] | None) -> None:
    """Says which of the projects hold nothing; misspelt, most likely."""
    from app.models import Scope

    for project in projects or ():
        if not await store.memories.page(Scope(projects=[project]), 1, None):
            print(f"afterimage: the project {project!r} holds no memories", file=sys.stderr)


def _settings(*, quiet: bool = False, **arguments: Any) -> "Settings":
    """The settings, with logs as they say; a command for a person logs only what is wrong."""
    from app.logs import configure_logs
    from app.settings import load_settings, unknown_settings

    settings = load_settings(**arguments)
    configure_logs("warning" if quiet else settings.log_level, settings.log_format)
    for name in unknown_settings():
        print(f"afterimage: nothing reads the setting {name}; check its spelling", file=sys.stderr)
    return settings
