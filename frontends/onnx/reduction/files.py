"""Models under reduction as files: large weights lie beside them, so that copies are cheap."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import external_data_helper

from ....compiler.errors import UsageError
from ..importer import ShapeSpec
from ..reading.external_data import ModelFolder
from ..reading.tensors import external_bytes
from ..reading.wire import read_model
from .draft import subgraphs

LARGE = 1 << 16  # bytes of a tensor that lies beside the file
MAX_MODEL = (1 << 31) - (1 << 20)  # what protobuf can write


def whole(path: Path) -> onnx.ModelProto:
    """The model with all its weights, wherever they lie.

    Raises UsageError and InvalidModelError as `read_model` does.
    """
    source = read_model(path)
    model = source.model
    for index, tensor in enumerate(model.graph.initializer):
        if index in source.raw:
            tensor.raw_data = bytes(source.raw[index])
    _fetch(model.graph.initializer, source.folder)
    return model


def read(path: Path) -> onnx.ModelProto:
    """As `whole`, without documentation."""
    model = whole(path)
    for name in ("doc_string", "metadata_props", "training_info"):
        model.ClearField(name)
    model.graph.ClearField("doc_string")
    return model


def _fetch(tensors: Iterable[onnx.TensorProto], folder: ModelFolder | None) -> None:
    """Bring external data into the messages."""
    for tensor in tensors:
        if not external_data_helper.uses_external_data(tensor):
            continue
        tensor.raw_data = external_bytes(tensor, folder)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def pin(model: onnx.ModelProto, shapes: ShapeSpec) -> None:
    """Declare the shapes that the user gave of inputs; ranges stay as they are declared."""
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        for dim, given in zip(dims, shapes.get(info.name, ()), strict=False):
            if isinstance(given, int):
                dim.dim_value = given
            elif given == "?":
                dim.Clear()
            elif isinstance(given, str) and ".." not in given:
                dim.dim_param = given


def stow(model: onnx.ModelProto, folder: Path) -> None:
    """Move large weights to files in `folder`, where candidates are written too."""
    for number, tensor in enumerate(model.graph.initializer):
        if len(tensor.raw_data) >= LARGE:
            place = folder / f"weights{number}.bin"
            place.write_bytes(tensor.raw_data)
            external_data_helper.set_external_data(tensor, location=place.name)
            tensor.ClearField("raw_data")


def unstow(model: onnx.ModelProto, folder: Path) -> None:
    """Bring the weights in `folder` back into the model."""
    _fetch(model.graph.initializer, ModelFolder.of_folder(folder))


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; weights that lie in files stay there.

    Raises UsageError when one file cannot hold it.
    """
    if model.ByteSize() > MAX_MODEL:
        raise UsageError(
            "the reduced model is too large for one file",
            why=f"it has {model.ByteSize()} bytes",
            remedy="give the reduction more time",
        )
    path.write_bytes(model.SerializeToString(deterministic=True))


def size(model: onnx.ModelProto) -> tuple[int, int]:
    """Numbers of nodes, those of subgraphs included, and of elements of weights."""

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(1 + sum(count(graph.node) for graph in subgraphs(node)) for node in nodes)

    return count(model.graph.node), sum(math.prod(t.dims) for t in model.graph.initializer)
