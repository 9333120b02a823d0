"""Formats of rows: tables and calendars."""
