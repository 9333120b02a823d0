"""Files: the cache folder, reading, writing, hashing."""
