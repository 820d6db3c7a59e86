-- Memories, their words and vectors, the queue of vectors to be made, and imports.

CREATE TABLE memories (
  project text NOT NULL CHECK (char_length(project) BETWEEN 1 AND 200),
  id uuid NOT NULL,
  file_path text NOT NULL CHECK (char_length(file_path) BETWEEN 1 AND 4096),
  new_code text NOT NULL CHECK (new_code <> ''),
  old_code text,
  context text,
  session_id text,
  agent_id text,
  language text,
  timestamp timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  import_id uuid,
  words tsvector NOT NULL,
  PRIMARY KEY (project, id)
);

CREATE INDEX memories_by_id ON memories (id);
CREATE INDEX memories_by_time ON memories (timestamp, project, id);
CREATE INDEX memories_by_project_and_time ON memories (project, timestamp, id);
CREATE INDEX memories_by_session ON memories (project, session_id) WHERE session_id IS NOT NULL;
CREATE INDEX memories_by_import ON memories (import_id) WHERE import_id IS NOT NULL;
CREATE INDEX memories_by_words ON memories USING gin (words);

-- Narrow, so that an exact search reads few pages; piece 0 is the whole memory. Dimensions depend on the model.
CREATE TABLE embeddings (
  project text NOT NULL,
  memory_id uuid NOT NULL,
  model text NOT NULL,
  piece integer NOT NULL CHECK (piece >= 0),
  embedding halfvec NOT NULL,
  PRIMARY KEY (project, memory_id, model, piece),
  FOREIGN KEY (project, memory_id) REFERENCES memories (project, id) ON DELETE CASCADE
);
ALTER TABLE embeddings ALTER COLUMN embedding SET STORAGE MAIN;

-- One row for each memory whose vector is still to be made; a memory without a row here has its vector.
-- due_at is when it may be tried (again), NULL once it has been given up; memories themselves are never updated.
CREATE TABLE embedding_queue (
  project text NOT NULL,
  memory_id uuid NOT NULL,
  model text NOT NULL,
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  due_at timestamptz,
  error text,
  PRIMARY KEY (project, memory_id, model),
  CHECK (due_at IS NOT NULL OR error IS NOT NULL),
  FOREIGN KEY (project, memory_id) REFERENCES memories (project, id) ON DELETE CASCADE
);

CREATE INDEX embedding_queue_by_time ON embedding_queue (model, due_at) WHERE due_at IS NOT NULL;

-- One run that brings a SQLite file in. token fences off a process whose lease has run out.
CREATE TABLE imports (
  project text NOT NULL CHECK (char_length(project) BETWEEN 1 AND 200),
  id uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
  stage text NOT NULL CHECK (stage IN ('snapshot', 'reading', 'migrating', 'validating', 'done')),
  keep_projects boolean NOT NULL,
  source_name text NOT NULL,
  source_key text NOT NULL,
  source_size_bytes bigint NOT NULL CHECK (source_size_bytes >= 0),
  spool uuid NOT NULL,
  source_format text,
  validate boolean NOT NULL,
  dry_run boolean NOT NULL,
  batch_size integer NOT NULL CHECK (batch_size > 0),
  last_rowid bigint,
  processed bigint NOT NULL DEFAULT 0 CHECK (processed >= 0),
  total bigint NOT NULL DEFAULT 0 CHECK (total >= 0),
  stage_started_at timestamptz,
  stage_processed_before bigint NOT NULL DEFAULT 0,
  source_entries bigint NOT NULL DEFAULT 0 CHECK (source_entries >= 0),
  migrated bigint NOT NULL DEFAULT 0 CHECK (migrated >= 0),
  skipped bigint NOT NULL DEFAULT 0 CHECK (skipped >= 0),
  failed bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
  reembedded bigint NOT NULL DEFAULT 0 CHECK (reembedded BETWEEN 0 AND migrated),
  checked bigint CHECK (checked >= 0),
  mismatched bigint CHECK (mismatched >= 0),
  missing bigint CHECK (missing >= 0),
  notes text,
  created_at timestamptz NOT NULL,
  started_at timestamptz,
  finished_at timestamptz,
  error text,
  cancel_requested boolean NOT NULL DEFAULT false,
  token bigint NOT NULL DEFAULT 0,
  lease_until timestamptz,
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
  project text NOT NULL,
  import_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('reject', 'mismatched', 'missing')),
  source_rowid bigint NOT NULL,
  source_id text,
  reason text NOT NULL,
  PRIMARY KEY (project, import_id, kind, source_rowid),
  FOREIGN KEY (project, import_id) REFERENCES imports (project, id) ON DELETE CASCADE
);
