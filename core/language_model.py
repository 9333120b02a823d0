"""`LanguageModel`: a model, its tokenizer and its engine, loaded by name or path."""
