"""Nodes that are written around those of given models, and what they have to know of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, version_converter

from ....compiler.errors import UsageError
from ..reduction.files import whole

FIRST_OPSET = 13  # whose ReduceSum takes its axes as an input
TAG = "cascade/"  # in front of the names of all that is added


class NodeWriter:
    """Writes nodes one behind the other. tag: in front of their results' names. weights: of the
    main graph, which several writers share."""

    def __init__(self, tag: str = TAG, weights: list[onnx.TensorProto] | None = None) -> None:
        self.tag = tag
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = [] if weights is None else weights

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """A node with one result; its name, behind the tag."""
        return self.named(op, inputs, self.tag + output, **attributes)

    def named(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """A node with one result of this very name."""
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def pair(self, op: str, inputs: Sequence[str], first: str, second: str, **attributes: object
             ) -> tuple[str, str]:  # fmt: skip
        """A node with two results; their names."""
        outputs = [self.tag + first, self.tag + second]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0], outputs[1]

    def constant(self, name: str, value: object) -> str:
        """A constant of the main graph; equal names have equal values."""
        full = TAG + name
        if all(tensor.name != full for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(np.asarray(value), full))
        return full


class RowMixer:
    """Rows of some results in place of others: those that `deferred`, a bool for every row, names.

    gathers: whether only these rows were computed. Its nodes go where `writer` writes.
    """

    def __init__(self, writer: NodeWriter, deferred: str, gathers: bool) -> None:
        self.writer, self.deferred, self.gathers = writer, deferred, gathers
        if gathers:
            flat = writer.constant("flat", np.array([-1], np.int64))
            found = writer.add("NonZero", [deferred], "chosen_2d")
            self.chosen = writer.add("Reshape", [found, flat], "chosen")

    def gather(self, name: str, output: str) -> str:
        """The named rows of a value; all where all are computed."""
        if self.gathers:
            return self.writer.named("Gather", [name, self.chosen], output, axis=0)
        return self.writer.named("Identity", [name], output)

    def join(self, ours: str, theirs: str, dims: Sequence[int | str], output: str) -> str:
        """Theirs for the named rows, ours for the others. dims: as they are declared."""
        writer = self.writer
        if self.gathers:
            column = writer.constant("column", np.array([-1, 1], np.int64))
            places = writer.named("Reshape", [self.chosen, column], f"{output}/places")
            return writer.named("ScatterND", [ours, places, theirs], output)
        if dims[0] == 1:
            return writer.named("Identity", [theirs], output)
        shape = np.array([dims[0], *[1] * (len(dims) - 1)], np.int64)
        wanted = writer.constant(f"rows_{'x'.join(map(str, shape))}", shape)
        mask = writer.named("Reshape", [self.deferred, wanted], f"{output}/mask")
        return writer.named("Where", [mask, theirs, ours], output)


def some_of(writer: NodeWriter, deferred: str) -> tuple[str, str]:
    """The condition that any row is deferred; and `deferred` as i64."""
    numbers = writer.add("Cast", [deferred], "deferred_i64", to=TensorProto.INT64)
    count = writer.add("ReduceSum", [numbers], "deferred_count", keepdims=0)
    none = writer.constant("none", np.int64(0))
    return writer.add("Greater", [count, none], "some_deferred"), numbers


# ---------------------------------------------------------------------- models and their interface


def read_inlined(path: Path) -> onnx.ModelProto:
    """The model of a file, with its weights and without functions."""
    model = onnx.ModelProto()
    model.CopyFrom(whole(path))
    return inliner.inline_local_functions(model) if model.functions else model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard's operators."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def converted(model: onnx.ModelProto, opset: int, path: Path) -> onnx.ModelProto:
    """The model in an opset. Raises UsageError where it cannot be converted."""
    if opset_of(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError(
            f"'{path}' cannot be converted from opset {opset_of(model)} to {opset}",
            why=(str(error).splitlines() or [""])[0],
            remedy=f"export it with opset {opset}",
        ) from None


def make_single(model: onnx.ModelProto) -> None:
    """Let the first dims of inputs and outputs be 1 where they are open."""
    names = {dims_of(info)[0] for info in model.graph.input if dims_of(info)}
    for info in (*model.graph.input, *model.graph.output):
        dims = info.type.tensor_type.shape.dim
        if dims and not isinstance(dims_of(info)[0], int) and dims_of(info)[0] in names | {""}:
            dims[0].dim_value = 1


def drop_initial_inputs(graph: onnx.GraphProto) -> None:
    """Let initialisers be no inputs."""
    initial = {tensor.name for tensor in graph.initializer}
    infos = [info for info in graph.input if info.name not in initial]
    del graph.input[:]
    graph.input.extend(infos)


def joined_model(
    graph: onnx.GraphProto, models: Sequence[onnx.ModelProto], opset: int
) -> onnx.ModelProto:
    """A model of a graph that is made of others' parts."""
    domains = {"": opset}
    for model in models:
        domains |= {
            o.domain: o.version for o in model.opset_import if o.domain not in ("", "ai.onnx")
        }
    imports = [helper.make_opsetid(name, version) for name, version in domains.items()]
    version = max(8, *(model.ir_version for model in models))
    return helper.make_model(
        graph, opset_imports=imports, ir_version=version, producer_name="tensmith"
    )


def dims_of(info: onnx.ValueInfoProto) -> list[int | str]:
    """Sizes and names; "" where there is neither."""
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in info.type.tensor_type.shape.dim
    ]


def fits(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    """Whether element types and ranks are the same, and no two sizes differ."""
    a, b = dims_of(one), dims_of(other)
    types = one.type.tensor_type.elem_type, other.type.tensor_type.elem_type
    return types[0] == types[1] and len(a) == len(b) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int))
        for x, y in zip(a, b, strict=True)
    )  # fmt: skip


def text_of(info: onnx.ValueInfoProto) -> str:
    """Type and shape, for messages."""
    kind = TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
    return f"{kind}{[dim if dim != '' else '?' for dim in dims_of(info)]}"


def renamed(info: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    """The same type under another name, with open dims."""
    kind = info.type.tensor_type.elem_type
    return helper.make_tensor_value_info(name, kind, [None] * len(dims_of(info)))
