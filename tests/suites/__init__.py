"""Operator cases, written once and run on every backend at every stage."""
