-- Memories with the same code are found by a hash of it, and counted in the index alone.
ALTER TABLE memories
  ADD COLUMN code_hash bigint NOT NULL GENERATED ALWAYS AS (hashtextextended(new_code, 0)) STORED;

CREATE INDEX memories_by_code ON memories (code_hash, project, timestamp);
