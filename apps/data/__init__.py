"""Rows of tasks, from every layout."""
