"""A scale for each channel of data, where that costs nothing: in front of depthwise convolutions.

Their sums are of one channel each, so that every channel of the data may have its own scale, as
the weights have. (M. Nagel et al., "Data-free quantization through weight equalization and bias
correction", https://arxiv.org/abs/1906.04721, section 4.1, moves such scales into weights.)
"""

from __future__ import annotations

import numpy as np
import onnx

from .recipe import Array

_WIDEST = 1e4  # between the scales of two channels of one tensor


def is_depthwise(node: onnx.NodeProto, weights: Array) -> bool:
    """Whether a convolution makes every channel of one."""
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return bool(node.op_type == "Conv" and weights.shape[1] == 1 and weights.shape[0] == groups)


def scales_of_channels(peaks: Array) -> Array:
    """Relative scales, 1 for the channel of the greatest peak.

    Root of the peaks: what samples show of single channels is less certain than what they show of
    the tensor, and a channel that takes twice its peak is not clipped at twice its scale.
    """
    known = peaks > 0
    if not known.any():
        return np.ones(peaks.size, np.float32)
    scales = np.sqrt(np.where(known, peaks, peaks.max()) / peaks.max())
    return np.asarray(np.maximum(scales, 1.0 / _WIDEST), np.float32)
