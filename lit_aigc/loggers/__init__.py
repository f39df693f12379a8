"""Where numbers, pictures and texts of a run are logged."""
