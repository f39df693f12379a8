"""Samples to and from files, and what a person looks at."""
