"""Polynomials in a value, by fused multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from .builder import Emitter


def polynomial(e: Emitter, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """Of coefficients with the highest power first."""
    result: ir.Value = e.constant(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        result = e.fma(result, x, e.constant(coefficient, x.type))
    return result
