"""Where two convolutions in bands save more than they compute twice, and the size of the bands."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.graph import Graph, Node
from ...ir.ops.registry import Trait, has_trait
from ...ir.types import DType
from ...target import CpuTarget
from ..expr import EXPENSIVE
from ..lower.reductions import REDUCE, overhangs
from .bands import Bands
from .form import BandsForm

# of the second-level cache, for the rows between the convolutions that one band holds; larger ones
# where smaller do not pay
BAND_SHARES = (0.25, 0.625)
LEAST_CACHE = 1 << 20  # bytes, that a smaller second-level cache counts as
MIN_BETWEEN_BYTES = 128 << 10  # less than that stays in cache anyway
BLOCKS = (48, 32)  # channels of a block; the first that divides their number
SLOW_BYTES_PER_CYCLE = 16.0  # assumed, of what the second-level cache does not hold (one core)
FLOPS_PER_CYCLE = 50.0  # assumed, of a convolution on a 512-bit core; only ratios matter
FUNCTION_CYCLES = 4.0  # assumed, of a transcendental function for one element on such a core


def bands_form(region: Graph, target: CpuTarget, threads: int = 1) -> BandsForm | None:
    """How a region of two convolutions is computed in bands; None where that does not pay, or for
    any other region.

    threads: how many share the bands.
    """
    convs = _convolutions(region)
    if convs is None:
        return None
    first, second = convs
    functions = sum(n.op in EXPENSIVE for n in region.nodes[: region.nodes.index(second)])
    limits = [share * max(target.l2_bytes, LEAST_CACHE) for share in BAND_SHARES]
    return _sized(first, second, limits, functions, threads)


def bands_forms(region: Graph) -> list[BandsForm]:
    """Bands that a region of two convolutions could be computed in: of few rows up to all in the
    usual blocks of channels, or of a few in other ones."""
    convs = _convolutions(region)
    if convs is None:
        return []
    channels = convs[1].inputs[0].type.static_shape[-1]
    out_rows = convs[1].output.type.static_shape[1]
    usual = _block(channels)
    blocks = dict.fromkeys((usual, usual // 2, 2 * usual, *BLOCKS, channels))
    rows = sorted({-(-out_rows // count) for count in (1, 2, 3, 4, 6, 8, 12)})
    others = {-(-out_rows // count) for count in (2, 4)}
    forms = (
        BandsForm(count, block)
        for block in blocks
        for count in rows
        if block == usual or count in others
    )
    return [form for form in forms if form.block and not bands_illegal(region, form)]


def bands_illegal(region: Graph, form: BandsForm) -> str:
    """Why a region cannot take a form; empty where it can."""
    convs = _convolutions(region)
    if convs is None:
        return "it is no convolution followed by a depthwise one, of known sizes"
    between, out_rows = convs[1].inputs[0], convs[1].output.type.static_shape[1]
    _, (_, after) = overhangs(convs[1])
    if not isinstance(after, int) or between.dtype is not DType.F32:
        return "what is between the convolutions has no known borders, or another type than f32"
    if not 1 <= form.rows <= out_rows:
        return f"bands have 1 to {out_rows} rows"
    channels = between.type.static_shape[-1]
    return f"blocks divide {channels} channels" if form.block < 1 or channels % form.block else ""


def _convolutions(region: Graph) -> tuple[Node, Node] | None:
    """The two convolutions of a region that bands can compute, the second depthwise."""
    convs = [node for node in region.nodes if node.op in REDUCE]
    if len(convs) != 2 or any(node.op != "conv" for node in convs):
        return None
    first, second = convs
    pointwise = all(has_trait(n, Trait.POINTWISE) for n in region.nodes if n not in convs)
    between = second.inputs[0]
    if not pointwise or between.producer is None or not _plain(first) or not _plain(second):
        return None
    if second.attrs["groups"] != between.type.static_shape[-1] or first.attrs["groups"] != 1:
        return None
    return first, second


def _plain(conv: Node) -> bool:
    """Whether a convolution is two-dimensional, channels last and of known size."""
    values = (*conv.inputs, conv.output)
    static = all(value.type.is_static for value in values)
    return static and conv.attrs["layout"] == "NHWC" and len(conv.inputs[1].shape) == 4


def _block(channels: int) -> int:
    """Channels of a block: all of them where no size divides their number."""
    return next((size for size in BLOCKS if channels % size == 0), channels)


def _sized(
    first: Node, second: Node, limits: Sequence[float], functions: int, threads: int
) -> BandsForm | None:
    """The bands that save more than they compute twice; None when none do.

    limits: bytes that bands may hold, the preferred first. functions: how many transcendental ones
    follow the first convolution.
    """
    between = second.inputs[0]
    batch, height, width, channels = between.type.static_shape
    _, (before, after) = overhangs(second)
    total = batch * height * width * channels * between.dtype.bytes
    if not isinstance(before, int) or not isinstance(after, int):
        return None
    if between.dtype is not DType.F32 or total < MIN_BETWEEN_BYTES:
        return None
    after, block = max(after, 0), _block(channels)
    row_bytes = (width + before + after) * block * between.dtype.bytes
    out_rows = second.output.type.static_shape[1]
    sizes = {-(-out_rows // count) for count in range(1, out_rows + 1)}
    choices = [Bands(first, second, BandsForm(rows, block)) for rows in sizes]
    work = 2 * batch * height * width * math.prod(first.inputs[1].type.static_shape)
    cycles = work / FLOPS_PER_CYCLE + functions * FUNCTION_CYCLES * total / between.dtype.bytes
    saved = 2 * total / SLOW_BYTES_PER_CYCLE

    def most_work(own: Bands) -> tuple[int, int]:
        """Rows that the thread with the most bands computes, and how many bands there are."""
        return -(-batch * own.count // threads) * len(own.made_rows), own.count

    for limit in limits:
        fitting = [own for own in choices if own.held_rows * row_bytes <= limit]
        best = min(fitting, key=most_work, default=None)
        if best and saved > 1.5 * cycles * (best.count * len(best.made_rows) / height - 1):
            return best.form
    return None
