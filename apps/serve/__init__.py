"""The server: one process, one engine, many users."""
