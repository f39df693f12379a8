"""The latent space of a model: directions, paths and codes."""
