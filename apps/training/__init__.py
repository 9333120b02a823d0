"""Training on rows: recipe, examples, tuning."""
