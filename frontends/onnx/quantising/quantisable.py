"""A model that is to be quantised: what it multiplies, parts of it to run, and what is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner, version_converter

from ....compiler.errors import UsageError
from ....compiler.ir import Graph
from ....compiler.scratch import written_whole
from .. import load_model
from ..importer import ShapeSpec
from ..reading.topology import names_used
from ..reduction.files import LARGE, MAX_MODEL, whole
from .batch_norms import Norm, fold_batch_norms
from .channel_scales import is_depthwise, scales_of_channels
from .constants import Array, Constants
from .corrections import lost_on_average
from .few_bits import WeightForm
from .products import ModelProduct, products_of
from .recipe import Recipe
from .rotation import Rotator, rotatable
from .scoring import classifies, scored_tensors
from .switching import add_switches, one_product, quantised_alone, takes_bytes
from .weights import (
    NEAREST,
    Matrix,
    Rounded,
    WeightWriter,
    matrix_of,
    why_floats,
    why_no_steps,
)
from .writing import ADDED, SCALE, ZERO, Writer, added_shape, drop_unused, parameter_of, twin

FIRST_OPSET = 13  # whose DequantizeLinear has an axis
_FIRST_IR_VERSION = 7  # that opset's


class Quantisable:
    """A model of floats with weights, functions inlined and batch normalisations folded.

    products: see `ModelProduct`. notes: what the user should know.
    """

    def __init__(self, path: Path, shapes: ShapeSpec | None = None) -> None:
        """Read a model file. Raises UsageError and InvalidModelError where it cannot be."""
        self.original = whole(path)
        self.shapes = shapes or {}
        self.notes: list[str] = []
        model = onnx.ModelProto()
        model.CopyFrom(self.original)
        if model.functions:
            model = inliner.inline_local_functions(model)
        self.foreign = False
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < FIRST_OPSET:
            model = self._converted(model, opset)
        norms = fold_batch_norms(model)
        self.first_norm: Norm | None = norms[0] if norms else None
        self._model = model
        self.constants = Constants(model)
        self.products: tuple[ModelProduct, ...] = products_of(model, self.constants)

    def _converted(self, model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        """The model at the first opset that has scales for channels; where it cannot be converted,
        as it is."""
        listed = model.ir_version < 4
        try:
            converted = version_converter.convert_version(model, FIRST_OPSET)
        except (RuntimeError, ValueError, IndexError) as error:
            self.foreign = True
            reason = (str(error).splitlines() or [""])[0][:120]
            self.notes.append(
                f"the model of opset {opset} cannot be converted to {FIRST_OPSET} ({reason}): it "
                "is quantised with operators of the domain com.microsoft"
            )
            return model
        converted.ir_version = max(converted.ir_version, _FIRST_IR_VERSION)
        if listed:
            initial = {tensor.name for tensor in converted.graph.initializer}
            inputs = [info for info in converted.graph.input if info.name not in initial]
            del converted.graph.input[:]
            converted.graph.input.extend(inputs)
        return converted

    def rotated(self) -> Quantisable | None:
        """The same model with the operands of matrix products rotated; None where it has few."""
        products = rotatable(self.products)
        if not products:
            return None
        other = copy(self)
        other._model = onnx.ModelProto()
        other._model.CopyFrom(self._model)
        rotator = Rotator(other._model)
        rotator.rotate(products)
        drop_unused(other._model)
        other.constants = Constants(other._model)
        other.products = tuple(
            replace(p, data=rotator.data.get(p.key, p.data)) for p in self.products
        )
        return other

    @property
    def outputs(self) -> list[str]:
        """Names of the model's outputs."""
        return [info.name for info in self.original.graph.output]

    @property
    def axes(self) -> dict[str, int]:
        """Along which axis the channels of tensors lie, for the products that read them."""
        found: dict[str, int] = {}
        for product in self.products:
            if not (product.reason or product.by_run or product.other):
                found.setdefault(product.data, product.axis)
        return found

    def channel_scales(self, keys: Set[str], peaks: Mapping[str, Array]) -> dict[str, Array]:
        """Relative scales for the channels of tensors that only depthwise convolutions read, of
        those that are quantised.

        keys: of the products that are. peaks: the greatest magnitude of every channel.
        """
        nodes = {node.output[0]: node for node in self._model.graph.node if node.output}
        found, others = dict[str, Array](), set[str]()
        for product in self.products:
            if product.key not in keys:
                continue
            if product.other:
                others.update(product.operands)
            if product.other or product.data not in peaks:
                continue
            node, own = nodes[product.key], peaks[product.data]
            weights = None if product.by_run else self.constants.array(node.input[1])
            if weights is not None and is_depthwise(node, weights) and own.size == len(weights):
                found[product.data] = scales_of_channels(own)
            else:
                others.add(product.data)
        return {name: scales for name, scales in found.items() if name not in others}

    def corrections(self, keys: Set[str], means: Mapping[str, Array]) -> dict[str, Array]:
        """What is to be added to the results of products because their weights are rounded.

        keys: of the products. means: of every channel of their data, along `axes`.
        """
        nodes = {node.output[0]: node for node in self._model.graph.node if node.output}
        axes, found = self.axes, {}
        for product in self.products:
            alike = axes.get(product.data) == product.axis and not product.other
            if product.key in keys and product.data in means and alike and not product.by_run:
                node = nodes[product.key]
                weights = self.constants.array(node.input[1])
                lost = lost_on_average(node, weights, means[product.data])
                if lost is not None:
                    found[product.key] = lost
        return found

    def scores(self) -> list[str]:
        """The tensors that tell how good a quantised model is (`scored_tensors`)."""
        return scored_tensors(self._model)

    def floats(self, tensors: Sequence[str]) -> Graph:
        """The graph of the model of floats that makes the given tensors."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        return load_model(_making(model, tensors), shapes=self.shapes)

    def quantised(self, recipe: Recipe, tensors: Sequence[str]) -> Graph:
        """The graph of the quantised model that makes the given tensors."""
        return load_model(_making(self._written(recipe), tensors), shapes=self.shapes)

    def open(self, recipe: Recipe, tensors: Sequence[str]) -> Graph:
        """As `quantised`, of a model whose further inputs are ranges and corrections, which those
        of the recipe (`parameters`) are no part of."""
        return load_model(_making(self._written(recipe, open=True), tensors), shapes=self.shapes)

    def parameters(self, recipe: Recipe) -> dict[str, Array]:
        """The further inputs of an `open` model, with which it computes what a recipe says."""
        nodes = {node.output[0]: node for node in self._model.graph.node if node.output}
        found = dict[str, Array]()
        for product in self.products:
            if product.key not in recipe.integer - recipe.dynamic:
                continue
            for name in product.operands:
                scale, zero = recipe.u8(name)
                found |= {parameter_of(name, SCALE): scale, parameter_of(name, ZERO): zero}
            if not product.other:
                shape = added_shape(nodes[product.key], self.constants)
                added = recipe.biases.get(product.key, np.zeros(shape)).reshape(shape)
                found[parameter_of(product.key, ADDED)] = added.astype(np.float32)
        return found

    def beside(self, recipe: Recipe) -> Graph:
        """The graph that makes, of every product of a recipe, the result in floats and the one of
        quantised operands."""
        keys = [product.key for product in self.products if product.key in recipe.integer]
        model = self._written(recipe, beside=True)
        pairs = [name for key in keys for name in (key, twin(key))]
        return load_model(_making(model, pairs), shapes=self.shapes)

    def switched(
        self, recipe: Recipe, groups: Sequence[Sequence[str]], tensors: Sequence[str]
    ) -> Graph:
        """The graph that makes the given tensors, and whose runs say which of the groups (keys of
        products) are computed in integers: see `switching.py`."""
        model = self._written(recipe, beside=True)
        add_switches(model, groups)
        return load_model(_making(model, tensors), shapes=self.shapes)

    def product_alone(
        self, key: str, shapes: Sequence[Sequence[int]], recipe: Recipe
    ) -> tuple[Graph, Graph]:
        """The graphs of one product of operands (see `ModelProduct`) of the given shapes: in
        floats, and in integers of operands that are bytes already."""
        product = next(p for p in self.products if p.key == key)
        plain = one_product(self._model, key, shapes, self.constants)
        model = onnx.ModelProto()
        model.CopyFrom(plain)
        Writer(model, recipe, foreign=self.foreign).write([product])
        drop_unused(model)
        takes_bytes(model)
        return load_model(plain), load_model(model)

    def bytes_alone(self, shape: Sequence[int]) -> Graph:
        """The graph that makes bytes of a tensor of the given shape."""
        return load_model(quantised_alone(shape))

    def read_as_floats(self, data: str, keys: Set[str]) -> bool:
        """Whether a tensor that products (of the given keys) read as bytes is there in floats, too:
        inputs of the model, and what other nodes read."""
        graph = self._model.graph
        named = {info.name for info in (*graph.input, *graph.output)}
        readers = (node for node in graph.node if data in names_used(node))
        return data in named or any(keys.isdisjoint(node.output) for node in readers)

    def described(self, key: str) -> str:
        """What decides how long a product takes, but for the size of its data."""
        node = next(node for node in self._model.graph.node if key in node.output)
        attributes = sorted((a.name, str(onnx.helper.get_attribute_value(a)))
                            for a in node.attribute)  # fmt: skip
        shapes = [self.constants.shape_of(n) for n in node.input[1:] if n in self.constants]
        return f"{node.op_type} {attributes} {shapes}"

    @property
    def classifies(self) -> bool:
        """Whether the first output is scores of classes, as far as operators tell."""
        return classifies(self._model, self.constants)

    def digest(self) -> str:
        """SHA-256 of the model as it was read, weights included."""
        found = hashlib.sha256()
        graph = self.original.graph
        for tensor in graph.initializer:
            found.update(tensor.SerializeToString(deterministic=True))
        opsets = sorted(self.original.opset_import, key=lambda opset: opset.domain)
        parts = (*graph.node, *graph.input, *graph.output, *self.original.functions)
        for part in (*opsets, *parts):
            found.update(part.SerializeToString(deterministic=True))
        return found.hexdigest()

    def _written(self, recipe: Recipe, beside: bool = False, open: bool = False) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        Writer(model, recipe, foreign=self.foreign, beside=beside, open=open).write(self.products)
        if not beside:
            drop_unused(model)
        return model

    def save(self, recipe: Recipe, path: Path) -> None:
        """Write the quantised model; weights lie in a second file where one cannot hold all.

        Raises UsageError where that cannot be written.
        """
        self._store(self._written(recipe), path)

    def save_weights(
        self, form: WeightForm, keys: Set[str], path: Path, given: Rounded = NEAREST
    ) -> dict[str, float]:
        """Write the model with the weights of some products in few bits, as `save`; what rounding
        has changed of each, a share of the weights' power.

        given: what is rounded already; all others are rounded to nearest.
        """
        model, errors = self._with_weights(form, keys, given)
        self._store(model, path)
        return errors

    def with_weights(
        self, form: WeightForm, keys: Set[str], given: Rounded, tensors: Sequence[str]
    ) -> Graph:
        """The graph of what `save_weights` writes that makes the given tensors."""
        model = self._with_weights(form, keys, given)[0]
        return load_model(_making(model, tensors), shapes=self.shapes)

    def _with_weights(
        self, form: WeightForm, keys: Set[str], given: Rounded
    ) -> tuple[onnx.ModelProto, dict[str, float]]:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        writer = WeightWriter(model, form, foreign=self.foreign, given=given)
        writer.write(keys)
        drop_unused(model)
        return model, writer.errors

    def matrices(self, keys: Set[str]) -> dict[Matrix, list[str]]:
        """The weights of matrix products with the given results, each with the data that it is
        multiplied by."""
        nodes = {node.output[0]: node for node in self._model.graph.node if node.output}
        found: dict[Matrix, list[str]] = {}
        for product in self.products:
            if product.key in keys:
                found.setdefault(matrix_of(nodes[product.key]), []).append(product.data)
        return found

    def weights_of(self, product: ModelProduct) -> int:
        """How many weights a product has; 0 where they are not constant."""
        node = next((n for n in self._model.graph.node if product.key in n.output), None)
        constant = node is not None and len(node.input) > 1 and node.input[1] in self.constants
        return self.constants.elements(node.input[1]) if node is not None and constant else 0

    def why_floats(self, product: ModelProduct) -> str:
        """Why the weights of a product are not stored in few bits; "" where they can be."""
        reason = why_floats(product, self.weights_of(product))
        if reason:
            return reason
        node = next(n for n in self._model.graph.node if product.key in n.output)
        return why_no_steps(self.constants.array(node.input[1]))

    def _store(self, model: onnx.ModelProto, path: Path) -> None:
        data = path.with_name(f"{path.name}.data")
        large = model.ByteSize() > MAX_MODEL
        with written_whole(path) as new:
            if large:
                onnx.save_model(
                    model, new, save_as_external_data=True, location=data.name, size_threshold=LARGE
                )
            else:
                new.write_bytes(model.SerializeToString(deterministic=True))


def _making(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """The model with the given tensors as outputs."""
    known = {info.name: info for info in model.graph.output}
    outputs = [known.get(name) or onnx.ValueInfoProto(name=name) for name in tensors]
    copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in outputs]
    del model.graph.output[:]
    model.graph.output.extend(copies)
    return model


class NothingToQuantise(UsageError):
    """No product of a model can be computed in integers."""


def check_quantisable(products: Sequence[ModelProduct]) -> None:
    """Raise NothingToQuantise where no product of a model can be computed in integers."""
    if not any(not product.reason for product in products):
        reasons = dict.fromkeys(f"{p.op} '{p.name}': {p.reason}" for p in products)
        raise NothingToQuantise(
            "nothing in the model can be computed in integers",
            why="; ".join(list(reasons)[:3]) or "it has no convolution and no matrix product",
            remedy="compile it with --precision fp32",
        )
