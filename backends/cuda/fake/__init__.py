"""A driver that is none: it lets models for GPUs run, slowly, where there is no GPU."""
