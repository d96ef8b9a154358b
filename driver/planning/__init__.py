"""`tensmith plan`: which binary, on which machines, serves a load for the least."""
