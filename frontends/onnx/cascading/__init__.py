"""Cascades: several models as one."""
