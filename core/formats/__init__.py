"""Model files in and out: one `ModelConfig` and one stream of named tensors."""
