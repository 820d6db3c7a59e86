"""Import of one file by AI-AfterImage 0.7.0's own importer and by ours, on the same PostgreSQL, in one run.

    python -m tests.benchmarks.imports [FILE]

Without a file it writes one of 5,000 memories with vectors. AI-AfterImage is installed from PyPI into an environment of
its own, below `.build/`. Each import goes into a fresh database. The figures to look at are the ratios: the machine's
speed cancels out. Both run by turns and the medians are compared, so that one busy moment does not decide.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from pgvector import HalfVector
from pgvector.asyncpg import register_vector

from app.imports import ImportLimits, ImportOptions, Imports
from app.models import SourceRow
from app.redaction import Redaction
from app.serving import run, settle
from app.settings import Settings
from app.sources import Reader, snapshot
from app.store.embedded import EmbeddedPostgres
from app.store.postgresql import PostgresStore
from app.store.postgresql.connections import Connections
from tests.peers import ai_afterimage
from tests.source_files import entry, walk, write_ai_afterimage

PEER = "0.7.0"

# Validation is off: with a database that holds other rows it compares the wrong counts.
PEER_RUN = """
import json, sys, time
from pathlib import Path
from afterimage.migrate import migrate_sqlite_to_postgres
started = time.perf_counter()
stats = migrate_sqlite_to_postgres(
    Path(sys.argv[1]), {"connection_string": sys.argv[2]}, validate=False, progress_callback=lambda *_: None
)
print(json.dumps({"migrated": stats.migrated_entries, "seconds": time.perf_counter() - started}))
"""

MODEL = "all-MiniLM-L6-v2"
ROWS = 5000
ROUNDS = 3
"""In each theirs runs once, and ours before it and after it."""


def main() -> None:
    """Prints the figures as a table and as JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else written(folder / "memory.db")
        server = EmbeddedPostgres(folder / "postgres")
        url = server.start()
        try:
            figures = run(measure(source, folder, url))
        finally:
            server.stop()
    for label, figure in figures.items():
        print(f"{label:<52} {figure:>10,.1f}")
    print(json.dumps(figures))


def written(path: Path) -> Path:
    """A file of AI-AfterImage with vectors."""
    return write_ai_afterimage(path, (entry(number) for number in range(1, ROWS + 1)))


async def measure(source: Path, folder: Path, url: str) -> dict[str, float]:
    """Rows per second of each way, and the ratios."""
    await asyncio.to_thread(ai_afterimage, PEER)  # not between the runs that are compared
    settle()  # as `afterimage serve` and `migrate` do
    theirs_rates, ours_rates, validated_rates = [], [], []
    for number in range(ROUNDS):
        ours_rates.append(await imported(await database(url, f"before{number}"), source, folder, validate=False))
        theirs_rates.append(await theirs_on(await database(url, f"theirs{number}"), source))
        ours_rates.append(await imported(await database(url, f"after{number}"), source, folder, validate=False))
        validated_rates.append(await imported(await database(url, f"checked{number}"), source, folder, validate=True))
    theirs, ours, validated = map(statistics.median, (theirs_rates, ours_rates, validated_rates))
    copied = await copied_to(await database(url, "copied"), source, folder)
    return {
        "AI-AfterImage 0.7.0, rows/s": theirs,
        "ours, rows/s": ours,
        "ours with every row compared, rows/s": validated,
        "COPY into bare tables without indexes, rows/s": copied,
        "ratio ours : AI-AfterImage": ours / theirs,
        "ratio ours with every row compared : AI-AfterImage": validated / theirs,
        "ratio ours : COPY": ours / copied,
    }


async def database(url: str, name: str) -> str:
    """A fresh database with the extension, without which AI-AfterImage cannot connect."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    fresh = url.replace("/afterimage?", f"/{name}?")
    connection = await asyncpg.connect(fresh)
    await connection.execute("CREATE EXTENSION vector")
    await connection.close()
    return fresh


async def theirs_on(url: str, source: Path) -> float:
    """AI-AfterImage's importer, as its package ships it, in a process of its own."""
    python = await asyncio.to_thread(ai_afterimage, PEER)
    process = await asyncio.create_subprocess_exec(
        python, "-c", PEER_RUN, str(source), url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, problem = await process.communicate()
    if process.returncode:
        raise SystemExit(problem.decode())
    told = json.loads(out.splitlines()[-1])
    return float(told["migrated"] / told["seconds"])


async def imported(url: str, source: Path, folder: Path, *, validate: bool) -> float:
    """The rate of our importer, from the file to the last row."""
    store = PostgresStore(Connections({"dsn": url}, 2, 10, 30, 60), MODEL)
    await store.open()
    limits = ImportLimits(folder, folder / "spool", Settings().import_batch_size, timedelta(seconds=60), 0)
    imports = Imports(store, limits, Redaction())
    await imports.open()
    started = time.perf_counter()
    job = await imports.run(await imports.begin(source, ImportOptions(validate=validate)))
    seconds = time.perf_counter() - started
    await store.close()
    if job is None or job.counts.migrated != job.counts.source_entries or job.validation.mismatched:
        raise SystemExit(f"not all rows were taken: {job}")
    return job.counts.migrated / seconds


async def copied_to(url: str, source: Path, folder: Path) -> float:
    """The floor: COPY of the same columns into two tables without a key, an index or words."""
    snapshot(source, folder / "copy.db")
    with Reader(folder / "copy.db") as reader:
        rows = [row for row in walk(reader) if isinstance(row, SourceRow)]
    connection = await asyncpg.connect(url)
    await register_vector(connection)
    await connection.execute("CREATE TABLE m (id uuid, path text, new text, old text, context text, at timestamptz)")
    await connection.execute("CREATE TABLE e (id uuid, embedding halfvec(384))")
    started = time.perf_counter()
    texts: Iterable[Any] = (
        (row.id, row.file_path, row.new_code, row.old_code, row.context, row.timestamp) for row in rows
    )
    await connection.copy_records_to_table("m", records=texts)
    vectors: Iterable[Any] = ((row.id, HalfVector(row.vector)) for row in rows if row.vector is not None)
    await connection.copy_records_to_table("e", records=vectors)
    seconds = time.perf_counter() - started
    await connection.close()
    return len(rows) / seconds


if __name__ == "__main__":
    main()
