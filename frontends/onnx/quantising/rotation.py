"""Rotated operands: few channels of large numbers are spread over many, so that bits serve all.

A product of data and weights does not change if both are multiplied by an orthogonal matrix and its
transpose: (x H)(H' w) = x w. With a Hadamard matrix of blocks of channels an outlier becomes many
small numbers. That of the weights is part of them; that of the data is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from .additions import Additions
from .constants import Array, Constants
from .products import ModelProduct

BLOCK = 128  # channels, at most
LEAST = 32
FEWEST = 4  # products that are worth the search


def hadamard(size: int) -> Array:
    """The orthonormal matrix of a size that is a power of two (Sylvester's); it is symmetric."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(size))


def rotated_rows(matrix: Array, size: int) -> Array:
    """A matrix whose rows, in blocks of `size`, are multiplied by the Hadamard matrix, in f64.

    By sums and differences of halves, of halves of these, and so on (the fast Walsh-Hadamard
    transform; B. J. Fino and V. R. Algazi, 1976, https://doi.org/10.1109/TC.1976.1674569).
    """
    columns, step = matrix.shape[1], 1
    turned = matrix.astype(np.float64)
    while step < size:
        pairs = turned.reshape(-1, 2, step, columns)
        turned = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1)
        step *= 2
    return np.asarray(turned.reshape(matrix.shape) / np.sqrt(size))


def block_of(terms: int) -> int:
    """How many channels are rotated together, of so many; 0: they do not fall into blocks."""
    size = BLOCK
    while size >= LEAST and terms % size:
        size //= 2
    return size if size >= LEAST else 0


def rotatable(products: Sequence[ModelProduct]) -> list[ModelProduct]:
    """Matrix products whose operands can be rotated; none unless most products are such."""
    fit = [product for product in products if not (product.reason or product.other)]
    found = [p for p in fit if p.op in ("MatMul", "Gemm") and block_of(p.terms)]
    return found if len(found) >= FEWEST and 2 * len(found) > len(fit) else []


class Rotator:
    """Rotates the operands of products of a model, in place; results stay what they are.

    data: of every product, the tensor that it reads afterwards.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = Constants(model)
        self.new = Additions(model.graph)
        self.data: dict[str, str] = {}
        self._factors: dict[int, Sequence[str]] = {}
        self._rotated: dict[str, str] = {}
        self._folded: dict[tuple[str, bool], str] = {}

    def rotate(self, products: Sequence[ModelProduct]) -> None:
        """Rotate both operands of the products."""
        terms = {product.key: product.terms for product in products}
        for node in self.graph.node:
            key = node.output[0] if node.output else ""
            if key in terms:
                size = block_of(terms[key])
                node.input[0] = self.data[key] = self._turned(node.input[0], size)
                transposed = any(a.name == "transB" and a.i for a in node.attribute)
                node.input[1] = self._weights(node.input[1], size, transposed)
            self.new.nodes.append(node)
        self.new.finish()

    def _turned(self, name: str, size: int) -> str:
        """The data with every block of their last axis multiplied by the matrix.

        That of a block of a * b is the Kronecker product of two smaller ones: rows and columns of
        the block, as a matrix of a x b, are multiplied one after the other.
        """
        if name not in self._rotated:
            if size not in self._factors:
                rows = 1 << (size.bit_length() - 1) // 2
                self._factors[size] = (
                    self.new.initial("hadamard", np.array([-1, rows, size // rows])),
                    self.new.initial("hadamard", hadamard(rows).astype(np.float32)),
                    self.new.initial("hadamard", hadamard(size // rows).astype(np.float32)),
                )
            shape, left, right = self._factors[size]
            own = self.new.node("Shape", [name], f"{name}_shape")
            blocks = self.new.node("Reshape", [name, shape], f"{name}_blocks")
            half = self.new.node("MatMul", [blocks, right], f"{name}_half_turned")
            turned = self.new.node("MatMul", [left, half], f"{name}_turned")
            self._rotated[name] = self.new.node("Reshape", [turned, own], f"{name}_rotated")
        return self._rotated[name]

    def _weights(self, name: str, size: int, transposed: bool) -> str:
        if (name, transposed) not in self._folded:
            array = self.constants.array(name)
            turned = rotated_rows(array.T if transposed else array, size)
            turned = np.ascontiguousarray(turned.T if transposed else turned, np.float32)
            self._folded[name, transposed] = self.new.initial(f"{name}_rotated", turned)
        return self._folded[name, transposed]
