"""Building a model node by node, with the shape of every value for each set of sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
KINDS = {
    "f32": (TensorProto.FLOAT, np.float32),
    "f64": (TensorProto.DOUBLE, np.float64),
    "i64": (TensorProto.INT64, np.int64),
    "i32": (TensorProto.INT32, np.int32),
    "i16": (TensorProto.INT16, np.int16),
    "i8": (TensorProto.INT8, np.int8),
    "u64": (TensorProto.UINT64, np.uint64),
    "u32": (TensorProto.UINT32, np.uint32),
    "u16": (TensorProto.UINT16, np.uint16),
    "u8": (TensorProto.UINT8, np.uint8),
    "f16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "bool": (TensorProto.BOOL, np.bool_),
}
MAX_ELEMENTS = 2048
MAX_RANK = 5
LARGE = 64.0  # magnitudes above are brought down


@dataclass(frozen=True)
class Features:
    """What models may hold. ones, empty: symbolic dims that a call gives the size 1, or 0.

    run_time_sizes: dims that follow from data (NonZero, Compress, computed repeats). twins: dims of
    two names that agree in every call. amounts: of Pad, Slice, Resize and others, that a call
    brings. kinds: elements other than f32, i64 and bool. newer: operators and forms of opset 18 and
    later. contrib: operators of com.microsoft.
    """

    symbols: bool = True
    ones: bool = False
    empty: bool = False
    run_time_sizes: bool = True
    control: bool = True
    recurrent: bool = True
    quantised: bool = True
    twins: bool = True
    amounts: bool = True
    sequences: bool = True
    kinds: bool = True
    newer: bool = True
    contrib: bool = True


ALL = Features()


@dataclass(frozen=True)
class Size:
    """A dim. text: what tells it from others, a number where it is fixed. values: for each call."""

    text: str
    values: tuple[int, ...]

    @property
    def fixed(self) -> int | None:
        """The number, if it is the same in every call and the model says so."""
        return int(self.text) if self.text.isdigit() else None

    def __add__(self, other: Size) -> Size:
        return _combined("+", self, other, lambda a, b: a + b)

    def __mul__(self, other: Size) -> Size:
        return _combined("*", self, other, lambda a, b: a * b)


def _combined(sign: str, a: Size, b: Size, apply: Callable[[int, int], int]) -> Size:
    values = tuple(apply(x, y) for x, y in zip(a.values, b.values, strict=True))
    if a.fixed is not None and b.fixed is not None:
        return Size(str(values[0]), values)
    if sign == "*" and "1" in (a.text, b.text):
        return a if b.text == "1" else b
    first, second = sorted((a.text, b.text))
    return Size(f"({first}{sign}{second})", values)


Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Value:
    """A tensor. bound: a magnitude that its elements hardly exceed."""

    name: str
    kind: str
    shape: Shape
    bound: float = 4.0
    is_sequence: bool = False  # of tensors of this kind; it has no shape

    @property
    def rank(self) -> int:
        """Number of dims."""
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds floats."""
        return self.kind in ("f16", "bf16", "f32", "f64")

    @property
    def small(self) -> bool:
        """Whether more may be made of it."""
        return self.rank <= MAX_RANK and largest(self.shape) <= MAX_ELEMENTS

    @property
    def texts(self) -> tuple[str, ...]:
        """What tells the shape from others."""
        return tuple(size.text for size in self.shape)

    @property
    def fixed_axes(self) -> list[int]:
        """Axes of fixed size."""
        return [axis for axis, size in enumerate(self.shape) if size.fixed is not None]


def largest(shape: Sequence[Size]) -> int:
    """The greatest number of elements that a call gives a tensor."""
    if not shape:
        return 1
    return max(prod(sizes) for sizes in zip(*(size.values for size in shape), strict=True))


@dataclass
class Scope:
    """A graph under construction."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    pool: list[Value] = field(default_factory=list)
    count: int = 0


class Builder:
    """Nodes, initialisers and visible values of one model. `rng` decides everything."""

    def __init__(self, rng: np.random.Generator, features: Features, calls: int = 2) -> None:
        self.rng = rng
        self.features = features
        self.calls = calls
        self.scopes = [Scope("v")]
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[Value] = []
        self.last: list[Value] = []  # results of which nothing more is made
        self.given: dict[str, tuple[Array, ...]] = {}  # inputs whose numbers decide sizes
        self.sizes = 0  # how many only a call knows
        self.opset = 17
        self.contrib = False  # whether operators of com.microsoft are in it

    # ------------------------------------------------------------------ random choices

    def flip(self, chance: float = 0.5) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < chance)

    def number(self, low: int, high: int) -> int:
        """An integer of [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, items: Sequence[Any]) -> Any:
        """One of the items."""
        return items[int(self.rng.integers(len(items)))]

    def pick(self, fits: Callable[[Value], bool]) -> Value | None:
        """A visible value, a recent one more likely; None when none fits."""
        found = [value for scope in self.scopes for value in scope.pool if fits(value)]
        if not found:
            return None
        back = min(int(self.rng.exponential(2.0)), len(found) - 1)
        return found[-1 - back]

    def pick_float(self, low: int = 0, high: int = MAX_RANK) -> Value | None:
        """A visible f32 tensor with a rank of that range."""
        return self.pick(lambda v: v.kind == "f32" and low <= v.rank <= high and v.small)

    # ------------------------------------------------------------------ values

    def fixed(self, size: int) -> Size:
        """A dim that is a number."""
        return Size(str(size), (size,) * self.calls)

    def shape(self, *sizes: int) -> Shape:
        """A shape of numbers."""
        return tuple(map(self.fixed, sizes))

    def name(self) -> str:
        """A new name. Scopes count for themselves: what stands side by side shares names."""
        scope = self.scopes[-1]
        scope.count += 1
        return f"{scope.prefix}{scope.count}"

    def constant(self, data: Any, kind: str = "f32") -> Value:
        """An initialiser of the main graph, or a Constant node here."""
        array = np.asarray(data, KINDS[kind][1])
        shape = self.shape(*array.shape)
        bound = float(np.abs(array).max(initial=0)) if kind != "bool" else 1.0
        if self.flip(0.3):
            name = self.name()
            made = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            self.scopes[-1].nodes.append(made)
        else:
            name = f"c{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, name))
        return Value(name, kind, shape, bound)

    def run_time(self, numbers: Sequence[Any], kind: str = "i64") -> Value:
        """A new input of the model; numbers: what each call brings for it."""
        arrays = tuple(np.asarray(own, KINDS[kind][1]) for own in numbers)
        most = max((float(np.abs(own).max(initial=0)) for own in arrays), default=0.0)
        value = Value(f"a{len(self.given)}", kind, self.shape(*arrays[0].shape), most)
        self.inputs.append(value)
        self.given[value.name] = arrays
        return value

    def amounts(self, numbers: Sequence[Any]) -> Value:
        """Integers that a call brings, computed from an input of another type now and then."""
        most = max(abs(int(n)) for own in numbers for n in np.ravel(own)) if numbers else 0
        if most > 2**20 or self.flip(0.6):
            return self.run_time(numbers)
        value = self.run_time(numbers, self.choice(("i32", "f32")))
        result = ("i64", value.shape, value.bound)
        return self.emit("Cast", [value], result, to=TensorProto.INT64)[0]

    def size(self, values: Sequence[int]) -> Size:
        """A dim that only a call knows, unlike all others."""
        self.sizes += 1
        return Size(f"(call{self.sizes})", tuple(values))

    def axis(self, axis: int, rank: int) -> int:
        """The axis, counted from the end now and then."""
        return axis - rank if self.flip(0.3) else axis

    def reduce(self, op: str, x: Value, axes: Sequence[int], shape: Shape, bound: float, keep: bool
               ) -> Value:  # fmt: skip
        """A reduction; its axes are an input where the opset says so."""
        result = (x.kind, shape, bound)
        if op == "ReduceSum" or self.opset >= 18:
            given = self.constant(list(axes), "i64")
            return self.emit(op, [x, given], result, keepdims=int(keep))[0]
        return self.emit(op, [x], result, axes=list(axes), keepdims=int(keep))[0]

    def weight(self, *sizes: int, scale: float = 1.0) -> Value:
        """Random f32 numbers."""
        return self.constant(self.rng.uniform(-scale, scale, sizes))

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        *results: tuple[str, Shape, float],
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """A new node; its results as (kind, shape, bound)."""
        values = [Value(self.name(), *result) for result in results]
        names = [value.name if value else "" for value in inputs]
        while names and not names[-1]:
            names.pop()
        node = helper.make_node(
            op, names, [value.name for value in values], domain=domain, **attributes
        )
        self.contrib |= domain == "com.microsoft"
        self.scopes[-1].nodes.append(node)
        return values

    def same(self, op: str, x: Value, bound: float | None = None, **attributes: Any) -> Value:
        """A node of one operand, of the same type."""
        found = x.bound if bound is None else bound
        return self.emit(op, [x], (x.kind, x.shape, found), **attributes)[0]

    def keep(self, value: Value) -> Value:
        """Let later nodes use the value, which is brought down where it may be large."""
        if value.is_float and value.bound > LARGE:
            if self.flip():
                value = self.same("Tanh", value, 1.0)
            else:
                factor = self.constant(4 / value.bound, value.kind)
                value = self.emit("Mul", [value, factor], (value.kind, value.shape, 4.0))[0]
        if value.small:
            self.scopes[-1].pool.append(value)
        else:
            self.last.append(value) if len(self.scopes) == 1 else None
        return value

    def dims(self, wanted: Sequence[Size]) -> Value | None:
        """An i64 vector of dims, read off visible values where they are symbolic; None where no
        visible value has such a dim."""
        parts: list[Value] = []
        for size in wanted:
            if size.fixed is not None:
                parts.append(self.constant([size.fixed], "i64"))
                continue
            source = self.pick(lambda v, text=size.text: text in v.texts)
            if source is None:
                return None
            whole = self.emit("Shape", [source], ("i64", self.shape(source.rank), 8.0))[0]
            axis = source.texts.index(size.text)
            if self.flip():
                index = self.constant(axis, "i64")
                one = self.emit("Gather", [whole, index], ("i64", (), 8.0), axis=0)[0]
                zero = self.constant([0], "i64")
                parts += self.emit("Unsqueeze", [one, zero], ("i64", self.shape(1), 8.0))
            else:
                ends = [self.constant([axis + step], "i64") for step in (0, 1)]
                parts += self.emit("Slice", [whole, *ends], ("i64", self.shape(1), 8.0))
        if not parts:
            return self.constant(np.zeros(0), "i64")
        shape = self.shape(len(parts))
        return self.emit("Concat", parts, ("i64", shape, 8.0), axis=0)[0]

    # ------------------------------------------------------------------ regions

    @contextmanager
    def region(self, prefix: str, values: Sequence[Value] = ()) -> Iterator[Scope]:
        """A graph within the innermost one, which sees that one's values."""
        scope = Scope(prefix, pool=list(values))
        self.scopes.append(scope)
        try:
            yield scope
        finally:
            self.scopes.pop()

    def graph(
        self, scope: Scope, name: str, inputs: Sequence[Value], outputs: Sequence[Value]
    ) -> onnx.GraphProto:
        """The graph of a region."""
        return helper.make_graph(
            scope.nodes, name, [info(value) for value in inputs], [info(v) for v in outputs]
        )


def info(value: Value, shaped: bool = True) -> onnx.ValueInfoProto:
    """The declaration of a value."""
    if value.is_sequence:
        return helper.make_tensor_sequence_value_info(value.name, KINDS[value.kind][0], None)
    dims = [s.fixed if s.fixed is not None else _symbol(s.text) for s in value.shape]
    return helper.make_tensor_value_info(value.name, KINDS[value.kind][0], dims if shaped else None)


def _symbol(text: str) -> str | None:
    return text if text.isidentifier() else None
