"""Shipped weights, and the scripts that make them."""
