"""The driver: what a user sees. Python API (`api`), command line (`cli`), verification, bench."""
