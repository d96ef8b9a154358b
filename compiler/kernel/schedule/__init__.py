"""Schedules: what can be decided about a kernel, and who decides it."""
