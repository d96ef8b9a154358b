"""What a search has found so far, on disk: one that is interrupted goes on where it was.

A file of lines of JSON, each a result with its key, is only ever appended to: a line that was cut
off is no line. It lies in the cache folder and is named by what the results depend on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..._version import __version__
from ...compiler.scratch import writable_cache

FOLDER = "budget"
KEPT = 64  # journals; the oldest go
FORMAT = 4


class Journal:
    """Results by kind and key. path: None: nothing is kept. found: how many were there already."""

    def __init__(self, path: Path | None, *, fresh: bool = False) -> None:
        self.path = path
        self.results: dict[str, Any] = {}
        if path is not None and fresh:
            path.unlink(missing_ok=True)
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = _entry(line)
                if entry is not None:
                    self.results[entry[0]] = entry[1]
        self.found = len(self.results)

    def get(self, kind: str, *key: Any) -> Any:
        """The result, or None."""
        return self.results.get(_name(kind, key))

    def put(self, result: Any, kind: str, *key: Any) -> None:
        """Keep a result, which JSON can hold and is not None."""
        name = _name(kind, key)
        self.results[name] = result
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                # a cut off line before it ends here
                file.write(f"\n{json.dumps([name, result])}\n")


def _name(kind: str, key: tuple[Any, ...]) -> str:
    return json.dumps([kind, *key], sort_keys=True)


def _entry(line: str) -> tuple[str, Any] | None:
    try:
        name, result = json.loads(line)
    except ValueError:
        return None
    return (name, result) if isinstance(name, str) else None


def journal_of(*parts: str, fresh: bool) -> Journal:
    """That of a search which depends on some texts, and on this version of Tensmith."""
    folder = writable_cache()
    if folder is None:
        return Journal(None)
    text = "\n".join((__version__, str(FORMAT), *parts))
    own = folder / FOLDER
    own.mkdir(mode=0o700, exist_ok=True)
    others = sorted(own.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT]:
        path.unlink(missing_ok=True)
    return Journal(own / f"{hashlib.sha256(text.encode()).hexdigest()}.jsonl", fresh=fresh)
