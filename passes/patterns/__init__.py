"""Passes that recognise what exporters write out."""
