"""What this machine offers: cores, memory, fast precisions, locks and signals."""
