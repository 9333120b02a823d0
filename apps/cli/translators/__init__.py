"""Commands and options for translators: memories, review files, corrections."""
