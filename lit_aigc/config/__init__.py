"""Compose configs with Hydra, check them, and read saved ones."""
