"""Questions to many files at once: the passages that a question is about are found, and asked."""
