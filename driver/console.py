"""What the commands print: results to stdout (tables or JSON), logs and progress to stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from ..compiler.errors import TensmithError, UnsupportedError

MIN_WIDTH = 100  # columns of a table: narrower terminals break the lines themselves
LONGEST_DIM = 32  # characters of a dimension expression
WIDE = 240  # columns of a table that goes to a file


class Told(int):
    """An exit code of a command that has said why."""


class Console:
    """Output of one command. json: results are one JSON object on stdout. verbose: more logs."""

    def __init__(self, *, json: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.verbose = verbose

    def log(self, text: str) -> None:
        """A line on stderr."""
        print(text, file=sys.stderr)

    def detail(self, text: str) -> None:
        """A line on stderr when the user asked for more."""
        if self.verbose:
            self.log(text)

    def print(self, text: str = "") -> None:
        """A line of the result, unless the result is JSON."""
        if not self.json:
            print(text)

    def result(self, value: dict[str, Any]) -> None:
        """The result as JSON, if that was asked for."""
        if self.json:
            print(json.dumps(value, indent=2, allow_nan=False, default=str))

    def exit(self, error: TensmithError) -> NoReturn:
        """End the command with the error's code, after its result has been shown."""
        self.log(f"error: {error}")
        raise typer.Exit(error.exit_code)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        left: int = 1,
        width: int = MIN_WIDTH,
    ) -> None:
        """A table of the result; all but the first `left` columns are right-aligned.

        width: columns of text that it gets at least."""
        if self.json:
            return
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for index, column in enumerate(columns):
            is_left = index < left
            table.add_column(
                column, justify="left" if is_left else "right", overflow="fold", no_wrap=not is_left
            )
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        room = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
        console = RichConsole(highlight=False, width=max(room, width))
        with console.capture() as capture:
            console.print(table)
        lines = (line.rstrip() for line in capture.get().splitlines())
        print(title, *lines, "", sep="\n")

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """A spinner with a changing text on a terminal; with -v elsewhere, a line per text."""
        if not sys.stderr.isatty():
            yield self.detail
            return
        from rich.console import Console as RichConsole

        with RichConsole(stderr=True).status(text) as status:
            yield status.update


def error_object(error: BaseException) -> dict[str, Any]:
    """An error as JSON: what, where, why, remedy, and the nodes of an UnsupportedError."""
    if not isinstance(error, TensmithError):
        return {"type": type(error).__name__, "message": str(error)}
    value: dict[str, Any] = {
        "type": type(error).__name__,
        "message": error.what,
        "where": error.where,
        "why": error.why,
        "remedy": error.remedy,
    }
    if isinstance(error, UnsupportedError):
        value["nodes"] = [
            {"node": i.node, "op": i.op, "reason": i.reason, "remedy": i.remedy}
            for i in error.items
        ]
    return value


def human_bytes(count: int | None) -> str:
    """A number of bytes for people (1 kB = 1000 B); "?" for None."""
    if count is None:
        return "?"
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.2f} {unit}"


def short_dim(dim: int | str) -> str:
    """A dimension for people; a long expression becomes "f(the symbols in it)"."""
    text = str(dim)
    if len(text) <= LONGEST_DIM:
        return text
    names = dict.fromkeys(re.findall(r"[A-Za-z_][\w.]*(?!\w*\()", text))
    return f"f({', '.join(names)})"


def human_count(count: int | str | None) -> str:
    """A large number for people; an expression as `short_dim`; "?" for None."""
    if count is None or isinstance(count, str):
        return short_dim(count or "?")
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{value:.2f} {unit}"
        value /= 1000
    return f"{value:.2f} T"


def human_seconds(seconds: float) -> str:
    """A duration for people."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.2f} s"
