"""What neighbouring steps of a sum read for all lanes, loaded at once.

Arm's dot products take one lane of an operand for all: a vector of neighbours serves as many steps,
instead of a load for each that fills all lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llvmlite import ir

from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Load
from ....compiler.kernel.instruction import LANE_STEPS
from .builder import I32, Emitter
from .shape import Address


@dataclass
class StepLanes:
    """The steps of one unrolled group, of which `step` is the present one.

    axis: of the sum, along which they are neighbours. vectors: what was loaded, by load and row.
    """

    axis: str
    step: int = 0
    vectors: dict[tuple[int, int], ir.Value] = field(default_factory=dict)

    def value(
        self, e: Emitter, load: Load, address: Address | None, row: int, pointer: ir.Value
    ) -> ir.Value | None:
        """The element of the present step; None where steps are no neighbours. pointer: to it."""
        if load.dtype is not DType.I32 or address is None or address.looked:
            return None
        if (self.axis, 1) not in address.steps:
            return None
        key = (id(load), row)
        if self.step == 0:
            self.vectors[key] = e.load(pointer, load.dtype, LANE_STEPS, buffer=load.buffer.name)
        found = self.vectors.get(key)
        return found and e.b.extract_element(found, ir.Constant(I32, self.step))
