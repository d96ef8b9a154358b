"""Numbers of the formats of IEEE 754 that functions of floats are made of, by element type."""

from __future__ import annotations

from .builder import F32, F64

# A number to which it is added is rounded to an integer, which the lowest bits of the sum hold.
MAGIC = {F32: float.fromhex("0x1.8p23"), F64: float.fromhex("0x1.8p52")}
MANTISSA_BITS = {F32: 23, F64: 52}
LEAST_NORMAL = {F32: float.fromhex("0x1p-126"), F64: float.fromhex("0x1p-1022")}
