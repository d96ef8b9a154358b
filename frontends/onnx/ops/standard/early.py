"""Experimental operators of ai.onnx, up to version 9; converters from CoreML write them.

Semantics: onnx 1.2, docs/Operators.md ("experimental").
"""

from __future__ import annotations

import numpy as np

from .....compiler.ir import Value
from .....compiler.ir.assumptions import AT_MOST
from ...site import Site
from ...table import lowers
from .activations import by_name


def _scaled(s: Site, x: Value, default: float | None = None) -> Value:
    return s.op_("mul", x, s.real("scale", default))


@lowers("Affine")
def affine(s: Site) -> Value:
    scaled = s.op_("mul", s.input(0), s.real("alpha", 1.0))
    return s.op_("add", scaled, s.real("beta", 0.0))


@lowers("Scale")
def scale(s: Site) -> Value:
    return _scaled(s, s.input(0))


@lowers("ScaledTanh")
def scaled_tanh(s: Site) -> Value:
    inner = s.op_("mul", s.input(0), s.real("beta"))
    return s.op_("mul", by_name(s, "Tanh", inner, []), s.real("alpha"))


@lowers("ParametricSoftplus")
def parametric_softplus(s: Site) -> Value:
    inner = s.op_("mul", s.input(0), s.real("beta"))
    return s.op_("mul", by_name(s, "Softplus", inner, []), s.real("alpha"))


@lowers("ImageScaler")
def image_scaler(s: Site) -> Value:
    """x times one number, plus one for each channel."""
    x = s.input(0)
    bias = np.array(s.floats("bias"), np.float32)
    if x.type.rank != 4 or (isinstance(x.shape[1], int) and x.shape[1] != bias.size):
        raise ValueError(f"{bias.size} biases for {x.type}")
    shift = s.reshape(s.scalar(bias, x.dtype), (1, bias.size, 1, 1))
    return s.op_("add", _scaled(s, x, 1.0), shift)


@lowers("Crop")
def crop(s: Site) -> Value:
    """Of NCHW. border: what is cut off left, top, right and bottom.

    scale: the height and width that are kept, instead of what is cut off right and at the bottom.
    """
    x, border, size = s.input(0), s.ints("border"), s.ints("scale", [])
    if x.type.rank != 4 or len(border) != 4 or len(size) not in (0, 2) or min(border) < 0:
        raise ValueError(f"border {border} and scale {size} do not crop {x.type}")
    left, top, right, bottom = border
    height, width = x.shape[2:]
    if size:
        low, high = top + size[0], left + size[1]
    else:
        low, high = height - bottom, width - right
    for needed, dim in ((top + size[0] if size else top + bottom, height),
                        (left + size[1] if size else left + right, width)):  # fmt: skip
        s.require(needed, AT_MOST, dim, f"border {border} and scale {size} need {needed}")
    return s.slice(s.slice(x, 2, top, low), 3, left, high)
