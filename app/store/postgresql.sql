-- name: add_memories
-- Stores memories with their words and vectors, passes over keys that are there, and queues those without a vector.
WITH given AS (
  SELECT *
  FROM unnest(
    :projects::text[], :ids::uuid[], :file_paths::text[], :new_codes::text[], :old_codes::text[], :contexts::text[],
    :session_ids::text[], :agent_ids::text[], :languages::text[], :timestamps::timestamptz[], :created_ats::timestamptz[],
    :import_ids::uuid[], :words::text[], :vectors::halfvec[]
  ) AS row (
    project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at,
    import_id, words, vector
  )
), stored AS (
  INSERT INTO memories (
    project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at,
    import_id, words
  )
  SELECT
    project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at,
    import_id, words::tsvector
  FROM given
  ON CONFLICT (project, id) DO NOTHING
  RETURNING project, id
), embedded AS (
  INSERT INTO embeddings (project, memory_id, model, piece, embedding)
  SELECT project, id, :model::text, 0, vector
  FROM given
  JOIN stored USING (project, id)
  WHERE vector IS NOT NULL
), queued AS (
  INSERT INTO embedding_queue (project, memory_id, model, due_at)
  SELECT project, id, :model::text, :due_at::timestamptz
  FROM given
  JOIN stored USING (project, id)
  WHERE vector IS NULL
)
SELECT project, id
FROM stored;

-- name: get_memories
-- The memories with these keys, in no order.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM unnest(:projects::text[], :ids::uuid[]) AS wanted (project, id)
JOIN memories AS m USING (project, id)
LEFT JOIN embedding_queue AS q ON q.project = m.project AND q.memory_id = m.id AND q.model = :model;

-- name: find_memories
-- The memories with one id, one a project.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM memories AS m
LEFT JOIN embedding_queue AS q ON q.project = m.project AND q.memory_id = m.id AND q.model = :model
WHERE m.id = :id
  AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
ORDER BY m.project;

-- name: list_memories
-- A page of memories, newest first, behind a place.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM memories AS m
LEFT JOIN embedding_queue AS q ON q.project = m.project AND q.memory_id = m.id AND q.model = :model
WHERE (:projects::text[] IS NULL OR m.project = ANY (:projects))
  AND (:session_id::text IS NULL OR m.session_id = :session_id)
  AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
  AND (:file_path::text IS NULL OR m.file_path = :file_path)
  AND (:path_prefix::text IS NULL OR starts_with(m.file_path, :path_prefix))
  AND (:language::text IS NULL OR m.language = :language)
  AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
  AND (:until::timestamptz IS NULL OR m.timestamp < :until)
  AND (
    :after_timestamp::timestamptz IS NULL
    OR (m.timestamp, m.project, m.id) < (:after_timestamp, :after_project::text, :after_id::uuid)
  )
ORDER BY m.timestamp DESC, m.project DESC, m.id DESC
LIMIT :limit;

-- name: delete_memory
-- Deletes a memory; its words go with the row, its vectors and its place in the queue by cascade.
DELETE FROM memories
WHERE project = :project
  AND id = :id
RETURNING 1;

-- name: search_words
-- Memories that hold any of the words, best first. ts_rank / (ts_rank + 1) over the logarithm of the length (flags 32 + 1).
SELECT m.project, m.id, ts_rank(:weights::real[], m.words, :query::tsquery, 33)::float8 AS score
FROM memories AS m
WHERE m.words @@ :query::tsquery
  AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
  AND (:session_id::text IS NULL OR m.session_id = :session_id)
  AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
  AND (:file_path::text IS NULL OR m.file_path = :file_path)
  AND (:path_prefix::text IS NULL OR starts_with(m.file_path, :path_prefix))
  AND (:language::text IS NULL OR m.language = :language)
  AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
  AND (:until::timestamptz IS NULL OR m.timestamp < :until)
ORDER BY score DESC, m.timestamp DESC, m.id DESC
LIMIT :limit;

-- name: search_vectors
-- Exact search over whole projects, which reads the narrow table alone. `+ 0` keeps an approximate index out of it.
SELECT e.project, e.memory_id AS id, 1 - (e.embedding <=> :vector::halfvec) AS score
FROM embeddings AS e
WHERE e.model = :model
  AND e.piece = 0
  AND (:projects::text[] IS NULL OR e.project = ANY (:projects))
ORDER BY (e.embedding <=> :vector::halfvec) + 0, e.memory_id DESC
LIMIT :limit;

-- name: search_vectors_filtered
-- Exact search over the memories that pass the filters.
SELECT e.project, e.memory_id AS id, 1 - (e.embedding <=> :vector::halfvec) AS score
FROM memories AS m
JOIN embeddings AS e ON e.project = m.project AND e.memory_id = m.id
WHERE e.model = :model
  AND e.piece = 0
  AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
  AND (:session_id::text IS NULL OR m.session_id = :session_id)
  AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
  AND (:file_path::text IS NULL OR m.file_path = :file_path)
  AND (:path_prefix::text IS NULL OR starts_with(m.file_path, :path_prefix))
  AND (:language::text IS NULL OR m.language = :language)
  AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
  AND (:until::timestamptz IS NULL OR m.timestamp < :until)
ORDER BY (e.embedding <=> :vector::halfvec) + 0, e.memory_id DESC
LIMIT :limit;

-- name: stats^
-- Exact counts over the projects.
SELECT
  (SELECT count(*) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects)) AS total,
  (SELECT count(DISTINCT file_path) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects)) AS files,
  (SELECT count(DISTINCT session_id) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects)) AS sessions,
  (SELECT min(timestamp) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects)) AS oldest,
  (SELECT max(timestamp) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects)) AS newest,
  (
    SELECT count(*) FROM embeddings
    WHERE model = :model AND piece = 0 AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS embedded,
  (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND due_at IS NOT NULL AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS pending,
  (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND due_at IS NULL AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS given_up,
  (SELECT vector_dims(embedding) FROM embeddings WHERE model = :model LIMIT 1) AS dimensions,
  pg_database_size(current_database()) AS size_bytes;

-- name: claim_embeddings
-- Takes due memories off the queue until a time; SKIP LOCKED lets several replicas share the work.
WITH due AS (
  SELECT project, memory_id
  FROM embedding_queue
  WHERE model = :model
    AND due_at <= :now
  ORDER BY due_at
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
), claimed AS (
  UPDATE embedding_queue AS q
  SET due_at = :until
  FROM due
  WHERE q.project = due.project
    AND q.memory_id = due.memory_id
    AND q.model = :model
  RETURNING q.project, q.memory_id, q.due_at, q.attempts
)
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, true AS queued, c.due_at, c.attempts
FROM claimed AS c
JOIN memories AS m ON m.project = c.project AND m.id = c.memory_id;

-- name: save_vectors!
-- Stores vectors and takes their memories off the queue; FOR KEY SHARE passes over those deleted meanwhile.
WITH given AS (
  SELECT *
  FROM unnest(:projects::text[], :ids::uuid[], :vectors::halfvec[]) AS row (project, id, vector)
), present AS (
  SELECT m.project, m.id
  FROM memories AS m
  JOIN given USING (project, id)
  FOR KEY SHARE OF m
), done AS (
  DELETE FROM embedding_queue AS q
  USING given AS g
  WHERE q.project = g.project
    AND q.memory_id = g.id
    AND q.model = :model
)
INSERT INTO embeddings (project, memory_id, model, piece, embedding)
SELECT project, id, :model::text, 0, vector
FROM given
JOIN present USING (project, id)
ON CONFLICT (project, memory_id, model, piece) DO NOTHING;

-- name: postpone_embeddings!
-- Notes a failed attempt; without a time the memories are given up.
UPDATE embedding_queue AS q
SET attempts = q.attempts + 1,
    error = :reason,
    due_at = :until
FROM unnest(:projects::text[], :ids::uuid[]) AS failed (project, id)
WHERE q.project = failed.project
  AND q.memory_id = failed.id
  AND q.model = :model;

-- name: get_vectors
-- The vectors of whole memories.
SELECT e.project, e.memory_id AS id, e.embedding
FROM unnest(:projects::text[], :ids::uuid[]) AS wanted (project, id)
JOIN embeddings AS e ON e.project = wanted.project AND e.memory_id = wanted.id
WHERE e.model = :model
  AND e.piece = 0;

-- name: create_import^
-- Begins an import: queued, or running right away under a lease of the caller's.
INSERT INTO imports (
  project, id, state, stage, keep_projects, source_name, source_key, source_size_bytes, source_format, spool, validate,
  dry_run, batch_size, created_at, started_at, token, lease_until
)
VALUES (
  :project, :id, :state, 'snapshot', :keep_projects, :source_name, :source_key, :source_size_bytes, :source_format,
  :spool, :validate, :dry_run, :batch_size, :now, :started_at, 1, :until
)
RETURNING *;

-- name: running_import^
-- The import of a file that is running or queued; the oldest.
SELECT *
FROM imports
WHERE project = :project
  AND source_key = :source_key
  AND state IN ('queued', 'running')
ORDER BY created_at, id
LIMIT 1;

-- name: get_import^
-- One import, by its id.
SELECT *
FROM imports
WHERE id = :id
  AND (:projects::text[] IS NULL OR project = ANY (:projects));

-- name: list_imports
-- Imports, newest first: their ids are of version 7, which begins with the time.
SELECT *
FROM imports
WHERE (:projects::text[] IS NULL OR project = ANY (:projects))
  AND (:before::uuid IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit;

-- name: claim_import^
-- Takes the oldest import of a spool folder that nobody works on, unless one of the same file is running.
UPDATE imports AS i
SET state = 'running',
    token = i.token + 1,
    lease_until = :until,
    started_at = coalesce(i.started_at, :now)
FROM (
  SELECT c.project, c.id
  FROM imports AS c
  WHERE (c.state = 'queued' OR (c.state = 'running' AND c.lease_until < :now))
    AND c.spool = :spool
    AND (:only::uuid IS NULL OR c.id = :only)
    AND NOT EXISTS (
      SELECT FROM imports AS other
      WHERE other.state = 'running'
        AND other.source_key = c.source_key
        AND other.id <> c.id
    )
  ORDER BY c.created_at, c.id
  LIMIT 1
  FOR UPDATE SKIP LOCKED
) AS next
WHERE i.project = next.project
  AND i.id = next.id
RETURNING i.*;

-- name: renew_import^
-- Holds a lease longer; answers whether the import is to stop.
UPDATE imports
SET lease_until = :until
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
RETURNING cancel_requested;

-- name: begin_stage^
-- Enters a stage. A stage that was entered before keeps its progress: the import was resumed.
UPDATE imports
SET stage_processed_before = CASE WHEN stage = :stage THEN processed ELSE 0 END,
    processed = CASE WHEN stage = :stage THEN processed ELSE 0 END,
    last_rowid = CASE WHEN stage = :stage THEN last_rowid END,
    stage = :stage,
    stage_started_at = :now,
    total = :total,
    source_entries = CASE WHEN :stage = 'migrating' THEN :total ELSE source_entries END
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
RETURNING last_rowid;

-- name: lock_import^
-- Holds an import for the transaction of a batch, if the lease is still the newest.
SELECT id
FROM imports
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
FOR UPDATE;

-- name: count_batch^
-- Adds a batch to the counts and the progress.
UPDATE imports
SET processed = processed + :size,
    last_rowid = :last_rowid,
    migrated = migrated + :migrated,
    skipped = skipped + :skipped,
    failed = failed + :failed,
    reembedded = reembedded + :reembedded
WHERE project = :project
  AND id = :id
RETURNING *;

-- name: count_validation^
-- Adds a compared batch to the validation and the progress.
UPDATE imports
SET processed = processed + :size,
    last_rowid = :last_rowid,
    checked = coalesce(checked, 0) + :checked,
    mismatched = coalesce(mismatched, 0) + :mismatched,
    missing = coalesce(missing, 0) + :missing
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
RETURNING *;

-- name: add_findings*!
-- Notes rows that were not taken or that differ.
INSERT INTO import_findings (project, import_id, kind, source_rowid, source_id, reason)
VALUES (:project, :import_id, :kind, :rowid, :source_id, :reason)
ON CONFLICT (project, import_id, kind, source_rowid) DO NOTHING;

-- name: finish_import^
-- Ends an import.
UPDATE imports
SET state = :state,
    stage = CASE WHEN :state = 'completed' THEN 'done' ELSE stage END,
    finished_at = :now,
    lease_until = NULL,
    error = :error,
    notes = :notes
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
RETURNING *;

-- name: cancel_import^
-- Ends an import that nobody works on, and asks a running one to stop; a finished one stays as it is.
UPDATE imports
SET cancel_requested = true,
    state = CASE WHEN state = 'queued' OR lease_until < :now THEN 'cancelled' ELSE state END,
    finished_at = CASE WHEN state = 'queued' OR lease_until < :now THEN :now ELSE finished_at END,
    lease_until = CASE WHEN lease_until >= :now THEN lease_until END
WHERE project = :project
  AND id = :id
RETURNING *;

-- name: list_findings
-- What was not taken or differs, by source rowid.
SELECT kind, source_rowid, source_id, reason
FROM import_findings
WHERE project = :project
  AND import_id = :import_id
  AND kind = :kind
  AND (:after_rowid::bigint IS NULL OR source_rowid > :after_rowid)
ORDER BY source_rowid
LIMIT :limit;

-- name: delete_imported^
-- Undo: deletes what an import brought in.
WITH deleted AS (
  DELETE FROM memories
  WHERE import_id = :import_id
    AND (:projects::text[] IS NULL OR project = ANY (:projects))
  RETURNING 1
)
SELECT count(*) AS deleted
FROM deleted;
