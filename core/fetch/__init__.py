"""Where models come from: catalogue, package index, hub."""
