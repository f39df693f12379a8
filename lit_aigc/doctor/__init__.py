"""Examine a machine, what training would do with it, and what is wrong: ``lit_aigc.doctor``."""
