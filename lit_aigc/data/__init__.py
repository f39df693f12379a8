"""LightningDataModules, and where their samples come from. Data knows no model."""
