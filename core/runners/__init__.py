"""Ways of running a model; each is a `Runner`."""
