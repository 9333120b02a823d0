"""The tasks over HTTP: each under the name of its command, with its own fields."""
