-- Where the private copy of an import lies, for people: the folder and its machine.
ALTER TABLE imports ADD COLUMN spool_folder text;
