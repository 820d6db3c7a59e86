-- Memories, their words and vectors, the queue of vectors to be made, and imports.

CREATE TABLE memories (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL CHECK (length(project) BETWEEN 1 AND 200),
  id TEXT NOT NULL CHECK (length(id) = 36),
  file_path TEXT NOT NULL CHECK (length(file_path) BETWEEN 1 AND 4096),
  new_code TEXT NOT NULL CHECK (length(new_code) >= 1),
  old_code TEXT,
  context TEXT,
  session_id TEXT,
  agent_id TEXT,
  language TEXT,
  timestamp TEXT NOT NULL,
  created_at TEXT NOT NULL,
  import_id TEXT,
  UNIQUE (project, id)
);

CREATE INDEX memories_by_id ON memories (id);
CREATE INDEX memories_by_time ON memories (timestamp, project, id);
CREATE INDEX memories_by_project_and_time ON memories (project, timestamp, id);
CREATE INDEX memories_by_session ON memories (project, session_id) WHERE session_id IS NOT NULL;
CREATE INDEX memories_by_file ON memories (project, file_path);
CREATE INDEX memories_by_import ON memories (import_id) WHERE import_id IS NOT NULL;

-- rowid is memories.seq; the words come from app/tokens.py, separated by spaces.
CREATE VIRTUAL TABLE memory_words USING fts5 (code, identifiers, path, context, tokenize = "unicode61 remove_diacritics 0");

-- Little-endian 16-bit floats, as PostgreSQL's halfvec; piece 0 is the whole memory.
CREATE TABLE embeddings (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL,
  memory_id TEXT NOT NULL,
  model TEXT NOT NULL,
  piece INTEGER NOT NULL CHECK (piece >= 0),
  embedding BLOB NOT NULL CHECK (length(embedding) % 2 = 0 AND length(embedding) > 0),
  UNIQUE (project, memory_id, model, piece),
  FOREIGN KEY (project, memory_id) REFERENCES memories (project, id) ON DELETE CASCADE
);

-- One row for each memory whose vector is still to be made; a memory without a row here has its vector.
CREATE TABLE embedding_queue (
  project TEXT NOT NULL,
  memory_id TEXT NOT NULL,
  model TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  due_at TEXT,
  error TEXT,
  PRIMARY KEY (project, memory_id, model),
  CHECK (due_at IS NOT NULL OR error IS NOT NULL),
  FOREIGN KEY (project, memory_id) REFERENCES memories (project, id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX embedding_queue_by_time ON embedding_queue (model, due_at) WHERE due_at IS NOT NULL;

-- One run that brings a SQLite file in. token fences off a process whose lease has run out.
CREATE TABLE imports (
  project TEXT NOT NULL CHECK (length(project) BETWEEN 1 AND 200),
  id TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
  stage TEXT NOT NULL CHECK (stage IN ('snapshot', 'reading', 'migrating', 'validating', 'done')),
  keep_projects INTEGER NOT NULL CHECK (keep_projects IN (0, 1)),
  source_name TEXT NOT NULL,
  source_key TEXT NOT NULL,
  source_size_bytes INTEGER NOT NULL CHECK (source_size_bytes >= 0),
  spool TEXT NOT NULL,
  source_format TEXT,
  validate INTEGER NOT NULL CHECK (validate IN (0, 1)),
  dry_run INTEGER NOT NULL CHECK (dry_run IN (0, 1)),
  batch_size INTEGER NOT NULL CHECK (batch_size > 0),
  last_rowid INTEGER,
  processed INTEGER NOT NULL DEFAULT 0 CHECK (processed >= 0),
  total INTEGER NOT NULL DEFAULT 0 CHECK (total >= 0),
  stage_started_at TEXT,
  stage_processed_before INTEGER NOT NULL DEFAULT 0,
  source_entries INTEGER NOT NULL DEFAULT 0 CHECK (source_entries >= 0),
  migrated INTEGER NOT NULL DEFAULT 0 CHECK (migrated >= 0),
  skipped INTEGER NOT NULL DEFAULT 0 CHECK (skipped >= 0),
  failed INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
  reembedded INTEGER NOT NULL DEFAULT 0 CHECK (reembedded BETWEEN 0 AND migrated),
  checked INTEGER CHECK (checked >= 0),
  mismatched INTEGER CHECK (mismatched >= 0),
  missing INTEGER CHECK (missing >= 0),
  notes TEXT,
  created_at TEXT NOT NULL,
  started_at TEXT,
  finished_at TEXT,
  error TEXT,
  cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
  token INTEGER NOT NULL DEFAULT 0,
  lease_until TEXT,
  PRIMARY KEY (project, id),
  CHECK ((state = 'running') = (lease_until IS NOT NULL)),
  CHECK (state NOT IN ('running', 'completed') OR started_at IS NOT NULL),
  CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CHECK ((state = 'completed') = (stage = 'done')),
  CHECK ((state = 'failed') = (error IS NOT NULL)),
  CHECK (state <> 'completed' OR source_entries = migrated + skipped + failed)
);

CREATE INDEX imports_by_id ON imports (id);
CREATE INDEX imports_to_run ON imports (created_at) WHERE state IN ('queued', 'running');
CREATE UNIQUE INDEX imports_one_at_a_time ON imports (project, source_key) WHERE state = 'running';

-- Rows of a source that were not taken, or that validation found to differ.
CREATE TABLE import_findings (
  project TEXT NOT NULL,
  import_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('reject', 'mismatched', 'missing')),
  source_rowid INTEGER NOT NULL,
  source_id TEXT,
  reason TEXT NOT NULL,
  PRIMARY KEY (project, import_id, kind, source_rowid),
  FOREIGN KEY (project, import_id) REFERENCES imports (project, id) ON DELETE CASCADE
);
