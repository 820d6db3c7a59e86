-- Rows up to half a page stay whole: most searches then read words without a second look-up, and imports compress less.
ALTER TABLE memories SET (toast_tuple_target = 4096);
