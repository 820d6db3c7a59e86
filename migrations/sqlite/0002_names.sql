-- Names that code defines are words of their own; a name as a whole is marked with "=".
CREATE VIRTUAL TABLE named_words USING fts5 (
  code, identifiers, names, path, context, tokenize = "unicode61 remove_diacritics 0 tokenchars '='"
);

INSERT INTO named_words (rowid, code, identifiers, names, path, context)
SELECT rowid, code, identifiers, '', path, context
FROM memory_words;

DROP TABLE memory_words;
ALTER TABLE named_words RENAME TO memory_words;

-- In how many memories each word is.
CREATE VIRTUAL TABLE word_frequencies USING fts5vocab (memory_words, row);
