"""Commands that serve and chat."""
