"""Passes that need less arithmetic for the same results: exact algebra, chosen by counting."""
