"""lit_aigc: an experiment framework for generative models on PyTorch Lightning."""

__version__ = "0.1.0"
