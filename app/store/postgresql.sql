-- name: add_memories
-- Stores memories with their words and vectors, passes over keys that are there, and queues them for each model in use
-- of which they lack vectors: of the whole, or of pieces if they are long. A vector of another model is left out.
WITH used AS (
  SELECT active AS model FROM embedding_models
  UNION
  SELECT target FROM embedding_models
), given AS (
  SELECT
    project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at,
    import_id, words, vector, coalesce(model, (SELECT target FROM embedding_models)) AS model, due_at
  FROM unnest(
    :projects::text[], :ids::uuid[], :file_paths::text[], :new_codes::text[], :old_codes::text[], :contexts::text[],
    :session_ids::text[], :agent_ids::text[], :languages::text[], :timestamps::timestamptz[], :created_ats::timestamptz[],
    :import_ids::uuid[], :words::text[], :vectors::halfvec[], :models::text[], :due_ats::timestamptz[]
  ) AS row (
    project, id, file_path, new_code, old_code, context, session_id, agent_id, language, timestamp, created_at,
    import_id, words, vector, model, due_at
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
  SELECT project, id, model, 0, vector
  FROM given
  JOIN stored USING (project, id)
  JOIN used USING (model)
  WHERE vector IS NOT NULL
), queued AS (
  INSERT INTO embedding_queue (project, memory_id, model, due_at, whole)
  SELECT project, id, used.model, due_at, vector IS NULL OR used.model <> given.model
  FROM given
  JOIN stored USING (project, id)
  CROSS JOIN used
  WHERE vector IS NULL
     OR used.model <> given.model
     OR char_length(new_code) > :max_whole
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
  AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
ORDER BY m.project;

-- name: list_memories
-- A page of memories, newest first, behind a place.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at
FROM memories AS m
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models)
WHERE (:projects::text[] IS NULL OR m.project = ANY (:projects))
  AND (:session_id::text IS NULL OR m.session_id = :session_id)
  AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
  AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
  AND (
    :path_prefix::text IS NULL
    OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
  )
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

-- name: word_frequencies
-- How many memories of the projects held each word when they were counted; one row a word, each with the totals.
SELECT
  wanted.word,
  (
    SELECT coalesce(sum(f.ndoc), 0)::bigint
    FROM word_frequencies AS f
    WHERE f.lexeme = wanted.word
      AND (:projects::text[] IS NULL OR f.project = ANY (:projects))
  ) AS ndoc,
  totals.memories,
  totals.words AS total
FROM unnest(:words::text[]) AS wanted (word)
CROSS JOIN (
  SELECT coalesce(sum(t.memories), 0)::bigint AS memories, coalesce(sum(t.words), 0)::bigint AS words
  FROM word_totals AS t
  WHERE :projects::text[] IS NULL OR t.project = ANY (:projects)
) AS totals;

-- name: search_words
-- Memories that match, best first, by the share of the query's information in them: the sum over the words of idf (their
-- sum is 1) times ts_rank, over a length of which the mean counts as 1. SQLite has bm25. To fetch and unpack words is
-- what costs: of candidates that have too many of them the shortest are ranked, and adding an empty vector does it once
-- instead of for each word. Short ones that are not packed stand in the row, mostly, and are ranked as they are. A memory
-- may come twice: leaving those out would read them all.
WITH candidates AS MATERIALIZED (
  (
    SELECT m.project, m.id, m.timestamp, m.words, pg_column_size(m.words) AS size
    FROM memories AS m
    WHERE m.words @@ :rare::tsquery
      AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
      AND (:session_id::text IS NULL OR m.session_id = :session_id)
      AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
      AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
      AND (
        :path_prefix::text IS NULL
        OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
      )
      AND (:language::text IS NULL OR m.language = :language)
      AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
      AND (:until::timestamptz IS NULL OR m.timestamp < :until)
    LIMIT :limit_rare
  )
  UNION ALL
  (
    SELECT m.project, m.id, m.timestamp, m.words, pg_column_size(m.words) AS size
    FROM memories AS m
    WHERE m.words @@ :together::tsquery
      AND (:rare::tsquery IS NULL OR NOT m.words @@ :rare::tsquery)
      AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
      AND (:session_id::text IS NULL OR m.session_id = :session_id)
      AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
      AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
      AND (
        :path_prefix::text IS NULL
        OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
      )
      AND (:language::text IS NULL OR m.language = :language)
      AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
      AND (:until::timestamptz IS NULL OR m.timestamp < :until)
    LIMIT :limit_common
  )
  UNION ALL
  (
    SELECT m.project, m.id, m.timestamp, m.words, pg_column_size(m.words) AS size
    FROM memories AS m
    WHERE m.words @@ :common::tsquery
      AND (:rare::tsquery IS NULL OR NOT m.words @@ :rare::tsquery)
      AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
      AND (:session_id::text IS NULL OR m.session_id = :session_id)
      AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
      AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
      AND (
        :path_prefix::text IS NULL
        OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
      )
      AND (:language::text IS NULL OR m.language = :language)
      AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
      AND (:until::timestamptz IS NULL OR m.timestamp < :until)
    LIMIT :limit_common
  )
)
SELECT found.project, found.id, strength
FROM (
  SELECT
    project, id, timestamp,
    CASE WHEN size < 900 AND pg_column_compression(words) IS NULL THEN words ELSE words || ''::tsvector END AS words
  FROM candidates
  WHERE (SELECT sum(size) <= :limit_bytes FROM candidates)
    OR (project, id) IN (
      SELECT project, id
      FROM (
        SELECT project, id, sum(size) OVER (ORDER BY size, id ROWS UNBOUNDED PRECEDING) AS size_bytes
        FROM candidates
      ) AS shortest
      WHERE size_bytes <= :limit_bytes
    )
  OFFSET 0
) AS found
CROSS JOIN LATERAL (
  SELECT
    sum(term.idf * ts_rank(:weights::real[], found.words, term.word))
    / CASE WHEN :mean_length::float8 > 0 THEN 0.6 + 0.4 * length(found.words) / :mean_length ELSE 1 END AS strength
  FROM unnest(:words::tsquery[], :idfs::float8[]) AS term (word, idf)
) AS ranked
ORDER BY strength DESC, found.timestamp DESC, found.id DESC
LIMIT :limit;

-- name: given_matches
-- Memories with scores, as a search finds them.
SELECT project, id, NULL::integer AS first_line, NULL::integer AS last_line, score
FROM unnest(:keys_projects::text[], :keys_ids::uuid[], :scores::float8[]) AS given (project, id, score);

-- name: best_matches
-- Reads what another statement has `found`, memories with scores, some of them more than once: the best of each code. No
-- long texts are read. The planner may have been told not to sort, for the sake of what comes before: each memory is
-- looked up nevertheless.
WITH matches AS (
  SELECT *
  FROM (
    SELECT DISTINCT ON (project, id) project, id, first_line, last_line, score
    FROM found
    ORDER BY project, id, score DESC
  ) AS each
  ORDER BY score DESC, id DESC
  LIMIT :candidates
),
wanted AS (
  SELECT
    matches.*, m.timestamp, m.code_hash,
    row_number() OVER (ORDER BY score DESC, m.timestamp DESC, matches.id DESC) AS rank,
    row_number() OVER (PARTITION BY m.code_hash ORDER BY score DESC, m.timestamp DESC, matches.id DESC) AS place,
    count(*) OVER () AS present
  FROM matches
  CROSS JOIN LATERAL (
    SELECT timestamp, code_hash
    FROM memories
    WHERE project = matches.project AND id = matches.id
    OFFSET 0
  ) AS m
)
SELECT *
FROM wanted
WHERE place = 1
  AND code_hash <> ALL (:known::bigint[])
ORDER BY score DESC, timestamp DESC, id DESC
LIMIT :limit;

-- name: find_copies
-- Memories with the code of one of the `best`, no more than the limit in all. It needs nothing but the index, and so does
-- that of some projects, also by a plan that is made for any values.
SELECT m.code_hash, m.timestamp
FROM memories AS m
WHERE m.code_hash = ANY (ARRAY (SELECT code_hash FROM best))
LIMIT :limit_copies;

-- name: find_copies_in_projects
-- The same in some projects.
SELECT m.code_hash, m.timestamp
FROM memories AS m
WHERE m.code_hash = ANY (ARRAY (SELECT code_hash FROM best))
  AND m.project = ANY (:projects)
LIMIT :limit_copies;

-- name: find_copies_filtered
-- The same in a scope of any kind.
SELECT m.code_hash, m.timestamp
FROM memories AS m
WHERE m.code_hash = ANY (ARRAY (SELECT code_hash FROM best))
  AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
  AND (:session_id::text IS NULL OR m.session_id = :session_id)
  AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
  AND (:file_path::text IS NULL OR m.file_path = :file_path)
  AND (:path_prefix::text IS NULL OR starts_with(m.file_path, :path_prefix))
  AND (:language::text IS NULL OR m.language = :language)
  AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
  AND (:until::timestamptz IS NULL OR m.timestamp < :until)
LIMIT :limit_copies;

-- name: distinct_memories
-- The `best` of what was `found`, with the number of its `copies` and the time of the newest.
SELECT
  m.project, m.id, m.file_path, m.new_code, m.old_code, m.context, m.session_id, m.agent_id, m.language, m.timestamp,
  m.created_at, m.import_id, q.memory_id IS NOT NULL AS queued, q.due_at, m.code_hash, best.first_line, best.last_line,
  best.score, best.rank, best.present, (SELECT count(*) FROM found) AS found,
  coalesce(same.copies, 1) AS copies, coalesce(same.last_timestamp, m.timestamp) AS last_timestamp
FROM best
CROSS JOIN LATERAL (SELECT * FROM memories WHERE project = best.project AND id = best.id OFFSET 0) AS m
LEFT JOIN embedding_queue AS q
  ON q.project = m.project AND q.memory_id = m.id AND q.whole AND q.model = (SELECT active FROM embedding_models)
LEFT JOIN (
  SELECT code_hash, count(*) AS copies, max(timestamp) AS last_timestamp
  FROM copies
  GROUP BY code_hash
) AS same ON same.code_hash = best.code_hash
ORDER BY best.score DESC, best.timestamp DESC, best.id DESC;

-- name: stale_frequencies
-- Projects whose number of memories has changed by a tenth or more since their words were counted.
SELECT project, coalesce(now.memories, 0) AS memories, coalesce(t.memories, 0) AS counted
FROM (SELECT project, count(*) AS memories FROM memories GROUP BY project) AS now
FULL JOIN word_totals AS t USING (project)
WHERE abs(coalesce(now.memories, 0) - coalesce(t.memories, 0)) * 10 > coalesce(t.memories, 0);

-- name: claim_frequencies
-- Takes the counting of a project on: of several processes that saw it stale, the first; the others wait and get no row.
INSERT INTO word_totals AS t (project, memories, words)
VALUES (:project, :memories, 0)
ON CONFLICT (project) DO UPDATE SET memories = excluded.memories
WHERE t.memories = :counted
RETURNING project;

-- name: delete_frequencies!
-- Forgets the counts of a project, within the transaction that counts anew.
DELETE FROM word_frequencies
WHERE project = :project;

-- name: count_frequencies!
-- Counts the words of a project, of one in :every memories, chosen by a hash so that each count sees the same ones.
INSERT INTO word_frequencies (project, lexeme, ndoc)
SELECT :project, word.lexeme, count(*) * :every::bigint
FROM memories AS m
CROSS JOIN unnest(tsvector_to_array(m.words)) AS word (lexeme)
WHERE m.project = :project
  AND (:every = 1 OR abs(hashtext(m.id::text)::bigint) % :every = 0)
GROUP BY word.lexeme;

-- name: save_total!
-- The distinct words of all memories of a project, for their mean length.
UPDATE word_totals
SET words = (SELECT coalesce(sum(ndoc), 0) FROM word_frequencies WHERE project = :project)
WHERE project = :project;

-- name: merge_words
-- GIN keeps new entries in a list that every search reads through until they are merged; only its owner may ask for that.
SELECT gin_clean_pending_list('memories_by_words') AS pages
FROM pg_class
WHERE oid = 'memories_by_words'::regclass
  AND pg_has_role(relowner, 'USAGE')
  AND pg_try_advisory_xact_lock(:lock);

-- name: search_vectors
-- Exact search over whole projects, which reads the narrow table alone. `+ 0` keeps an approximate index out of it. A
-- score beside the distance would be computed of every vector too. To sort takes a third of the time, so where few are
-- wanted most are left out before: what is farther away than the last of as many in a tenth of the table. A project may
-- be smaller than that tenth, and does without.
SELECT project, id, first_line, last_line, 1 - distance AS score
FROM (
  SELECT
    e.project, e.memory_id AS id, e.first_line, e.last_line, (e.embedding <=> :vector::halfvec) + 0 AS distance
  FROM embeddings AS e
  WHERE e.model = :model
    AND (:projects::text[] IS NULL OR e.project = ANY (:projects))
    AND (
      :depth > 100
      OR :projects::text[] IS NOT NULL
      OR e.embedding <=> :vector::halfvec <= (
        SELECT coalesce(
          (
            SELECT embedding <=> :vector::halfvec AS distance
            FROM embeddings TABLESAMPLE SYSTEM (10)
            WHERE model = :model
            ORDER BY distance
            OFFSET :depth - 1
            LIMIT 1
          ),
          'NaN'
        )
      )
    )
  ORDER BY distance, e.memory_id DESC
  LIMIT :depth
) AS nearest
ORDER BY distance, id DESC;

-- name: search_vectors_filtered
-- Exact search over the memories that pass the filters.
SELECT project, id, first_line, last_line, 1 - distance AS score
FROM (
  SELECT
    e.project, e.memory_id AS id, e.first_line, e.last_line, (e.embedding <=> :vector::halfvec) + 0 AS distance
  FROM memories AS m
  JOIN embeddings AS e ON e.project = m.project AND e.memory_id = m.id
  WHERE e.model = :model
    AND (:projects::text[] IS NULL OR m.project = ANY (:projects))
    AND (:session_id::text IS NULL OR m.session_id = :session_id)
    AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
    AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
    AND (
      :path_prefix::text IS NULL
      OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
    )
    AND (:language::text IS NULL OR m.language = :language)
    AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
    AND (:until::timestamptz IS NULL OR m.timestamp < :until)
    AND (:required::tsquery IS NULL OR m.words @@ :required)
    AND (:excluded::tsquery IS NULL OR NOT m.words @@ :excluded)
  ORDER BY distance, e.memory_id DESC
  LIMIT :depth
) AS nearest
ORDER BY distance, id DESC;

-- name: count_vectors^
-- How many vectors whole projects hold; counts no further than the limit.
SELECT count(*) AS candidates
FROM (
  SELECT
  FROM embeddings AS e
  WHERE e.model = :model
    AND (:projects::text[] IS NULL OR e.project = ANY (:projects))
  LIMIT :limit
) AS found;

-- name: count_candidates^
-- How many memories pass the filters; counts no further than the limit.
SELECT count(*) AS candidates
FROM (
  SELECT
  FROM memories AS m
  WHERE (:projects::text[] IS NULL OR m.project = ANY (:projects))
    AND (:session_id::text IS NULL OR m.session_id = :session_id)
    AND (:agent_id::text IS NULL OR m.agent_id = :agent_id)
    AND (:file_path::text IS NULL OR (m.file_path = :file_path AND left(m.file_path, 500) = left(:file_path, 500)))
    AND (
      :path_prefix::text IS NULL
      OR (starts_with(m.file_path, :path_prefix) AND starts_with(left(m.file_path, 500), left(:path_prefix, 500)))
    )
    AND (:language::text IS NULL OR m.language = :language)
    AND (:since::timestamptz IS NULL OR m.timestamp >= :since)
    AND (:until::timestamptz IS NULL OR m.timestamp < :until)
    AND (:required::tsquery IS NULL OR m.words @@ :required)
  LIMIT :limit
) AS found;

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
    WHERE model = :model AND whole AND due_at IS NULL AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS given_up,
  (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND NOT whole AND due_at IS NOT NULL AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS pieces_pending,
  (SELECT vector_dims(embedding) FROM embeddings WHERE model = :model LIMIT 1) AS dimensions,
  pg_database_size(current_database()) AS size_bytes;

-- name: queue_missing
-- Queues a portion of the memories that have no vector of a model, as after a change of the model; one row each.
INSERT INTO embedding_queue (project, memory_id, model, due_at)
SELECT m.project, m.id, :model::text, :now::timestamptz
FROM memories AS m
WHERE NOT EXISTS (
    SELECT FROM embeddings AS e
    WHERE e.project = m.project
      AND e.memory_id = m.id
      AND e.model = :model
      AND e.piece = 0
  )
  AND NOT EXISTS (
    SELECT FROM embedding_queue AS q
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
  AND (:projects::text[] IS NULL OR project = ANY (:projects));

-- name: missing_vectors$
-- How many memories lack a vector of a model and were not given up; those not queued yet are among them.
SELECT
  (SELECT count(*) FROM memories WHERE :projects::text[] IS NULL OR project = ANY (:projects))
  - (
    SELECT count(*) FROM embeddings
    WHERE model = :model AND piece = 0 AND (:projects::text[] IS NULL OR project = ANY (:projects))
  )
  - (
    SELECT count(*) FROM embedding_queue
    WHERE model = :model AND whole AND due_at IS NULL AND (:projects::text[] IS NULL OR project = ANY (:projects))
  ) AS missing;

-- name: claim_embeddings
-- Takes due memories off the queue until a time; SKIP LOCKED lets several replicas share the work.
WITH due AS (
  SELECT project, memory_id
  FROM embedding_queue
  WHERE model = :model
    AND whole = :whole
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
-- Stores vectors of whole memories and takes these off the queue; long ones stay there for their pieces. FOR KEY SHARE
-- passes over those deleted meanwhile.
WITH given AS (
  SELECT *
  FROM unnest(:projects::text[], :ids::uuid[], :vectors::halfvec[]) AS row (project, id, vector)
), present AS (
  SELECT m.project, m.id, m.created_at, char_length(m.new_code) > :max_whole AS long
  FROM memories AS m
  JOIN given USING (project, id)
  FOR KEY SHARE OF m
), done AS (
  DELETE FROM embedding_queue AS q
  USING present AS p
  WHERE q.project = p.project
    AND q.memory_id = p.id
    AND q.model = :model
    AND NOT p.long
), begun AS (
  UPDATE embedding_queue AS q
  SET whole = false,
      attempts = 0,
      error = NULL,
      due_at = p.created_at
  FROM present AS p
  WHERE q.project = p.project
    AND q.memory_id = p.id
    AND q.model = :model
    AND q.whole
    AND p.long
)
INSERT INTO embeddings (project, memory_id, model, piece, embedding)
SELECT project, id, :model::text, 0, vector
FROM given
JOIN present USING (project, id)
ON CONFLICT (project, memory_id, model, piece) DO NOTHING;

-- name: save_pieces!
-- Stores the vectors of a memory's pieces and takes it off the queue, unless it was deleted meanwhile.
WITH present AS (
  SELECT project, id
  FROM memories
  WHERE project = :project
    AND id = :id
  FOR KEY SHARE
), done AS (
  DELETE FROM embedding_queue
  WHERE project = :project
    AND memory_id = :id
    AND model = :model
)
INSERT INTO embeddings (project, memory_id, model, piece, first_line, last_line, embedding)
SELECT p.project, p.id, :model::text, row.piece, row.first_line, row.last_line, row.vector
FROM present AS p
CROSS JOIN unnest(:first_lines::integer[], :last_lines::integer[], :vectors::halfvec[])
  WITH ORDINALITY AS row (first_line, last_line, vector, piece)
ON CONFLICT (project, memory_id, model, piece) DO NOTHING;

-- name: hand_back_embeddings!
-- Makes memories due that are still held until the time given: whoever took or did one meanwhile has changed that, and
-- whoever is at it is not waited for, since that may be what waits for this.
WITH held AS (
  SELECT q.project, q.memory_id
  FROM unnest(:projects::text[], :ids::uuid[], :held::timestamptz[]) AS given (project, id, held)
  JOIN embedding_queue AS q ON q.project = given.project AND q.memory_id = given.id
  WHERE q.model = :model
    AND q.due_at = given.held
  FOR UPDATE OF q SKIP LOCKED
)
UPDATE embedding_queue AS q
SET due_at = :now
FROM held
WHERE q.project = held.project
  AND q.memory_id = held.memory_id
  AND q.model = :model;

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
-- The vectors of whole memories; each is looked up by its key (OFFSET 0), whatever the planner knows of the table.
SELECT wanted.project, wanted.id, e.embedding
FROM unnest(:projects::text[], :ids::uuid[]) AS wanted (project, id)
CROSS JOIN LATERAL (
  SELECT embedding
  FROM embeddings
  WHERE project = wanted.project
    AND memory_id = wanted.id
    AND model = :model
    AND piece = 0
  OFFSET 0
) AS e;

-- name: begin_models!
-- Notes which model is in use where that is not known yet: that of the vectors that are there, or else the given one.
INSERT INTO embedding_models (id, active, target, aimed_at, sweep_at)
SELECT 1, found.model, found.model, :now::timestamptz, :now::timestamptz
FROM (
  SELECT coalesce(
    (SELECT e.model FROM embeddings AS e GROUP BY e.model ORDER BY count(*) DESC, e.model = :model DESC LIMIT 1),
    :model::text
  ) AS model
  WHERE NOT EXISTS (SELECT FROM embedding_models)
) AS found
ON CONFLICT (id) DO NOTHING;

-- name: get_models^
-- The models in use.
SELECT active, target
FROM embedding_models;

-- name: aim_models!
-- Has vectors made for a model from now on; without any vectors of the active model it is searched at once.
WITH found AS MATERIALIZED (
  SELECT e.model
  FROM embeddings AS e
  WHERE e.model = (SELECT active FROM embedding_models)
  LIMIT 1
)
UPDATE embedding_models
SET target = :model,
    active = CASE WHEN EXISTS (SELECT FROM found) THEN active ELSE :model END,
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
  AND m.created_at < greatest(:before::timestamptz, (SELECT aimed_at FROM embedding_models))
LIMIT 1;

-- name: switch_models^
-- Has a model searched whose vectors are all there but for those given up, and those of memories stored since a time.
WITH unfinished AS MATERIALIZED (
  SELECT q.project
  FROM embedding_queue AS q
  JOIN memories AS m ON m.project = q.project AND m.id = q.memory_id
  WHERE q.model = :model
    AND q.due_at IS NOT NULL
    AND m.created_at < greatest(:before::timestamptz, (SELECT aimed_at FROM embedding_models))
  LIMIT 1
)
UPDATE embedding_models
SET active = target,
    sweep_at = :sweep_at
WHERE target = :model
  AND active <> target
  AND NOT EXISTS (SELECT FROM unfinished)
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
-- Removes the vectors and the queue of models not in use from a portion of the memories; the last of these, if any.
WITH portion AS (
  SELECT m.project, m.id
  FROM memories AS m
  WHERE :after_project::text IS NULL
     OR (m.project, m.id) > (:after_project, :after_id::uuid)
  ORDER BY m.project, m.id
  LIMIT :limit
), swept AS (
  DELETE FROM embeddings AS e
  USING portion AS p, embedding_models AS used
  WHERE e.project = p.project
    AND e.memory_id = p.id
    AND e.model NOT IN (used.active, used.target)
), dequeued AS (
  DELETE FROM embedding_queue AS q
  USING portion AS p, embedding_models AS used
  WHERE q.project = p.project
    AND q.memory_id = p.id
    AND q.model NOT IN (used.active, used.target)
)
SELECT project, id
FROM portion
ORDER BY project DESC, id DESC
LIMIT 1;

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
  AND (:projects::text[] IS NULL OR project = ANY (:projects));

-- name: list_imports
-- Imports, newest first: their ids are of version 7, which begins with the time.
SELECT *
FROM imports
WHERE (:projects::text[] IS NULL OR project = ANY (:projects))
  AND (:before::uuid IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit;

-- name: count_imports^
-- How many imports are in a state, those of one spool folder or all.
SELECT count(*) AS found
FROM imports
WHERE state = :state
  AND (:spool::uuid IS NULL OR spool = :spool)
  AND (:projects::text[] IS NULL OR project = ANY (:projects));

-- name: requeue_imports!
-- Puts imports whose process is gone back into the queue, so that they are in nobody's way, and ends those that were to
-- stop. The token stays: it goes on with the next claim, and until then nothing that is sent for them is taken.
UPDATE imports
SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested THEN :now::timestamptz END,
    lease_until = NULL
WHERE state = 'running'
  AND lease_until < :now::timestamptz;

-- name: claim_import^
-- Takes the oldest import of a spool folder in the queue, unless one of the same file is running.
UPDATE imports AS i
SET state = 'running',
    token = i.token + 1,
    lease_until = :until,
    started_at = coalesce(i.started_at, :now)
FROM (
  SELECT c.project, c.id
  FROM imports AS c
  WHERE c.state = 'queued'
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
-- Holds an import for the transaction of a batch, if the lease is still the newest. Nobody waits for the disk before the
-- import ends: a batch that a power loss takes is missing in the progress as well, and is read again.
SELECT id, set_config('synchronous_commit', 'off', true)
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
-- Undo: deletes a part of what an import brought in.
WITH deleted AS (
  DELETE FROM memories
  WHERE (project, id) IN (
    SELECT project, id
    FROM memories
    WHERE import_id = :import_id
      AND (:projects::text[] IS NULL OR project = ANY (:projects))
    LIMIT :limit
  )
  RETURNING 1
)
SELECT count(*) AS deleted
FROM deleted;

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
WHERE :before::uuid IS NULL OR id < :before
ORDER BY id DESC
LIMIT :limit;

-- name: find_answer^
-- The answer that was kept for an idempotency key, with the fingerprint of its request.
SELECT fingerprint, status, memory_id, body
FROM idempotency_keys
WHERE owner = :owner
  AND key = :key;

-- name: keep_answer^
-- Keeps the answer to a request, unless another one with its key was first. Waits for the end of one that is under way.
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
