-- Rows that an import has stored with a change that they needed, and those whose vector was unusable.
ALTER TABLE imports ADD COLUMN altered INTEGER NOT NULL DEFAULT 0 CHECK (altered BETWEEN 0 AND migrated);
ALTER TABLE imports ADD COLUMN unusable_vectors INTEGER NOT NULL DEFAULT 0 CHECK (unusable_vectors BETWEEN 0 AND migrated);
