-- How many secrets an import has taken out of the rows that it stored.
ALTER TABLE imports ADD COLUMN redacted INTEGER NOT NULL DEFAULT 0 CHECK (redacted >= 0);
