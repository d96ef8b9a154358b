"""Operators whose sizes a run computes, called with zero, one, negative and extreme amounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import onnx

from .oracle import floats, node
from .sweeps import Array, Sweep

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
REFUSED = "is no answer"
KINDS = ("nearest", "linear", "cubic")


def i64(values: object) -> Array:
    """An array of i64."""
    return np.array(values, np.int64)


def _vectors(name: str, rows: Sequence[Sequence[int]], **fixed: Array) -> list[dict[str, Array]]:
    return [{**fixed, name: i64(row)} for row in rows]


def _empty(*shape: int) -> dict[str, Array]:
    return {"y": np.zeros(shape, np.float32)}


def _pads() -> Iterator[Sweep]:
    x = floats(3, 4)
    crops = [[0, -2, 0, -2], [0, -4, 0, 0], [-3, 0, 0, 0]]
    pads = [
        *crops,
        *([0, 0, 0, 0], [1, 0, 0, 2], [-1, 0, 0, 0], [0, -2, 0, 1], [1, -1, -1, 2]),
        *([-1, -1, -1, -1], [0, -3, 0, 0], [0, 0, 0, -3], [0, -2, 0, -3], [2, -5, 0, 3]),
        *([-2, 1, 2, 0], [0, 3, 0, -5], [0, SMALLEST, 0, 0], [0, 0, 0, LARGEST]),
    ]
    small = [(0, 3), (2, 0), (1, 1)]
    for mode in ("constant", "edge", "reflect", "wrap"):
        # what is cropped to nothing and not padded stays nothing in every mode
        answered = {n: _empty(*s) for n, s in enumerate([(3, 0), (3, 0), (0, 4)])}
        more = {} if mode == "constant" else {"answered": answered}
        pad = [node("Pad", "x p", mode=mode)]
        yield Sweep(f"pad {mode}", pad, _vectors("p", pads, x=x), **more)
        feeds = [
            {"x": floats(*shape), "p": i64(p)}
            for shape, p in product(small, ([0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]))
        ]
        # ONNX Runtime does not know this mode for empty tensors
        wrapped = {0: (0, 3), 2: (0, 4), 3: (2, 0), 4: (3, 0)}
        more = {"answered": {n: _empty(*s) for n, s in wrapped.items()}} if mode == "wrap" else {}
        yield Sweep(f"pad {mode} of nothing", pad, feeds, **more)
    rows = [[1, 2, 1], [-1, 2, 1], [-1, -2, 0], [0, 0, 0], [5, -3, -1], [1, 1, 2], [1, 1, -3]]
    feeds = [{"x": x, "p": i64(row[:2]), "a": i64(row[2:])} for row in rows]
    yield Sweep("pad along an axis", [node("Pad", "x p - a")], feeds)
    filled = _vectors("p", pads[3:8], x=x, v=np.array(7, np.float32))
    yield Sweep("pad with a value", [node("Pad", "x p v")], filled)


def _slices() -> Iterator[Sweep]:
    x = floats(4)
    bounds = (0, 1, 3, 4, 5, -1, -4, -5, -6, LARGEST, SMALLEST, 2**31 - 1, -(2**31))
    pairs = [{"x": x, "s": i64([a]), "e": i64([b])} for a, b in product(bounds, bounds)]
    for step in (1, 2, -1, -2, 3, -3, LARGEST, SMALLEST):
        constants = {"a": i64([0]), "t": i64([step])}
        yield Sweep(f"slice by {step}", [node("Slice", "x s e a t")], pairs, constants=constants)
    steps = product((0, 3, 9, -1, SMALLEST), (0, 2, LARGEST, SMALLEST, -9), (1, -1, 0, 2, LARGEST))
    feeds = [{"x": x, "s": i64([a]), "e": i64([b]), "t": i64([t])} for a, b, t in steps]
    axis = {"a": i64([0])}
    yield Sweep("slice by steps", [node("Slice", "x s e a t")], feeds, constants=axis)
    rows = (
        (0, 2, 0, 1),
        (1, 9, 1, 1),
        (-1, -9, -1, -1),
        (0, 0, -2, 1),
        (0, 1, 2, 1),
        (0, 1, -3, 1),
    )
    names = "seat"
    feeds = [
        {"x": floats(3, 4), **{n: i64([v]) for n, v in zip(names, row, strict=True)}}
        for row in rows
    ]
    yield Sweep("slice along axes", [node("Slice", "x s e a t")], feeds)
    twice = [{"x": floats(3, 4), "a": i64(axes)} for axes in ([0, 1], [0, 0], [1, -1])]
    constants = {"s": i64([1, 0]), "e": i64([3, 1])}
    yield Sweep("slice of pairs", [node("Slice", "x s e a")], twice, constants=constants)
    narrow = product((0, 2, 9, -9), (0, 3, 2**31 - 1, -(2**31)))
    feeds = [{"x": x, "s": np.int32([a]), "e": np.int32([b])} for a, b in narrow]
    yield Sweep("slice by i32", [node("Slice", "x s e")], feeds)
    nothing = product((0, 1, -1), (0, 1, -1, LARGEST, SMALLEST), (1, -1))
    feeds = [
        {"x": floats(0, 3), "s": i64([a]), "e": i64([b]), "t": i64([t])} for a, b, t in nothing
    ]
    yield Sweep("slice of nothing", [node("Slice", "x s e a t")], feeds, constants=axis)


def _parts_of_sequences() -> Iterator[Sweep]:
    """Slices as exporters write them for sequences whose lengths are computed from shapes."""

    def length(of: str, to: str) -> list[onnx.NodeProto]:
        return [node("Shape", of, f"{to}_all"), node("Gather", f"{to}_all one", to)]

    constants = {"zero": i64([0]), "one": i64([1]), "two": i64(2), "end": i64([LARGEST])}
    before = [*length("x", "n"), node("Sub", "n one", "m")]
    alone = [{"x": floats(1, size, 3)} for size in (4, 1, 0)]
    last = [*before, node("Slice", "x m end one")]
    yield Sweep("the last", last, alone, constants=constants)
    yield Sweep(
        "but the last", [*before, node("Slice", "x zero m one")], alone, constants=constants
    )
    back = [*length("w", "n"), node("Neg", "n", "m")]
    pairs = [
        {"x": floats(1, size, 3), "w": floats(1, count)}
        for size, count in ((4, 2), (4, 4), (4, 9), (4, 0), (0, 2), (0, 0))
    ]
    yield Sweep(
        "as many at the end", [*back, node("Slice", "x m end one")], pairs, constants=constants
    )
    yield Sweep(
        "all but as many", [*back, node("Slice", "x zero m one")], pairs, constants=constants
    )
    middle = [
        node("Shape", "x", "s"), node("Shape", "w", "z"), node("Sub", "s z", "d"),
        node("Div", "d two", "from"), node("Add", "from z", "to"), node("Slice", "x from to", "c"),
        node("Add", "c w"),
    ]  # fmt: skip
    crops = [
        {"x": floats(*a), "w": floats(*b)}
        for a, b in (((6, 7), (2, 3)), ((6, 7), (6, 7)), ((5, 5), (0, 2)), ((0, 0), (0, 0)))
    ]
    yield Sweep("the middle", middle, crops, constants=constants)


def _splits() -> Iterator[Sweep]:
    rows = [[2, 2], [0, 4], [4, 0], [1, 3], [2, 3], [-1, 5], [5, -1], [1, 1], [SMALLEST, SMALLEST]]
    feeds = _vectors("s", rows, x=floats(4, 2))
    yield Sweep("split", [node("Split", "x s", "a b", axis=0)], feeds, "a b")
    for count in (1, 2, 3, 5):
        names = " ".join("abcde"[:count])
        feeds = [{"x": floats(size, 2)} for size in range(8)]
        parts = node("Split", "x", names, axis=0, num_outputs=count)
        yield Sweep(f"split into {count}", [parts], feeds, names)
        equal = node("Split", "x", names, axis=0)
        yield Sweep(f"split into {count} equal", [equal], feeds, names, opset=13)


def _shapes() -> Iterator[Sweep]:
    x = floats(2, 3)
    rows = [[0, 1], [1, 0], [0, 0], [1, 1], [2, 3], [-1, 1], [1, LARGEST], [SMALLEST, 1]]
    feeds = [{"x": floats(*s), "r": i64(r)} for s in ((2, 3), (0, 2), (2, 0)) for r in rows[:6]]
    feeds += _vectors("r", rows[6:], x=x)
    yield Sweep("tile", [node("Tile", "x r")], feeds)
    rows = [[0, 2], [1, 1], [0, 0], [-1, 2], [LARGEST, 0], [SMALLEST, 1], [LARGEST, LARGEST]]
    yield Sweep("constant of shape", [node("ConstantOfShape", "r")], _vectors("r", rows))
    rows = [[6, 1], [-1, 2], [0, -1], [0, 3], [-1, 0], [0, 0], [2, -1], [-1, -1], [4, 2], [-2, 3],
            [SMALLEST, 1]]  # fmt: skip
    for keep in (0, 1):
        feeds = [{"x": floats(*s), "r": i64(r)} for s, r in product(((2, 3), (0, 3), (2, 0)), rows)]
        # dims of 0 that are copied are as much as they were
        copied = {} if keep else {len(rows) + 2: _empty(0, 3), 2 * len(rows) + 4: _empty(2, 0)}
        reshape = [node("Reshape", "x r", allowzero=keep)]
        # a -1 or 0 that is computed from shapes is a size like others
        more = {"answered": copied, "from_shapes": False}
        yield Sweep(f"reshape, zeros kept {keep}", reshape, feeds, **more)
    shapes = ((1, 3), (2, 1), (0, 3), (1, 1), (0, 1))
    rows = [[1, 1], [2, 3], [0, 3], [2, 0], [0, 0], [1, 3], [-1, 3]]
    feeds = [{"x": floats(*s), "r": i64(r)} for s in shapes for r in rows]
    yield Sweep("expand", [node("Expand", "x r")], feeds)
    for op, shapes in (("Squeeze", ((1, 3), (3, 1), (1, 0))), ("Unsqueeze", ((1, 3), (0, 2)))):
        rows = [[0], [1], [-1], [2], [-3], [3], [-4], [SMALLEST]]
        feeds = [{"x": floats(*s), "a": i64(a)} for s in shapes for a in rows]
        yield Sweep(op.lower(), [node(op, "x a")], feeds)
    rows = [[0, 2], [1, 1], [3, 4], [4, 3], [7, 9], [2, 0], [0, 0], [-1, 2]]
    feeds = [
        {"x": floats(*s), "s": i64(r)} for s in ((3, 4), (0, 3)) for r in rows[: 8 if s[0] else 3]
    ]
    yield Sweep("center", [node("CenterCropPad", "x s")], feeds)


def _axes() -> Iterator[Sweep]:
    """Several axes that only a run knows, some of them the same."""
    lists = ([0, 1], [2, -1], [1, -1], [3, 0], [0, -3], [0, 0])
    for keep in (0, 1):
        feeds = [{"x": floats(2, 3, 4), "a": i64(a)} for a in lists]
        # the rank of what is left is that of different axes
        twice = {} if keep else dict.fromkeys((1, 4, 5), REFUSED)
        total = [node("ReduceSum", "x a", keepdims=keep)]
        yield Sweep(f"sum of axes {keep}", total, feeds, answered=twice)
    lists = ([0, 2], [0, -1], [2, 0], [0, 1], [0, 0])
    feeds = [{"x": floats(1, 3, 1), "a": i64(a)} for a in lists]
    yield Sweep("squeeze of two", [node("Squeeze", "x a")], feeds, answered={4: REFUSED})
    feeds = [{"x": floats(2, 3), "a": i64(a)} for a in ([0, 1], [0, 3], [-1, -2], [0, 0], [4, 0])]
    yield Sweep("unsqueeze of two", [node("Unsqueeze", "x a")], feeds)
    feeds = [
        {"x": floats(2, 6, 4, 1), "n": i64(n), "a": i64(a)}
        for n, a in product((3, 6, 8, 0), (0, 1, 2, -2, -3, 3, -5))
    ]
    yield Sweep("transform along", [node("DFT", "x n a")], feeds, opset=20, last="x")
    rows = ((2, [0, 3]), (1, [4, 4]), (5, [0, 0]), (2, [4, 0]), (1, [-1, 0]))
    feeds = [{"p": floats(2, 1, 5, 3), "u": floats(2, 1, size, 3), "i": i64(i)} for size, i in rows]
    yield Sweep("written to a cache", [node("TensorScatter", "p u i")], feeds, opset=24)
    listed = [node("SplitToSequence", "x s", "q"), node("SequenceAt", "q zero")]
    rows = [[2, 3], [0, 5], [5, 0], [2, 2], [-1, 6]]
    first = {"zero": i64(0)}
    yield Sweep("split to a list", listed, _vectors("s", rows, x=floats(5, 2)), constants=first)


def _generators() -> Iterator[Sweep]:
    triples = ((0, 5, 1), (0, 0, 1), (5, 0, 1), (5, 0, -1), (5, 0, -2), (0, 5, -1), (-3, 3, 2),
               (0, 1, 5), (0, 5, 0), (LARGEST - 3, LARGEST, 1), (SMALLEST, SMALLEST + 3, 1),
               (1, 0, 0))  # fmt: skip
    real = ((0, 5, 1), (0, 0, 1), (5, 0, 1), (5, 0, -1.5), (0, 1, 0.1), (0, 5, -1), (0, 5, 0),
            (np.nan, 1, 1), (0, np.inf, 1), (1, 2, np.inf))  # fmt: skip
    for dtype, rows in ((np.int64, triples), (np.int32, triples[:9]), (np.float32, real)):
        feeds = [dict(zip("abc", np.array(row, dtype)[:, None], strict=True)) for row in rows]
        yield Sweep(f"range of {dtype.__name__}", [node("Range", "a b c")], feeds)
    feeds = [
        {"i": i64(i), "d": i64(d)}
        for i, d in product(([0, 2, -1, -3, 5], [1, 1, 1, 1, 1]), (1, 3, -1, SMALLEST, 0))
    ]
    none = {"y": np.zeros((5, 0), np.float32)}  # ONNX Runtime takes a depth of 0 for negative
    values = {"v": np.float32([-1, 2])}
    one_hot = [node("OneHot", "i d v")]
    yield Sweep("one hot", one_hot, feeds, constants=values, answered={4: none, 9: none})
    for upper in (0, 1):
        ks = (0, 1, -1, 3, 9, -9, LARGEST, SMALLEST)
        feeds = [{"x": floats(*s), "k": i64(k)} for s in ((3, 4), (0, 3), (3, 0)) for k in ks]
        yield Sweep(f"triangle {upper}", [node("Trilu", "x k", upper=upper)], feeds)
    for window in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        feeds = [{"n": i64(n)} for n in (0, 1, 2, 5, 8, -1, SMALLEST)]
        yield Sweep(window, [node(window, "n")], feeds)


def _orders() -> Iterator[Sweep]:
    x = floats(3, 5)
    for axis, largest in product((0, 1), (0, 1)):
        top = [node("TopK", "x k", "y i", axis=axis, largest=largest)]
        feeds = _vectors("k", [[0], [1], [3], [5], [6], [-1], [LARGEST], [SMALLEST]], x=x)
        feeds += [
            {"x": floats(*s), "k": i64(k)} for s in ((0, 3), (2, 0), (1, 1)) for k in ([0], [1])
        ]
        yield Sweep(f"top {axis} {largest}", top, feeds, "y i")
    for exclusive, reverse in product((0, 1), (0, 1)):
        feeds = [
            {"x": floats(*s), "a": i64(a)}
            for s, a in product(((3, 4), (1, 1), (0, 3), (3, 0)), (0, 1, -1, -2, 2, -3))
        ]
        # an axis that is not there, whatever there is along the others
        absent = {n: REFUSED for n in (16, 17, 22, 23)}
        sums = [node("CumSum", "x a", exclusive=exclusive, reverse=reverse)]
        yield Sweep(f"sums {exclusive} {reverse}", sums, feeds, answered=absent)
    for op in ("Sum", "Max", "Mean", "Prod", "L2", "LogSumExp"):
        for keep in (0, 1):
            feeds = [
                {"x": np.abs(floats(*s)), "a": i64([a])}
                for s, a in product(((3, 4), (1, 3)), (0, 1, -1, -2, 2, -3))
            ]
            yield Sweep(f"{op} {keep}", [node(f"Reduce{op}", "x a", keepdims=keep)], feeds)


def _indices() -> Iterator[Sweep]:
    for axis in (0, 1):
        rows = ([0, 1], [-1, -3], [3, 0], [-4, 0], [LARGEST, 0], [SMALLEST, 0])
        feeds = [{"x": floats(*s), "i": i64(i)} for s in ((3, 4), (0, 4), (3, 0)) for i in rows]
        yield Sweep(f"gather {axis}", [node("Gather", "x i", axis=axis)], feeds)
    boxes = np.float32([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3], [5, 5, 6, 6]]])
    scores = np.float32([[[0.9, 0.8, 0.7, 0.1], [0.2, 0.3, 0.9, 0.95]]])
    limits = product((0, 1, 2, 9, -1, LARGEST, SMALLEST), (0, 0.5, 1, 2, -1), (0, 0.5, 2))
    feeds = [
        {"b": boxes, "s": scores, "m": i64([m]), "o": np.float32([o]), "l": np.float32([low])}
        for m, o, low in limits
    ]
    yield Sweep("suppression", [node("NonMaxSuppression", "b s m o l")], feeds, fixed="o l")
    unpool = [node("MaxUnpool", "x i s", kernel_shape=[2, 2], strides=[2, 2])]
    places = i64([[[[0, 3], [9, 10]]]])
    rows = [[1, 1, 4, 4], [1, 1, 3, 4], [1, 1, 0, 0], [1, 1, -1, 4]]
    yield Sweep("unpool", unpool, _vectors("s", rows, x=floats(1, 1, 2, 2), i=places))
    blocks = ((4, [3, 3], [2, 2]), (1, [2, 2], [2, 2]), (9, [4, 4], [2, 2]), (4, [3, 3], [1, 4]),
              (2, [3, 3], [2, 2]), (0, [1, 2], [2, 2]), (6, [3, 4], [2, 2]))  # fmt: skip
    feeds = [{"x": floats(1, 4, n), "s": i64(s), "b": i64(b)} for n, s, b in blocks]
    yield Sweep("columns to an image", [node("Col2Im", "x s b")], feeds)


def _signals() -> Iterator[Sweep]:
    for inverse, onesided in ((0, 0), (0, 1), (1, 0)):
        feeds = [
            {"x": floats(1, 6, 1 + inverse), "n": i64(n)} for n in (1, 2, 6, 7, 4, 0, -1, LARGEST)
        ]
        dft = [node("DFT", "x n", inverse=inverse, onesided=onesided, axis=1)]
        yield Sweep(f"transform {inverse} {onesided}", dft, feeds, opset=17)
    rows = ((1, 4), (4, 4), (3, 12), (1, 13), (0, 4), (-1, 4), (2, 1), (2, 0))
    feeds = [{"x": floats(1, 12, 1), "s": i64(a), "n": i64(b)} for a, b in rows]
    # ONNX Runtime does not survive frames without elements
    stft, died = [node("STFT", "x s - n")], {7: REFUSED}
    yield Sweep("frames", stft, feeds, opset=17, answered=died)
    edges = {"lo": np.float32(0), "hi": np.float32(8000), "r": i64(16000)}
    rows = ((4, 16), (1, 16), (0, 16), (4, 0), (-1, 4))
    feeds = [{"b": i64(b), "l": i64(n)} for b, n in rows]
    yield Sweep("mel", [node("MelWeightMatrix", "b l r lo hi")], feeds, constants=edges, opset=17)


def _resizes() -> Iterator[Sweep]:
    x = floats(1, 1, 4, 5)
    sizes = [[4, 5], [8, 10], [1, 1], [3, 7], [0, 5], [4, 0], [-1, 5], [0, 0]]
    scales = [[1, 1], [2, 2], [0.25, 0.2], [0.1, 1], [0, 1], [-1, 1], [0.01, 0.01]]
    empties = [(0, 1, 4, 5), (1, 0, 4, 5), (1, 1, 0, 5), (1, 1, 4, 0), (1, 1, 1, 1)]
    same = [
        ((0, 1, 4, 5), [0, 1, 8, 8]),
        ((1, 0, 4, 5), [1, 0, 3, 3]),
        ((1, 1, 0, 5), [1, 1, 3, 5]),
        ((1, 1, 0, 5), [1, 1, 0, 7]),
        ((0, 1, 4, 5), [2, 1, 4, 5]),
    ]
    places = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for kind, place in product(KINDS, places):
        mode = {"mode": kind, "coordinate_transformation_mode": place}
        feeds = _vectors("s", [[1, 1, *size] for size in sizes], x=x)
        feeds += [{"x": floats(*shape), "s": i64(size)} for shape, size in same]
        yield Sweep(f"resize {kind} {place}", [node("Resize", "x - - s", **mode)], feeds)
        feeds = [{"x": x, "s": np.float32([1, 1, *scale])} for scale in scales]
        feeds += [{"x": floats(*shape), "s": np.float32([1, 1, 2, 1.5])} for shape in empties]
        by = [node("Resize", "x - s", **mode)]
        yield Sweep(f"resize by scales {kind} {place}", by, feeds, fixed="s")
    for kind in KINDS[1:]:
        rows = [[1, 1, 4, 5], [1, 1, 1, 1], [1, 1, 13, 17], [1, 1, 0, 5]]
        feeds = _vectors("s", rows, x=floats(1, 1, 9, 12))
        feeds += [{"x": floats(*shape), "s": i64(size)} for shape, size in same[:2]]
        yield Sweep(f"antialias {kind}", [node("Resize", "x - - s", mode=kind, antialias=1)], feeds)
    feeds = _vectors("s", [[4, 6], [8, 6], [1, 1], [2, 9], [0, 3], [1, 0]], x=floats(1, 1, 4, 6))
    fitted = node("Resize", "x - - s", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    yield Sweep("resize to fit", [fitted], feeds)


def amounts() -> list[Sweep]:
    """All of them."""
    makers = (
        _pads,
        _slices,
        _parts_of_sequences,
        _splits,
        _shapes,
        _axes,
        _generators,
        _orders,
        _indices,
        _signals,
        _resizes,
    )
    return [sweep for make in makers for sweep in make()]
