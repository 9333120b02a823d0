"""Text to token ids and back, chat templates, and streaming decode."""
