"""What a lowering sees: one ONNX node, its inputs as values, and the means to emit operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx

from ...compiler.ir import Dim, DType, Sym, Value, constant
from ...compiler.ir.assumptions import EQUAL
from ...compiler.ir.dims import is_nonnegative
from .containers import Content
from .elements import Elements
from .emitter import GraphEmitter
from .importing import Importing
from .reading.scopes import NameScope, tensor_value
from .reading.tensors import Array, UnsupportedType, dtype_of, sparse_array, to_array

T = TypeVar("T")
OperandLike = Value | int | float | bool


class NotSupported(Exception):
    """Raised by a lowering for a node that it cannot express; the importer collects these."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Site:
    """One node being lowered. `opset` is the version of its domain that the model imports."""

    def __init__(
        self,
        node: onnx.NodeProto,
        entries: Sequence[Content | None],
        opset: int,
        importer: Importing,
        attributes: dict[str, onnx.AttributeProto],
        scope: NameScope,
    ) -> None:
        self.scope = scope
        self.node = node
        self.op = node.op_type
        self.entries = list(entries)  # inputs, sequences and optionals among them
        self.inputs = [entry if isinstance(entry, Value) else None for entry in entries]
        self.opset = opset
        self.importer = importer
        self.emitter: GraphEmitter = importer.emitter
        self.attributes = attributes

    # ------------------------------------------------------------------ inputs and attributes

    def input(self, index: int) -> Value:
        """An input that must be there. Raises ValueError when it is not."""
        value = self.optional(index)
        if value is None:
            raise ValueError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An input that may be absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def wants(self, index: int) -> bool:
        """Whether the node's output `index` is named."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self.attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute. Raises ValueError when it is absent and has no default."""
        if name not in self.attributes:
            return self._default(name, default)
        return int(self._typed(name, onnx.AttributeProto.INT).i)

    def real(self, name: str, default: float | None = None) -> float:
        """A float attribute. Raises ValueError when it is absent and has no default."""
        if name not in self.attributes:
            return self._default(name, default)
        return float(self._typed(name, onnx.AttributeProto.FLOAT).f)

    def text(self, name: str, default: str | None = None) -> str:
        """A string attribute. Raises ValueError when it is absent and has no default."""
        if name not in self.attributes:
            return self._default(name, default)
        return bytes(self._typed(name, onnx.AttributeProto.STRING).s).decode("utf-8", "replace")

    def ints(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """A list-of-integers attribute. Raises ValueError when absent without default."""
        if name not in self.attributes:
            return list(self._default(name, default))
        return [int(item) for item in self._typed(name, onnx.AttributeProto.INTS).ints]

    def floats(self, name: str, default: Sequence[float] | None = None) -> list[float]:
        """A list-of-floats attribute. Raises ValueError when absent without default."""
        if name not in self.attributes:
            return list(self._default(name, default))
        return [float(item) for item in self._typed(name, onnx.AttributeProto.FLOATS).floats]

    def texts(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        """A list-of-strings attribute. Raises ValueError when absent without default."""
        if name not in self.attributes:
            return list(self._default(name, default))
        strings = self._typed(name, onnx.AttributeProto.STRINGS).strings
        return [bytes(item).decode("utf-8", "replace") for item in strings]

    def array(self, name: str) -> Array:
        """A tensor attribute as an array."""
        tensor = self._typed(name, onnx.AttributeProto.TENSOR).t
        return to_array(tensor, folder=self.importer.folder)

    def tensor(self, name: str) -> Value:
        """A tensor attribute as a value; integers of few bits stay packed."""
        given = self._typed(name, onnx.AttributeProto.TENSOR).t
        return tensor_value(given, None, self.importer.folder, self.emitter.unpacked)

    def sparse_array(self, name: str) -> Array:
        """A sparse tensor attribute as an array of all its elements."""
        tensor = self._typed(name, onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor
        return sparse_array(tensor, folder=self.importer.folder)

    def is_string_tensor(self, name: str) -> bool:
        """Whether the attribute is a tensor of strings."""
        return bool(self.attributes[name].t.data_type == onnx.TensorProto.STRING)

    def string_tensor(self, name: str) -> list[str]:
        """The elements of a tensor attribute of strings. Raises ValueError when it is another."""
        tensor = self._typed(name, onnx.AttributeProto.TENSOR).t
        if tensor.data_type != onnx.TensorProto.STRING:
            raise ValueError(f"attribute '{name}' holds no strings")
        return [bytes(item).decode("utf-8", "replace") for item in tensor.string_data]

    def graph(self, name: str) -> onnx.GraphProto:
        """A graph attribute. Raises ValueError when it is absent."""
        if name not in self.attributes:
            raise ValueError(f"attribute '{name}' is missing")
        return _without_initial_inputs(self._typed(name, onnx.AttributeProto.GRAPH).g)

    def dtype(self, name: str, default: int | None = None) -> DType:
        """An element-type attribute. Raises NotSupported for a type that the IR lacks."""
        code = self.integer(name, default)
        try:
            return dtype_of(code)
        except UnsupportedType as error:
            raise NotSupported(f"{error} is not supported") from None

    def _default(self, name: str, default: T | None) -> T:
        if default is None:
            raise ValueError(f"attribute '{name}' is missing")
        return default

    def _typed(self, name: str, kind: int) -> onnx.AttributeProto:
        attribute = self.attributes[name]
        if attribute.type != kind:
            wanted = onnx.AttributeProto.AttributeType.Name(kind)
            raise ValueError(f"attribute '{name}' is not of type {wanted}")
        return attribute

    def axis(self, value: int, rank: int) -> int:
        """A possibly negative axis made non-negative. Raises ValueError when out of range."""
        if not -rank <= value < rank:
            raise ValueError(f"axis {value} is out of range for {rank} dimensions")
        return value % rank

    def axes(self, values: Sequence[int], rank: int) -> list[int]:
        """Possibly negative axes made non-negative, all different."""
        found = [self.axis(int(value), rank) for value in values]
        if len(set(found)) != len(found):
            raise ValueError(f"axes {list(values)} repeat one")
        return found

    # ------------------------------------------------------------------ what is known of values

    def known(self, value: Value) -> Elements | None:
        """The elements of a small integer tensor as dims, where they are known."""
        return self.emitter.known(value)

    def numbers(self, value: Value, what: str) -> list[int]:
        """The elements of an integer vector or scalar, which must be constant.

        Raises NotSupported when they are not.
        """
        known = self.known(value)
        flat = None if known is None else list(known.reshape(-1))
        if flat is None or any(isinstance(item, Sym) for item in flat):
            raise NotSupported(f"{what} is computed at run time", "make it a constant of the model")
        return [int(item) for item in flat]

    def constant(self, value: Value, what: str) -> Array:
        """The elements of a value that must be constant. Raises NotSupported when it is not."""
        data = self.emitter.constant(value)
        if data is None:
            raise NotSupported(f"{what} is computed at run time", "make it a constant of the model")
        return data

    def declared_rank(self, index: int = 0) -> int | None:
        """The rank that the model declares for output `index`: a hint, no truth."""
        if self.scope.outer is not None or not self.wants(index):
            return None
        return self.importer.ranks.get(self.node.output[index])

    def dims(self, value: Value) -> tuple[Dim, ...]:
        """The elements of an integer vector as dims, read at run time if they are computed.

        Raises NotSupported when their number is left open.
        """
        value = self.counted(value, None) if value.type.rank == 1 else value
        return self.emitter.read_dims(value, self.op.lower())

    def counted(self, value: Value, count: int | None) -> Value:
        """A vector that decides a rank, of `count` elements where its length is left open.

        Raises NotSupported when the count is not known, either.
        """
        if value.type.is_static:
            return value
        if count is None:
            raise NotSupported(
                "how many dimensions its result has is known at run time only",
                "declare the result's shape in the model, or pin the inputs that decide it",
            )
        return self.reshape(value, (count,))

    def sized(self, value: Value, axis: int, size: int) -> Value:
        """The value, whose axis has to be of a size; where it is left open, a run checks that."""
        dim, place = value.shape[axis], axis % value.type.rank
        self.require(dim, EQUAL, size, f"axis {place} of {value.type} has to be {size}")
        shape = [size if at == place else kept for at, kept in enumerate(value.shape)]
        return value if dim == size else self.reshape(value, shape)

    # ------------------------------------------------------------------ what a run checks

    def require(self, left: Dim, relation: str, right: Dim, why: str) -> None:
        """Make a run end with an error unless the dims are in the relation (EQUAL or AT_MOST).

        why: what the node needs. Raises ValueError where the dims are known not to be.
        """
        difference = right - left
        if isinstance(difference, int):
            if difference < 0 or (difference and relation == EQUAL):
                raise ValueError(why)
        elif relation == EQUAL or not is_nonnegative(difference):
            attrs = {"relation": relation, "left": left, "right": right, "what": self.needs(why)}
            self.emitter.emit_node("check_dims", [], attrs)

    def require_nonzero(self, value: Value, why: str) -> None:
        """Make a run end with an error where an element (integer or bool) of the value is zero.

        why: what is wrong then. Raises ValueError for a constant with such an element.
        """
        if value.data is not None:
            if not np.all(value.data):
                raise ValueError(why)
        else:
            self.emitter.emit_node("check_nonzero", [value], {"what": self.needs(why)})

    def require_index(self, indices: Value, size: Dim, why: str) -> None:
        """Make a run end with an error where an index (i64 or i32) is outside of [-size, size)."""
        attrs = {"sizes": (size,), "what": self.needs(why)}
        self.emitter.emit_node("check_index", [indices], attrs)

    def needs(self, why: str) -> str:
        """How an error of a run names the node."""
        return f"node '{self.emitter.name}' ({self.op}): {why}"

    # ------------------------------------------------------------------ emission

    def emit(self, op: str, inputs: Sequence[Value], **attrs: Any) -> Value:
        """The result of a core operator."""
        return self.emitter.emit(op, inputs, attrs)

    def op_(self, op: str, *operands: OperandLike) -> Value:
        """A pointwise core operator; numbers take the element type of the value operands."""
        typed = [item for item in operands if isinstance(item, Value)]
        if op == "where":
            typed = [item for item in operands[1:] if isinstance(item, Value)]
        dtype = typed[0].dtype
        values = [
            item if isinstance(item, Value) else self.scalar(item, dtype) for item in operands
        ]
        return self.emitter.emit(op, values)

    def scalar(self, value: Any, dtype: DType) -> Value:
        """A constant of rank 0."""
        return constant(np.asarray(value).astype(dtype.numpy))

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value with another element type."""
        return self.emit("cast", [value], dtype=dtype)

    def reshape(self, value: Value, shape: Sequence[Dim]) -> Value:
        """The same elements in another shape."""
        return self.emit("reshape", [value], shape=tuple(shape))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with permuted axes."""
        return self.emit("transpose", [value], perm=tuple(perm))

    def expand(self, value: Value, shape: Sequence[Dim]) -> Value:
        """The value broadcast to a shape."""
        return self.emit("broadcast_to", [value], shape=tuple(shape))

    def slice(self, value: Value, axis: int, start: Dim, stop: Dim, step: int = 1) -> Value:
        """A normalised slice of one axis."""
        shape = value.shape
        starts: list[Dim] = [0] * len(shape)
        stops, steps = list(shape), [1] * len(shape)
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.emit(
            "slice", [value], starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)
        )

    def take(self, value: Value, axis: int, index: Dim) -> Value:
        """Element `index` of an axis, which goes away."""
        part = self.slice(value, axis, index, index + 1)
        return self.reshape(part, [*value.shape[:axis], *value.shape[axis + 1 :]])

    def reduce(self, kind: str, value: Value, axes: Sequence[int], keepdims: bool = True) -> Value:
        """A reduction: kind is sum, prod, max, min or mean."""
        return self.emit(f"reduce_{kind}", [value], axes=tuple(axes), keepdims=keepdims)

    def iota(self, shape: Sequence[Dim], axis: int, dtype: DType) -> Value:
        """0, 1, 2, ... along an axis."""
        return self.emit("iota", [], shape=tuple(shape), axis=axis, dtype=dtype)

    def in_f32(self, fn: Callable[[Value], Value], value: Value) -> Value:
        """fn applied in f32 where the value is of a smaller float type."""
        if value.dtype in (DType.F16, DType.BF16):
            return self.cast(fn(self.cast(value, DType.F32)), value.dtype)
        return fn(value)


def _without_initial_inputs(graph: onnx.GraphProto) -> onnx.GraphProto:
    """The graph without inputs that are initialisers: nothing is passed for these."""
    initial = {tensor.name for tensor in graph.initializer}
    if not any(info.name in initial for info in graph.input):
        return graph
    kept = [info for info in graph.input if info.name not in initial]
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    del copy.input[:]
    copy.input.extend(kept)
    return copy
