-- Memories with the same code are found by a hash of it, and counted in the index alone. The connection has the function.
ALTER TABLE memories ADD COLUMN code_hash INTEGER;
UPDATE memories SET code_hash = code_hash(new_code);

CREATE INDEX memories_by_code ON memories (code_hash, project, timestamp);
