"""Summaries of a text's own sentences."""
