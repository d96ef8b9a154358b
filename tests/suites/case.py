"""What an operator case is, and how its graph is put together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensmith.compiler.ir import DType, Graph, Node, TensorType, Value, constant
from tensmith.compiler.ir.dims import Dim, evaluate, symbol
from tensmith.compiler.ir.ops.registry import make_node

Array = np.ndarray[Any, Any]

N = symbol("n")
S = symbol("s")
F32, F64, F16, BF16 = DType.F32, DType.F64, DType.F16, DType.BF16
I64, I32, I16, I8, U8, BOOL = DType.I64, DType.I32, DType.I16, DType.I8, DType.U8, DType.BOOL


@dataclass(frozen=True)
class Tolerance:
    """|got - want| <= atol + rtol * |want|, NaNs and infinities at the same places."""

    rtol: float
    atol: float


EXACT = Tolerance(0, 0)
CLOSE = Tolerance(1e-5, 1e-6)  # some roundings of f32
SUM = Tolerance(1e-4, 2e-5)  # sums of up to some hundred f32 products of order 1
SUM_OF_BYTES = Tolerance(1e-4, 1e-3)  # sums of some f32 products of order 256, in any order
HALF = Tolerance(4e-3, 2e-3)  # f16 results
BRAIN = Tolerance(3e-2, 2e-2)  # bf16 results
DOUBLE = Tolerance(1e-12, 1e-12)


def draw(rng: np.random.Generator, type_: TensorType, low: float, high: float) -> Array:
    """Uniform elements in [low, high) of a static type, for integers and bools whole numbers."""
    shape, dtype = type_.static_shape, type_.dtype
    if dtype is BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer:
        return rng.integers(int(low), int(high), shape).astype(dtype.numpy)
    return rng.uniform(low, high, shape).astype(dtype.numpy)


class CaseBuilder:
    """Collects inputs, nodes and outputs of one graph; also used for its regions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.results: list[Value] = []
        self.ranges: dict[str, tuple[float, float]] = {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def input(
        self, *shape: Dim, dtype: DType = F32, low: float = -2, high: float = 2, name: str = ""
    ) -> Value:
        """A graph input with elements in [low, high)."""
        value = Value(TensorType(dtype, shape), name or f"x{len(self.values)}")
        self.values.append(value)
        self.ranges[value.name] = (low, high)
        return value

    def weight(self, *shape: int, dtype: DType = F32, low: float = -1, high: float = 1) -> Value:
        """A constant with drawn elements."""
        return constant(draw(self.rng, TensorType(dtype, shape), low, high), "w")

    def scalar(self, number: float, dtype: DType = F32) -> Value:
        """A constant of rank 0."""
        return constant(np.array(number, dtype.numpy))

    def op(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        """Append a node with one output."""
        return self.node(op, inputs, attrs).output

    def node(
        self,
        op: str,
        inputs: Sequence[Value],
        attrs: dict[str, Any],
        regions: Sequence[Graph] = (),
    ) -> Node:
        """Append a node."""
        name = f"{op}_{len(self.nodes)}"
        made = make_node(op, inputs, attrs, regions=regions, name=name)
        self.nodes.append(made)
        return made

    def output(self, *values: Value) -> None:
        """Make values outputs of the graph."""
        for value in values:
            value.name = f"y{len(self.results)}"
            self.results.append(value)

    def region(self, name: str) -> CaseBuilder:
        """A builder for a region of this graph."""
        return CaseBuilder(f"{self.name}.{name}")

    def graph(self) -> Graph:
        """What was built."""
        return Graph(self.values, self.results, self.nodes, self.name)


@dataclass(frozen=True)
class Case:
    """One graph with its inputs.

    build: fills a builder. tolerance: between any two backends. sizes: values of the symbols.
    given: inputs that are not random, by name.
    """

    name: str
    build: Callable[[CaseBuilder], None]
    tolerance: Tolerance = CLOSE
    sizes: Mapping[str, int] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    def _builder(self) -> CaseBuilder:
        builder = CaseBuilder(self.name)
        self.build(builder)
        return builder

    def graph(self) -> Graph:
        """A new copy of the graph; its constants are always the same."""
        return self._builder().graph()

    def inputs(self, seed: int = 0, **sizes: int) -> dict[str, Array]:
        """Inputs by name; `sizes` replaces values of symbols."""
        builder = self._builder()
        env = {**self.sizes, **sizes}
        rng = np.random.default_rng((zlib.crc32(self.name.encode()), seed))
        found = {}
        for value in builder.values:
            shape = tuple(evaluate(dim, env) for dim in value.shape)
            if value.name in self.given:
                found[value.name] = np.array(self.given[value.name], value.dtype.numpy)
            else:
                found[value.name] = draw(
                    rng, TensorType(value.dtype, shape), *builder.ranges[value.name]
                )
        return found


def compare(name: str, got: Array, want: Array, tolerance: Tolerance) -> None:
    """Raise AssertionError, saying how far off, unless `got` is `want` within the tolerance."""
    assert got.dtype == want.dtype, f"{name}: {got.dtype} is not {want.dtype}"
    assert got.shape == want.shape, f"{name}: shape {got.shape} is not {want.shape}"
    wide = np.float64 if DType.of(want.dtype).is_float else want.dtype
    np.testing.assert_allclose(
        got.astype(wide),
        want.astype(wide),
        rtol=tolerance.rtol,
        atol=tolerance.atol,
        err_msg=name,
        strict=True,
    )


def unary(op: str, *shape: Dim, tolerance: Tolerance = CLOSE, **more: Any) -> Case:
    """A case of one operator on one input; `more`: dtype, low, high, sizes, and attributes."""
    sizes = more.pop("sizes", {})
    label = more.pop("label", "x".join(map(str, shape)) or "scalar")
    drawn = {key: more.pop(key) for key in ("dtype", "low", "high") if key in more}

    def build(c: CaseBuilder) -> None:
        c.output(c.op(op, c.input(*shape, **drawn), **more))

    suffix = f"_{drawn['dtype']}" if "dtype" in drawn else ""
    return Case(f"{op}_{label}{suffix}", build, tolerance, sizes)
