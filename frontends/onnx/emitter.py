"""Emits core operators, folding constants and shape arithmetic on the way.

A value whose elements are dims (say, the result of Shape) is *virtual* until an operator that runs
needs it: only then a `dims` node is made, in the graph or region where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...compiler.errors import InvalidModelError, RunError
from ...compiler.ir import Dim, DType, Graph, Node, TensorType, Value, constant, symbol
from ...compiler.ir.dims import product
from ...compiler.ir.ops.registry import Array, Trait, has_trait, lookup, make_node
from .broadcasting import expanded_shapes
from .elements import MAX_ELEMENTS, Elements, Undecided, apply, elements
from .sources import Element, Sources

FOLD_LIMIT = 1 << 20  # elements of a constant result computed at import
MOST_ELEMENTS = 1 << 40  # more than any tensor has
SIZE_LIMIT = 1 << 37  # bytes of one tensor that a real model may have


class GraphEmitter:
    """Appends nodes to the graph being built and to the regions nested in it."""

    def __init__(self) -> None:
        self.name = ""
        self._scopes: list[list[Node]] = [[]]
        self._made: list[dict[Value, Value]] = [{}]
        self._known: dict[Value, Elements] = {}
        self._sources = Sources(self.known)
        self._symbols: set[str] = set()
        self._named: dict[str, str] = {}
        self.bound: list[set[str]] = [set()]
        self.words: dict[str, None] = {}  # strings that the model compares others with
        self.places_in: dict[Value, tuple[Dim, ...]] = {}  # shapes that places of maxima are in
        self.undecided: dict[Dim, None] = {}  # expressions whose sign shape arithmetic asked for

    # ------------------------------------------------------------------ regions and symbols

    def enter(self) -> None:
        """Begin a region: what is emitted now belongs to it."""
        self._scopes.append([])
        self._made.append({})
        self.bound.append(set())

    def leave(self) -> tuple[list[Node], set[str]]:
        """End the region; its nodes, and the symbols that were bound in it."""
        self._made.pop()
        return self._scopes.pop(), self.bound.pop()

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the innermost region."""
        return self._scopes[-1]

    def name_symbol(self, wanted: str) -> Dim:
        """The symbol for a name of the model, made an identifier. Equal names, equal symbols."""
        if wanted not in self._named:
            self._named[wanted] = self._unused(_identifier(wanted[:60]))
        return symbol(self._named[wanted])

    def unnamed_symbol(self, stem: str) -> Dim:
        """A symbol of its own for a dimension that has no name."""
        return symbol(self._unused(_identifier(stem[:60])))

    def fresh(self, stem: str) -> str:
        """A symbol name that nothing else uses, bound in the innermost region."""
        name = self._unused(_identifier(_identifier(stem)[:30].strip("_")))
        self.bound[-1].add(name)
        return name

    def _unused(self, stem: str) -> str:
        name, count = stem, 0
        while name in self._symbols:
            count += 1
            name = f"{stem}_{count}"
        self._symbols.add(name)
        return name

    def is_size(self, dim: Dim) -> bool:
        """Whether a value before this point has such an axis, so that the dim is not negative."""
        nodes = (node for scope in self._scopes for node in scope)
        values = (value for node in nodes for value in (*node.inputs, *node.outputs))
        return any(dim in value.shape for value in values)

    # ------------------------------------------------------------------ values

    def virtual(self, values: Any, dtype: DType = DType.I64) -> Value:
        """A value with the given dims as elements; a constant when all are numbers."""
        array = elements(values)
        if all(isinstance(item, (int, np.integer)) for item in array.flat):
            return constant(array.astype(dtype.numpy))
        value = Value(TensorType(dtype, tuple(array.shape)))
        self._known[value] = array
        return value

    def known(self, value: Value) -> Elements | None:
        """The elements of an integer tensor where they are known as dims, else None."""
        if value in self._known:
            return self._known[value]
        if value.producer is not None and value.producer.op == "dims":
            return elements(value.producer.attrs["values"])
        data = value.data
        if data is None or data.size > MAX_ELEMENTS:
            return None
        return data.astype(object) if data.dtype.kind in "iub" else None

    def real(self, value: Value) -> Value:
        """The value itself, or what a `dims` node computes for a virtual one."""
        values = self._known.get(value)
        if values is None:
            return value
        for made in reversed(self._made):
            if value in made:
                return made[value]
        dims = tuple(values.reshape(-1))
        result = self._append("dims", [], {"values": dims})[0]
        if values.ndim != 1:
            result = self._append("reshape", [result], {"shape": value.shape})[0]
        if value.dtype is not DType.I64:
            result = self._append("cast", [result], {"dtype": value.dtype})[0]
        self._made[-1][value] = result
        return result

    def read_dims(self, value: Value, stem: str) -> tuple[Dim, ...]:
        """The elements of an integer vector as dims; symbols bound at run time if need be.

        Raises ValueError when it is not an integer vector of a fixed length.
        """
        found = self.known(value)
        if found is not None and found.ndim == 1:
            return tuple(map(_plain, found))
        if value.type.rank != 1 or not value.dtype.is_integer or not value.type.is_static:
            raise ValueError(f"{value.type} is not an integer vector of fixed length")
        return self.resolved(value, lambda vector: self._bound_to(vector, stem))

    def resolved(self, vector: Value, read: Callable[[Value], Sequence[Dim]]) -> tuple[Dim, ...]:
        """The elements of an integer vector: dims where they are known.

        read: gives the others, those of one tensor together as a vector.
        """
        found = list(self._sources.of(vector))
        wanted: dict[Value, dict[int, None]] = {}
        for item in found:
            if isinstance(item, Element):
                wanted.setdefault(item.value, {})[item.place] = None
        dims: dict[Element, Dim] = {}
        for source, places in wanted.items():
            elements_read = read(self._elements_at(source, list(places)))
            for place, dim in zip(places, elements_read, strict=True):
                dims[Element(source, place)] = dim
        return tuple(dims[item] if isinstance(item, Element) else _plain(item) for item in found)

    def _elements_at(self, value: Value, places: list[int]) -> Value:
        count = int(value.type.elements)  # type: ignore[arg-type]
        flat = self.emit("reshape", [value], {"shape": (count,)})
        if places == list(range(count)):
            return flat
        return self.emit("gather", [flat, constant(np.array(places, np.int64))], {"axis": 0})

    def _bound_to(self, vector: Value, stem: str) -> tuple[Dim, ...]:
        names = tuple(self.fresh(stem) for _ in range(vector.type.static_shape[0]))
        whole = self.emit("cast", [vector], {"dtype": DType.I64})
        self._append("read_dims", [self.real(whole)], {"symbols": names})
        return tuple(symbol(name) for name in names)

    # ------------------------------------------------------------------ operators

    def emit(self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None) -> Value:
        """The only result of a core operator: folded, virtual, or of a new node.

        Raises ValueError with the reason when the inputs do not fit.
        """
        attrs = attrs or {}
        inputs = [
            value if value.shape == shape else self.emit("expand", [value], {"shape": shape})
            for value, shape in zip(inputs, expanded_shapes(op, inputs, attrs), strict=True)
        ]
        if _is_identity(op, inputs, attrs):
            return inputs[0]
        trial = make_node(op, inputs, attrs, name=self.name)
        kind = trial.output.type
        _check_size(kind)
        if kind.is_static and kind.elements <= _fold_limit(trial):  # type: ignore[operator]
            folded = self._fold(op, trial, kind)
            if folded is not None:
                return folded
        trial.inputs = [self.real(value) for value in inputs]
        self.nodes.append(trial)
        return trial.output

    def constant(self, value: Value) -> Array | None:
        """The elements of a constant, also of one that is stored as integers; None of another."""
        made = value.producer
        if value.data is not None or made is None or not has_trait(made, Trait.QUANTISATION):
            return value.data
        operands = [self.constant(operand) for operand in made.inputs]
        if any(operand is None for operand in operands):
            return None
        known = [constant(operand) for operand in operands]
        found = _evaluate(make_node(made.op, known, made.attrs))
        return None if found is None else found.data

    def unpacked(self, packed: Value, dtype: DType, shape: tuple[int, ...]) -> Value:
        """Integers that are several in a byte of a constant, which stays as it is."""
        numbers = self.emit("unpack", [packed], {"dtype": dtype, "shape": shape})
        numbers.name = packed.name
        return numbers

    def _fold(self, op: str, trial: Node, kind: TensorType) -> Value | None:
        inputs = trial.inputs
        limit = max(FOLD_LIMIT, _fold_limit(trial))
        if all(v.is_constant and v.data is not None and v.data.size <= limit for v in inputs):
            return _evaluate(trial)
        if product(kind.shape) > MAX_ELEMENTS:  # type: ignore[operator]
            return None
        known = [self.known(value) for value in inputs]
        if any(item is None for item in known):
            return None
        try:
            found = apply(op, trial.attrs, known, kind.dtype)  # type: ignore[arg-type]
        except Undecided as error:
            self.undecided.update(dict.fromkeys(error.dims))
            return None
        return None if found is None else self.virtual(found, kind.dtype)

    def emit_node(
        self,
        op: str,
        inputs: Sequence[Value],
        attrs: dict[str, Any] | None = None,
        *,
        regions: Sequence[Graph] = (),
        types: Sequence[TensorType] | None = None,
    ) -> list[Value]:
        """All results of a new node, never folded."""
        return self._append(op, inputs, attrs or {}, regions, types)

    def _append(
        self,
        op: str,
        inputs: Sequence[Value],
        attrs: dict[str, Any],
        regions: Sequence[Graph] = (),
        types: Sequence[TensorType] | None = None,
    ) -> list[Value]:
        real = [self.real(value) for value in inputs]
        node = make_node(op, real, attrs, regions=regions, types=types, name=self.name)
        self.nodes.append(node)
        return node.outputs


def _plain(dim: Any) -> Dim:
    return int(dim) if isinstance(dim, (bool, np.integer)) else dim


def _identifier(text: str) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in text) or "d"
    return f"d{name}" if name[0].isdigit() else name


def pieces(value: Value) -> tuple[Value, ...]:
    """The vectors that were put together to make a vector; itself where it is not made so."""
    node = value.producer
    if node is None or node.op != "concat" or value.type.rank != 1:
        return (value,)
    return tuple(piece for part in node.inputs for piece in pieces(part))


def _is_identity(op: str, inputs: Sequence[Value], attrs: dict[str, Any]) -> bool:
    if op in ("reshape", "broadcast_to", "expand"):
        return bool(tuple(attrs["shape"]) == inputs[0].shape)
    if op == "transpose":
        return list(attrs["perm"]) == list(range(inputs[0].type.rank))
    if op == "cast":
        return bool(attrs["dtype"] is inputs[0].dtype)
    if op == "slice":
        whole = zip(attrs["starts"], attrs["stops"], attrs["steps"], inputs[0].shape, strict=True)
        return all(start == 0 and stop == dim and step == 1 for start, stop, step, dim in whole)
    return op == "concat" and len(inputs) == 1


def _check_size(kind: TensorType) -> None:
    size: Dim = kind.dtype.bytes
    for dim in kind.shape:
        size = size * dim if isinstance(dim, int) and dim else size
    if isinstance(size, int) and size > SIZE_LIMIT:
        raise InvalidModelError(
            f"a tensor {kind} is absurdly large",
            why=f"{size:.3g} bytes, more than {SIZE_LIMIT:.3g}",
            remedy="check the shapes, repeats and sizes in the model",
        )


def _fold_limit(trial: Node) -> int:
    """Elements of a constant result, at most. What is stored as integers stays so, and floats that
    the model quantises become that, however many there are."""
    if trial.op == "quantize":
        return MOST_ELEMENTS
    return 1 if has_trait(trial, Trait.QUANTISATION) else FOLD_LIMIT


def _evaluate(trial: Node) -> Value | None:
    evaluate = lookup(trial.op).evaluate
    if evaluate is None:
        return None
    try:
        arrays = evaluate([value.data for value in trial.inputs], trial.attrs)  # type: ignore[misc]
    except RunError as error:
        raise ValueError(error.what) from None
    return constant(np.ascontiguousarray(arrays[0]).reshape(trial.output.type.static_shape))
