"""What the chooser has to know of a kernel's constant operands."""

from __future__ import annotations

from collections.abc import Container, Sequence

from ...ir.graph import Value
from ...ir.ops.registry import Array
from ..forms.region import Lowered
from ..schedule.chooser import Constant
from ..schedule.packing import Packing


def constants_of(
    lowered: Lowered, inputs: Sequence[Value], placed: Container[Value] = ()
) -> dict[str, Constant]:
    """The constants among operands, by parameter. placed: values that lie where they are."""
    found: dict[str, Constant] = {}
    for buffer, value in zip(lowered.kernel.params, inputs, strict=False):
        transform = lowered.transforms.get(buffer.name)
        if not value.is_constant or (transform is None and value in placed):
            continue
        if transform is None:
            found[buffer.name] = Constant(int(value.type.elements))  # type: ignore[arg-type]
            continue
        columns, rows = transform.columns(value.type.static_shape), transform.rows
        wide = transform.element_bytes
        packing = Packing(rows, columns, columns, before=transform, element_bytes=wide)
        found[buffer.name] = Constant(rows * columns, packing)
    return found


def elements_of(lowered: Lowered, inputs: Sequence[Value]) -> dict[str, Array]:
    """The elements of constants that are read as they are, by parameter."""
    pairs = zip(lowered.kernel.params, inputs, strict=False)
    return {
        buffer.name: value.data
        for buffer, value in pairs
        if value.data is not None and buffer.name not in lowered.transforms
    }
