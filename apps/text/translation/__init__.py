"""What translating asks of text: what must not change, layout, terms, pieces, checks."""
