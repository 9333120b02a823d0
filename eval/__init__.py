"""Evaluation: metrics, significance, runs, reports."""
