"""Rules about text; pure."""
