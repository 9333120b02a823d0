"""Formats that people write prose in."""
