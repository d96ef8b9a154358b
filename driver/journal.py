"""What a search has found so far, on disk: one that is interrupted goes on where it was.

A file of lines of JSON, each a result with its key, is only ever appended to: a line that was cut
off is no line. It lies in the cache folder and is named by what the results depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._version import __version__
from ..compiler.scratch import writable_cache

FOLDER = "budget"
KEPT = 64  # journals; those go that were not used for longest
FORMAT = 8


class Journal:
    """Results by kind and key. path: None: nothing is kept. found: how many were there already.

    note: is told once where the file cannot be read or written; nothing more is kept then.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        fresh: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path, self.note = path, note
        self.results: dict[str, Any] = {}
        for line in self._lines(fresh):
            entry = _entry(line)
            if entry is not None:
                self.results[entry[0]] = entry[1]
        self.found = len(self.results)

    def _lines(self, fresh: bool) -> list[str]:
        """Those of the file, which counts as used now."""
        if self.path is None:
            return []
        try:
            if fresh:
                self.path.unlink(missing_ok=True)
            os.utime(self.path)
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._give_up(error)
            return []

    def _give_up(self, error: OSError) -> None:
        self.path = None
        self.note(
            f"results of the search are not kept ({error.strerror or error}): one that is "
            "interrupted would begin anew; make the cache folder writable, with space"
        )

    def get(self, kind: str, *key: Any) -> Any:
        """The result, or None."""
        return self.results.get(_name(kind, key))

    def put(self, result: Any, kind: str, *key: Any) -> None:
        """Keep a result, which JSON can hold and is not None."""
        name = _name(kind, key)
        self.results[name] = result
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # a cut off line before it ends here
                file.write(f"\n{json.dumps([name, result])}\n")
        except OSError as error:
            self._give_up(error)


def _name(kind: str, key: tuple[Any, ...]) -> str:
    return json.dumps([kind, *key], sort_keys=True)


def _entry(line: str) -> tuple[str, Any] | None:
    try:
        name, result = json.loads(line)
    except ValueError:
        return None
    return (name, result) if isinstance(name, str) else None


def journal_of(
    *parts: str, fresh: bool, note: Callable[[str], None] = lambda text: None
) -> Journal:
    """That of a search which depends on some texts, and on this version of Tensmith.

    note: as `Journal`.
    """
    folder = writable_cache()
    if folder is None:
        return Journal(None)
    text = "\n".join((__version__, str(FORMAT), *parts))
    path = folder / FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()}.jsonl"
    with suppress(OSError):  # where there is no folder, the journal says so as it is written
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _evict(path)
    return Journal(path, fresh=fresh, note=note)


def _evict(own: Path) -> None:
    """Remove journals beside one that is used, until there are few."""
    others = sorted((path for path in own.parent.glob("*.jsonl") if path != own), key=_used)
    for path in others[: max(0, len(others) + 1 - KEPT)]:
        path.unlink(missing_ok=True)


def _used(path: Path) -> float:
    """When a journal was read or written last; 0 where another search has removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
