"""Records of tuning on disk: a SQLite file in WAL mode, which is also the state of a session.

Every step is one transaction, on the disk before the next one begins: a kill costs the step under
way and nothing else. Only steps that are whole are in the file, so that whoever opens it finds
where to go on.

Source: SQLite, "Write-Ahead Logging" and PRAGMA synchronous (FULL: commits survive loss of power).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import UsageError
from .schema import TABLES, VERSION

WAIT_SECONDS = 30.0  # for another program that writes
_NOT_OURS = "it is no records file of Tensmith"


class Records:
    """An open records file. `with Records(path) as records: ...`

    write: it is created where it is not there, and nobody else may write until it is closed; else
    it is opened to be read. Raises UsageError for a file that cannot be opened, is none of ours or
    of another version, or that another program writes.
    """

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        if not path.name or path.is_dir():
            raise UsageError(
                f"'{path}' is a folder, not a records file", remedy="name a file in it"
            )
        if not write and not path.is_file():
            raise UsageError(f"there is no records file '{path}'", remedy="tensmith tune makes one")
        try:
            if write:
                self._lock = _locked(path)
            self._open(write)
        except OSError as error:
            raise UsageError(f"cannot write '{path}'", why=error.strerror or str(error)) from None
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"cannot open '{path}'", why=f"{_NOT_OURS}, or damaged: {error}",
                remedy="name another file; `tensmith records check` looks into one",
            ) from None  # fmt: skip

    def _open(self, write: bool) -> None:
        name = f"{self.path.absolute().as_uri()}?mode={'rwc' if write else self._reading()}"
        self.db = sqlite3.connect(name, uri=True, timeout=WAIT_SECONDS, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA foreign_keys = ON")
        if write:
            if self._has_tables():
                self._check_version()  # before anything is changed: it may be another program's
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = FULL")
            self._create()
        self._check_version()

    def _reading(self) -> str:
        """Who reads a file in WAL mode makes others beside it, where he may and somebody writes."""
        beside = self.path.with_name(f"{self.path.name}-wal")
        is_still = not beside.exists() and not os.access(self.path.absolute().parent, os.W_OK)
        return "ro&immutable=1" if is_still else "ro"

    def _has_tables(self) -> bool:
        return bool(self.rows("SELECT name FROM sqlite_master WHERE type = 'table'"))

    def _create(self) -> None:
        with self.transaction():
            if self._has_tables():
                return
            for statement in filter(None, map(str.strip, TABLES.split(";"))):
                self.db.execute(statement)
            self.db.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))

    def _check_version(self) -> None:
        try:
            found = self.rows("SELECT value FROM meta WHERE key = 'version'")
        except sqlite3.OperationalError:
            found = []
        if not found:
            self.close()
            raise UsageError(f"cannot use '{self.path}'", why=_NOT_OURS, remedy="name another file")
        if found[0]["value"] != str(VERSION):
            self.close()
            raise UsageError(
                f"'{self.path}' is of version {found[0]['value']}, not {VERSION}",
                remedy="`tensmith records export` of the version that wrote it, then import here",
            )

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left to be written: every step was."""
        self.db.close()
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing is in the file."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # SQLite ends it itself where a disk is full
                self.db.execute("ROLLBACK")
            raise

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self.db.execute(query, values).fetchall()

    def add(self, table: str, **columns: object) -> int:
        """A new row; its number. Inside a transaction."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        query = f"INSERT INTO {table}({names}) VALUES ({marks})"
        return int(self.db.execute(query, tuple(columns.values())).lastrowid or 0)

    def shared(self, table: str, keys: Sequence[str], **columns: object) -> int:
        """The number of the row with these natural keys, which is added where it is not there."""
        tests = " AND ".join(f"{key} = ?" for key in keys)
        found = self.rows(f"SELECT id FROM {table} WHERE {tests}", *(columns[key] for key in keys))
        return int(found[0]["id"]) if found else self.add(table, **columns)


def _locked(path: Path) -> IO[str]:
    """A lock that lasts as long as the file returned is open, or this program runs.

    SQLite's own does not cover the change of a new file to WAL: of two programs that make it at
    once, one fails.
    """
    lock = path.with_name(f"{path.name}.lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UsageError(
            f"another program writes '{path}'",
            remedy="wait for it, or name another file: `tensmith records merge` joins them",
        ) from None
    return lock


def now() -> str:
    """The date, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")
