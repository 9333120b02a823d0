"""Office documents and other files that are XML, zipped or not: their text is replaced in place, all else is copied."""
