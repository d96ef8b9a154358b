"""Passes that make a graph smaller and say the same."""
