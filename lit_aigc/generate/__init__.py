"""``python -m lit_aigc.generate``: samples of a bundle, pictures of its latent space, codes of images."""
