"""What tensors of a model are constant: initialisers, and what is moved or cast of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray[Any, Any]

# operators that rearrange constants
MOVES = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast"})


class Constants:
    """The constants of the main graph of a model, by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opsets = list(model.opset_import)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self._nodes: dict[str, onnx.NodeProto] = {}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
            elif node.op_type in MOVES and all(name in self for name in node.input if name):
                self._nodes[node.output[0]] = node

    def __contains__(self, name: str) -> bool:
        return name in self._tensors or name in self._nodes

    def array(self, name: str) -> Array:
        """The elements of a constant."""
        if name not in self._arrays:
            if name in self._tensors:
                self._arrays[name] = numpy_helper.to_array(self._tensors[name])
            else:
                self._arrays[name] = self._evaluated(self._nodes[name])
        return self._arrays[name]

    def _evaluated(self, node: onnx.NodeProto) -> Array:
        names = [name for name in dict.fromkeys(node.input) if name]
        infos = [onnx.helper.make_empty_tensor_value_info(name) for name in names]
        result = onnx.helper.make_empty_tensor_value_info(node.output[0])
        graph = onnx.helper.make_graph([node], "constant", infos, [result])
        model = onnx.helper.make_model(graph, opset_imports=self._opsets)
        feeds = {name: self.array(name) for name in names}
        return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])

    def type_of(self, name: str) -> int:
        """The ONNX element type of a constant."""
        if name in self._tensors:
            return int(self._tensors[name].data_type)
        return int(onnx.helper.np_dtype_to_tensor_dtype(self.array(name).dtype))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        if name in self._tensors:
            return tuple(self._tensors[name].dims)
        return tuple(map(int, self.array(name).shape))

    def elements(self, name: str) -> int:
        """How many elements a constant has."""
        return int(np.prod(self.shape_of(name), dtype=np.int64))
