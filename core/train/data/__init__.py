"""Rows as tokens: store, packing, prompt trees."""
