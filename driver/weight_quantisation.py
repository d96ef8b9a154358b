"""Quantising weights alone: matrix products of floats by integers of few bits.

No data are needed; where there are some, rounding takes note of them.
"""

from __future__ import annotations

import math
from pathlib import Path

from ..frontends.onnx.quantising.few_bits import WeightForm
from ..frontends.onnx.quantising.quantisable import NothingToQuantise, Quantisable
from .quantisation import FLOAT, WEIGHTS, ProductDecision, Quantisation
from .request import WEIGHT_BITS, CompileRequest
from .weight_compensation import Compensation, WeightSearch

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


def quantise_weights(
    model: Path, output: Path, request: CompileRequest, folder: Path
) -> Quantisation:
    """Write a model whose matrix products have weights of few bits to `output`.

    folder: for what calibration makes on the way, where there are data. Raises NothingToQuantise
    where there is no product whose weights can be stored so, UsageError for data that do not fit.
    """
    note = request.progress or (lambda text: None)
    note("reading the model")
    source, form = Quantisable(model, request.shapes), weight_form(request)
    reasons = {p.key: source.why_floats(p) for p in source.products}
    keys = frozenset(key for key, reason in reasons.items() if not reason)
    if not keys:
        told = dict.fromkeys(f"{p.op} '{p.name}': {reasons[p.key]}" for p in source.products)
        raise NothingToQuantise(
            "no weights of the model can be stored in few bits",
            why="; ".join(list(told)[:3]) or "it has no matrix product",
            remedy=_remedy(source),
        )
    found = Compensation()
    if request.calibration is not None:
        data = request.calibration
        found = WeightSearch(source, form, keys, data, folder, request.threads, note).run()
    note("rounding weights")
    errors = source.save_weights(form, keys, output, found.given)
    name = f"int{form.bits} weights"
    rows = tuple(
        ProductDecision(p.name, p.op, FLOAT if reasons[p.key] else name, reasons[p.key])
        for p in source.products
    )
    decibels = {key: _decibels(share) for key, share in errors.items()}
    count = sum(source.weights_of(p) for p in source.products if p.key in keys)
    small = form.bits == 4 and count < FEW_PARAMETERS
    few = (_SMALL.format(count / 1e6),) if small else ()
    return Quantisation(
        output,
        WEIGHTS,
        rows,
        samples=found.samples,
        held_out=found.held,
        ranges=f"blocks of {form.block}" if form.block else "columns",
        decibels=decibels,
        tried={name: round(value, 2) for name, value in found.tried.items()},
        notes=(*source.notes, *few, *found.notes),
    )


def _remedy(source: Quantisable) -> str:
    """What else there is for a model none of whose weights are stored in few bits."""
    kinds = dict.fromkeys(p.op for p in source.products if not (p.reason or p.other))
    if not kinds:
        return "compile it with --precision fp32"
    return (
        f"compile it with --precision int8 and --calibration, which stores the weights of "
        f"{' and '.join(kinds)} in 8 bits, or with fp32"
    )


def _decibels(share: float) -> float:
    return round(-10 * math.log10(share), 2) if share else 200.0
