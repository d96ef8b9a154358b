"""Parts of a graph for a device that runs command streams.

`segment` holds the operators (one region, as `fused`), `invoke` stands for it once they are
compiled: attribute `function`, of the runtime, which runs them; `dtypes` and `shapes` of the
outputs that the segment had; behind these come outputs that are memory for the run alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Graph, Value
from ..types import TensorType
from .control import infer_fused
from .registry import REQUIRED, OpDef, register

SEGMENT, INVOKE = "segment", "invoke"


def _none(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    raise ValueError("a segment has a region")


def _infer_invoke(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    pairs = zip(attrs["dtypes"], attrs["shapes"], strict=True)
    return [TensorType(dtype, shape) for dtype, shape in pairs]


def _infer_segment(
    inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph]
) -> list[TensorType]:
    return infer_fused(inputs, attrs, regions)


register(
    OpDef(
        SEGMENT,
        _none,
        None,
        attrs={"device": REQUIRED},
        regions=1,
        infer_regions=_infer_segment,
    )
)
register(
    OpDef(
        INVOKE,
        _infer_invoke,
        None,
        attrs={"function": REQUIRED, "dtypes": REQUIRED, "shapes": REQUIRED},
    )
)
