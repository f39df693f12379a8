"""``python -m lit_aigc.generate``: samples from a bundle, pictures of its latent space, codes of images."""
