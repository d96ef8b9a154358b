"""Where records of tuning lie."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...compiler.errors import UsageError, system_refusals
from ...compiler.knobs import RECORDS, child_environment
from ...compiler.scratch import home
from ...compiler.tuning.exchange import damage_told

NAME = "tuning.db"


def records_file(given: Path | None) -> Path:
    """The records file that is meant: the one given, that of the knob, or the user's own.

    That is `tensmith/tuning.db` below XDG_DATA_HOME or, without it, ~/.local/share: records are
    results of hours, and no cache. Raises UsageError where the user has no home.
    """
    if given is not None:
        return given
    if RECORDS.value:
        return Path(str(RECORDS.value))
    base = child_environment().get("XDG_DATA_HOME", "")
    own = home()
    if os.path.isabs(base):
        return Path(base) / "tensmith" / NAME
    if own is None:
        raise UsageError(
            "there is no home to keep records of tuning in", remedy="name a file: --records FILE"
        )
    return own / ".local" / "share" / "tensmith" / NAME


def records_to_write(given: Path | None) -> Path:
    """As `records_file`, with its folder made where it is the usual one."""
    path = records_file(given)
    if given is None:
        with system_refusals(f"cannot make the folder of '{path}'"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write '{path}'", why="there is no such folder")
    return path


@contextmanager
def records_refusals(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into a UsageError: a full disk, or a file that is damaged."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UsageError(
            f"cannot write '{path}'", why=str(error),
            remedy="make room for it, or name another file: --records FILE; what was measured "
            "before is in it, and the same command goes on",
        ) from None  # fmt: skip
    except sqlite3.DatabaseError:
        with damage_told(path):
            raise
