"""What ``python -m lit_aigc.evaluate`` does, a file for each kind of question."""
