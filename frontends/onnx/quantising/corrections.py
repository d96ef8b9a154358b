"""What rounding the weights of a product takes off its results, on average."""

from __future__ import annotations

import numpy as np
import onnx

from .recipe import Array, quantised_weights


def lost_on_average(node: onnx.NodeProto, weights: Array, means: Array) -> Array | None:
    """One number for each output channel of a Conv, MatMul or Gemm.

    means: of every channel of the data. Borders of convolutions count as what is inside. None where
    there are not as many channels.
    """
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    exact, x = weights.astype(np.float64), means.astype(np.float64).reshape(-1)
    if node.op_type == "Conv":
        steps, scale = quantised_weights(weights, 0)
        lost = exact - steps * scale.astype(np.float64).reshape(-1, *(1,) * (exact.ndim - 1))
        groups = attributes.get("group", 1)
        by_group = lost.sum(tuple(range(2, lost.ndim))).reshape(groups, -1, exact.shape[1])
        if x.size != groups * exact.shape[1]:
            return None
        return np.asarray(np.einsum("goc,gc->go", by_group, x.reshape(groups, -1)).reshape(-1))
    if attributes.get("transB", 0):
        weights, exact = weights.T, exact.T
    steps, scale = quantised_weights(weights, 1)
    if x.size != len(exact):
        return None
    lost = exact - steps * scale.astype(np.float64)
    return np.asarray(x @ lost * attributes.get("alpha", 1.0))
