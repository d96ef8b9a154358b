"""`python -m tensmith`: the command line, where the `tensmith` program is not on the path."""

from __future__ import annotations

import sys

from .driver.cli import main

if __name__ == "__main__":
    sys.exit(main())
