"""The GPT core: model, tokenizers, model files, decoding, training. It knows no task."""
