"""Several experiments under one budget: plan, runs, records, report and picture of ``lit_aigc.compare``."""
