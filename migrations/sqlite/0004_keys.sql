-- Keys and the record of what administrators did. Scopes, projects and details are JSON.
CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  scopes TEXT NOT NULL CHECK (json_array_length(scopes) > 0),
  projects TEXT CHECK (json_array_length(projects) > 0),
  created_at TEXT NOT NULL,
  expires_at TEXT,
  revoked_at TEXT
) WITHOUT ROWID;

CREATE TABLE audit (
  id TEXT PRIMARY KEY,
  at TEXT NOT NULL,
  actor TEXT NOT NULL,
  key_id TEXT,
  action TEXT NOT NULL,
  target TEXT,
  details TEXT NOT NULL,
  request_id TEXT
) WITHOUT ROWID;
