"""Numbers about generated samples: features, then statistics, then the number, each a pure step with its protocol."""
