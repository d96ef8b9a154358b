"""Lifts expansions that only a run decides over what can be computed on the expanded operands.

An `expand` is a view between kernels, in the usual run without a copy; where it stands between an
operator and the pointwise ones that follow, it would keep them from being one kernel, and patterns
from being recognised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait, make_node
from ...compiler.ir.rewrite import use_counts
from ..layout.axis_permutation import match_axes

Shape = tuple[Dim, ...]
_MOVES = frozenset({"transpose", "reshape", "slice", "broadcast_to"})


@dataclass(frozen=True)
class LiftExpands:
    """expand(f(x, y)) -> f(expand(x), expand(y)) where nothing else uses f(x, y).

    f is pointwise or moves elements; before pointwise operators it may be a product, a norm or a
    reduction, too, along other axes than those that are expanded.
    """

    name: str = "lift_expands"

    def run(self, graph: Graph) -> bool:
        """Lift the expansions of the graph and of its regions; whether any moved."""
        return any([_lift(part) for part in graph.graphs()])


def _lift(graph: Graph) -> bool:
    if not any(node.op == "expand" for node in graph.nodes):
        return False
    return _Lifter(graph).run()


@dataclass
class _Lifter:
    graph: Graph
    uses: Counter[Value] = field(init=False)
    users: dict[Value, list[Node]] = field(default_factory=dict)
    made: dict[tuple[Value, Shape], Value] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    changed: bool = False

    def __post_init__(self) -> None:
        self.uses = use_counts(self.graph)
        for node in self.graph.nodes:
            for value in node.inputs:
                self.users.setdefault(value, []).append(node)
        self.local = set(self.graph.nodes)

    def run(self) -> bool:
        """Rebuild the node list; what was replaced is left to dead code elimination."""
        replaced: dict[Value, Value] = {}
        for node in self.graph.nodes:
            node.inputs = [replaced.get(value, value) for value in node.inputs]
            if node.op != "expand":
                self.nodes.append(node)
                continue
            source, shape = node.inputs[0], node.output.shape
            users = self.users.get(node.output, [])
            inner = len(users) == self.uses[node.output]  # neither a result nor captured
            epilogue = inner and all(has_trait(user, Trait.POINTWISE) for user in users)
            lifted = self._lifted(source, shape, 1, epilogue) if inner else None
            if lifted is None:
                self.nodes.append(node)
                self.made.setdefault((source, shape), node.output)
            else:
                replaced[node.output] = lifted
                self.changed = True
        self.graph.nodes = self.nodes
        return self.changed

    def _lifted(self, value: Value, shape: Shape, uses: int, epilogue: bool) -> Value | None:
        """The value computed in the shape; None if it cannot be, or others use it, too."""
        node = value.producer
        if node is None or node not in self.local or self.uses[value] != uses:
            return None
        shapes = _operand_shapes(node, shape, epilogue)
        if shapes is None:
            return None
        inner = epilogue or has_trait(node, Trait.POINTWISE)
        operands = [
            self._expanded(operand, wanted, node.inputs.count(operand), inner)
            for operand, wanted in zip(node.inputs, shapes, strict=True)
        ]
        attrs = node.attrs
        if "shape" in attrs:
            attrs = {**attrs, "shape": shape}
        if node.op == "slice":
            attrs = {**attrs, "stops": _stops(node, shape)}
        clone = make_node(node.op, operands, attrs, name=node.name)
        self.nodes.append(clone)
        return clone.output

    def _expanded(self, value: Value, shape: Shape, uses: int, epilogue: bool) -> Value:
        if value.shape == shape:
            return value
        if (value, shape) not in self.made:
            lifted = self._lifted(value, shape, uses, epilogue)
            if lifted is None:
                self.nodes.append(make_node("expand", [value], {"shape": shape}, name=value.name))
                lifted = self.nodes[-1].output
            self.made[value, shape] = lifted
        return self.made[value, shape]


def _operand_shapes(node: Node, shape: Shape, epilogue: bool) -> list[Shape] | None:
    """The shapes that a node's operands need for its result to have the given shape."""
    if not node.inputs or len(node.outputs) != 1:
        return None
    before = node.output.shape
    changed = [axis for axis, dim in enumerate(before) if dim != shape[axis]]
    if has_trait(node, Trait.POINTWISE):
        return _aligned(node.inputs, before, shape, changed)
    if node.op in _MOVES:
        return _with_origins(node, shape, changed, [_origin(node, axis) for axis in changed])
    if node.op == "gather":
        return _gathered(node, shape, changed)
    return _anchor_shapes(node, shape, changed) if epilogue else None


def _with_origins(
    node: Node, shape: Shape, changed: Sequence[int], origins: Sequence[int | None]
) -> list[Shape] | None:
    """The first operand with the axes that the changed ones come from of their new sizes."""
    wanted = list(node.inputs[0].shape)
    for axis, source in zip(changed, origins, strict=True):
        if source is None:
            return None
        wanted[source] = shape[axis]
    return [tuple(wanted), *(value.shape for value in node.inputs[1:])]


def _gathered(node: Node, shape: Shape, changed: Sequence[int]) -> list[Shape]:
    """Axes of what is gathered come from the indices, the others from the data."""
    data, indices = node.inputs
    axis, rank = node.attrs["axis"], indices.type.rank
    wanted, places = list(data.shape), list(indices.shape)
    for at in changed:
        if axis <= at < axis + rank:
            places[at - axis] = shape[at]
        else:
            wanted[at if at < axis else at - rank + 1] = shape[at]
    return [tuple(wanted), tuple(places)]


def _aligned(
    values: Sequence[Value], before: Shape, shape: Shape, changed: Sequence[int]
) -> list[Shape] | None:
    """Of operands that broadcast to `before`: each has the changed axes as they are, or as ones."""
    found: list[Shape] = []
    for value in values:
        wanted, skip = list(value.shape), len(before) - value.type.rank
        for axis in changed:
            if axis < skip or wanted[axis - skip] == 1:
                continue
            if wanted[axis - skip] != before[axis]:
                return None
            wanted[axis - skip] = shape[axis]
        found.append(tuple(wanted))
    carried = all(
        any(axis >= len(before) - len(dims) and dims[axis - len(before)] == shape[axis]
            for dims in found)
        for axis in changed
    )  # fmt: skip
    return found if carried else None


def _origin(node: Node, axis: int) -> int | None:
    """The operand's axis along which an axis of the result runs as it is."""
    x, dim = node.inputs[0], node.output.shape[axis]
    if node.op == "transpose":
        return int(node.attrs["perm"][axis])
    if node.op == "reshape":
        groups = match_axes(x.shape, node.output.shape) or []
        found = [inputs for inputs, outputs in groups if outputs == (axis,)]
        return found[0][0] if found and len(found[0]) == 1 else None
    source = axis - (node.output.type.rank - x.type.rank)
    if source < 0 or x.shape[source] != dim:
        return None
    if node.op == "slice" and (
        node.attrs["starts"][axis] != 0 or node.attrs["steps"][axis] != 1
    ):  # fmt: skip
        return None
    return source


def _stops(node: Node, shape: Shape) -> Shape:
    """Where a slice ends that has a new shape along axes that it does not cut."""
    stops: Shape = node.attrs["stops"]
    dims = zip(stops, node.output.shape, shape, strict=True)
    return tuple(stop if dim == size else size for stop, dim, size in dims)


def _anchor_shapes(node: Node, shape: Shape, changed: Sequence[int]) -> list[Shape] | None:
    """As `_operand_shapes`, of operators that pointwise ones follow in one kernel."""
    if node.op == "matmul":
        return _factors(node, shape, changed)
    kept: list[int] = []
    if node.op == "conv":
        kept = [0]
    elif has_trait(node, Trait.NORMALISATION):
        kept = list(range(node.attrs["axis"]))
    elif has_trait(node, Trait.REDUCTION) and "axes" in node.attrs:
        rank = node.inputs[0].type.rank
        kept = [axis for axis in range(rank) if axis not in node.attrs["axes"]]
        if not node.attrs["keepdims"]:
            return _with_origins(node, shape, changed, [kept[axis] for axis in changed])
    origins = [axis if axis in kept else None for axis in changed]
    return _with_origins(node, shape, changed, origins)


def _factors(node: Node, shape: Shape, changed: Sequence[int]) -> list[Shape] | None:
    a, b, before = node.inputs[0].shape, node.inputs[1].shape, node.output.shape
    last = len(shape) - 1
    batch = [axis for axis in changed if axis < last - 1]
    leading = [Value(v.type.with_shape(v.shape[:-2])) for v in node.inputs]
    batches = _aligned(leading, before[:-2], shape[:-2], batch)
    if batches is None:
        return None
    rows = shape[-2] if last - 1 in changed else a[-2]
    columns = shape[-1] if last in changed else b[-1]
    return [(*batches[0], rows, a[-1]), (*batches[1], b[-2], columns)]
