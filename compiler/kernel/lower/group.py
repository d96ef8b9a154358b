"""From a `fused` node's region to a kernel.

Six forms: pointwise (one stage, no reduction), anchored (one reduction and what follows it
element by element), rows (several reductions over the trailing axes of shared rows: softmax,
norms), pieces (concat: one stage per piece; scatter: a copy and ordered updates) bands (two
convolutions, the second depthwise) and chains (fused nodes of attention in blocks of rows).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...errors import InternalError
from ...ir.dims import Dim, product
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import Trait, has_trait
from ..channel_blocks import in_channel_blocks
from ..expr import Buffer, Expr, Load, cost
from ..kernel import Axis, Kernel, Stage, Store
from ..simplify import simplify
from . import maps as _maps  # noqa: F401  (registers the rules)
from .bands import band_stages, bands_of
from .blocks import Chain, chain_kernel, chain_of
from .reductions import REDUCE, accumulated
from .scatter import SCATTER
from .scope import Index, Scope, linear
from .winograd import Winograd, best_tilings, winograd_stages
from .winograd_transforms import FilterTransform

MAX_LOCAL_BYTES = 64 << 10  # a row that is kept on the stack between stages
RECOMPUTE_COST = 6  # values cheaper than this are computed again instead of kept


@dataclass(frozen=True)
class Lowered:
    """A kernel and the region values behind its parameters, inputs before outputs.

    transforms: by parameter name, how a constant is changed before the kernel reads it.
    """

    kernel: Kernel
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    transforms: dict[str, FilterTransform]


def winograd_choice(node: Node, near: bool = False, threads: int = 1) -> Winograd | None:
    """How to compute the convolution of a fused node where Winograd is the faster algorithm.

    near: whether the network `has_near_weights`. threads: how many are expected to share the work.
    """
    region = node.regions[0]
    reducers = [inner for inner in region.nodes if inner.op in REDUCE]
    if len(reducers) != 1 or reducers[0].op != "conv" or not _follows(reducers[0], region):
        return None
    conv = reducers[0]
    operands = dict(zip(region.inputs, node.inputs, strict=True))
    source, views = conv.inputs[0], 0
    while source.producer is not None and source.producer.op == "reshape":
        source, views = source.producer.inputs[0], views + 1
    moved = sum(inner.op in ("reshape", "transpose") for inner in region.nodes)
    if moved > views or source not in operands or conv.inputs[1] not in operands:
        return None
    tilings = best_tilings(conv, near) if operands[conv.inputs[1]].is_constant else None
    return Winograd(conv, tilings, threads) if tilings else None


def lower_region(
    region: Graph, name: str = "", winograd: Winograd | None = None, threads: int = 1
) -> Lowered:
    """The kernel of a fused region. winograd: the convolution to compute so, and how.

    threads: how many are expected to share the work. Raises InternalError for a region that has
    no loop form.
    """
    chain = chain_of(region.nodes)
    lowered = _lower_chain(region, chain) if chain else _lower(region, name, winograd, threads)
    return replace(lowered, kernel=in_channel_blocks(simplify(replace(lowered.kernel, name=name))))


def _lower_chain(region: Graph, chain: Chain) -> Lowered:
    buffers = {value: Buffer(f"i{n}", value.dtype) for n, value in enumerate(region.inputs)}
    buffers.update((value, Buffer("o0", value.dtype)) for value in region.outputs)

    def lower(part: Graph) -> tuple[Kernel, tuple[Value, ...]]:
        lowered = _lower(part, "", None, 1)
        return lowered.kernel, lowered.inputs

    kernel = chain_kernel(chain, buffers, lower)
    return Lowered(kernel, tuple(region.inputs), tuple(region.outputs), {})


def _lower(region: Graph, name: str, winograd: Winograd | None, threads: int) -> Lowered:
    """The kernel of a region that holds no fused nodes, with its loops as they were written."""
    scope = Scope()
    for position, value in enumerate(region.inputs):
        scope.buffers[value] = Buffer(f"i{position}", value.dtype)
    outputs = {value: Buffer(f"o{n}", value.dtype) for n, value in enumerate(region.outputs)}
    reducers = [node for node in region.nodes if node.op in REDUCE]
    shared = 0
    special = [node for node in region.nodes if node.op in SCATTER]
    concats = [n for n in region.nodes if n.op == "concat" and n.output in outputs]
    transforms: dict[str, FilterTransform] = {}
    if winograd:
        conv = winograd.conv
        stages, shared = winograd_stages(scope, winograd, outputs)
        groups = winograd.partition[1]
        channels = int(conv.inputs[0].shape[-1])
        transform = FilterTransform(winograd.tilings, channels, groups)
        transforms[scope.buffers[conv.inputs[1]].name] = transform
    elif (bands := bands_of(region, threads)) is not None:
        stages, shared = band_stages(scope, bands, outputs)
    elif special:
        stages = SCATTER[special[0].op](scope, special[0], outputs[special[0].output])
    elif not reducers and len(concats) == 1 and len(outputs) == 1:
        stages = _pieces(scope, concats[0], outputs[concats[0].output])
    elif not reducers:
        stages = _pointwise(scope, outputs)
    elif len(reducers) == 1 and _follows(reducers[0], region):
        stages = [_anchored(scope, reducers[0], outputs)]
    else:
        stages, shared = _rows(scope, region, reducers, outputs)
    used = _used_buffers(stages)
    inputs = tuple(v for v in region.inputs if scope.buffers[v].name in used)
    params = tuple(scope.buffers[v] for v in inputs) + tuple(outputs.values())
    operators = tuple(node.op for node in region.nodes)
    kernel = Kernel(name, params, len(outputs), tuple(stages), shared, operators)
    return Lowered(kernel, inputs, tuple(outputs), transforms)


def _used_buffers(stages: list[Stage]) -> set[str]:
    from ..expr import walk

    return {
        part.buffer.name
        for stage in stages
        for expression in stage.expressions()
        for part in walk(expression)
        if isinstance(part, Load)
    }


def _store(scope: Scope, value: Value, buffer: Buffer, index: Index, element: Expr) -> Store:
    offset, dynamic = scope.address(value.type, index)
    return Store(buffer, offset, element, dynamic)


def _pointwise(scope: Scope, outputs: dict[Value, Buffer]) -> list[Stage]:
    """One stage for every shape among the outputs."""
    by_shape: dict[tuple[Dim, ...], list[Value]] = {}
    for value in outputs:
        by_shape.setdefault(value.shape, []).append(value)
    stages = []
    for shape, values in by_shape.items():
        axes, index = scope.axes(shape)
        stores = tuple(_store(scope, v, outputs[v], index, scope.element(v, index)) for v in values)
        stages.append(Stage(axes, (), (), stores))
    return stages


def _pieces(scope: Scope, node: Node, buffer: Buffer) -> list[Stage]:
    """A concat: one stage copies each operand into its part of the output."""
    axis = node.attrs["axis"] % node.output.type.rank
    start: Dim = 0
    stages = []
    for value in node.inputs:
        axes, index = scope.axes(value.shape)
        target = (*index[:axis], index[axis] + start, *index[axis + 1 :])
        store = _store(scope, node.output, buffer, target, scope.element(value, index))
        stages.append(Stage(axes, (), (), (store,)))
        start = start + value.shape[axis]
    return stages


def _follows(reducer: Node, region: Graph) -> bool:
    """Whether every node behind the reduction works element by element on its output."""
    behind: set[Value] = {reducer.output}
    for node in region.nodes:
        if node is reducer or not any(value in behind for value in node.inputs):
            continue
        behind.update(node.outputs)
        if node.op in ("transpose", "reshape"):
            continue
        if not has_trait(node, Trait.POINTWISE) or (
            product(node.output.shape) != product(reducer.output.shape)
        ):
            return False
    return all(value in behind for value in region.outputs)


def _forward(value: Value, anchor: Value, index: Index) -> Index | None:
    """The index into `value` of the element computed from element `index` of the anchor."""
    if value is anchor:
        return index
    node = value.producer
    if node is None:
        return None
    for operand in node.inputs:
        at = _forward(operand, anchor, index)
        if at is None:
            continue
        if node.op == "transpose":
            return tuple(at[axis] for axis in node.attrs["perm"])
        if has_trait(node, Trait.POINTWISE) and operand.shape == value.shape:
            return at
        return None
    return None


def _anchored(scope: Scope, reducer: Node, outputs: dict[Value, Buffer]) -> Stage:
    anchor = reducer.output
    axes, index = scope.axes(anchor.shape)
    # a dim of one is always indexed with 0 when an operand is broadcast
    index = tuple(0 if axis.extent == 1 else at for axis, at in zip(axes, index, strict=True))
    reduced = REDUCE[reducer.op](scope, reducer, index)
    result = reduced.finish(accumulated(0, reduced.reduction))

    def element(at: Index) -> Expr:
        if at != index:
            raise InternalError(f"the reduction's result is read at {at}, not at {index}")
        return result

    scope.results[anchor] = element
    stores = []
    for value, buffer in outputs.items():
        source = value
        while source.producer is not None and source.producer.op == "reshape" and (
            source is not anchor
        ):  # fmt: skip
            source = source.producer.inputs[0]
        at = _forward(source, anchor, index)
        if at is None:
            raise InternalError(f"{value} does not follow {anchor} element by element")
        if source is value:
            stores.append(_store(scope, value, buffer, at, scope.element(value, at)))
            continue
        flat = value.type.with_shape((product(value.shape),))
        offset, dynamic = scope.address(flat, (linear(at, source.shape),))
        stores.append(Store(buffer, offset, scope.element(source, at), dynamic))
    return Stage(axes, reduced.axes, (reduced.reduction,), tuple(stores))


@dataclass
class _Rows:
    """State while a rows kernel is built."""

    scope: Scope
    shape: tuple[Dim, ...]  # of a full value
    lead: int  # shared axes
    shared: tuple[Axis, ...]
    index: Index
    outputs: dict[Value, Buffer]
    stages: list[Stage]
    stored: set[Value]
    borrowed: set[str]

    def tail(self) -> tuple[tuple[Axis, ...], Index]:
        """Axes and index of one row's elements."""
        axes, index = self.scope.axes(self.shape[self.lead :])
        return self.shared + axes, self.index + index


def _rows(
    scope: Scope, region: Graph, reducers: list[Node], outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    shape, lead = row_shape(reducers)
    shared, index = scope.axes(shape[:lead])
    rows = _Rows(scope, shape, lead, shared, index, outputs, [], set(), set())
    uses = _use_counts(region)
    for node in region.nodes:
        if node in reducers:
            _row_reduction(rows, node)
        elif uses.get(node.output, 0) > 1 and node.output.shape == shape:
            _keep_row(rows, node.output)
    for value in outputs:
        if value not in rows.stored:
            _row_output(rows, value)
    return rows.stages, lead


def row_shape(reducers: list[Node]) -> tuple[tuple[Dim, ...], int]:
    """(shape of the rows' tensor, number of leading axes) that the reductions share.

    Raises InternalError unless all reduce the same trailing axes and keep them as ones.
    """
    shape = reducers[0].inputs[0].shape
    leads = set()
    for node in reducers:
        axes = sorted(_axes_of(node))
        trailing = list(range(len(shape) - len(axes), len(shape)))
        if axes != trailing or not node.attrs["keepdims"] or node.inputs[0].shape != shape:
            raise InternalError(f"'{node.op}' does not reduce whole rows of {shape}")
        leads.add(axes[0])
    if len(leads) != 1:
        raise InternalError("reductions over different rows in one group")
    return shape, leads.pop()


def _axes_of(node: Node) -> list[int]:
    rank = node.inputs[0].type.rank
    axes: Any = node.attrs.get("axes", (node.attrs.get("axis"),))
    return [axis % rank for axis in axes]


def _use_counts(region: Graph) -> dict[Value, int]:
    counts: dict[Value, int] = {}
    for node in region.nodes:
        for value in node.inputs:
            counts[value] = counts.get(value, 0) + 1
    for value in region.outputs:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _row_reduction(rows: _Rows, node: Node) -> None:
    """A stage that reduces a row to one number, kept in local memory."""
    scope, value = rows.scope, node.output
    at = rows.index + (0,) * (len(rows.shape) - rows.lead)
    reduced = REDUCE[node.op](scope, node, at)
    result = reduced.finish(accumulated(0, reduced.reduction))
    local = Buffer(f"l{next(scope.numbers)}", value.dtype, 1)
    stores = [Store(local, 0, result)]
    if value in rows.outputs:
        stores.append(_store(scope, value, rows.outputs[value], at, result))
        rows.stored.add(value)
    rows.stages.append(Stage(rows.shared, reduced.axes, (reduced.reduction,), tuple(stores)))
    scope.results[value] = lambda _: Load(local, 0)


def _keep_row(rows: _Rows, value: Value) -> None:
    """Compute a row once: into its output, an output that is written later, or the stack."""
    scope = rows.scope
    axes, index = rows.tail()
    element = scope.element(value, index)
    if value not in rows.outputs and cost(element) < RECOMPUTE_COST:
        return
    if value in rows.outputs:
        buffer, memory = rows.outputs[value], value
        rows.stored.add(value)
    else:
        free = [
            (o, b)
            for o, b in rows.outputs.items()
            if o.type == value.type and o not in rows.stored and b.name not in rows.borrowed
        ]
        tail = product(rows.shape[rows.lead :])
        if free:
            memory, buffer = free[0]
            rows.borrowed.add(buffer.name)
        elif isinstance(tail, int) and tail * value.dtype.bytes <= MAX_LOCAL_BYTES:
            buffer = Buffer(f"l{next(scope.numbers)}", value.dtype, tail)
            _local_row(rows, value, buffer, axes, index, element)
            return
        else:
            return
    store = _store(scope, memory, buffer, index, element)
    rows.stages.append(Stage(axes, (), (), (store,)))
    scope.results[value] = lambda at: scope.load(buffer, memory.type, at)


def _local_row(
    rows: _Rows, value: Value, buffer: Buffer, axes: tuple[Axis, ...], index: Index, element: Expr
) -> None:
    lead, tail = rows.lead, rows.shape[rows.lead :]
    position = linear(index[lead:], tail)
    rows.stages.append(Stage(axes, (), (), (Store(buffer, position, element),)))  # type: ignore[arg-type]
    rows.scope.results[value] = lambda at: Load(buffer, linear(at[lead:], tail))  # type: ignore[arg-type]


def _row_output(rows: _Rows, value: Value) -> None:
    scope, rank = rows.scope, len(rows.shape)
    if value.shape == rows.shape:
        axes, index = rows.tail()
    elif value.shape == rows.shape[: rows.lead] + (1,) * (rank - rows.lead):
        axes, index = rows.shared, rows.index + (0,) * (rank - rows.lead)
    else:
        raise InternalError(f"{value} does not consist of rows of {rows.shape}")
    store = _store(scope, value, rows.outputs[value], index, scope.element(value, index))
    rows.stages.append(Stage(axes, (), (), (store,)))
    rows.stored.add(value)
