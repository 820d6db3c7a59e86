-- Keys and the record of what administrators did. Both are the installation's, not a project's: a reference table on Citus.
CREATE TABLE keys (
  id uuid PRIMARY KEY,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  digest bytea NOT NULL CHECK (length(digest) = 32),
  scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'admin']),
  projects text[] CHECK (cardinality(projects) > 0),
  created_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz
);

CREATE TABLE audit (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL,
  actor text NOT NULL,
  key_id uuid,
  action text NOT NULL,
  target text,
  details text NOT NULL,
  request_id text
);
