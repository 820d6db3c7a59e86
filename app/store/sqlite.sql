-- name: add_memories*!
-- Stores memories; the caller leaves out keys that are there. Words and queue are statements of their own (add_words,
-- queue_embedding): SQLite has no data-modifying CTE.
INSERT INTO memories (
  project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at, import_id,
  code_hash
)
VALUES (
  :project, :id, :file_path, :new_code, :old_code, :context, :session_id, :agent_id, :language, :timestamp, :created_at,
  :import_id, code_hash(:new_code)
);

-- name: add_words*!
-- The words of stored memories; PostgreSQL keeps them in the row.
INSERT INTO memory_words (rowid, code, identifiers, names, path, context)
SELECT seq, :code, :identifiers, :names, :path, :context
FROM memories
WHERE project = :project
  AND id = :id;

-- name: queue_embeddings*!
-- Queues memories without a vector.
INSERT INTO embedding_queue (project, memory_id, model, due_at)
VALUES (:project, :id, :model, :due_at);

-- name: queue_pieces*!
-- Queues those memories that are long, for the vectors of their pieces.
INSERT INTO embedding_queue (project, memory_id, model, due_at, whole)
SELECT project, id, :model, created_at, 0
FROM memories
WHERE project = :project
  AND id = :id
  AND length(new_code) > :max_whole
ON CONFLICT (project, memory_id, model) DO NOTHING;

-- name: present_keys
-- Which of these keys are there.
SELECT m.project, m.id
FROM json_each(:keys) AS wanted
JOIN memories AS m ON m.project = wanted.value ->> 0 AND m.id = wanted.value ->> 1;

-- name: get_memories
-- The memories with these keys, in no order.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM json_each(:keys) AS wanted
JOIN memories AS m ON m.project = wanted.value ->> 0 AND m.id = wanted.value ->> 1
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models);

-- name: find_memories
-- The memories with one id, one a project.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM memories AS m
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models)
WHERE m.id = :id
  AND (:projects IS NULL OR m.project IN (SELECT value FROM json_each(:projects)))
ORDER BY m.project;

-- name: list_memories
-- A page of memories, newest first, behind a place.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM memories AS m
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models)
WHERE (:projects IS NULL OR m.project IN (SELECT value FROM json_each(:projects)))
  AND (:session_id IS NULL OR m.session_id = :session_id)
  AND (:agent_id IS NULL OR m.agent_id = :agent_id)
  AND (:file_path IS NULL OR m.file_path = :file_path)
  AND (:path_prefix IS NULL OR substr(m.file_path, 1, length(:path_prefix)) = :path_prefix)
  AND (:language IS NULL OR m.language = :language)
  AND (:since IS NULL OR m.timestamp >= :since)
  AND (:until IS NULL OR m.timestamp < :until)
  AND (
    :after_timestamp IS NULL
    OR (m.timestamp, m.project, m.id) < (:after_timestamp, :after_project, :after_id)
  )
ORDER BY m.timestamp DESC, m.project DESC, m.id DESC
LIMIT :limit;

-- name: delete_memory
-- Deletes a memory; its vectors and its place in the queue go by cascade, its words by delete_words.
DELETE FROM memories
WHERE project = :project
  AND id = :id
RETURNING seq, project, id;

-- name: delete_words*!
-- The words of a deleted memory; a virtual table takes no part in a cascade.
DELETE FROM memory_words
WHERE rowid = :seq;

-- name: word_frequencies
-- How many memories hold each word; FTS5 counts over all projects. Deleted memories count in the total, which is cheap.
SELECT wanted.value AS word, coalesce(f.doc, 0) AS ndoc, (SELECT coalesce(max(seq), 0) FROM memories) AS memories
FROM json_each(:words) AS wanted
LEFT JOIN word_frequencies AS f ON f.term = wanted.value;

-- name: search_words
-- Memories that match, best first by bm25 (smaller is better); the weights are those of code, identifiers, names, path, context.
SELECT m.project, m.id, bm25(memory_words, 1.0, 1.0, 1.5, 1.0, 1.0) AS score
FROM memory_words
JOIN memories AS m ON m.seq = memory_words.rowid
WHERE memory_words MATCH :query
  AND (:projects IS NULL OR m.project IN (SELECT value FROM json_each(:projects)))
  AND (:session_id IS NULL OR m.session_id = :session_id)
  AND (:agent_id IS NULL OR m.agent_id = :agent_id)
  AND (:file_path IS NULL OR m.file_path = :file_path)
  AND (:path_prefix IS NULL OR substr(m.file_path, 1, length(:path_prefix)) = :path_prefix)
  AND (:language IS NULL OR m.language = :language)
  AND (:since IS NULL OR m.timestamp >= :since)
  AND (:until IS NULL OR m.timestamp < :until)
ORDER BY score, m.timestamp DESC, m.id DESC
LIMIT :limit;

-- name: distinct_memories
-- Of memories with scores the best of each code, and how many in the scope have that code and the time of the newest;
-- counts no further than the limit in all. Texts are read of those alone that are answered, and not of known codes.
WITH wanted AS MATERIALIZED (
  SELECT
    m.seq, m.id, m.code_hash, wanted.value ->> 2 AS score, m.timestamp,
    row_number() OVER (PARTITION BY m.code_hash ORDER BY wanted.value ->> 2 DESC, m.timestamp DESC, m.id DESC) AS place
  FROM json_each(:scored) AS wanted
  JOIN memories AS m ON m.project = wanted.value ->> 0 AND m.id = wanted.value ->> 1
),
best AS MATERIALIZED (
  SELECT *
  FROM wanted
  WHERE place = 1
    AND code_hash NOT IN (SELECT value FROM json_each(:known))
  ORDER BY score DESC, timestamp DESC, id DESC
  LIMIT :limit
)
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at, best.code_hash,
  coalesce(same.copies, 1) AS copies, coalesce(same.last_timestamp, m.timestamp) AS last_timestamp
FROM best
JOIN memories AS m ON m.seq = best.seq
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models)
LEFT JOIN (
  SELECT code_hash, count(*) AS copies, max(timestamp) AS last_timestamp
  FROM (
    SELECT m.code_hash, m.timestamp
    FROM memories AS m
    WHERE m.code_hash IN (SELECT code_hash FROM best)
      AND (:projects IS NULL OR m.project IN (SELECT value FROM json_each(:projects)))
      AND (:session_id IS NULL OR m.session_id = :session_id)
      AND (:agent_id IS NULL OR m.agent_id = :agent_id)
      AND (:file_path IS NULL OR m.file_path = :file_path)
      AND (:path_prefix IS NULL OR substr(m.file_path, 1, length(:path_prefix)) = :path_prefix)
      AND (:language IS NULL OR m.language = :language)
      AND (:since IS NULL OR m.timestamp >= :since)
      AND (:until IS NULL OR m.timestamp < :until)
    LIMIT :limit_copies
  ) AS found
  GROUP BY code_hash
) AS same ON same.code_hash = best.code_hash
ORDER BY best.score DESC, best.timestamp DESC, best.id DESC;

-- name: search_vectors
-- All vectors of a model that came behind a place, for the matrices that are searched in memory.
SELECT seq, project, memory_id AS id, first_line, last_line, embedding
FROM embeddings
WHERE model = :model
  AND seq > :after
ORDER BY seq;

-- name: search_vectors_filtered
-- The memories that pass the filters, for choosing rows of the matrices.
SELECT m.project, m.id
FROM memories AS m
WHERE (:projects IS NULL OR m.project IN (SELECT value FROM json_each(:projects)))
  AND (:session_id IS NULL OR m.session_id = :session_id)
  AND (:agent_id IS NULL OR m.agent_id = :agent_id)
  AND (:file_path IS NULL OR m.file_path = :file_path)
  AND (:path_prefix IS NULL OR substr(m.file_path, 1, length(:path_prefix)) = :path_prefix)
  AND (:language IS NULL OR m.language = :language)
  AND (:since IS NULL OR m.timestamp >= :since)
  AND (:until IS NULL OR m.timestamp < :until)
  AND (:required IS NULL OR m.seq IN (SELECT rowid FROM memory_words WHERE memory_words MATCH :required))
  AND (:excluded IS NULL OR m.seq NOT IN (SELECT rowid FROM memory_words WHERE memory_words MATCH :excluded));

-- name: stats^
-- Exact counts over the projects.
SELECT
  (SELECT count(*) FROM memories WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))) AS total,
  (
    SELECT count(DISTINCT file_path) FROM memories
    WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))
  ) AS files,
  (
    SELECT count(DISTINCT session_id) FROM memories
    WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))
  ) AS sessions,
  (
    SELECT min(timestamp) FROM memories WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))
  ) AS oldest,
  (
    SELECT max(timestamp) FROM memories WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))
  ) AS newest,
  (
    SELECT count(*) FROM embeddings
    WHERE model = :model AND piece = 0 AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  ) AS embedded,
  (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND whole AND due_at IS NULL
      AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  ) AS given_up,
  (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND NOT whole AND due_at IS NOT NULL
      AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  ) AS pieces_pending,
  (SELECT length(embedding) / 2 FROM embeddings WHERE model = :model LIMIT 1) AS dimensions,
  (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size) AS size_bytes;

-- name: queue_missing
-- Queues a portion of the memories that have no vector of a model, as after a change of the model; one row each.
INSERT INTO embedding_queue (project, memory_id, model, due_at)
SELECT m.project, m.id, :model, :now
FROM memories AS m
WHERE NOT EXISTS (
    SELECT 1 FROM embeddings AS e
    WHERE e.project = m.project
      AND e.memory_id = m.id
      AND e.model = :model
      AND e.piece = 0
  )
  AND NOT EXISTS (
    SELECT 1 FROM embedding_queue AS q
    WHERE q.project = m.project
      AND q.memory_id = m.id
      AND q.model = :model
  )
LIMIT :limit
ON CONFLICT (project, memory_id, model) DO NOTHING
RETURNING project;

-- name: queue_failed
-- Queues anew what was given up; one row each.
UPDATE embedding_queue
SET attempts = 0,
    error = NULL,
    due_at = :now
WHERE model = :model
  AND due_at IS NULL
RETURNING project;

-- name: embedding_failures
-- Why vectors of a model could not be made, with one memory of each reason: given up, or to be tried again; of the whole
-- memory, or of its pieces.
SELECT
  due_at IS NULL AS given_up, whole, error AS reason, count(*) AS memories,
  min(project || '/' || memory_id) AS example
FROM embedding_queue
WHERE model = :model
  AND error IS NOT NULL
GROUP BY given_up, whole, reason
ORDER BY given_up DESC, memories DESC, whole DESC, reason
LIMIT :limit;

-- name: embedding_backlog^
-- How many memories wait for their vector of a model, for how many that was given up, and how many long ones wait for
-- those of their pieces.
SELECT
  count(*) FILTER (WHERE whole AND due_at IS NOT NULL) AS pending,
  count(*) FILTER (WHERE whole AND due_at IS NULL) AS failed,
  count(*) FILTER (WHERE NOT whole AND due_at IS NOT NULL) AS pieces_pending
FROM embedding_queue
WHERE model = :model
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)));

-- name: missing_vectors^
-- How many memories lack a vector of a model and were not given up; those not queued yet are among them.
SELECT
  (
    SELECT count(*) FROM memories WHERE :projects IS NULL OR project IN (SELECT value FROM json_each(:projects))
  )
  - (
    SELECT count(*) FROM embeddings
    WHERE model = :model AND piece = 0 AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  )
  - (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND whole AND due_at IS NULL
      AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  ) AS missing;

-- name: claim_embeddings
-- Due memories of the queue; with one writer there is nothing to lock, hold_embeddings moves them on.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, 1 AS queued, q.due_at, q.attempts
FROM embedding_queue AS q
JOIN memories AS m ON m.project = q.project AND m.id = q.memory_id
WHERE q.model = :model
  AND q.whole = :whole
  AND q.due_at <= :now
ORDER BY q.due_at
LIMIT :limit;

-- name: hold_embeddings*!
-- Takes a memory off the queue until a time.
UPDATE embedding_queue
SET due_at = :until
WHERE project = :project
  AND memory_id = :id
  AND model = :model;

-- name: save_vectors*!
-- Stores vectors of whole memories; those of memories that were deleted meanwhile are passed over.
INSERT INTO embeddings (project, memory_id, model, piece, embedding)
SELECT project, id, :model, 0, :vector
FROM memories
WHERE project = :project
  AND id = :id
ON CONFLICT (project, memory_id, model, piece) DO NOTHING;

-- name: save_pieces*!
-- Stores vectors of a memory's pieces, unless it was deleted meanwhile.
INSERT INTO embeddings (project, memory_id, model, piece, first_line, last_line, embedding)
SELECT project, id, :model, :piece, :first_line, :last_line, :vector
FROM memories
WHERE project = :project
  AND id = :id
ON CONFLICT (project, memory_id, model, piece) DO NOTHING;

-- name: dequeue_embeddings*!
-- Takes embedded memories off the queue.
DELETE FROM embedding_queue
WHERE project = :project
  AND memory_id = :id
  AND model = :model;

-- name: hand_back_embeddings*!
-- Makes a memory due that is still held until the time given: whoever took or did it meanwhile has changed that.
UPDATE embedding_queue
SET due_at = :now
WHERE project = :project
  AND memory_id = :id
  AND model = :model
  AND due_at = :held;

-- name: postpone_embeddings*!
-- Notes a failed attempt; without a time the memories are given up.
UPDATE embedding_queue
SET attempts = attempts + 1,
    error = :reason,
    due_at = :until
WHERE project = :project
  AND memory_id = :id
  AND model = :model;

-- name: get_vectors
-- The vectors of whole memories.
SELECT e.project, e.memory_id AS id, e.embedding
FROM json_each(:keys) AS wanted
JOIN embeddings AS e ON e.project = wanted.value ->> 0 AND e.memory_id = wanted.value ->> 1
WHERE e.model = :model
  AND e.piece = 0;

-- name: begin_models!
-- Notes which model is in use where that is not known yet: that of the vectors that are there, or else the given one.
INSERT INTO embedding_models (id, active, target, aimed_at, sweep_at)
SELECT 1, found.model, found.model, :now, :now
FROM (
  SELECT coalesce(
    (SELECT e.model FROM embeddings AS e GROUP BY e.model ORDER BY count(*) DESC, e.model = :model DESC LIMIT 1),
    :model
  ) AS model
  WHERE NOT EXISTS (SELECT 1 FROM embedding_models)
) AS found;

-- name: get_models^
-- The models in use.
SELECT active, target
FROM embedding_models;

-- name: aim_models!
-- Has vectors made for a model from now on; without any vectors of the active model it is searched at once.
UPDATE embedding_models
SET target = :model,
    active = CASE WHEN EXISTS (SELECT 1 FROM embeddings AS e WHERE e.model = active) THEN active ELSE :model END,
    aimed_at = :now,
    sweep_at = :sweep_at
WHERE target <> :model;

-- name: unfinished_model^
-- A memory that waits for a vector of a model and was stored before a time, or before the model was chosen; if any.
SELECT q.project
FROM embedding_queue AS q
JOIN memories AS m ON m.project = q.project AND m.id = q.memory_id
WHERE q.model = :model
  AND q.due_at IS NOT NULL
  AND m.created_at < max(:before, (SELECT aimed_at FROM embedding_models))
LIMIT 1;

-- name: switch_models^
-- Has a model searched whose vectors are all there but for those given up, and those of memories stored since a time.
UPDATE embedding_models
SET active = target,
    sweep_at = :sweep_at
WHERE target = :model
  AND active <> target
  AND NOT EXISTS (
    SELECT 1
    FROM embedding_queue AS q
    JOIN memories AS m ON m.project = q.project AND m.id = q.memory_id
    WHERE q.model = :model
      AND q.due_at IS NOT NULL
      AND m.created_at < max(:before, (SELECT aimed_at FROM embedding_models))
  )
RETURNING active;

-- name: claim_sweep^
-- Takes it on to remove vectors of models that are not in use, until a time.
UPDATE embedding_models
SET sweep_at = :until
WHERE sweep_at <= :now
RETURNING sweep_at;

-- name: renew_sweep^
-- Holds it longer, or with NULL says that all are removed; no row if the models have changed meanwhile.
UPDATE embedding_models
SET sweep_at = :until
WHERE sweep_at = :held
RETURNING id;

-- name: sweep_models^
-- The last of a portion of the memories, if any; SQLite has no data-modifying CTE, so two statements more remove what
-- belongs to models not in use.
SELECT project, id
FROM (
  SELECT m.project, m.id
  FROM memories AS m
  WHERE (m.project, m.id) > (:after_project, :after_id)
  ORDER BY m.project, m.id
  LIMIT :limit
)
ORDER BY project DESC, id DESC
LIMIT 1;

-- name: sweep_vectors!
-- Removes the vectors of models not in use from a portion of the memories.
DELETE FROM embeddings
WHERE (project, memory_id) > (:after_project, :after_id)
  AND (project, memory_id) <= (:last_project, :last_id)
  AND model NOT IN (SELECT active FROM embedding_models UNION SELECT target FROM embedding_models);

-- name: sweep_queue!
-- Removes the queue of models not in use from a portion of the memories.
DELETE FROM embedding_queue
WHERE (project, memory_id) > (:after_project, :after_id)
  AND (project, memory_id) <= (:last_project, :last_id)
  AND model NOT IN (SELECT active FROM embedding_models UNION SELECT target FROM embedding_models);

-- name: create_import^
-- Begins an import: queued, or running right away under a lease of the caller's.
INSERT INTO imports (
  project, id, state, stage, keep_projects, source_name, source_key, source_size_bytes, source_format, spool, validate,
  dry_run, batch_size, spool_folder, model, created_at, started_at, token, lease_until
)
VALUES (
  :project, :id, :state, 'snapshot', :keep_projects, :source_name, :source_key, :source_size_bytes, :source_format,
  :spool, :validate, :dry_run, :batch_size, :spool_folder, :model, :now, :started_at, 1, :until
)
RETURNING *;

-- name: running_import^
-- The import of a file that is running or queued, with its copy in a spool folder; the oldest.
SELECT *
FROM imports
WHERE project = :project
  AND source_key = :source_key
  AND spool = :spool
  AND state IN ('queued', 'running')
ORDER BY created_at, id
LIMIT 1;

-- name: get_import^
-- One import, by its id.
SELECT *
FROM imports
WHERE id = :id
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)));

-- name: list_imports
-- Imports, newest first: their ids are of version 7, which begins with the time.
SELECT *
FROM imports
WHERE (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  AND (:before IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit;

-- name: count_imports^
-- How many imports are in a state, those of one spool folder or all.
SELECT count(*) AS found
FROM imports
WHERE state = :state
  AND (:spool IS NULL OR spool = :spool)
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)));

-- name: requeue_imports!
-- Puts imports whose process is gone back into the queue, so that they are in nobody's way, and ends those that were to
-- stop. The token stays: it goes on with the next claim, and until then nothing that is sent for them is taken.
UPDATE imports
SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested THEN :now END,
    lease_until = NULL
WHERE state = 'running'
  AND lease_until < :now;

-- name: claim_import^
-- Takes the oldest import of a spool folder in the queue, unless one of the same file is running. One writer needs no row lock.
UPDATE imports
SET state = 'running',
    token = token + 1,
    lease_until = :until,
    started_at = coalesce(started_at, :now)
WHERE (project, id) IN (
  SELECT c.project, c.id
  FROM imports AS c
  WHERE c.state = 'queued'
    AND c.spool = :spool
    AND (:only IS NULL OR c.id = :only)
    AND NOT EXISTS (
      SELECT 1 FROM imports AS other
      WHERE other.state = 'running'
        AND other.source_key = c.source_key
        AND other.id <> c.id
    )
  ORDER BY c.created_at, c.id
  LIMIT 1
)
RETURNING *;

-- name: renew_import^
-- Holds a lease longer; answers whether the import is to stop.
UPDATE imports
SET lease_until = :until
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running'
RETURNING cancel_requested;

-- name: hand_back_import!
-- Ends a lease. The token goes on, so that whatever the process had sent before, and comes later, changes nothing.
UPDATE imports
SET lease_until = :now, token = token + 1
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running';

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
-- Whether the lease is still the newest; the transaction of the one writer holds the import.
SELECT id
FROM imports
WHERE project = :project
  AND id = :id
  AND token = :token
  AND state = 'running';

-- name: count_batch^
-- Adds a batch to the counts and the progress.
UPDATE imports
SET processed = processed + :size,
    last_rowid = :last_rowid,
    migrated = migrated + :migrated,
    skipped = skipped + :skipped,
    failed = failed + :failed,
    reembedded = reembedded + :reembedded,
    redacted = redacted + :redacted,
    altered = altered + :altered,
    unusable_vectors = unusable_vectors + :unusable_vectors
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
SET cancel_requested = 1,
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
  AND (:after_rowid IS NULL OR source_rowid > :after_rowid)
ORDER BY source_rowid
LIMIT :limit;

-- name: delete_imported
-- Undo: deletes a part of what an import brought in; the words go by delete_words.
DELETE FROM memories
WHERE seq IN (
  SELECT seq
  FROM memories
  WHERE import_id = :import_id
    AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  LIMIT :limit
)
RETURNING seq, project, id;

-- name: create_key!
-- Stores a key, of which the digest of the secret is kept alone.
INSERT INTO keys (id, name, digest, scopes, projects, created_at, expires_at)
VALUES (:id, :name, :digest, :scopes, :projects, :created_at, :expires_at);

-- name: get_key^
-- One key, by its id.
SELECT *
FROM keys
WHERE id = :id;

-- name: list_keys
-- All keys, newest first: their ids are of version 7, which begins with the time.
SELECT *
FROM keys
ORDER BY id DESC;

-- name: revoke_key^
-- Revokes a key; one that is revoked keeps its time.
UPDATE keys
SET revoked_at = coalesce(revoked_at, :now)
WHERE id = :id
RETURNING *;

-- name: any_key^
-- Whether there is or was a key.
SELECT EXISTS (SELECT 1 FROM keys) AS found;

-- name: add_audit!
-- Notes what an administrator is about to do.
INSERT INTO audit (id, at, actor, key_id, action, target, details, request_id)
VALUES (:id, :at, :actor, :key_id, :action, :target, :details, :request_id);

-- name: end_audit!
-- Adds what came of it.
UPDATE audit
SET target = :target,
    details = :details
WHERE id = :id;

-- name: list_audit
-- What administrators did, newest first, behind a record.
SELECT *
FROM audit
WHERE :before IS NULL OR id < :before
ORDER BY id DESC
LIMIT :limit;

-- name: find_answer^
-- The answer that was kept for an idempotency key, with the fingerprint of its request.
SELECT fingerprint, status, memory_id, body
FROM idempotency_keys
WHERE owner = :owner
  AND key = :key;

-- name: keep_answer^
-- Keeps the answer to a request, unless another one with its key was first. One writer: no other is under way.
INSERT INTO idempotency_keys (owner, key, fingerprint, status, memory_id, body, created_at)
VALUES (:owner, :key, :fingerprint, :status, :memory_id, :body, :now)
ON CONFLICT (owner, key) DO NOTHING
RETURNING true AS kept;

-- name: sweep_answers
-- Deletes the oldest of the answers that were kept before a time.
DELETE FROM idempotency_keys
WHERE (owner, key) IN (
  SELECT owner, key
  FROM idempotency_keys
  WHERE created_at < :before
  ORDER BY created_at
  LIMIT :limit
)
RETURNING true AS swept;
