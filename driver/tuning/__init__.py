"""Tuning a model, and its records: sessions, whole models, the screen, the page."""
