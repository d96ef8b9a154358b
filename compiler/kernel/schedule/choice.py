"""Choices: the decisions about one kernel as a small value, which files can hold.

A choice names axes by their roles, so that it outlives the names that lowering gives them: "p0",
"p1", ... are a stage's own parallel axes as they were written, "r0", ... those of its sums; in the
order of loops "blocks" stands for the loop over blocks of a sum and "bands" for that over bands of
rows. What follows from a choice is `resolve.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from ...errors import ScheduleError
from .tiles import Tiles

VERSION = 1
BLOCKS, BANDS = "blocks", "bands"


@dataclass(frozen=True)
class StageChoice:
    """The decision about one stage.

    vector, lanes, vectors, row, rows: the register tile. order: loops from the outermost. unroll:
    steps of the innermost loop of a sum that are written out. ordered: none of them begins early.
    written: short sums have no loops at all.
    block: steps of a block of the sum (0: not in blocks). band: rows that share a block (0: all).
    prefetch: the cache level to which the operand that all rows share is fetched (0: not at all).
    panel: vectors of a packed panel (0: as wide as the tile).
    """

    vector: str = ""
    lanes: int = 1
    vectors: int = 1
    row: str = ""
    rows: int = 1
    order: tuple[str, ...] = ()
    unroll: int = 1
    ordered: bool = False
    written: bool = True
    block: int = 0
    band: int = 0
    prefetch: int = 0
    panel: int = 0

    def without_blocks(self) -> StageChoice:
        """The choice with sums in one piece."""
        order = tuple(name for name in self.order if name not in (BLOCKS, BANDS))
        return replace(self, order=order, block=0, band=0)


@dataclass(frozen=True)
class TileChoice:
    """The decision about one function of a device: the block of a program and how it is computed.

    rows, columns, depth, warps, stages, group, split, programs, maps: as in `tiles.py`.
    """

    rows: int = 1
    columns: int = 1
    depth: int = 1
    warps: int = 4
    stages: int = 1
    group: int = 1
    split: int = 1
    programs: int = 0
    maps: bool = False

    @classmethod
    def of(cls, tiles: Tiles) -> TileChoice:
        """What was chosen of tiles; the rest follows from the kernel."""
        return cls(*(getattr(tiles, field.name) for field in fields(cls)))

    def applied(self, tiles: Tiles) -> Tiles:
        """Tiles with the choice in place of theirs."""
        return replace(tiles, **asdict(self))


@dataclass(frozen=True)
class Choice:
    """The decision about one kernel.

    form: which algorithm the group takes (`forms/form.py`). instruction: what computes its products
    of narrow elements, several steps at once (`instruction.py`; "": one by one). channels: of a
    block over which a depthwise operator goes as a whole (0: over all). stages: one for each.
    parallel: loops that threads divide. ahead: loops around those, which every thread goes through.
    tiles: of a kernel that a device computes, one for each function; it has nothing else but
    architectures: of the device that have other tiles, with these, by name.
    """

    form: str = ""
    instruction: str = ""
    channels: int = 0
    stages: tuple[StageChoice, ...] = ()
    parallel: int = 0
    ahead: int = 0
    tiles: tuple[TileChoice, ...] = ()
    architectures: tuple[tuple[str, tuple[TileChoice, ...]], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields: what a file leaves out is the heuristic's to choose."""
        if self.tiles:
            others = {name: [asdict(own) for own in tiles] for name, tiles in self.architectures}
            found: dict[str, Any] = {"tiles": [asdict(own) for own in self.tiles]}
            return {**found, "architectures": others} if others else found
        stages = [{**asdict(own), "order": list(own.order)} for own in self.stages]
        found = {**asdict(self), "stages": stages}
        del found["tiles"], found["architectures"]
        return found

    def with_json(self, data: Mapping[str, Any]) -> Choice:
        """The choice with the fields that a file gives; others stay as they are, but for tiles of
        architectures: those that a file does not name have the tiles of all.

        Raises ScheduleError for fields that there are not, or values of another type.
        """
        given = dict(data)
        stages = _changed(self.stages, given.pop("stages", []), "stages")
        tiles = _changed(self.tiles, given.pop("tiles", []), "functions of a device")
        others = given.pop("architectures", {})
        if not isinstance(others, Mapping):
            raise ScheduleError(f"architectures of a choice are no object: {others!r}")
        named = [(name, _changed(tiles, o, "functions of a device")) for name, o in others.items()]
        return _filled(self, {**given, "stages": stages, "tiles": tiles, "architectures": named})


_T = TypeVar("_T", Choice, StageChoice, TileChoice)
_Part = TypeVar("_Part", StageChoice, TileChoice)


def _changed(own: tuple[_Part, ...], given: object, what: str) -> tuple[_Part, ...]:
    """Parts of a choice with what a file gives for the first of them."""
    if not isinstance(given, list) or len(given) > len(own):
        count = len(given) if isinstance(given, list) else "no list"
        raise ScheduleError(f"a choice for {len(own)} {what} has {count}")
    filled = tuple(_filled(old, new) for old, new in zip(own, given, strict=False))
    return filled + own[len(filled) :]


def _filled(value: _T, given: Mapping[str, Any]) -> _T:
    if not isinstance(given, Mapping):
        raise ScheduleError(f"a choice for a stage is an object, not {given!r}")
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    for key, item in given.items():
        if key not in known:
            raise ScheduleError(
                f"a choice has no field '{key}'", remedy=f"those that there are: {', '.join(known)}"
            )
        new = tuple(item) if isinstance(item, list) else item
        names = (
            not isinstance(new, tuple)
            or key in ("stages", "tiles", "architectures")
            or all(isinstance(n, str) for n in new)
        )
        if type(new) is not type(known[key]) or not names:
            raise ScheduleError(
                f"field '{key}' of a choice: {item!r} is no {type(known[key]).__name__}"
            )
        known[key] = new
    return type(value)(**known)
