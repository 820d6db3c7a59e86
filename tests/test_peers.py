"""AI-AfterImage itself, from PyPI, opens and searches the file that we export (`make test-full`)."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from app.store.protocol import Store
from tests.effort import FULL
from tests.peers import ai_afterimage
from tests.source_files import entry, write_ai_afterimage
from tests.test_exports import export
from tests.test_imports import OPTIONS, opened, run

ROWS = 1000

ASK = """
import json, sqlite3, sys
from pathlib import Path
from afterimage.kb import KnowledgeBase
kb = KnowledgeBase(db_path=Path(sys.argv[1]))
seventh = kb.get(sys.argv[2])
vector = list(seventh["embedding"])
kept = kb.store(file_path="new.py", new_code="def quite_new(): ...", session_id="later")
print(json.dumps({
    "total": kb.stats()["total_entries"],
    "embedded": kb.stats()["entries_with_embeddings"],
    "seventh": {name: seventh[name] for name in ("file_path", "new_code", "context", "session_id")},
    "by_words": [hit["id"] for hit in kb.search_fts("f7")],
    "by_path": [hit["id"] for hit in kb.search_by_path("module_7.py")],
    "by_meaning": [found.id for found, _ in kb.backend.search_semantic(vector, limit=1)],
    "sound": sqlite3.connect(sys.argv[1]).execute("PRAGMA integrity_check").fetchone()[0],
    "added": [hit["id"] for hit in kb.search_fts("quite_new")] == [kept],
}))
"""


@pytest.mark.skipif(not FULL, reason="installs AI-AfterImage from PyPI")
@pytest.mark.parametrize("version", ["0.7.0", "0.8.0"])
async def test_the_file_is_opened_searched_and_added_to(store: Store, tmp_path: Path, version: str) -> None:
    python = await asyncio.to_thread(ai_afterimage, version)
    source = write_ai_afterimage(tmp_path / "memory.db", (entry(number) for number in range(1, ROWS + 1)))
    await run(await opened(store, tmp_path), source, OPTIONS)
    await export(store, tmp_path / "out.db")
    seventh = entry(7)
    asked = await asyncio.to_thread(
        subprocess.run,
        [python, "-c", ASK, str(tmp_path / "out.db"), seventh["id"]],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout.splitlines()[-1]) == {
        "total": ROWS + 1,
        "embedded": ROWS,
        "seventh": {name: seventh[name] for name in ("file_path", "new_code", "context", "session_id")},
        "by_words": [seventh["id"]],
        "by_path": [seventh["id"]],
        "by_meaning": [seventh["id"]],
        "sound": "ok",
        "added": True,
    }
