"""Formats of programs' texts: keys or identifiers with messages."""
