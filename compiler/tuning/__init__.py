"""Autotuning, free of hardware: tasks and candidates, races, records."""
