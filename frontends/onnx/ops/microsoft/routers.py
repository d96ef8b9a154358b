"""MoEGroupRouter of com.microsoft: experts are chosen of the best groups, as in DeepSeek-V3.

DeepSeek-AI, DeepSeek-V3 technical report (2024), section 2.1.2; attributes and outputs as in
microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import product
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from .experts import best

_LEAST = 1e-20  # of a share whose logarithm is taken
_NEVER = -1e30  # a score that no expert has


@lowers("MoEGroupRouter", domain=MICROSOFT)
def group_router(s: Site) -> list[Value | None]:
    """Logarithms of the shares of the experts that are chosen, or all scores and shares."""
    logits, bias, weight = s.input(0), s.input(1), s.optional(2)
    dtype = logits.dtype
    flat = s.reshape(logits, (product(logits.shape[:-1]), logits.shape[-1]))
    flat = s.cast(flat, DType.F32)
    if weight is not None:
        turned = s.transpose(s.cast(weight, DType.F32), (1, 0))
        flat = s.emit("matmul", [flat, turned])
    share = s.op_("sigmoid", flat)
    scores = s.op_("add", share, s.cast(bias, DType.F32))
    if s.wants(1) or s.wants(2):
        if s.wants(0):
            raise NotSupported(
                "the chosen experts beside all scores are not supported, nor by ONNX Runtime",
                "use two nodes, one of which gives output 0 and the other outputs 1 and 2",
            )
        return [None, scores, share]
    chosen = _chosen(s, scores)
    logarithm = s.op_("log", s.op_("max", share, _LEAST))
    routed = s.op_("where", chosen, logarithm, s.real("router_sentinel", -10000.0))
    return [s.cast(routed, dtype), None, None]


def _chosen(s: Site, scores: Value) -> Value:
    """The best experts [tokens, experts] of the best groups."""
    groups, few = s.integer("n_group", 1), s.integer("topk_group", 1)
    tokens, count = scores.shape
    if not isinstance(count, int):
        raise NotSupported("the number of experts is not known", "pin the shapes of the model")
    if groups < 1 or count % groups or few < 1:
        raise ValueError(f"{count} experts do not divide into {groups} groups")
    size = count // groups
    apart = s.reshape(scores, (tokens * groups, size))
    top = best(s, apart, min(s.integer("group_topk", 2), size))
    sums = s.reduce("sum", s.op_("where", top, apart, 0.0), [1], keepdims=False)
    used = best(s, s.reshape(sums, (tokens, groups)), few)
    wide = s.expand(s.reshape(used, (tokens, groups, 1)), (tokens, groups, size))
    kept = s.op_("where", s.reshape(wide, (tokens, count)), scores, _NEVER)
    return best(s, kept, s.integer("top_k"))
