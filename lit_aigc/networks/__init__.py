"""Plain networks: no losses, no data, no training."""
