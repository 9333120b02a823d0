"""Wrong command lines: what was meant, and what to type next."""
