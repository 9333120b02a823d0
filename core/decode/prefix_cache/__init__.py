"""Prompts that begin alike are computed once."""
