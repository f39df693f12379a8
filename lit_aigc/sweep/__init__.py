"""Searching hyperparameters by a W&B sweep file, on this machine alone."""
