"""The door: who may come in, and what is counted of those who do."""
