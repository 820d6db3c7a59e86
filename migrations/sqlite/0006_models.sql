-- Which model's vectors are searched (active), and which model vectors are made for (target); they differ while the model
-- is being changed. One row, which is the installation's, not a project's: all projects share the models, as they do the
-- process that loads them.
-- aimed_at is when the target was chosen. sweep_at is when vectors of other models may be removed; who does so moves it ahead, as a lease. NULL: there are none.
CREATE TABLE embedding_models (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  active TEXT NOT NULL,
  target TEXT NOT NULL,
  aimed_at TEXT NOT NULL,
  sweep_at TEXT
);

-- The model whose vectors an import keeps, from its beginning to its end; NULL: it began before this was noted.
ALTER TABLE imports ADD COLUMN model TEXT;
