"""Model files of the GGUF format."""
