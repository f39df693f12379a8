"""The page of results of ``python -m lit_aigc.evaluate``."""
