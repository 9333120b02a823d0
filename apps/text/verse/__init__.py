"""Verse whose form holds: sounds of words, plans of forms, and the search that keeps them."""
