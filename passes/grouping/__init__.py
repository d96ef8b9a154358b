"""Passes that form the groups that become kernels, their forms and their storage."""
