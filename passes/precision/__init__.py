"""Precision: what is quantised becomes integer arithmetic, and the rest is written out."""
