"""Guesses at the tokens to come, checked in one pass."""
