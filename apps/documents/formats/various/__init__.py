"""Formats of their own kind: notebooks and RTF; PDF and mail, which are read as text alone."""
