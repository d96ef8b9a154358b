"""Products of two operands that the run makes, of a model that is to be quantised: which of them
the compiler would multiply as bytes."""

from __future__ import annotations

from dataclasses import replace

from ..compiler.ir.graph import Value
from ..compiler.ir.types import DType
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..passes.precision.data_products import why_no_groups


def settle(source: Quantisable) -> None:
    """Give such products of a model that the compiler would keep in floats the reason for that."""
    keys = [product.key for product in source.products if product.other]
    if not keys:
        return
    reasons = {value.name: _reason(value) for value in source.floats(keys).outputs}
    source.products = tuple(
        replace(product, reason=product.reason or reasons[product.key])
        if product.other
        else product
        for product in source.products
    )


def _reason(result: Value) -> str:
    """Why the product that makes a result stays in floats; "" where bytes are multiplied."""
    if result.dtype is not DType.F32:
        return f"its operands are {result.dtype.value}"
    made = result.producer
    return "it is computed before it runs" if made is None else why_no_groups(made)
