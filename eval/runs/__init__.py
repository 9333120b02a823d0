"""Running evaluations: run folders, samples, scoring, comparison."""
