"""Where Winograd's algorithm is the faster one, with which tiles and in which blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.dims import Dim, estimate
from ...ir.exactness import adds_exactly
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import make_node
from ...ir.ops.step_groups import GROUP
from ...ir.types import DType, TensorType
from ...target import CpuTarget
from ..contraction import UNKNOWN_EXTENT
from ..lower.plain import follows
from ..lower.reductions import REDUCE
from .form import WinogradForm
from .winograd import SHORT, are_words, images_together, shape_of
from .winograd_transforms import WORDS, Tiling, tilings_of
from .winograd_words import Sums, sums_of, sums_of_bytes

BLOCK_BYTES = 640 << 10  # transformed inputs and products of one block that stay in cache
WEIGHT_FACTOR = 3  # how much dearer a byte from memory is than one from the next cache
GROUP_CHANNELS = 32  # of the output, a multiple of which a group has
PANEL_VECTORS = 3  # of the weights for one step of a sum
STREAM_BYTES_PER_CYCLE = 3.5  # assumed rate at which weights arrive from memory (one core)
NEAR_BYTES = 512 << 10  # weights of a network that stay in a core's own caches from run to run
NEAR_BYTES_PER_CYCLE = 20.0  # assumed rate at which they arrive from there
# of a block, that are worth dividing the groups of a convolution for
BLOCK_TILES = 24
# of a block where only a run knows how many there are: small pictures shall leave little of it
# empty. Weights that stay in cache may be read again for every 12 (one Zen 4 core: at 8x8 pixels
# of 64 channels twice as fast as with 24, at 64x64 as fast), others for twice as many (at 32x32
# pixels of 256 channels 1.1 times as fast as with 12)
OPEN_TILES, FAR_OPEN_TILES = 12, 24
# of the estimated cycles of direct convolution, at most: both are estimates, and what transforms
# add to code, weights and errors of rounding is not worth less (a judgement, not measured)
FASTER = 0.9
# times as long as estimated that direct convolutions of small pictures of open sizes take, whose
# rows fill no register tile (one Zen 5 core, 64 and 256 channels: 1.0 at 7x7 pixels, 1.2 at 8x8,
# 1.8 at 4x4 and 6x6, with weights in the third-level cache)
FEW_ROWS = 1.8
MIN_CHANNELS = 8  # fewer leave most lanes of the transforms empty


def winograd_form(
    node: Node, target: CpuTarget, near: bool = False, threads: int = 1
) -> WinogradForm | None:
    """How to compute the convolution of a fused node where Winograd is the faster algorithm.

    near: whether the network `has_near_weights`. threads: how many are expected to share the work.
    """
    conv = convolution_of(node)
    tilings = best_tilings(conv, target, near, _sums(node, conv)) if conv else None
    if conv is None or tilings is None:
        return None
    block, groups = _parts(conv, tilings, threads)
    least = _least_places(conv, tilings, block, target)
    return WinogradForm(tuple(tiling.m for tiling in tilings), block, groups, least)


def winograd_forms(node: Node, target: CpuTarget, threads: int = 1) -> list[WinogradForm]:
    """Every tile that the convolution of a fused node could take, each in the usual blocks, in
    blocks of half and twice as many tiles, and in a single one. threads: that share the work."""
    conv = convolution_of(node)
    if conv is None or not _possible(conv):
        return []
    found: dict[WinogradForm, None] = {}
    for tilings in _tilings_of(conv, _sums(node, conv)):
        tiles = _tiles(conv, tilings)
        block, groups = _parts(conv, tilings, threads)
        for size in (block, max(1, block // 2), min(tiles, 2 * block), tiles):
            outputs = tuple(tiling.m for tiling in tilings)
            least = _least_places(conv, tilings, size, target)
            found[WinogradForm(outputs, size, groups, least)] = None
    return list(found)


def convolution_of(node: Node) -> Node | None:
    """The convolution of a fused node that Winograd's algorithm could compute, whatever it costs.

    Its weights are constant, and it is the only reduction, which all else follows.
    """
    region = node.regions[0]
    reducers = [inner for inner in region.nodes if inner.op in REDUCE]
    if len(reducers) != 1 or reducers[0].op != "conv" or not follows(reducers, region):
        return None
    conv = reducers[0]
    operands = dict(zip(region.inputs, node.inputs, strict=True))
    source, views = conv.inputs[0], 0
    while source.producer is not None and source.producer.op == "reshape":
        source, views = source.producer.inputs[0], views + 1
    moved = sum(inner.op in ("reshape", "transpose") for inner in region.nodes)
    if moved > views or source not in operands or conv.inputs[1] not in operands:
        return None
    weights = operands[conv.inputs[1]]
    if weights.data is None:
        return None
    if are_words(conv):
        return conv if _possible(conv) and _tilings_of(conv, _sums(node, conv)) else None
    return None if conv.attrs["exact"] and adds_exactly(weights.data) else conv


def _sums(node: Node, conv: Node) -> Sums | None:
    """Of the convolution of a fused node, if it is one of words."""
    return sums_of_bytes(node, conv) if are_words(conv) else None


def winograd_illegal(node: Node, form: WinogradForm) -> str:
    """Why a fused node cannot take a form; empty where it can."""
    conv = convolution_of(node)
    if conv is None or not _possible(conv):
        return "it is no convolution of floats at stride 1 or 2, or of words, by constant weights"
    window = conv.inputs[1].type.static_shape[:-2]
    tilings = [tuple(t.m for t in found) for found in _tilings_of(conv, _sums(node, conv))]
    if form.outputs not in tilings:
        known = ", ".join("x".join(map(str, outputs)) for outputs in tilings)
        return f"tiles of a window of {'x'.join(map(str, window))} are {known or 'none'}"
    _, _, channels = shape_of(conv.output)
    divided, what = channels, "output channels"
    if conv.attrs["groups"] > 1:
        divided, what = conv.attrs["groups"], "groups of the convolution"
    if form.block < 1 or form.groups < 1 or divided % form.groups:
        return f"blocks have at least one tile, and groups divide the {what}"
    return ""


def _possible(conv: Node) -> bool:
    """Whether a convolution has a kind and sizes that tiles are made of."""
    if conv.op != "conv":
        return False
    x, w, attrs = conv.inputs[0], conv.inputs[1], conv.attrs
    known = (x.shape[-1], conv.output.shape[-1], *w.shape)
    if attrs["layout"] != "NHWC" or not all(isinstance(n, int) for n in known):
        return False
    extents, sizes = conv.output.shape[1:-1], x.shape[1:-1]
    strided, words = set(attrs["strides"]) != {1}, are_words(conv)
    if strided and (words or not all(isinstance(n, int) for n in (*extents, *sizes))):
        return False
    longer = zip(extents, sizes, strict=True)
    if not strided and not all(isinstance(extent - size, int) for extent, size in longer):
        return False
    if words:
        return bool(w.shape[-2] % WORDS.steps == 0)
    depthwise = attrs["groups"] > 1 and w.shape[-2] == 1
    return x.dtype is w.dtype is DType.F32 and attrs["pad_value"] == 0 and not depthwise


def _usual_shape(value: Value) -> tuple[int, list[int], int]:
    """(images whose tiles share blocks, spatial extents, channels); sizes that only a run knows are
    usual ones."""
    batch, extents, channels = shape_of(value)
    usual = [estimate(extent, UNKNOWN_EXTENT) for extent in extents]
    return images_together(batch, extents), usual, channels


def _tiles(conv: Node, tilings: Sequence[Tiling]) -> int:
    """Tiles of the images that share blocks."""
    images, extents, _ = _usual_shape(conv.output)
    return images * _tile_count(tilings, extents)


def _tile_count(tilings: Sequence[Tiling], extents: Sequence[int]) -> int:
    return math.prod(t.tiles(n) for t, n in zip(tilings, extents, strict=True))  # type: ignore[misc]


def _parts(conv: Node, tilings: Sequence[Tiling], threads: int) -> tuple[int, int]:
    """(tiles per block, groups of output channels)."""
    (_, _, channels), (_, _, outputs) = shape_of(conv.inputs[0]), shape_of(conv.output)
    channels //= _steps(conv)
    tiles, points = _tiles(conv, tilings), math.prod(tiling.points for tiling in tilings)
    known = all(isinstance(extent, int) for extent in conv.output.shape[1:-1])
    if not known:
        weights = points * math.prod(conv.inputs[1].type.static_shape[-2:]) // _steps(conv) * 4
        most = OPEN_TILES if weights <= BLOCK_BYTES else FAR_OPEN_TILES
        tiles, threads = min(tiles, most), 1
    if conv.attrs["groups"] > 1:
        groups = conv.attrs["groups"]
        return grouped_partition(tiles, channels + outputs, groups, points, threads)
    return partition(tiles, channels, outputs, points, threads) if known else (tiles, 1)


def has_near_weights(graph: Graph) -> bool:
    """Whether the weights of a whole network are few enough to stay in cache between runs."""
    weights = (value.type for value in graph.constants())
    return sum(math.prod(t.static_shape) * t.dtype.bytes for t in weights) <= NEAR_BYTES


def best_tilings(
    conv: Node, target: CpuTarget, near: bool = False, sums: Sums | None = None
) -> tuple[Tiling, ...] | None:
    """The tilings with which Winograd is estimated to be fastest; None: direct convolution is.

    near: whether the network has near weights. sums: of a convolution of words.
    """
    return _best(conv, target, near, sums)[0] if _possible(conv) else None


def winograd_gain(conv: Node, target: CpuTarget) -> float:
    """How many times as long a convolution of floats takes when it is computed directly."""
    conv = _as_channels_last(conv)
    return _best(conv, target, False)[1] if _possible(conv) else 1.0


def gain_of_words(conv: Node, target: CpuTarget) -> float:
    """How many times as long a convolution of bytes by constant ones takes directly as one of the
    same as words by Winograd's algorithm; 1 where that loses anything, or is no faster."""
    weights, sums = conv.inputs[1].data, None
    last = _as_channels_last(conv)
    if weights is not None:
        moved = weights if last is conv else weights.transpose(*range(2, weights.ndim), 1, 0)
        sums = sums_of(moved, conv.inputs[0].dtype)
    operands = [Value(TensorType(WORDS.left, value.shape)) for value in last.inputs[:2]]
    words = make_node("conv", operands, last.attrs)
    if not are_words(words) or not _possible(words) or sums is None:
        return 1.0
    tilings, gain = _best(words, target, False, sums)
    cycles = _direct_cycles(words, target, False) / gain
    return max(1.0, _direct_cycles(last, target, False) / cycles) if tilings else 1.0


def convolution_cycles(conv: Node, target: CpuTarget) -> float | None:
    """Estimated cycles of a convolution of floats by the faster algorithm; of one picture, and of
    usual sizes, where only a run knows these. None where it is not one that tiles are made of."""
    conv = _as_channels_last(conv)
    if not _possible(conv):
        return None
    return _direct_cycles(conv, target, False) / _best(conv, target, False)[1]


def _as_channels_last(conv: Node) -> Node:
    if conv.attrs["layout"] != "NCHW":
        return conv
    shapes = zip(conv.inputs, _channels_last(conv), strict=False)
    x, w = (Value(TensorType(value.dtype, shape)) for value, shape in shapes)
    return make_node("conv", [x, w], {**conv.attrs, "layout": "NHWC"})


def _channels_last(conv: Node) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """Shapes of the operands of a channels-first convolution with the channels last."""
    (n, c, *sizes), (m, per_group, *taps) = (value.shape for value in conv.inputs[:2])
    return (n, *sizes, c), (*taps, per_group, m)


def _best(
    conv: Node, target: CpuTarget, near: bool, sums: Sums | None = None
) -> tuple[tuple[Tiling, ...] | None, float]:
    """The fastest tilings, if any are faster, and how many times as fast they are."""
    attrs = conv.attrs
    images, extents, outputs = _usual_shape(conv.output)
    _, _, inputs = shape_of(conv.inputs[0])
    *window, channels, _ = conv.inputs[1].type.static_shape
    steps = _steps(conv)
    short = any(n < SHORT for n, taps in zip(extents, window, strict=True) if taps > 1)
    if min(channels, outputs // attrs["groups"]) < MIN_CHANNELS or short:
        return None, 1.0
    inputs, channels = inputs // steps, channels // steps
    work, rate = channels * outputs, _weight_rate(near)
    direct = _direct_cycles(conv, target, near)
    best, least = None, FASTER * direct
    for tilings in _tilings_of(conv, sums):
        points, tiles = math.prod(t.points for t in tilings), images * _tile_count(tilings, extents)
        if tiles < 4:
            continue
        cycles = _cycles(points * max(tiles, 6) * work, points * work, channels, rate, target)
        cycles += points * tiles * (inputs + outputs) * 4 / 32  # transforms, from and to L2
        if cycles < least:
            best, least = tilings, cycles
    return best, direct / least if best else 1.0


def _least_places(conv: Node, tilings: Sequence[Tiling], block: int, target: CpuTarget) -> int:
    """Of how many places a picture is computed sooner in whole blocks of tiles than directly, where
    only a run knows its size: those of the smallest square; 0 where the size is known."""
    _, extents, outputs = shape_of(conv.output)
    if all(isinstance(extent, int) for extent in extents):
        return 0
    _, _, inputs = shape_of(conv.inputs[0])
    channels, inputs = int(conv.inputs[1].shape[-2]) // _steps(conv), inputs // _steps(conv)
    work, rate = channels * outputs, _weight_rate(near=True)
    points, places = math.prod(tiling.points for tiling in tilings), 0
    for side in range(SHORT, UNKNOWN_EXTENT):
        sizes = [extent if isinstance(extent, int) else side for extent in extents]
        tiles = -(-_tile_count(tilings, sizes) // block) * block
        cycles = _cycles(points * tiles * work, points * work, inputs, rate, target)
        cycles += points * tiles * (inputs + outputs) * 4 / 32
        places = math.prod(sizes)
        if cycles < FEW_ROWS * _direct_cycles(conv, target, True, places):
            break
    return places


def _direct_cycles(conv: Node, target: CpuTarget, near: bool, places: int | None = None) -> float:
    """Estimated cycles of a convolution that is computed directly. places: of its result, if they
    are others than of usual sizes."""
    images, extents, outputs = _usual_shape(conv.output)
    *window, channels, _ = conv.inputs[1].type.static_shape
    channels //= _steps(conv)
    work, taps = channels * outputs, math.prod(window)
    positions = images * math.prod(extents) if places is None else places
    rate = _weight_rate(near)
    return _cycles(positions * taps * work, taps * work, taps * channels, rate, target)


def _steps(conv: Node) -> int:
    """Channels that are multiplied at once, in elements of 32 bits."""
    integers = conv.attrs["accumulate"] is WORDS.accumulate
    return GROUP.bytes // conv.inputs[1].dtype.bytes if integers else 1


def _weight_rate(near: bool) -> float:
    return NEAR_BYTES_PER_CYCLE if near else STREAM_BYTES_PER_CYCLE


def _tilings_of(conv: Node, sums: Sums | None) -> list[tuple[Tiling, ...]]:
    """What a convolution could be cut into: of words, what has transforms that lose nothing."""
    window = conv.inputs[1].type.static_shape[:-2]
    found = tilings_of(window, conv.attrs["dilations"], conv.attrs["strides"])
    if are_words(conv):
        return [tilings for tilings in found if sums is not None and sums.holds(tilings)]
    return found


def _cycles(multiply_adds: int, weights: int, depth: int, rate: float, target: CpuTarget) -> float:
    """Estimated cycles of a product whose weights arrive at `rate` bytes per cycle.

    depth: of one sum. Weights arrive meanwhile if the next panel fits into the cache beside this.
    """
    lanes = target.lanes(32)
    compute, stream = multiply_adds / (lanes * target.fma_ports), weights * 4 / rate
    if depth * PANEL_VECTORS * lanes * 4 > BLOCK_BYTES:
        return compute + stream
    return max(compute, stream) + 0.3 * min(compute, stream)


def partition(
    tiles: int, channels: int, outputs: int, points: int, threads: int = 1
) -> tuple[int, int]:
    """(tiles per block, groups of output channels) with which a thread moves the least.

    Every block reads the weights of its group anew unless they stay in cache; a block that is too
    large for the cache writes and reads what it transforms once each; every group transforms the
    same inputs. Threads get as many blocks each; those of one group fetch weights from memory for
    each other, to a cache that they share.
    """
    best, least = (tiles, 1), float("inf")
    dividing = [g for g in range(1, threads + 1) if threads % g == 0]
    for groups in (g for g in dividing if outputs % (g * GROUP_CHANNELS) == 0 or g == 1):
        sharing = threads // groups
        weights = points * channels * outputs * 4 // groups
        for blocks in range(sharing, max(sharing, -(-tiles // 6)) + 1, sharing):
            size, turns = -(-tiles // blocks), blocks // sharing
            inputs = turns * points * size * channels * 4
            products = turns * points * size * outputs * 4 // groups
            far = (WEIGHT_FACTOR + sharing - 1) / sharing
            moved = far * weights * (turns if weights > BLOCK_BYTES else 1) + 2 * inputs
            moved += 2 * (inputs + products) if (inputs + products) > BLOCK_BYTES * turns else 0
            if moved < least:
                best, least = (size, groups), moved
    return best


def grouped_partition(
    tiles: int, channels: int, groups: int, points: int, threads: int = 1
) -> tuple[int, int]:
    """As `partition`, for a convolution in groups, which share no inputs: as few parts of them as
    fit into the cache for enough tiles.

    channels: of the input and the output together. groups: of the convolution.
    """
    most, parts = 1, 1
    for parts in (count for count in range(1, groups + 1) if groups % count == 0):
        most = max(1, BLOCK_BYTES // (points * (channels // parts) * 4))
        if most >= min(tiles, BLOCK_TILES):
            break
    blocks = -(-tiles // most)
    while blocks < tiles and blocks * parts % threads:
        blocks += 1
    return -(-tiles // blocks), parts
