"""Formats of documents: each reads a file into segments and a skeleton, and writes it again."""
