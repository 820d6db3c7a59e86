-- Vectors of parts of long code.

-- The lines of new_code that a piece covers, from 1; without them a vector stands for the whole memory.
ALTER TABLE embeddings ADD COLUMN first_line INTEGER CHECK ((first_line IS NULL) = (piece = 0) AND (first_line IS NULL OR first_line >= 1));
ALTER TABLE embeddings ADD COLUMN last_line INTEGER CHECK (last_line >= first_line);

-- A row with whole = 0 is a long memory that has its own vector and lacks those of its pieces.
ALTER TABLE embedding_queue ADD COLUMN whole INTEGER NOT NULL DEFAULT 1 CHECK (whole IN (0, 1));
DROP INDEX embedding_queue_by_time;
CREATE INDEX embedding_queue_by_time ON embedding_queue (model, whole, due_at) WHERE due_at IS NOT NULL;

INSERT INTO embedding_queue (project, memory_id, model, due_at, whole)
SELECT e.project, e.memory_id, e.model, strftime('%Y-%m-%dT%H:%M:%f000Z'), 0
FROM embeddings AS e
JOIN memories AS m ON m.project = e.project AND m.id = e.memory_id
WHERE length(m.new_code) > 1000
ON CONFLICT (project, memory_id, model) DO NOTHING;
