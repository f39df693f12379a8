"""How samples are drawn from what networks give: token filters and decoding loops; pure functions, torch alone."""
