"""One model that is many: a run says which of its products are computed in integers.

Behind every product in floats and the one of quantised operands beside it stands a Where, whose
condition is an input. So what any choice of precisions computes is known without compiling it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from .constants import Constants
from .writing import twin


def switch_of(group: int) -> str:
    """The name of the input that turns a group of products to integers."""
    return f"tensmith:switch:{group}"


def add_switches(model: onnx.ModelProto, groups: Sequence[Sequence[str]]) -> None:
    """Put a Where behind every pair of products, in place; groups: keys of products each.

    model: has the twin of every product beside it (`Writer`).
    """
    graph = model.graph
    number = {key: index for index, keys in enumerate(groups) for key in keys}
    nodes, waiting = [], dict[str, onnx.NodeProto]()
    for node in graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        nodes.append(copy)
        if node.output and node.output[0] in number:
            switch = switch_of(number[node.output[0]])
            for place, name in enumerate(node.output):
                if name:
                    copy.output[place] = f"{name}:floats"
                    inputs = [switch, twin(name), copy.output[place]]
                    waiting[twin(name)] = onnx.helper.make_node("Where", inputs, [name])
        nodes += [waiting.pop(name) for name in node.output if name in waiting]
    del graph.node[:]
    graph.node.extend(nodes)
    for index in range(len(groups)):
        info = onnx.helper.make_tensor_value_info(switch_of(index), onnx.TensorProto.BOOL, ())
        graph.input.append(info)


def one_product(
    model: onnx.ModelProto, key: str, shapes: Sequence[Sequence[int]], constants: Constants
) -> onnx.ModelProto:
    """A model of one product of another, whose first operands, of the given shapes, are its inputs.

    What else a run makes (a bias, a state) is left out.
    """
    node = next(node for node in model.graph.node if key in node.output)
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    data = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(copy.input, shapes, strict=False)
    }
    others = [name if name in constants else "" for name in copy.input[len(shapes) :]]
    while others and not others[-1]:
        others.pop()
    del copy.input[len(shapes) :]
    copy.input.extend(others)
    kept = dict.fromkeys(filter(None, others))
    tensors = [numpy_helper.from_array(constants.array(name), name) for name in kept]
    result = onnx.ValueInfoProto(name=key)
    graph = onnx.helper.make_graph([copy], "product", list(data.values()), [result], tensors)
    return onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def quantised_alone(shape: Sequence[int]) -> onnx.ModelProto:
    """A model that makes bytes of a tensor of the given shape."""
    data = onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, shape)
    tensors = [
        numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero"),
    ]
    node = onnx.helper.make_node("QuantizeLinear", ["data", "scale", "zero"], ["bytes"])
    result = onnx.ValueInfoProto(name="bytes")
    graph = onnx.helper.make_graph([node], "quantise", [data], [result], tensors)
    opsets = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def takes_bytes(model: onnx.ModelProto) -> None:
    """Make what QuantizeLinear gives the inputs of a model, in place; those of which an operator
    makes bytes itself stay as they are."""
    graph = model.graph
    inputs = {info.name: info for info in graph.input}
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear"]:
        info = inputs[node.input[0]]
        info.name = node.output[0]
        info.type.tensor_type.elem_type = onnx.TensorProto.UINT8
        graph.node.remove(node)
