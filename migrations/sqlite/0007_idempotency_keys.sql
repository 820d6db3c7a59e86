-- Answers to writes with an Idempotency-Key, for those that repeat them. They are the key owner's, not a project's: a
-- batch writes into several, and a key that comes again with another project must be noticed.
CREATE TABLE idempotency_keys (
  owner TEXT NOT NULL,
  key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
  status INTEGER NOT NULL CHECK (status BETWEEN 200 AND 299),
  memory_id TEXT,
  body BLOB NOT NULL,
  created_at TEXT NOT NULL,
  PRIMARY KEY (owner, key)
);

CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
