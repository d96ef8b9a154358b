"""Random inputs that a model accepts: element ranges read off the graph, sizes of symbolic dims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import ml_dtypes
import numpy as np

from ..compiler.ir import DType, Graph, Node, Sym, TensorType, Value
from ..compiler.ir.dims import Dim, evaluate, symbols_of
from ..compiler.ir.groups import is_fused

Array = np.ndarray[Any, Any]

INTEGER_LIMIT = 8  # integer inputs that index nothing are drawn from [0, 8)
SHAPE_LIMIT = 4  # elements that become dimensions are drawn from [1, 4)
USUAL_SIZE = 128  # of a symbolic dim that is no batch
BATCH_SIZE = 1
KEPT_BYTES = 1 << 20  # larger defaults of inputs are always left out
_INDEXED = ("gather", "gather_elements")


@dataclass
class IntegerRange:
    """What the graph tells of an integer input's elements.

    limit: elements index an axis of this size (the smallest such). choices: constants that it is
    compared with. is_shape: elements become dimensions. is_summed: a running sum is made of it (a
    mask whose positions are counted). is_divisor: 0 would end the run.
    """

    limit: Dim | None = None
    choices: list[int] = field(default_factory=list)
    is_shape: bool = False
    is_summed: bool = False
    is_divisor: bool = False

    def narrow(self, size: Dim) -> None:
        """Take note of an axis of `size` that the elements index."""
        both_known = isinstance(size, int) and isinstance(self.limit, int)
        if self.limit is None or (both_known and size < self.limit):  # type: ignore[operator]
            self.limit = size


def integer_range(graph: Graph, source: Value) -> IntegerRange:
    """Follow an integer input through the graph (regions included) to what it indexes."""
    found = IntegerRange()
    reached = {source}
    for node in graph.walk():
        if reached.isdisjoint(node.inputs):
            continue
        _note_use(node, reached, found)
        if node.op not in (*_INDEXED, "gather_nd") or node.inputs[0] in reached:
            reached.update(value for value in node.outputs if value.dtype.is_integer)
        if is_fused(node):
            pairs = zip(node.inputs, node.regions[0].inputs, strict=True)
            reached.update(inner for outer, inner in pairs if outer in reached)
    return found


def _note_use(node: Node, reached: set[Value], found: IntegerRange) -> None:
    indexes = len(node.inputs) > 1 and node.inputs[1] in reached
    if (node.op in _INDEXED and indexes) or (node.op == "scatter_elements" and indexes):
        found.narrow(node.inputs[0].shape[node.attrs["axis"]])
    elif node.op in ("gather_nd", "scatter_nd") and indexes:
        for size in node.inputs[0].shape:
            found.narrow(size)
    elif node.op == "read_dims":
        found.is_shape = True
    elif node.op in ("cumsum", "cumprod"):
        found.is_summed = True
    elif node.op == "check_nonzero":
        found.is_divisor = True
    elif node.op == "eq":
        for value in node.inputs:
            if value.data is not None and value.data.size == 1:
                found.choices.append(int(value.data.reshape(-1)[0]))


class Sampler:
    """Draws inputs for a graph. The same seed and sizes give the same values.

    Reads the graph once and keeps none of it. `quantised`: see `is_quantised`. widths: symbols that
    are widths of strings, and the room that the strings which the model knows need. Optional inputs
    are left out for even seeds, and are a little larger than their defaults for odd ones.
    """

    def __init__(self, graph: Graph) -> None:
        self.quantised = is_quantised(graph)
        needed = [value for value in graph.inputs if value.name not in graph.defaults]
        self._inputs = [(value.name, value.type) for value in needed]
        self._defaults = {
            name: array for name, array in graph.defaults.items() if array.nbytes <= KEPT_BYTES
        }
        optional = [value for value in graph.inputs if value.name in graph.defaults]
        self._default_sizes = {
            str(dim): size
            for value in optional
            for dim, size in zip(value.shape, graph.defaults[value.name].shape, strict=True)
            if symbols_of(dim)
        }
        self._bounds_of = dict(graph.bounds)
        self._words = {
            value.name: graph.meanings[value.name].words
            for value in graph.inputs
            if value.name in graph.meanings and graph.meanings[value.name].strings
        }
        widest = max((len(w.encode()) for words in self._words.values() for w in words), default=1)
        last = [type_.shape[-1] for name, type_ in self._inputs if name in self._words]
        self.widths = {str(dim): widest for dim in last if isinstance(dim, Sym)}
        self._bounds_of |= {name: (width, width) for name, width in self.widths.items()}
        self._ranges = {
            value.name: integer_range(graph, value) for value in needed if value.dtype.is_integer
        }

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbols that the inputs' shapes depend on, in order of appearance."""
        seen: dict[str, None] = {}
        for _, type_ in self._inputs:
            for dim in type_.shape:
                seen.update(dict.fromkeys(sorted(symbols_of(dim))))
        return tuple(seen)

    @property
    def batch_symbols(self) -> tuple[str, ...]:
        """Symbols that stand on axis 0 of some input and on no other axis."""
        leading: set[str] = set()
        others: set[str] = set()
        for _, type_ in self._inputs:
            for axis, dim in enumerate(type_.shape):
                (others if axis else leading).update(symbols_of(dim))
        return tuple(name for name in self.symbols if name in leading - others)

    @property
    def usual_sizes(self) -> dict[str, int]:
        """A size for every symbol, to predict and measure times with: 1 for a batch, that of the
        default for an optional input's, else a length that most models accept."""
        leading = self.batch_symbols
        own = {name: BATCH_SIZE if name in leading else USUAL_SIZE for name in self.symbols}
        return self._default_sizes | {n: self._limited(n, size) for n, size in own.items()}

    def candidate_sizes(self) -> Iterator[dict[str, int]]:
        """Sizes for the symbols to try in order, small and distinct ones first.

        A model may refuse most sizes (a U-Net takes multiples of 32, two inputs must agree),
        which only a run tells; hence several families. Without symbols: endlessly {}.
        """
        if not self.symbols:
            yield from repeat({})
        tried: list[dict[str, int]] = []
        for family in self._size_families():
            sizes = {name: self._limited(name, size) for name, size in family.items()}
            if sizes not in tried:
                tried.append(sizes)
                yield sizes

    def _limited(self, name: str, size: int) -> int:
        low, high = self._bounds_of.get(name, (size, size))
        return min(max(low, size), high)

    def _size_families(self) -> Iterator[dict[str, int]]:
        names, batch = self.symbols, self.batch_symbols
        rest = [name for name in names if name not in batch]

        def sizes(lead: int, others: Sequence[int]) -> dict[str, int]:
            return {**dict.fromkeys(batch, lead), **dict(zip(rest, others, strict=True))}

        yield {name: 2 + index for index, name in enumerate(names)}
        yield dict.fromkeys(names, 1)
        yield sizes(2, [32 * (1 + index) for index in range(len(rest))])
        yield sizes(1, [64] * len(rest))
        for chosen in rest:
            yield {name: 512 if name == chosen else 1 for name in names}
        yield sizes(1, [224] * len(rest))

    def draw(self, sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
        """Inputs for the given sizes of the symbolic dims.

        Floats are standard normal for even seeds and uniform in [0, 1) for odd ones (so that
        models which take roots or logarithms meet their domain); bools are fair; integers follow
        `IntegerRange`; strings are arrays of numpy's strings. Raises InternalError when a symbol
        has no size.
        """
        rng = np.random.default_rng(seed)
        drawn = {
            name: self._strings(name, type_, sizes, rng)
            if name in self._words
            else np.asarray(self._array(name, type_, sizes, rng, seed), type_.dtype.numpy)
            for name, type_ in self._inputs
        }
        return drawn | (self._replaced() if seed % 2 else {})

    def _replaced(self) -> dict[str, Array]:
        return {
            name: np.asarray(array * 1.25, array.dtype) if array.dtype.kind == "f" else array
            for name, array in self._defaults.items()
        }

    def _strings(
        self, name: str, type_: TensorType, sizes: Mapping[str, int], rng: np.random.Generator
    ) -> Array:
        """Strings that the model knows, and one that it does not, as far as they fit."""
        *shape, width = (evaluate(dim, sizes) for dim in type_.shape)
        words = [word for word in (*self._words[name], "?") if len(word.encode()) <= width]
        return np.asarray(rng.choice(np.array(words or [""]), tuple(shape)))

    def _array(
        self,
        name: str,
        type_: TensorType,
        sizes: Mapping[str, int],
        rng: np.random.Generator,
        seed: int,
    ) -> Array:
        shape = tuple(evaluate(dim, sizes) for dim in type_.shape)
        if type_.dtype.is_float:
            draw = rng.standard_normal if seed % 2 == 0 else rng.random
            return np.asarray(draw(shape))
        if type_.dtype is DType.BOOL:
            return np.asarray(rng.integers(0, 2, shape))
        if type_.dtype.is_narrow:
            return _narrow(type_.dtype, shape, rng)
        low, high = self._bounds(name, type_, sizes, seed)
        if self._ranges[name].is_divisor:
            low, high = 1, max(high, 2)
        return np.asarray(rng.integers(low, high, shape))

    def _bounds(
        self, name: str, type_: TensorType, sizes: Mapping[str, int], seed: int
    ) -> tuple[int, int]:
        """The half-open range of an integer input's elements."""
        found = self._ranges[name]
        info = np.iinfo(type_.dtype.numpy)
        if found.is_shape:
            return 1, SHAPE_LIMIT
        if found.choices and not type_.shape:
            choice = found.choices[seed % len(found.choices)]
            return choice, choice + 1
        if found.is_summed or "mask" in name.lower():
            return 0, 2
        if found.limit is not None and symbols_of(found.limit) <= set(sizes):
            return 0, max(1, min(evaluate(found.limit, sizes), int(info.max)))
        if type_.dtype.bits == 8:
            return int(info.min), int(info.max) + 1
        return 0, INTEGER_LIMIT


def _narrow(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Numbers of a type that only stores: integers of all values, floats near 0, those without a
    sign near 1."""
    if dtype is DType.F8E8M0FNU:
        return np.asarray(np.exp2(rng.standard_normal(shape)), np.float32)
    if "f" in dtype.value:
        return np.asarray(rng.standard_normal(shape), np.float32)
    info = ml_dtypes.iinfo(dtype.numpy)
    return np.asarray(rng.integers(int(info.min), int(info.max) + 1, shape), np.int8)


def is_quantised(graph: Graph) -> bool:
    """Whether values are rounded to integers on the way (a quantised network)."""
    return any(
        node.op in ("round", "quantize", "requantize")
        or (node.op == "cast" and _is_byte(node.output.dtype) and node.inputs[0].dtype.is_float)
        for node in graph.walk()
    )


def _is_byte(dtype: DType) -> bool:
    return dtype.is_integer and dtype.bits == 8
