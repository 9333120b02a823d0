"""Ways of choosing how a text goes on: sampling, beams, contrastive search."""
