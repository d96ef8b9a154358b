"""Rows of CSV files that users write, with errors that name file, row and column."""

from __future__ import annotations

import codecs
import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ..errors import UsageError

_MARKS = {  # at the beginning of a text; those of UTF-32 begin as those of UTF-16 do
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip


_ZEROS = {  # where the first four bytes are zero in text without a mark that begins with ASCII
    frozenset({1, 2, 3}): "UTF-32", frozenset({0, 1, 2}): "UTF-32",
    frozenset({1, 3}): "UTF-16", frozenset({0, 2}): "UTF-16",
}  # fmt: skip


@dataclass(frozen=True)
class CsvRow:
    """A row: the texts of its columns, and where it is, for messages."""

    where: str
    texts: Mapping[str, str]

    def text(self, name: str) -> str:
        """A column that has to be there and have a value."""
        found = self.texts.get(name, "")
        if not found:
            raise UsageError(f"{self.where}: {name} is missing", remedy=f"fill in {name}")
        return found

    def number(self, name: str, default: float | None = None, *, least: float = 0.0) -> float:
        """A number, at least so large. Without a default it has to be there."""
        text = self.texts.get(name, "")
        if not text and default is not None:
            return default
        try:
            value = float(text or self.text(name))
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least:
            raise UsageError(
                f"{self.where}: {name} is '{text}'", remedy=f"give a number of {least:g} or more"
            )
        return value

    def day(self, name: str) -> str:
        """A date, ISO 8601, that has to be there."""
        text = self.text(name)
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise UsageError(
                f"{self.where}: {name} is '{text}'", remedy="write dates as 2026-11-30"
            ) from None


def csv_rows(path: Path, what: str) -> tuple[tuple[str, ...], list[CsvRow]]:
    """Columns and rows of a file. Lines that begin with # and empty ones are left out.

    what: as messages call it. Raises UsageError where it cannot be read, has no rows, or a row has
    more or fewer cells than there are columns.
    """
    reader = csv.reader(io.StringIO(_text(path, what), newline=None), strict=True)
    columns: tuple[str, ...] = ()
    rows: list[CsvRow] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            stripped = tuple(cell.strip() for cell in cells)
            if not columns:
                columns = _columns(stripped, path)
                continue
            rows.append(_row(columns, stripped, f"'{path}', line {reader.line_num}"))
    except csv.Error as error:
        raise UsageError(f"'{path}', line {reader.line_num} is no CSV", why=str(error)) from None
    if not rows:
        raise UsageError(f"the {what} file '{path}' has no rows")
    return columns, rows


def _text(path: Path, what: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no {what} file '{path}'") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read", why=str(error)) from None
    if encoding := _wide_encoding(data[:4]):
        raise UsageError(
            f"'{path}' is not in UTF-8",
            why=f"it begins as text in {encoding} does",
            remedy="save it as UTF-8: spreadsheets call that 'CSV UTF-8'",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"'{path}' cannot be read as text", why=str(error), remedy="save it as UTF-8"
        ) from None


def _wide_encoding(beginning: bytes) -> str:
    """The encoding of text whose characters have two bytes or more; "": none that shows."""
    marked = next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), "")
    zeros = {place for place, byte in enumerate(beginning) if not byte}
    return marked or _ZEROS.get(frozenset(zeros), "")


def _columns(cells: tuple[str, ...], path: Path) -> tuple[str, ...]:
    if twice := sorted({cell for cell in cells if cells.count(cell) > 1}):
        raise UsageError(f"'{path}' has several columns named {', '.join(twice)}")
    return cells


def _row(columns: tuple[str, ...], cells: tuple[str, ...], where: str) -> CsvRow:
    if len(cells) != len(columns):
        raise UsageError(
            f"{where} has {len(cells)} cells, and there are {len(columns)} columns",
            remedy="put quotes around cells that hold commas",
        )
    return CsvRow(where, dict(zip(columns, cells, strict=True)))


def require_columns(
    columns: Iterable[str], needed: Iterable[str], path: Path, known: Iterable[str]
) -> None:
    """Raise UsageError where columns are missing; it names them all."""
    missing = [name for name in needed if name not in columns]
    if missing:
        raise UsageError(
            f"'{path}' has no column {', '.join(missing)}",
            remedy=f"the first line names the columns: {','.join(known)}",
        )
