"""Translating documents with a model: files and folders in, files out, and answers that are kept for the next run."""
