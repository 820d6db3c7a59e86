"""The kinds of file that can be read: which tables tell them, and the SQL that reads each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file.

    `tables` are those that tell it, the one with the memories first. Each of `listings` lists the rowids of that table:
    the first walks the table itself, the second its key. The other statements take `first` and `last` (rowids,
    inclusive), `with_vector` and `model`. `unmapped` counts the rows whose `unmapped_columns` say something that a
    memory has no place for. `more_fields` are those of a memory that the other kinds of file do not have.
    """

    name: str
    tables: Mapping[str, frozenset[str]]
    rows: str
    source_id: str
    listings: tuple[str, ...]
    vector_type: str
    unmapped_columns: tuple[str, ...] = ()
    unmapped: str = ""
    more_fields: tuple[str, ...] = ()


# AI-AfterImage has all-MiniLM-L6-v2 in its code, whatever its settings say.
AI_AFTERIMAGE = Format(
    name="AI-AfterImage 0.1-0.7",
    tables={
        "code_memory": frozenset(
            {"id", "file_path", "old_code", "new_code", "context", "timestamp", "session_id", "embedding"}
        )
    },
    rows="""
SELECT
  rowid, id, file_path, new_code, old_code, context, session_id, timestamp,
  iif(:with_vector AND :model = 'all-MiniLM-L6-v2', embedding, NULL), NULL, NULL, NULL
FROM code_memory NOT INDEXED
WHERE rowid BETWEEN :first AND :last
ORDER BY rowid
""",
    source_id="SELECT id FROM code_memory NOT INDEXED WHERE rowid = :first",
    listings=(
        "SELECT rowid FROM code_memory NOT INDEXED ORDER BY rowid",
        "SELECT rowid FROM code_memory INDEXED BY sqlite_autoindex_code_memory_1",
        "SELECT rowid FROM code_memory NOT INDEXED ORDER BY rowid DESC",
        "SELECT rowid FROM code_memory INDEXED BY sqlite_autoindex_code_memory_2",
        "SELECT rowid FROM code_memory INDEXED BY idx_timestamp",
        "SELECT rowid FROM code_memory INDEXED BY idx_file_path",
        "SELECT rowid FROM code_memory INDEXED BY idx_session",
    ),
    vector_type="<f4",
)

# content_hash says nothing that new_code does not.
AI_AFTERIMAGE_08 = replace(
    AI_AFTERIMAGE,
    name="AI-AfterImage 0.8",
    tables={
        "code_memory": AI_AFTERIMAGE.tables["code_memory"]
        | {"content_hash", "unit_key", "version", "supersedes", "is_latest", "seen_count", "last_seen"}
    },
    unmapped_columns=("unit_key", "version", "supersedes", "is_latest", "seen_count", "last_seen"),
    unmapped="""
SELECT
  count(*) FILTER (WHERE unit_key <> file_path),
  count(*) FILTER (WHERE version > 1),
  count(*) FILTER (WHERE supersedes IS NOT NULL),
  count(*) FILTER (WHERE is_latest = 0),
  count(*) FILTER (WHERE seen_count > 1),
  count(*) FILTER (WHERE last_seen <> timestamp)
FROM code_memory NOT INDEXED
WHERE rowid BETWEEN :first AND :last
""",
)

AFTERIMAGE = Format(
    name="AfterImage service",
    tables={
        "memories": AI_AFTERIMAGE.tables["code_memory"] - {"embedding"} | {"project", "agent_id", "language"},
        "embeddings": frozenset({"project", "memory_id", "model", "piece", "embedding"}),
    },
    rows="""
SELECT
  rowid, id, file_path, new_code, old_code, context, session_id, timestamp,
  iif(
    :with_vector,
    (
      SELECT embedding
      FROM embeddings
      WHERE project = memories.project AND memory_id = memories.id AND model = :model AND piece = 0
    ),
    NULL
  ),
  project, agent_id, language
FROM memories NOT INDEXED
WHERE rowid BETWEEN :first AND :last
ORDER BY rowid
""",
    source_id="SELECT id FROM memories NOT INDEXED WHERE rowid = :first",
    listings=(
        "SELECT rowid FROM memories NOT INDEXED ORDER BY rowid",
        "SELECT rowid FROM memories INDEXED BY sqlite_autoindex_memories_1",
        "SELECT rowid FROM memories NOT INDEXED ORDER BY rowid DESC",
        "SELECT rowid FROM memories INDEXED BY memories_by_time",
        "SELECT rowid FROM memories INDEXED BY memories_by_project_and_time",
        "SELECT rowid FROM memories INDEXED BY memories_by_file",
    ),
    vector_type="<f2",
    more_fields=("agent_id", "language"),
)

FORMATS = (AI_AFTERIMAGE_08, AI_AFTERIMAGE, AFTERIMAGE)
