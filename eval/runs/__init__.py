"""Runs of an evaluation: folders, samples, scores."""
