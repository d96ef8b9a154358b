"""The core operators, one file per family."""
