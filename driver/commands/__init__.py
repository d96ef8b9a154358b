"""One file per command; each has a function `command`, whose signature is the command line."""
