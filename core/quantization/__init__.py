"""Weights of fewer bits, and the compiled kernels that compute with them."""
