"""Model files in, one `ModelConfig` and one stream of named tensors out."""
