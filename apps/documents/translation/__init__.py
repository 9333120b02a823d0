"""Translating documents: sentences with masks for their codes, what is tried with them, and the check of what came."""
