"""The interface of OpenAI: completions, chat completions, embeddings and models."""
