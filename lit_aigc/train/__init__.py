"""``python -m lit_aigc.train``: train a model."""
