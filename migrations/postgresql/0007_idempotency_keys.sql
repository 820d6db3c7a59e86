-- Answers to writes with an Idempotency-Key, for those that repeat them. They are the key owner's, not a project's: a
-- batch writes into several, and a key that comes again with another project must be noticed. On Citus distributed by key.
CREATE TABLE idempotency_keys (
  owner text NOT NULL,
  key text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
  fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
  status integer NOT NULL CHECK (status BETWEEN 200 AND 299),
  memory_id uuid,
  body bytea NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (owner, key)
);

CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
