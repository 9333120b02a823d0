"""One engine for many callers at once: a thread that owns the loops, and what each caller holds of its requests."""
