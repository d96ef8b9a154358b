"""A norm and the product that its rows go into, as one kernel: where there are few rows, a launch
takes longer than to find what they are scaled by anew wherever they are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ...ir.dims import Dim, substitute, symbol
from ...ir.graph import Graph, Node, Value
from .. import expr as ex
from ..axis_names import within_part
from ..expr import EACH_POINT, Buffer, Expr, Load
from ..kernel import Axis, Kernel, Stage, Store, linear_of
from .row_blocks import NotRowByRow

Lower = Callable[[Graph], "tuple[Kernel, tuple[Value, ...]]"]


def normalised_kernel(region: Graph, buffers: Mapping[Value, Buffer], lower: Lower) -> Kernel:
    """The kernel of a region of two fused nodes, a norm and a product that reads it.

    buffers: of the region's operands and results. lower: of their regions, simplified. What the
    rows are scaled by, and their elements, is memory of the kernel's own: of every row, and of
    every element. One row has no axis of its own. Raises NotRowByRow where a part has another
    shape.
    """
    norm, product = (_Part(number, node, *lower(node.regions[0])) for number, node in
                     enumerate(region.nodes))  # fmt: skip
    *scales, rows = norm.kernel.stages
    _check(norm.kernel, product.kernel)
    several = len(rows.axes) == 2
    own = {b.name: replace(b, local=EACH_POINT) for b in _locals(norm.kernel) if several}
    before = [_per_row(stage, own) if several else stage for stage in (*scales, rows)]
    moved = [norm.moved(stage, buffers) for stage in before]
    elements = Buffer("normal", rows.stores[0].value.dtype, EACH_POINT)
    store = moved[-1].stores[0]
    result = buffers.get(norm.node.output)
    stores = (
        replace(store, buffer=elements, offset=linear_of(moved[-1].axes)),
        *([replace(store, buffer=result)] if result else []),
    )
    inside = {**buffers, norm.node.output: elements}
    last = product.moved(product.kernel.stages[0], inside)
    _check_reads(last, elements, rows.axes)
    stages = (*moved[:-1], replace(moved[-1], stores=stores), last)
    operators = norm.kernel.operators + product.kernel.operators
    nodes = tuple(dict.fromkeys((*norm.kernel.nodes, *product.kernel.nodes)))
    count = sum(value in buffers for value in region.outputs)
    return Kernel("", tuple(buffers.values()), count, stages, 0, operators, nodes)


def _check(norm: Kernel, product: Kernel) -> None:
    """Raise NotRowByRow unless a norm has numbers for every row, and then their elements, and the
    product one stage over rows and columns."""
    *scales, rows = norm.stages
    shape = norm.shared, len(rows.axes)
    one = shape == (0, 1) and not any(stage.axes for stage in scales)
    plain = (one or shape == (1, 2)) and scales and not rows.reductions
    written = [store for stage in norm.stages for store in stage.stores]
    kept = all(store.buffer.local == 1 for stage in scales for store in stage.stores)
    if not plain or not kept or len(rows.stores) != 1 or written[-1].bounds or written[-1].dynamic:
        raise NotRowByRow("it is no norm of rows")
    if written[-1].offset != linear_of(rows.axes):
        raise NotRowByRow("the rows of the norm do not lie one behind the other")
    if len(product.stages) != 1 or product.shared or len(product.stages[0].reduce_axes) != 1:
        raise NotRowByRow("it is no product of rows")


def _check_reads(product: Stage, elements: Buffer, axes: tuple[Axis, ...]) -> None:
    """Raise NotRowByRow unless the product reads the elements in one way, whole rows of them.

    axes: of the elements."""
    (depth,) = product.reduce_axes
    offsets = {
        part.offset
        for expression in product.expressions()
        for part in ex.unique_parts(expression)
        if isinstance(part, Load) and part.buffer == elements
    }
    read = (*product.axes[: len(axes) - 1], Axis(depth.name, axes[-1].extent))
    if offsets != {linear_of(read)} or depth.extent != axes[-1].extent:
        raise NotRowByRow("the product does not read the norm row by row")


def _locals(kernel: Kernel) -> list[Buffer]:
    stores = (store for stage in kernel.stages for store in stage.stores)
    return [store.buffer for store in stores if store.buffer.local is not None]


def _per_row(stage: Stage, own: Mapping[str, Buffer]) -> Stage:
    """The stage with local memory of a row's iteration as memory that has an element per row."""
    row = symbol(stage.axes[0].name)

    def load(part: Expr) -> Expr:
        if isinstance(part, Load) and part.buffer.name in own:
            return Load(own[part.buffer.name], row)
        return part

    def store(given: Store) -> Store:
        value = ex.rebuilt(given.value, load)
        if given.buffer.name not in own:
            return replace(given, value=value)
        return replace(given, value=value, buffer=own[given.buffer.name], offset=row)

    reductions = tuple(r.with_parts(partial(ex.rebuilt, change=load)) for r in stage.reductions)
    return replace(stage, reductions=reductions, stores=tuple(map(store, stage.stores)))


@dataclass(frozen=True)
class _Part:
    """One of the two nodes, lowered. inputs: values of its region behind the parameters."""

    number: int
    node: Node
    kernel: Kernel
    inputs: tuple[Value, ...]

    def moved(self, stage: Stage, buffers: Mapping[Value, Buffer]) -> Stage:
        """The stage with names of its own, and the buffers of the values around the node."""
        outer = dict(zip(self.node.regions[0].inputs, self.node.inputs, strict=True))
        values = (*(outer[value] for value in self.inputs), *self.node.outputs)
        named = {
            buffer.name: buffers[value]
            for buffer, value in zip(self.kernel.params, values, strict=True)
            if value in buffers
        }
        axes = {a.name: within_part(a.name, self.number) for a in stage.axes + stage.reduce_axes}
        symbols: dict[str, Dim] = {name: symbol(new) for name, new in axes.items()}
        changed = stage.map_indices(lambda dim: substitute(dim, symbols))

        def held(buffer: Buffer) -> Buffer:
            own = replace(buffer, name=f"{buffer.name}_{self.number}")
            return own if buffer.local is not None else named.get(buffer.name, buffer)

        def load(part: Expr) -> Expr:
            return replace(part, buffer=held(part.buffer)) if isinstance(part, Load) else part

        rebuilt = partial(ex.rebuilt, change=load)
        return replace(
            changed,
            axes=tuple(Axis(axes[a.name], a.extent) for a in stage.axes),
            reduce_axes=tuple(Axis(axes[a.name], a.extent) for a in stage.reduce_axes),
            reductions=tuple(r.with_parts(rebuilt) for r in changed.reductions),
            stores=tuple(
                replace(s, buffer=held(s.buffer), value=rebuilt(s.value)) for s in changed.stores
            ),
        )
