"""Random changes of training samples, as tensors."""
