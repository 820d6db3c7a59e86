-- Vectors of parts of long code, and indexes for filters that leave few memories.

-- The lines of new_code that a piece covers, from 1; without them a vector stands for the whole memory.
ALTER TABLE embeddings
  ADD COLUMN first_line integer,
  ADD COLUMN last_line integer,
  ADD CHECK ((piece = 0) = (first_line IS NULL)),
  ADD CHECK ((first_line IS NULL) = (last_line IS NULL)),
  ADD CHECK (first_line BETWEEN 1 AND last_line);

-- A row with whole = false is a long memory that has its own vector and lacks those of its pieces.
ALTER TABLE embedding_queue ADD COLUMN whole boolean NOT NULL DEFAULT true;
DROP INDEX embedding_queue_by_time;
CREATE INDEX embedding_queue_by_time ON embedding_queue (model, whole, due_at) WHERE due_at IS NOT NULL;

INSERT INTO embedding_queue (project, memory_id, model, due_at, whole)
SELECT e.project, e.memory_id, e.model, now(), false
FROM embeddings AS e
JOIN memories AS m ON m.project = e.project AND m.id = e.memory_id
WHERE char_length(m.new_code) > 1000
ON CONFLICT (project, memory_id, model) DO NOTHING;

-- A filter need not come with a project.
DROP INDEX memories_by_session;
CREATE INDEX memories_by_session ON memories (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX memories_by_agent ON memories (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX memories_by_language ON memories (language) WHERE language IS NOT NULL;
-- A key of a B-tree has at most 2704 bytes: the longest path has more, its beginning has not.
CREATE INDEX memories_by_file ON memories (left(file_path, 500) text_pattern_ops);
