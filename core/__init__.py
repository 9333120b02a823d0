"""The GPT core: model, tokenizers, loaders, decoding. It knows no task."""
