"""Attributes of com.microsoft's operators that no lowering reads, and why they need not be.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md. All others are read where an operator is
lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from .site import NotSupported
from .table import MICROSOFT


@dataclass(frozen=True)
class Unread:
    """Why an attribute has no effect; only: on the integers for which that holds (None: on all)."""

    why: str
    only: tuple[int, ...] | None = None


_PACKED = Unread("rows of different lengths have positions of their own either way")
_PRECISION = Unread("the least precision of sums; all are in f32")
_PER_TOKEN = Unread("a part of weights that change from token to token, which are refused")
_SIZE = Unread("a size that the weights have")
UNREAD: dict[tuple[str, str], Unread] = {
    ("Attention", "rotary_embedding_dim"): Unread("a part of do_rotary, which is refused"),
    ("DecoderMaskedMultiHeadAttention", "output_qk"): Unread("the output's name tells"),
    ("EmbedLayerNormalization", "mask_index_type"): Unread("for the inference of types alone"),
    ("GatedDeltaNet", "chunk_size"): Unread("how kernels for GPUs divide the work"),
    ("GroupQueryAttention", "kv_cache_bit_width"): Unread("caches are not quantised", (0,)),
    ("MatMulBnb4", "training_mode"): Unread("for gradients alone"),
    ("MatMulNBits", "accuracy_level"): _PRECISION,
    ("MaxpoolWithMask", "storage_order"): Unread("the order of places, which it does not give"),
    ("MRotaryEmbedding", "is_packed_batching"): _PACKED,
    ("QMoE", "accuracy_level"): _PRECISION,
    ("RotaryEmbedding", "is_packed_batching"): _PACKED,
    ("RotaryEmbedding", "scale"): Unread("no kernel for CPUs reads it"),
    ("VarlenCausalConvWithState", "delta_offset"): _PER_TOKEN,
    ("VarlenCausalConvWithState", "group_size"): _PER_TOKEN,
    ("WordConvEmbedding", "char_embedding_size"): _SIZE,
    ("WordConvEmbedding", "conv_window_size"): _SIZE,
    ("WordConvEmbedding", "embedding_size"): _SIZE,
}


def check_unread(domain: str, operator: str, attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """Raise NotSupported for an attribute that has an effect and that no lowering reads."""
    if domain != MICROSOFT:
        return
    for name, attribute in attributes.items():
        entry = UNREAD.get((operator, name))
        if entry is not None and entry.only is not None and attribute.i not in entry.only:
            allowed = " or ".join(map(str, entry.only))
            raise NotSupported(
                f"{name} {attribute.i} is not supported: {entry.why}",
                f"export with {name} {allowed}",
            )
