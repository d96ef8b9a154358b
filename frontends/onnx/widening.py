"""Operators of half precision whose lowering takes several steps: computed in f32, rounded once.

ONNX Runtime has kernels of few operators for f16 and bf16 and computes the others in f32. What one
core operator does is rounded once as it is; in several steps each would be rounded, and differences
of nearly equal numbers (a variance, a tail of GELU) would lose most of their digits.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.ir import DType, Value
from .containers import Content
from .emitter import GraphEmitter
from .table import MICROSOFT

_NARROW = (DType.F16, DType.BF16)
_WIDE = {
    "": (
        "Affine", "BatchNormalization", "Celu", "Elu", "Gelu", "GlobalLpPool", "GroupNormalization",
        "GRU", "HardSigmoid", "HardSwish", "InstanceNormalization", "LogSoftmax", "LpNormalization",
        "LpPool", "LSTM", "Mean", "MeanVarianceNormalization", "Mish", "ParametricSoftplus",
        "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "RMSNormalization", "RNN", "RotaryEmbedding",
        "Scale", "ScaledTanh", "Selu", "SimplifiedLayerNormalization", "Softplus", "Softsign",
        "Sum", "Swish",
    ),
    MICROSOFT: (
        "BiasGelu", "CausalConvWithState", "FastGelu", "Gelu", "MRotaryEmbedding", "QuickGelu",
        "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    ),
}  # fmt: skip
# Results, by place, that are f32 whatever the inputs are: means and inverse deviations.
_STATISTICS = {
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (1, 2),
}


def narrow_type(domain: str, operator: str, inputs: Sequence[Content | None]) -> DType | None:
    """The small float type of an operator's first input, where it is computed in f32."""
    first = inputs[0] if inputs else None
    wide = operator in _WIDE.get(domain, ())
    if wide and isinstance(first, Value) and first.dtype in _NARROW:
        return first.dtype
    return None


def widened(emitter: GraphEmitter, inputs: Sequence[Content | None]) -> list[Content | None]:
    """The inputs, floats in f32."""
    return [
        emitter.emit("cast", [item], {"dtype": DType.F32})
        if isinstance(item, Value) and item.dtype in _NARROW
        else item
        for item in inputs
    ]


def narrowed(
    emitter: GraphEmitter,
    results: Sequence[Content | None],
    inputs: Sequence[Content | None],
    dtype: DType,
    operator: str,
) -> list[Content | None]:
    """The results in the type of the first input; of several only the first where types differ.

    What an operator gives in f32 for any inputs stays so.
    """
    wide = _STATISTICS.get(operator, ())
    mixed = any(isinstance(item, Value) and item.dtype is DType.F32 for item in inputs)
    return [
        emitter.emit("cast", [item], {"dtype": dtype})
        if isinstance(item, Value)
        and item.dtype is DType.F32
        and place not in wide
        and not (place and mixed)
        else item
        for place, item in enumerate(results)
    ]
