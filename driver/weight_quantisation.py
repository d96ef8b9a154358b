"""Quantising weights alone: matrix products of floats by integers of few bits, without data."""

from __future__ import annotations

import math
from pathlib import Path

from ..frontends.onnx.quantising.few_bits import WeightForm
from ..frontends.onnx.quantising.quantisable import NothingToQuantise, Quantisable
from .quantisation import FLOAT, WEIGHTS, ProductDecision, Quantisation
from .request import WEIGHT_BITS, CompileRequest

USUAL_BLOCKS = {4: 32, 8: 0}
FEW_PARAMETERS = 200_000_000  # below that, 4 bits lose much (see docs/precision.md)
_SMALL = (
    "the model has {:.3g} M weights: below 200 M, those of 4 bits change answers visibly; "
    "--precision int8-weights is the safe choice"
)


def weight_form(request: CompileRequest) -> WeightForm:
    """How a request wants weights stored."""
    bits = WEIGHT_BITS[request.precision]
    return WeightForm(bits, USUAL_BLOCKS[bits] if request.block is None else request.block)


def quantise_weights(model: Path, output: Path, request: CompileRequest) -> Quantisation:
    """Write a model whose matrix products have weights of few bits to `output`.

    Raises NothingToQuantise where there is no product whose weights can be stored so.
    """
    if request.progress:
        request.progress("reading the model")
    source, form = Quantisable(model, request.shapes), weight_form(request)
    reasons = {p.key: source.why_floats(p) for p in source.products}
    keys = frozenset(key for key, reason in reasons.items() if not reason)
    if not keys:
        told = dict.fromkeys(f"{p.op} '{p.name}': {reasons[p.key]}" for p in source.products)
        raise NothingToQuantise(
            "no weights of the model can be stored in few bits",
            why="; ".join(list(told)[:3]) or "it has no matrix product",
            remedy="compile it with --precision fp32",
        )
    if request.progress:
        request.progress("rounding weights")
    errors = source.save_weights(form, keys, output)
    name = f"int{form.bits} weights"
    rows = tuple(
        ProductDecision(p.name, p.op, FLOAT if reasons[p.key] else name, reasons[p.key])
        for p in source.products
    )
    decibels = {key: _decibels(share) for key, share in errors.items()}
    count = sum(source.weights_of(p) for p in source.products if p.key in keys)
    small = form.bits == 4 and count < FEW_PARAMETERS
    notes = (*source.notes, *((_SMALL.format(count / 1e6),) if small else ()))
    rule = f"blocks of {form.block}" if form.block else "columns"
    return Quantisation(output, WEIGHTS, rows, ranges=rule, decibels=decibels, notes=notes)


def _decibels(share: float) -> float:
    return round(-10 * math.log10(share), 2) if share else 200.0
