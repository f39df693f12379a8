"""Measuring a trained model, or what was generated elsewhere: the parts of ``python -m lit_aigc.evaluate``."""
