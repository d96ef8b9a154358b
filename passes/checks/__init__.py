"""Passes that find what a run has to check, or must not round."""
