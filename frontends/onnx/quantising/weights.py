"""Writing a model whose matrix products have weights of few bits, and data as before.

With one scale for a column: DequantizeLinear of s8 (opset 13). In blocks: DequantizeLinear with
`block_size` where the model is of opset 21, which has it; before that MatMulNBits of com.microsoft.
ONNX Runtime runs both, and makes the latter of the former itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ....compiler.ir.ops.packed import FEWEST_PACKED, pack_digits
from ..origin import node_name
from .additions import Additions
from .constants import Array, Constants
from .data_scales import Divider
from .few_bits import FewBits, WeightForm, in_few_bits
from .products import FEW, NOT_CONSTANT, ModelProduct
from .writing import MICROSOFT

BLOCKED_OPSET = 21
_LARGEST = float(np.finfo(np.float32).max) / 2  # whose rounding stays within f32
NO_MATRIX = "it is no matrix product of two axes"
NO_NUMBERS = "its weights hold values that are no numbers"
TOO_LARGE = f"its weights exceed {_LARGEST:.2g}"


def why_floats(product: ModelProduct, elements: int) -> str:
    """Why the weights of a product stay floats; "" where they do not."""
    if product.reason:
        return product.reason
    if product.other:
        return NOT_CONSTANT
    if product.op not in ("MatMul", "Gemm"):
        return NO_MATRIX
    return FEW if elements < FEWEST_PACKED else ""


def why_no_steps(weights: Array) -> str:
    """Why no scale makes integers of weights; "" where one does."""
    with np.errstate(invalid="ignore"):
        peak = max(abs(float(weights.max(initial=0))), abs(float(weights.min(initial=0))))
    if not np.isfinite(peak):
        return NO_NUMBERS
    return TOO_LARGE if peak > _LARGEST else ""


@dataclass(frozen=True)
class Matrix:
    """The weights of a product. columns_first: whether they are stored as [columns, depth]."""

    name: str
    columns_first: bool

    def columns(self, constants: Constants) -> Array:
        """The weights as f32, [columns, depth]."""
        array = constants.array(self.name)
        return np.asarray(array if self.columns_first else array.T, np.float32)


def matrix_of(node: onnx.NodeProto) -> Matrix:
    """The weights of a matrix product whose second operand is constant."""
    return Matrix(node.input[1], any(a.name == "transB" and a.i for a in node.attribute))


@dataclass(frozen=True)
class Rounded:
    """matrices: what becomes of weights, those multiplied by scales included; divided: by what
    tensors are, along their last axis, before products read them (`data_scales.py`)."""

    matrices: Mapping[Matrix, FewBits] = field(default_factory=dict)
    divided: Mapping[str, Array] = field(default_factory=dict)


NEAREST = Rounded()


@dataclass(frozen=True)
class _Product:
    """A node and its weights."""

    node: onnx.NodeProto
    matrix: Matrix

    def attribute(self, name: str, default: float) -> float:
        """A number that the node says."""
        found = {a.name: onnx.helper.get_attribute_value(a) for a in self.node.attribute}
        return float(found.get(name, default))


class WeightWriter:
    """Changes the products of a model, which is changed in place.

    given: what becomes of matrices and data, where that is known; others are rounded to nearest.
    errors: by key, what rounding has changed of a product's weights, a share of their power.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        form: WeightForm,
        *,
        foreign: bool,
        given: Rounded = NEAREST,
    ) -> None:
        self.model, self.form, self.given = model, form, given.matrices
        self.constants = Constants(model)
        self.new = Additions(model.graph)
        self.divider = Divider(self.new, self.constants, dict(given.divided))
        self.domain = MICROSOFT if foreign else ""
        self.errors: dict[str, float] = {}
        self._done: dict[Matrix, Any] = {}
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.standard = not form.block or opset >= BLOCKED_OPSET

    def write(self, keys: Set[str]) -> None:
        """Rewrite the products with the given results."""
        nodes = self.new.graph.node
        self.divider.plan([node for node in nodes if not keys.isdisjoint(node.output)])
        for node in nodes:
            if not keys.isdisjoint(node.output):
                node.input[0] = self.divider.of(node.input[0])
                product = _Product(node, matrix_of(node))
                (self._dequantised if self.standard else self._n_bits)(product)
            else:
                self.new.nodes.append(node)
        self.new.finish()

    def _few_bits(self, matrix: Matrix) -> FewBits:
        known = self.given.get(matrix)
        return in_few_bits(matrix.columns(self.constants), self.form) if known is None else known

    def _once(self, product: _Product, make: Any) -> Any:
        """What is made of a product's weights, once for all that have the same."""
        key = product.matrix
        if key not in self._done:
            few = self._few_bits(key)
            share = few.error / few.power if few.power else 0.0
            self._done[key] = make(product, few), share
        found, self.errors[product.node.output[0]] = self._done[key]
        return found

    # ------------------------------------------------------------------ DequantizeLinear

    def _dequantised(self, product: _Product) -> None:
        product.node.input[1] = self._once(product, self._dequantising)
        self.new.nodes.append(product.node)

    def _dequantising(self, product: _Product, few: FewBits) -> str:
        """The name of what makes floats of the integers, which lie as the weights did."""
        name, depth = product.matrix.name, self._depth(product)
        whole = few.numbers.reshape(len(few.numbers), -1)[:, :depth]
        parts = [whole, few.scales, few.zeros]
        if not product.matrix.columns_first:
            parts = [part.T for part in parts]
        axis = 1 if product.matrix.columns_first else 0
        more: dict[str, Any] = {"axis": axis, "block_size": self.form.block}
        if not self.form.block:
            parts = [parts[0], parts[1].reshape(-1), parts[2].reshape(-1)]
            more = {"axis": 1 - axis}
        kind = ml_dtypes.uint4 if self.form.bits == 4 else np.int8
        names = [
            self.new.initial(f"{name}_{text}", np.ascontiguousarray(part).astype(dtype))
            for text, part, dtype in zip(
                ("steps", "scale", "zero"), parts, (kind, np.float32, kind), strict=True
            )
        ]
        return self.new.node(
            "DequantizeLinear", names, f"{name}_dequantised", domain=self.domain, **more
        )

    def _depth(self, product: _Product) -> int:
        return self.constants.shape_of(product.matrix.name)[
            1 if product.matrix.columns_first else 0
        ]

    # ------------------------------------------------------------------ MatMulNBits

    def _n_bits(self, product: _Product) -> None:
        node, result = product.node, product.node.output[0]
        names, columns = self._once(product, self._packed)
        sizes = {"N": columns, "K": self._depth(product), "block_size": self.form.block}
        made = onnx.helper.make_node(
            "MatMulNBits", [node.input[0], *names], [result], name=node_name(node),
            domain=MICROSOFT, bits=self.form.bits, **sizes,
        )  # fmt: skip
        self.new.nodes.append(made)
        self._needs_microsoft()
        factors = {"alpha": product.attribute("alpha", 1.0), "beta": product.attribute("beta", 1.0)}
        last = made
        if node.op_type == "Gemm" and factors["alpha"] != 1.0:
            last = self._behind(last, "Mul", self._number(f"{result}_alpha", factors["alpha"]))
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            bias = node.input[2]
            if factors["beta"] != 1.0:
                beta = self._number(f"{result}_beta", factors["beta"])
                bias = self.new.node("Mul", [bias, beta], f"{result}_bias")
            self._behind(last, "Add", bias)

    def _behind(self, last: onnx.NodeProto, op: str, other: str) -> onnx.NodeProto:
        """An operator that takes the place of a node's result, which it reads."""
        result = last.output[0]
        last.output[0] = self.new.fresh(f"{result}_product")
        node = onnx.helper.make_node(op, [last.output[0], other], [result])
        self.new.nodes.append(node)
        return node

    def _number(self, wanted: str, number: float) -> str:
        return self.new.initial(wanted, np.array(number, np.float32))

    def _packed(self, product: _Product, few: FewBits) -> tuple[Sequence[str], int]:
        """Names of the packed weights, scales and zero points, and how many columns there are."""
        bits, name = self.form.bits, product.matrix.name
        numbers, zeros = few.numbers, few.zeros
        if self.form.symmetric:  # numbers of the operator are unsigned
            numbers, zeros = (np.asarray(a.view(np.uint8) ^ 128) for a in (numbers, zeros))
        parts: Mapping[str, Array] = {
            "packed": pack_digits(numbers, bits),
            "scale": few.scales,
            "zero": pack_digits(zeros, bits),
        }
        return [self.new.initial(f"{name}_{k}", a) for k, a in parts.items()], len(numbers)

    def _needs_microsoft(self) -> None:
        if not any(item.domain == MICROSOFT for item in self.model.opset_import):
            self.model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
