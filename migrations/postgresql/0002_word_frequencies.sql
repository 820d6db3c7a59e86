-- How many memories of a project hold a word. Counted in the background, never with a write, so it lags behind a little.
CREATE TABLE word_frequencies (
  project text NOT NULL,
  lexeme text NOT NULL,
  ndoc bigint NOT NULL CHECK (ndoc > 0),
  PRIMARY KEY (project, lexeme)
);

CREATE INDEX word_frequencies_by_lexeme ON word_frequencies (lexeme);

-- How many memories were there when the words of a project were counted, and how many distinct words they held in all.
CREATE TABLE word_totals (
  project text PRIMARY KEY,
  memories bigint NOT NULL CHECK (memories >= 0),
  words bigint NOT NULL CHECK (words >= 0)
);
