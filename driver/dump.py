"""Shows the graph as text after chosen passes."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..compiler.errors import UsageError, system_refusals
from ..compiler.ir import Graph


class Dumper:
    """A `dump_after` callback: prints the graph to stderr after the named passes (or `all`), or
    writes it to `folder`, one numbered file per pass."""

    def __init__(self, names: Sequence[str], folder: Path | None = None) -> None:
        self._wanted = set(names)
        self._folder = folder
        self._seen: dict[str, None] = {}
        self._count = 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot make the folder '{folder}'", why=str(error)) from None

    def __call__(self, name: str, graph: Graph) -> None:
        """Called by the pipeline after the pass `name`."""
        from ..compiler.ir.text import print_graph

        self._seen.setdefault(name)
        self._count += 1
        if not self._wanted & {name, "all"}:
            return
        text = print_graph(graph)
        if self._folder is None:
            print(f"// after {name}\n{text}", file=sys.stderr)
        else:
            stem = re.sub(r"[^\w.-]+", "_", name)
            path = self._folder / f"{self._count:03d}-{stem}.txt"
            with system_refusals(f"cannot write '{path}'"):
                path.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        """Raise UsageError when a wanted pass has not run, naming those that have."""
        unknown = self._wanted - {*self._seen, "all"}
        if unknown:
            raise UsageError(
                f"no pass called {', '.join(sorted(unknown))} has run",
                remedy=f"passes: {', '.join(self._seen)}",
            )
