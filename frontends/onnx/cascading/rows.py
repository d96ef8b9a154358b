"""Whether what nodes compute for one row of a batch depends on other rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ....compiler.ir import Dim, DType, Node, Value
from ....compiler.ir.dims import exact_quotient, product, symbols_of
from ....compiler.ir.graph import captures
from ....compiler.ir.ops.registry import Trait, has_trait


def mixing_node(made: Iterable[Value], before: Collection[Value], batch: Dim) -> Node | None:
    """The first node, of those that make values out of others `before` them, that sees rows
    together, or of which that is not known.

    batch: the number of rows, which is no constant. Rows may lie along any axis whose size is
    `batch`, or that times a whole number, each row's places being neighbours then. Taking rows at
    places that are computed counts as seeing all, as does telling them apart by their numbers, and
    computing with how many there are; what is taken of each row at its own number is its own.
    """
    made, rows, before = list(made), _Rows(batch), set(before)
    waiting = _makers(made, before)
    entered: set[Node] = set()
    checked: set[Node] = set()
    while waiting:
        node = waiting[-1]
        if node not in entered:
            entered.add(node)
            reads = [*node.inputs, *(v for region in node.regions for v in captures(region))]
            waiting += [n for n in reversed(_makers(reads, before)) if n not in entered]
            continue
        waiting.pop()
        if node not in checked:
            checked.add(node)
            found = next((inner for inner in _with_inner(node) if rows.meet_in(inner)), None)
            if found is not None:
                return found
    numbers = (value.producer for value in made if value in rows.numbers | rows.places)
    return next(numbers, None)


def _makers(values: Iterable[Value], before: Collection[Value]) -> list[Node]:
    """Nodes that make values of others."""
    return [v.producer for v in values if v.producer is not None and v not in before]


def _with_inner(node: Node) -> Iterable[Node]:
    yield node
    for region in node.regions:
        yield from region.walk()


@dataclass(frozen=True)
class _Rows:
    """The rows of a batch of so many. numbers: values that are, everywhere, the number of the row;
    places: indices of which that is the first."""

    batch: Dim
    numbers: set[Value] = field(default_factory=set)
    places: set[Value] = field(default_factory=set)

    def axes(self, value: Value) -> list[int]:
        """Those whose size depends on the number of rows."""
        symbols = symbols_of(self.batch)
        return [axis for axis, dim in enumerate(value.shape) if symbols_of(dim) & symbols]

    def meet_in(self, node: Node) -> bool:
        """Whether a node sees several rows at once, as far as is known."""
        inner = [value for region in node.regions for value in captures(region)]
        read = [value for value in (*node.inputs, *inner) if self.axes(value)]
        if not all(self._are_apart(value) for value in (*read, *node.outputs)):
            return True
        if node.op == "dims":  # a number that tells how many rows there are
            return any(symbols_of(dim) & symbols_of(self.batch) for dim in node.attrs["values"])
        if node.op == "iota" and node.attrs["axis"] in self.axes(node.output):
            self.numbers.add(node.output)
            return bool(node.output.shape[node.attrs["axis"]] != self.batch)
        if any(value in self.numbers | self.places for value in read):
            return not self._keeps_numbers(node)
        makes_rows = any(self.axes(value) for value in node.outputs)
        if not read:  # rows that are alike, or that are told apart by their numbers
            return makes_rows and not has_trait(node, Trait.BROADCAST)
        if not makes_rows:
            return bool(node.outputs)
        if node.op == "scan":
            return self._meet_in_steps(node)
        if has_trait(node, Trait.CONTROL | Trait.POINTWISE | Trait.BROADCAST):
            return False
        if node.op == "reshape":
            return self._before(node.inputs[0]) != self._before(node.output)
        along = _ALONG.get(node.op, _all_axes)(node)
        return any(
            axis in (mixed % value.type.rank for mixed in axes)
            for value, axes in zip(node.inputs, along, strict=False)
            for axis in self.axes(value)
        )

    def _keeps_numbers(self, node: Node) -> bool:
        """Whether a node that reads numbers of rows hands them on, or takes of each row its own."""
        x = node.inputs[0]
        if node.op == "gather_nd" and node.inputs[1] in self.places:
            return bool(node.attrs["batch_dims"] == 0 and x.shape[0] == self.batch)
        if x not in self.numbers or any(v in self.numbers for v in node.inputs[1:]):
            return False
        if node.op == "concat":
            last = node.output.type.rank - 1
            if node.attrs["axis"] % (last + 1) != last or x.shape[last] != 1:
                return False
            self.places.add(node.output)
            return True
        if node.op == "reshape":
            kept = self._before(x) == self._before(node.output)
        else:
            kept = has_trait(node, Trait.BROADCAST) or _widens(node)
        if kept:
            self.numbers.add(node.output)
        return kept

    def _are_apart(self, value: Value) -> bool:
        """Whether rows lie along one axis at most, each with as many places there as the others."""
        axes = self.axes(value)
        if not axes:
            return True
        places = exact_quotient(value.shape[axes[0]], self.batch)
        return (
            len(axes) == 1
            and places is not None
            and not symbols_of(places) & symbols_of(self.batch)
        )

    def _before(self, value: Value) -> Dim:
        """How often all rows follow each other in the order of elements."""
        return product(value.shape[: self.axes(value)[0]])

    def _meet_in_steps(self, scan: Node) -> bool:
        """Whether rows are steps that hand on a state, or results that lie in another order."""
        attrs = scan.attrs
        if not symbols_of(attrs["trip"]) & symbols_of(self.batch):
            return False
        return attrs["num_state"] > 0 or len({*attrs["reverse_in"], *attrs["reverse_out"]}) > 1


def _widens(node: Node) -> bool:
    """Whether a node writes integers as others that hold them all."""
    return node.op == "cast" and node.output.type.dtype in (DType.I32, DType.I64)


Along = list[Iterable[int]]  # of each operand, the axes along which places are seen together


def _all_axes(node: Node) -> Along:
    return [range(value.type.rank) for value in node.inputs]


def _own_axes(node: Node) -> Along:
    """Those that an attribute names, of the first operand."""
    attrs = node.attrs
    return [[attrs["axis"]] if "axis" in attrs else attrs["axes"]]


def _windows(node: Node) -> Along:
    """All but the first, which are pictures; whole filters."""
    return [range(1, node.inputs[0].type.rank), *_all_axes(node)[1:]]


def _sliced(node: Node) -> Along:
    attrs = node.attrs
    parts = zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    wholes = [(0, dim, 1) for dim in node.inputs[0].shape]
    return [[axis for axis, part in enumerate(parts) if part != wholes[axis]]]


def _padded(node: Node) -> Along:
    rank, pads = node.inputs[0].type.rank, node.attrs["pads"]
    return [[axis for axis in range(rank) if (pads[axis], pads[axis + rank]) != (0, 0)]]


def _by_place(node: Node) -> Along:
    """The axis along which indices count, and those along which there are not as many of them:
    where these have rows and the elements have not, a row's number says which are taken."""
    x, indices = node.inputs[:2]
    pairs = enumerate(zip(x.shape, indices.shape, strict=True))
    own = node.attrs["axis"] % x.type.rank
    others = [axis for axis, (dim, count) in pairs if dim != count and axis != own]
    return [[own, *others], others]


# of operators of which it is known, but for pointwise ones, those with regions and views
_ALONG: Mapping[str, Callable[[Node], Along]] = {
    **dict.fromkeys(("argmax", "argmin", "cumprod", "cumsum", "gather", "softmax"), _own_axes),
    **dict.fromkeys(
        (f"reduce_{what}" for what in ("max", "mean", "min", "prod", "sum")), _own_axes
    ),
    **dict.fromkeys(("avg_pool", "conv", "conv_transpose", "max_pool"), _windows),
    **dict.fromkeys(("gather_elements", "scatter_elements"), _by_place),
    **dict.fromkeys(("argsort", "forest", "quantised_matmul"), lambda node: [[-1]]),
    **dict.fromkeys(("det", "inverse"), lambda node: [[-1, -2]]),
    "attention": lambda node: [[-1], [-1, -2], [-2], [-1]],
    "concat": lambda node: [[node.attrs["axis"]]] * len(node.inputs),
    "gather_nd": lambda node: [range(node.attrs["batch_dims"], node.inputs[0].type.rank)],
    "layer_norm": lambda node: [range(node.attrs["axis"], node.inputs[0].type.rank)],
    "matmul": lambda node: [[-1], [-2]],
    "pad": _padded,
    "slice": _sliced,
    "transpose": lambda node: [],
}
