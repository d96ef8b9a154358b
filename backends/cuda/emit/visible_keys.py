"""Keys that a mask which a run makes shows: a program looks at its queries' mask before it begins.

What is outside of the keys that any of its queries sees is not gone over. Where a query sees none,
its weights are defined by masked scores, and all keys are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....compiler.ir.dims import Dim, ceildiv, product
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Load, depends_on
from ....compiler.kernel.schedule.tiles import Tiles
from ....passes.arithmetic.hidden_scores import hides_below
from ..attention_kernel import Attention
from ..hidden_keys import LEAST_KEYS, added_loads
from ..tiles import power_of_two
from .points import decode, span
from .split import PART, Division
from .values import DeviceTile, Term

# of masks, and keys, that a program looks at at once: assumed, not measured
ELEMENTS, WIDEST = 4096, 1024
_FAR = (1 << 31) - 1  # a number of a key that there is not


@dataclass(frozen=True)
class VisibleKeys:
    """What a block of queries sees. score: the tile of their scores, whose queries are placed."""

    attention: Attention
    tiles: Tiles
    score: DeviceTile

    def emit(self, parts: Division | None) -> tuple[str, str]:
        """Emit the look at the mask; (first, behind the last) of the steps of a program, which
        takes a part of those with visible keys."""
        lines, index = self.score.lines, self.score.index
        keys = product(axis.extent for axis in self.attention.keys)
        depth, steps = self.tiles.depth, self.score.offset(ceildiv(keys, self.tiles.depth)).text
        rows = self.tiles.rows if self._by_row else 1
        lines.add(f"lowest = tl.full([], {_FAR}, {index})")
        lines.add(f"highest = tl.full([], -1, {index})")
        lines.add(f"seen = tl.zeros([{rows}, 1], tl.int32)")
        self._look(keys, rows)
        valid = self.score.masks["m"] if self._by_row else ""
        all_see = f"tl.where({valid}, seen, 1)" if valid else "seen"
        known = lines.let(f"tl.min({all_see}) > 0")
        first = lines.let(f"tl.where({known}, lowest // {depth}, 0)")
        last = lines.let(f"tl.where({known}, highest // {depth} + 1, {steps})")
        if parts is None:
            return first, last
        count = self.score.offset(parts.parts).text
        each = lines.let(f"({last} - {first} + {count} - 1) // {count}")
        begin = lines.let(f"{first} + {self.score.env[PART].text} * {each}")
        return begin, lines.let(f"tl.minimum({begin} + {each}, {last})")

    @property
    def _loads(self) -> Sequence[Load]:
        return added_loads(self.attention)

    @property
    def _by_row(self) -> bool:
        """Whether queries of a block see different keys."""
        rows = self.attention.rows
        return any(depends_on(load, axis.name) for load in self._loads for axis in rows)

    def _look(self, keys: Dim, rows: int) -> None:
        """Go over the mask; few keys of a run are gone over as they are."""
        score, lines = self.score, self.score.lines
        width = max(16, min(WIDEST, ELEMENTS // rows))
        if isinstance(keys, int):
            width = min(width, power_of_two(keys))
        shape = {"m": self.tiles.rows, "n": width}
        wide = DeviceTile(lines, shape, score.index, score.pointers, dict(score.env))
        wide.runs, wide.masks = list(score.runs), dict(score.masks)
        count = wide.offset(ceildiv(keys, width)).text
        if not isinstance(keys, int):
            count = lines.let(f"tl.where({wide.offset(keys).text} < {LEAST_KEYS}, 0, {count})")
        with lines.block(f"for look in range(0, {count}):"):
            points = span(wide, "n", Term("look"), keys)
            decode(wide, points, self.attention.keys)
            sees = self._sees(wide, rows, width)
            lines.add(f"seen = tl.maximum(seen, tl.max({sees}.to(tl.int32), 1, keep_dims=True))")
            low = f"tl.min(tl.where({sees}, {points.text}, {_FAR}))"
            lines.add(f"lowest = tl.minimum(lowest, {low})")
            high = f"tl.max(tl.where({sees}, {points.text}, -1))"
            lines.add(f"highest = tl.maximum(highest, {high})")

    def _sees(self, wide: DeviceTile, rows: int, width: int) -> str:
        """Which of some keys queries see, [rows, width]."""
        terms = []
        for load in self._loads:
            value = wide.value(load).text
            if load.dtype is not DType.F32:
                value = f"{value}.to(tl.float32)"
            terms.append(f"({value} > {hides_below(load.buffer.dtype)}) | ({value} != {value})")
        valid = [wide.masks["n"], wide.masks["m"] if rows > 1 else ""]
        whole = " & ".join([*(f"({term})" for term in terms), *filter(None, valid)])
        return wide.lines.let(f"tl.broadcast_to({whole}, [{rows}, {width}])")
