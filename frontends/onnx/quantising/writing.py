"""Writing what a recipe says into a model: QuantizeLinear, DequantizeLinear, integer weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from ..reading.topology import names_used
from .additions import Additions
from .constants import MOVES, Constants
from .products import LSTM, ModelProduct
from .recipe import Array, Recipe, quantised_weights

MICROSOFT = "com.microsoft"
SCALE, ZERO, ADDED = "scale", "zero", "added"


def parameter_of(name: str, what: str) -> str:
    """The input that says a tensor's scale or zero point, or a product's correction."""
    return f"tensmith:{what}:{name}"


def added_shape(node: onnx.NodeProto, constants: Constants) -> tuple[int, ...]:
    """The shape of what is added to the result of a Conv, MatMul or Gemm by channel."""
    shape = constants.shape_of(node.input[1])
    if node.op_type == "Conv":
        return shape[0], *(1,) * (len(shape) - 2)
    return (shape[0 if any(a.name == "transB" and a.i for a in node.attribute) else 1],)


def twin(key: str) -> str:
    """The result of the product that is beside another."""
    return f"{key}:quantised"


class Writer:
    """Changes the products of a model, which is changed in place.

    beside: the products stay, and each has a quantised one beside it, which reads the same data and
    whose result is called as `twin` says. open: scales, zero points and corrections are inputs of
    the model (`parameter_of`), so that a run says what they are. foreign: QuantizeLinear and
    DequantizeLinear are those of ONNX Runtime's own domain, because the model's opset has none for
    channels.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        recipe: Recipe,
        *,
        foreign: bool,
        beside: bool = False,
        open: bool = False,
    ) -> None:
        self.graph, self.recipe, self.beside, self.open = model.graph, recipe, beside, open
        self.constants = Constants(model)
        self.domain = MICROSOFT if foreign else ""
        self.new = Additions(model.graph)
        self._data: dict[tuple[str, bool], str] = {}
        self._weights: dict[tuple[str, int, bool], Sequence[str]] = {}
        self.model = model
        if foreign:
            self._needs_microsoft()

    def _needs_microsoft(self) -> None:
        if not any(opset.domain == MICROSOFT for opset in self.model.opset_import):
            self.model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))

    def write(self, products: Sequence[ModelProduct]) -> None:
        """Rewrite those that the recipe names."""
        by_key = {p.key: p for p in products if p.key in self.recipe.integer and not p.reason}
        for node in self.graph.node:
            product = by_key.get(node.output[0]) if node.output else None
            if product is None:
                self.new.nodes.append(node)
                continue
            node.name = product.name  # what is told of it holds, whatever its result is called
            if product.by_run:
                self._recurrent(node)
            elif product.key in self.recipe.dynamic:
                self._dynamic(node)
            elif self.beside:
                self.new.nodes.append(node)
                copy = onnx.NodeProto.FromString(node.SerializeToString())
                copy.output[0] = twin(product.key)
                self._static(copy, product)
            else:
                self._static(node, product)
        self.new.finish()

    # ------------------------------------------------------------------ products

    def _static(self, node: onnx.NodeProto, product: ModelProduct) -> None:
        """DequantizeLinear in front of both operands of a product."""
        for place, name in enumerate(product.operands):
            node.input[place] = self._through_bytes(name)
        if not product.other:
            shape = self._weights_in_bytes(node)
            if self.open:
                self._add_input(node, product.key, shape)
                return
        bias = self.recipe.biases.get(product.key)
        self._add(node, bias) if bias is not None else self.new.nodes.append(node)

    def _weights_in_bytes(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """DequantizeLinear in front of constant weights; the shape of what is added by channel."""
        shape = added_shape(node, self.constants)
        weights = node.input[1]
        transposed = self._untransposed(node)
        axis = 0 if node.op_type == "Conv" else 1
        stored = (weights, axis, transposed)
        if stored not in self._weights:
            self._weights[stored] = self._stored(weights, axis, transposed)
        steps, scale, zero = self._weights[stored]
        node.input[1] = self._made(
            "DequantizeLinear", [steps, scale, zero], f"{weights}_dequantised", axis=axis
        )
        return shape

    def _untransposed(self, node: onnx.NodeProto) -> bool:
        """Whether a Gemm transposes its weights, which it does no more afterwards."""
        found = [a for a in node.attribute if a.name == "transB" and a.i]
        for attribute in found:
            node.attribute.remove(attribute)
        return bool(found)

    def _stored(self, name: str, axis: int, transposed: bool) -> tuple[str, str, str]:
        """Names of the integers, scales and zero points of weights."""
        array = self.constants.array(name)
        steps, scale = quantised_weights(array.T if transposed else array, axis)
        zero = np.zeros(scale.shape, np.int8)
        return (
            self.new.initial(f"{name}_int8", steps),
            self.new.initial(f"{name}_scale", scale),
            self.new.initial(f"{name}_zero", zero),
        )

    def _through_bytes(self, name: str) -> str:
        """The tensor, quantised to u8 and dequantised."""
        key = (name, False)
        if key not in self._data:
            parameters = [
                self._input(parameter_of(name, what), array.dtype, array.shape)
                if self.open
                else self.new.initial(f"{name}_{what}", array)
                for what, array in zip((SCALE, ZERO), self.recipe.u8(name), strict=True)
            ]
            axis = {"axis": 1} if name in self.recipe.scales else {}
            inputs = [name, *parameters]
            steps = self._made("QuantizeLinear", inputs, f"{name}_quantised", **axis)
            self._data[key] = self._made(
                "DequantizeLinear", [steps, *parameters], f"{name}_dequantised", **axis
            )
        return self._data[key]

    def _input(self, name: str, dtype: Any, shape: Sequence[int]) -> str:
        """A new input of the model."""
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.graph.input.append(onnx.helper.make_tensor_value_info(name, element, shape))
        return name

    def _add_input(self, node: onnx.NodeProto, key: str, shape: Sequence[int]) -> None:
        """An input is added to the result of a product with constant weights."""
        result = node.output[0]
        node.output[0] = self.new.fresh(f"{result}_uncorrected")
        self.new.nodes.append(node)
        added = self._input(parameter_of(key, ADDED), np.float32, shape)
        self.new.nodes.append(onnx.helper.make_node("Add", [node.output[0], added], [result]))

    def _add(self, node: onnx.NodeProto, bias: Array) -> None:
        """A correction joins the bias of a convolution, or is added to a matrix product."""
        if node.op_type == "Conv":
            own = node.input[2] if len(node.input) > 2 and node.input[2] else ""
            if not own or own in self.constants:
                old = self.constants.array(own) if own else np.float32(0)
                name = self.new.initial(f"{node.output[0]}_bias", (old + bias).astype(np.float32))
                inputs = [*node.input[:2], name]
                del node.input[:]
                node.input.extend(inputs)
                self.new.nodes.append(node)
                return
            bias = bias.reshape(-1, *(1,) * (self.constants.array(node.input[1]).ndim - 2))
        result = node.output[0]
        node.output[0] = self.new.fresh(f"{result}_uncorrected")
        self.new.nodes.append(node)
        added = self.new.initial(f"{result}_correction", bias.astype(np.float32))
        self.new.nodes.append(onnx.helper.make_node("Add", [node.output[0], added], [result]))

    def _dynamic(self, node: onnx.NodeProto) -> None:
        """DynamicQuantizeLinear, MatMulInteger, and the scales of both."""
        data, result = node.input[0], node.output[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        transposed = self._untransposed(node)
        key = (node.input[1], 1, transposed)
        if key not in self._weights:
            self._weights[key] = self._stored(node.input[1], 1, transposed)
        steps, scale, _ = self._weights[key]
        made = self._parts(data)
        total = self.new.node("MatMulInteger", [made[0], steps, made[2]], f"{result}_sums")
        self.new.nodes[-1].name, node.name = node.name, ""
        real = self.new.node("Cast", [total], f"{result}_float", to=onnx.TensorProto.FLOAT)
        both = self.new.node("Mul", [made[1], scale], f"{result}_scale")
        parts = [(real, both)]
        if node.op_type == "Gemm" and attributes.get("alpha", 1.0) != 1.0:
            alpha = self.new.initial(f"{result}_alpha", np.array(attributes["alpha"], np.float32))
            parts.append((self.new.node("Mul", list(parts.pop()), f"{result}_scaled"), alpha))
        bias = node.input[2] if len(node.input) > 2 else ""
        product = onnx.helper.make_node("Mul", list(parts[0]), [result], name=node.name)
        self.new.nodes.append(product)
        if bias:
            product.output[0] = self.new.fresh(f"{result}_product")
            if attributes.get("beta", 1.0) != 1.0:
                beta = self.new.initial(f"{result}_beta", np.array(attributes["beta"], np.float32))
                bias = self.new.node("Mul", [bias, beta], f"{result}_bias")
            self.new.nodes.append(onnx.helper.make_node("Add", [product.output[0], bias], [result]))

    def _recurrent(self, node: onnx.NodeProto) -> None:
        """A recurrent layer with weights of bytes."""
        new = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == LSTM:
            self._multiplies_bytes(new)
        else:
            for place in (1, 2):
                new.input[place] = self._dequantised(node.input[place])
        if self.beside:
            self.new.nodes.append(node)
            results = [twin(name) if name else "" for name in node.output]
            del new.output[:]
            new.output.extend(results)
        self.new.nodes.append(new)

    def _multiplies_bytes(self, node: onnx.NodeProto) -> None:
        """An LSTM becomes DynamicQuantizeLSTM, with weights [directions, ., gates] of bytes by a
        scale for each column."""
        node.op_type, node.domain = "DynamicQuantizeLSTM", MICROSOFT
        self._needs_microsoft()
        parameters = [name for place in (1, 2) for name in self._stacked(node.input[place])]
        inputs = [*node.input, *[""] * (8 - len(node.input)), *parameters[1:3], *parameters[4:]]
        inputs[1], inputs[2] = parameters[0], parameters[3]
        del node.input[:]
        node.input.extend(inputs)
        for attribute in [a for a in node.attribute if a.name == "layout"]:
            node.attribute.remove(attribute)

    def _dequantised(self, name: str) -> str:
        """Weights [directions, gates, depth] as bytes, by a scale for each of the gates' rows."""
        key = (name, 1, False)
        if key not in self._weights:
            stored = self._stored(name, 1, transposed=False)
            self._weights[key] = [
                self._made("DequantizeLinear", list(stored), f"{name}_dequantised", axis=1)
            ]
        return self._weights[key][0]

    def _stacked(self, name: str) -> Sequence[str]:
        """Names of the integers, scales and zero points of [directions, gates, depth]."""
        key = (name, 0, True)
        if key not in self._weights:
            pairs = [quantised_weights(array.T, 1) for array in self.constants.array(name)]
            scale = np.stack([scale for _, scale in pairs])
            self._weights[key] = (
                self.new.initial(f"{name}_int8", np.stack([steps for steps, _ in pairs])),
                self.new.initial(f"{name}_scale", scale),
                self.new.initial(f"{name}_zero", np.zeros(scale.shape, np.int8)),
            )
        return self._weights[key]

    def _parts(self, data: str) -> Sequence[str]:
        """Bytes, scale and zero point of data, as a run finds them."""
        key = (data, -1, False)
        if key not in self._weights:
            names = [self.new.fresh(f"{data}_{part}") for part in ("quantised", "scale", "zero")]
            self.new.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [data], names))
            self._weights[key] = names
        return self._weights[key]

    def _made(self, op: str, inputs: Sequence[str], wanted: str, **attributes: Any) -> str:
        return self.new.node(op, inputs, wanted, domain=self.domain, **attributes)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove constants that nothing reads any more, and inputs that were only names of such."""
    graph = model.graph
    outputs = {info.name for info in graph.output}
    initial = {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    while True:
        used = outputs | {name for node in nodes for name in names_used(node)}
        kept = [n for n in nodes if n.op_type not in _CONSTANT or used & {*n.output}]
        if len(kept) == len(nodes):
            break
        nodes = kept
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [i for i in graph.input if i.name not in initial or i.name in used]
    for field, items in ((graph.node, nodes), (graph.initializer, tensors), (graph.input, inputs)):
        if len(items) != len(field):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            del field[:]
            field.extend(copies)


_CONSTANT = frozenset({"Constant", *MOVES})
