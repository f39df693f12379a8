"""Sampling from the outputs of networks: token filters and decoding loops, as pure functions that need only torch."""
