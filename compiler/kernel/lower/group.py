"""From a `fused` node's region to a kernel.

Six forms: pointwise (one stage, no reduction), anchored (one reduction, or several products of one
matrix, and what follows element by element), rows (several reductions over the trailing axes of
shared rows: softmax, norms), pieces (concat: one stage per piece; scatter: a copy and ordered
updates), bands (two convolutions, the second depthwise) and chains (fused nodes of attention in
blocks of rows).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from ...errors import InternalError
from ...ir.dims import Dim, product, symbol
from ...ir.exactness import adds_exactly
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import Trait, has_trait
from ..channel_blocks import in_channel_blocks
from ..expr import Buffer, Expr, Load, substitute_indices
from ..kernel import Axis, Kernel, Reduction, Stage, Store
from ..simplify import simplify
from . import maps as _maps  # noqa: F401  (registers the rules)
from .bands import band_stages, bands_of
from .blocks import Chain, chain_kernel, chain_of
from .reductions import REDUCE, accumulated
from .rows import row_stages
from .scatter import SCATTER
from .scope import Index, Scope, linear
from .winograd import Winograd, best_tilings, winograd_stages
from .winograd_transforms import FilterTransform


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
    if len(reducers) != 1 or reducers[0].op != "conv" or not _follows(reducers, region):
        return None
    conv = reducers[0]
    operands = dict(zip(region.inputs, node.inputs, strict=True))
    source, views = conv.inputs[0], 0
    while source.producer is not None and source.producer.op == "reshape":
        source, views = source.producer.inputs[0], views + 1
    moved = sum(inner.op in ("reshape", "transpose") for inner in region.nodes)
    if moved > views or source not in operands or conv.inputs[1] not in operands:
        return None
    weights = operands[conv.inputs[1]]
    if weights.data is None or (conv.attrs["exact"] and adds_exactly(weights.data)):
        return None
    tilings = best_tilings(conv, near)
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
    elif _side_by_side(reducers) and _follows(reducers, region):
        stages = [_anchored(scope, reducers, outputs)]
    else:
        stages, shared = row_stages(scope, region, reducers, outputs)
    used = _used_buffers(stages)
    inputs = tuple(v for v in region.inputs if scope.buffers[v].name in used)
    params = tuple(scope.buffers[v] for v in inputs) + tuple(outputs.values())
    operators = tuple(node.op for node in region.nodes)
    nodes = tuple(dict.fromkeys(node.name for node in region.nodes if node.name))
    kernel = Kernel(name, params, len(outputs), tuple(stages), shared, operators, nodes)
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


def _pointwise(scope: Scope, outputs: dict[Value, Buffer]) -> list[Stage]:
    """One stage for every shape among the outputs."""
    by_shape: dict[tuple[Dim, ...], list[Value]] = {}
    for value in outputs:
        by_shape.setdefault(value.shape, []).append(value)
    stages = []
    for shape, values in by_shape.items():
        axes, index = scope.axes(shape)
        stores = tuple(scope.store(v, outputs[v], index, scope.element(v, index)) for v in values)
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
        store = scope.store(node.output, buffer, target, scope.element(value, index))
        stages.append(Stage(axes, (), (), (store,)))
        start = start + value.shape[axis]
    return stages


def _side_by_side(reducers: list[Node]) -> bool:
    """Whether it is one reduction, or products of one matrix with results of one type."""
    first = reducers[0]
    return all(
        node.op == "matmul"
        and node.inputs[0] is first.inputs[0]
        and node.output.type == first.output.type
        for node in reducers[1:]
    )


def _follows(reducers: list[Node], region: Graph) -> bool:
    """Whether every node behind the reductions works element by element on their outputs."""
    behind: set[Value] = {reducer.output for reducer in reducers}
    for node in region.nodes:
        if node in reducers or not any(value in behind for value in node.inputs):
            continue
        behind.update(node.outputs)
        if node.op in ("transpose", "reshape"):
            continue
        if not has_trait(node, Trait.POINTWISE) or (
            product(node.output.shape) != product(reducers[0].output.shape)
        ):
            return False
    return all(value in behind for value in region.outputs)


def _forward(value: Value, anchors: Container[Value], index: Index) -> Index | None:
    """The index into `value` of the element computed from element `index` of the anchors."""
    if value in anchors:
        return index
    node = value.producer
    if node is None:
        return None
    for operand in node.inputs:
        at = _forward(operand, anchors, index)
        if at is None:
            continue
        if node.op == "transpose":
            return tuple(at[axis] for axis in node.attrs["perm"])
        if has_trait(node, Trait.POINTWISE) and operand.shape == value.shape:
            return at
        return None
    return None


def _anchored(scope: Scope, reducers: list[Node], outputs: dict[Value, Buffer]) -> Stage:
    anchors = [reducer.output for reducer in reducers]
    axes, index = scope.axes(anchors[0].shape)
    # a dim of one is always indexed with 0 when an operand is broadcast
    index = tuple(0 if axis.extent == 1 else at for axis, at in zip(axes, index, strict=True))
    reductions: list[Reduction] = []
    reduce_axes: tuple[Axis, ...] = ()
    for reducer in reducers:
        reduced = REDUCE[reducer.op](scope, reducer, index)
        reduce_axes = reduce_axes or reduced.axes
        same = zip(reduced.axes, reduce_axes, strict=True)
        names: dict[str, Dim] = {own.name: symbol(first.name) for own, first in same}
        body = substitute_indices(reduced.reduction.body, names)
        result = reduced.finish(accumulated(len(reductions), reduced.reduction))
        reductions.append(replace(reduced.reduction, body=body))
        scope.results[reducer.output] = _only_at(index, result)
    stores = []
    for value, buffer in outputs.items():
        source = value
        while source.producer is not None and source.producer.op == "reshape" and (
            source not in anchors
        ):  # fmt: skip
            source = source.producer.inputs[0]
        at = _forward(source, anchors, index)
        if at is None:
            raise InternalError(f"{value} does not follow {anchors} element by element")
        if source is value:
            stores.append(scope.store(value, buffer, at, scope.element(value, at)))
            continue
        flat = value.type.with_shape((product(value.shape),))
        offset, dynamic = scope.address(flat, (linear(at, source.shape),))
        stores.append(Store(buffer, offset, scope.element(source, at), dynamic))
    return Stage(axes, reduce_axes, tuple(reductions), tuple(stores))


def _only_at(index: Index, result: Expr) -> Callable[[Index], Expr]:
    """A reduction's result, which is known at one index."""

    def element(at: Index) -> Expr:
        if at != index:
            raise InternalError(f"the reduction's result is read at {at}, not at {index}")
        return result

    return element
