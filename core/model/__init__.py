"""The GPT itself: configuration, layers, attention, KV cache."""
