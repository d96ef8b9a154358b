"""Operators on nothing: no rows, no columns, no batch, no steps, nothing found by the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from .amounts import LARGEST, SMALLEST, i64
from .oracle import floats, node
from .sweeps import Array, Sweep

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Shape = tuple[int, ...]
FLAT = ((0, 3), (2, 0), (0, 0), (2, 3), (1, 1))
CUBES = ((0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0), (2, 3, 4))
MICROSOFT = "com.microsoft"


def _array(shape: Shape, dtype: type = np.float32, seed: int = 0) -> Array:
    values = 3 * np.random.default_rng(seed).standard_normal(shape)
    if dtype is np.bool_:
        return values > 0
    return np.abs(values).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def _on(name: str, made: onnx.NodeProto, shapes: Sequence[Shape], **more: object) -> Sweep:
    """One node with one input."""
    dtype = more.pop("dtype", np.float32)
    return Sweep(name, [made], [{"x": _array(s, dtype)} for s in shapes], **more)


def _of(
    name: str, made: onnx.NodeProto, pairs: Sequence[tuple[Shape, Shape]], **more: object
) -> Sweep:
    """One node with two inputs."""
    dtypes = more.pop("dtypes", (np.float32, np.float32))
    feeds = [{"x": _array(a, dtypes[0]), "w": _array(b, dtypes[1], 1)} for a, b in pairs]
    return Sweep(name, [made], feeds, **more)


def _pointwise() -> Iterator[Sweep]:
    for op in ("Abs", "Relu", "Exp", "Sign", "Gelu", "Softplus", "Identity", "IsNaN"):
        yield _on(op, node(op, "x"), FLAT, opset=20)
    pairs = [*((s, s) for s in FLAT), ((0, 3), (3,)), ((2, 3), (3,))]
    for op in ("Add", "Div", "Pow", "Max", "Equal", "PRelu"):
        yield _of(op, node(op, "x w"), pairs[:5])
        yield _of(f"{op} of rows", node(op, "x w"), pairs[5:])
    feeds = [{"c": _array(s, np.bool_), "x": _array(s), "w": _array(s)} for s in FLAT]
    yield Sweep("where", [node("Where", "c x w")], feeds)
    yield _on("cast", node("Cast", "x", to=I64), FLAT)


def _reductions() -> Iterator[Sweep]:
    for op in ("Sum", "Max", "Min", "Mean", "Prod", "L1", "L2", "LogSum", "LogSumExp"):
        for axes in ([0], [1], [2], [0, 2], [0, 1, 2]):
            reduce_ = node(f"Reduce{op}", "x a", keepdims=len(axes) % 2)
            yield _on(f"{op} {axes}", reduce_, CUBES, constants={"a": i64(axes)})
        feeds = [{"x": _array(s), "a": i64([a])} for s in CUBES for a in (0, 1, -1)]
        yield Sweep(f"{op} along some axis", [node(f"Reduce{op}", "x a")], feeds)
    for op, dtype in (("Sum", np.int32), ("Mean", np.int64), ("Max", np.int8), ("Min", np.uint8)):
        whole = node(f"Reduce{op}", "x a")
        yield _on(f"{op} of {dtype.__name__}", whole, FLAT, dtype=dtype, constants={"a": i64([1])})
    for op in ("ArgMax", "ArgMin"):
        for axis in (0, 1, 2):
            yield _on(f"{op} {axis}", node(op, "x", axis=axis, keepdims=axis % 2), CUBES)
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for axis in (0, 1, -1):
            yield _on(f"{op} {axis}", node(op, "x", axis=axis), CUBES)
    yield _on("sums", node("CumSum", "x a"), FLAT, constants={"a": i64(0)})


def _products() -> Iterator[Sweep]:
    pairs = [
        ((2, 3), (3, 4)),
        ((0, 3), (3, 4)),
        ((2, 0), (0, 4)),
        ((2, 3), (3, 0)),
        ((0, 0), (0, 0)),
    ]
    yield _of("matmul", node("MatMul", "x w"), pairs)
    stacks = [((5, *a), (5, *b)) for a, b in pairs] + [((0, 2, 3), (0, 3, 4))]
    yield _of("matmul of stacks", node("MatMul", "x w"), stacks)
    yield _of("matmul of vectors", node("MatMul", "x w"), [((3,), (3,)), ((0,), (0,))])
    for depth, width in ((3, 4), (256, 32)):
        rows = [(0, depth), (1, depth), (5, depth)]
        constants = {"w": floats(depth, width)}
        yield _on(f"matmul by {depth} {width}", node("MatMul", "x w"), rows, constants=constants)
    feeds = [
        {"x": _array(a), "w": _array(b), "c": _array(c)}
        for (a, b), c in zip(pairs, ((2, 4), (0, 4), (2, 4), (2, 0), (0, 0)), strict=True)
    ]
    yield Sweep("gemm", [node("Gemm", "x w c")], feeds)
    of_bytes = node("MatMulInteger", "x w")
    yield _of("matmul of bytes", of_bytes, pairs, dtypes=(np.uint8, np.int8))
    yield _of("sums of products", node("Einsum", "x w", equation="ij,jk->ik"), pairs)
    yield _of(
        "outer product", node("Einsum", "x w", equation="i,j->ij"), [((0,), (3,)), ((2,), (0,))]
    )
    qkv = [(1, 3, 5), (1, 0, 5), (1, 3, 0), (0, 3, 5), (2, 1, 1)]
    feeds = [
        {"q": _array((b, 2, m, 8)), "k": _array((b, 2, n, 8)), "v": _array((b, 2, n, 8))}
        for b, m, n in qkv
    ]
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q kt", "s"),
        node("Mul", "s c", "t"),
        node("Softmax", "t", "p", axis=-1),
        node("MatMul", "p v", "y"),
    ]
    yield Sweep("attention", nodes, feeds, constants={"c": np.float32(0.3)})


def _pictures() -> Iterator[Sweep]:
    shapes = [(1, 3, 8, 8), (0, 3, 8, 8), (2, 3, 3, 3), (2, 3, 2, 2), (2, 3, 1, 5), (2, 3, 0, 5)]
    constants = {"w": floats(4, 3, 3, 3), "b": floats(4)}
    for pads in (0, 1, 2):
        for strides in ([1, 1], [2, 3]):
            conv = node("Conv", "x w b", pads=[pads] * 4, strides=strides)
            name = f"conv {pads}" + " strided" * (strides != [1, 1])
            yield _on(name, conv, shapes, constants=constants, channels="x")
    depthwise = node("Conv", "x w", group=3, pads=[1] * 4)
    constants = {"w": floats(3, 1, 3, 3)}
    yield _on("conv of channels", depthwise, shapes, constants=constants, channels="x")
    spread = node("ConvTranspose", "x w", strides=[2, 2])
    constants = {"w": floats(3, 4, 3, 3)}
    few = [(1, 3, 4, 4), (0, 3, 4, 4), (1, 3, 1, 1), (1, 3, 0, 4)]
    yield _on("conv transposed", spread, few, constants=constants, channels="x")
    # a window that does not fit has no place, whatever ONNX Runtime makes of its negative number
    fits = [s for s in shapes if s[2:] not in ((2, 2), (1, 5))]
    for op in ("MaxPool", "AveragePool", "LpPool"):
        for pads in (0, 1):
            pool = node(op, "x", kernel_shape=[3, 3], strides=[2, 2], pads=[pads] * 4)
            yield _on(f"{op} {pads}", pool, shapes if pads else fits, channels="x")
        if op != "LpPool":
            up = node(op, "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
            yield _on(f"{op} rounded up", up, shapes[:4], channels="x")
    images = [(1, 3, 4, 4), (0, 3, 4, 4), (1, 3, 0, 4), (1, 3, 4, 0)]
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield _on(op, node(op, "x"), images)
    for op, names in (("BatchNormalization", "s s v v"), ("InstanceNormalization", "s s")):
        constants = {"s": floats(3), "v": np.abs(floats(3))}
        rows = [(1, 3, 4), (0, 3, 4), (2, 3, 0)]
        more = {"constants": constants, "channels": "x"}
        # ONNX Runtime does not always survive pictures without elements
        yield _on(op, node(op, f"x {names}"), rows, answered={2: {"y": _zeros(2, 3, 0)}}, **more)
    rows = [(2, 3, 4), (0, 3, 4), (2, 0, 4)]
    layer = node("LayerNormalization", "x s s")
    yield _on("layer norm", layer, rows, constants={"s": floats(4)}, last="x")
    feeds = [
        {"x": _array((n, 2, 5, 5)), "r": np.abs(_array((k, 4))), "b": np.zeros(k, np.int64)}
        for n, k in ((1, 2), (1, 0), (2, 1), (0, 0))
    ]
    regions = node("RoiAlign", "x r b", output_height=2, output_width=2)
    yield Sweep("regions", [regions], feeds, lengths="b", last="r")
    grids = [
        ((1, 2, 4, 4), (1, 3, 3, 2)),
        ((0, 2, 4, 4), (0, 3, 3, 2)),
        ((1, 2, 4, 4), (1, 0, 3, 2)),
    ]
    yield _of("grid", node("GridSample", "x w"), grids, last="w")


def _recurrent() -> Iterator[Sweep]:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            yield from _recurrent_sweeps(op, gates, direction, count)


def _recurrent_sweeps(op: str, gates: int, direction: str, count: int) -> Iterator[Sweep]:
    """ONNX Runtime ends the process where there is no batch, and GRU's where there are no steps."""
    outputs = "y h c" if op == "LSTM" else "y h"
    attributes = {"hidden_size": 3, "direction": direction}
    constants = {"w": floats(count, gates * 3, 2), "r": floats(count, gates * 3, 3)}

    def ends(steps: int, batch: int) -> dict[str, Array]:
        states = dict.fromkeys(outputs.split()[1:], _zeros(count, batch, 3))
        return {"y": _zeros(steps, count, batch, 3), **states}

    sizes = [(4, 2), (0, 2), (4, 0), (0, 0), (1, 1)]
    feeds = [{"x": _array((t, b, 2))} for t, b in sizes]
    plain = [node(op, "x w r", outputs, **attributes)]
    none = {n: ends(*sizes[n]) for n in (1, 2, 3)}
    more = {"constants": constants, "last": "x"}
    yield Sweep(f"{op} {direction}", plain, feeds, outputs, answered=none, **more)
    lengths = [[4, 4], [0, 4], [2, 0], [0, 0], [1, 3], [5, 1], [-1, 2], []]
    feeds = [{"x": _array((4, len(n), 2)), "l": np.array(n, np.int32)} for n in lengths]
    cut = [node(op, "x w r - l", outputs, **attributes)]
    none = {7: ends(4, 0)}
    name = f"{op} {direction} of lengths"
    yield Sweep(name, cut, feeds, outputs, answered=none, lengths="l", **more)
    state = _array((count, 2, 3))
    feeds = [{"x": _array((t, 2, 2)), "i": state} for t in (4, 0)]
    names = "x w r - - i i" if op == "LSTM" else "x w r - - i"
    begun = [node(op, names, outputs, **attributes)]
    name = f"{op} {direction} from a state"
    yield Sweep(name, begun, feeds, outputs, answered={1: ends(0, 2)}, fixed="i", **more)


def _moves() -> Iterator[Sweep]:
    yield _on("transpose", node("Transpose", "x"), CUBES)
    yield _on("flatten", node("Flatten", "x", axis=2), CUBES)
    columns = [((0, 3), (0, 2)), ((2, 3), (2, 0)), ((2, 0), (2, 3)), ((2, 0), (2, 0))]
    yield _of("concat of columns", node("Concat", "x w", axis=1), columns)
    rows = [((0, 3), (2, 3)), ((2, 3), (0, 3)), ((0, 3), (0, 3)), ((2, 0), (3, 0))]
    yield _of("concat of rows", node("Concat", "x w", axis=0), rows)
    spans = {"all": (0, 0, 1), "last": (-1, LARGEST, 1), "but the last": (0, -1, 1),
             "backwards": (-1, SMALLEST, -1), "behind": (1, LARGEST, 1)}  # fmt: skip
    for name, (start, end, step) in spans.items():
        constants = {"s": i64([start]), "e": i64([end]), "a": i64([0]), "t": i64([step])}
        yield _on(f"slice, {name}", node("Slice", "x s e a t"), FLAT, constants=constants)
    for shape in ((0,), (2, 0)):
        nothing = {"i": np.zeros(shape, np.int64)}
        yield _on(f"gather {shape}", node("Gather", "x i", axis=1), FLAT, constants=nothing)
    elements = (
        ((2, 3), (0, 3)),
        ((0, 3), (0, 3)),
        ((2, 3), (1, 3)),
        ((2, 0), (5, 0)),
        ((0, 3), (1, 3)),
    )
    feeds = [{"x": _array(a), "i": np.zeros(b, np.int64)} for a, b in elements]
    yield Sweep("gather elements", [node("GatherElements", "x i")], feeds)
    tuples = (((2, 3), (0, 2)), ((0, 3), (0, 2)), ((2, 3), (1, 2)), ((0, 3), (1, 2)))
    feeds = [{"x": _array(a), "i": np.zeros(b, np.int64)} for a, b in tuples]
    yield Sweep("gather tuples", [node("GatherND", "x i")], feeds, last="i")
    for kind in ("none", "add", "max"):
        feeds = [{"x": _array(a), "i": np.zeros(b, np.int64), "u": _array(b)} for a, b in elements]
        scatter = [node("ScatterElements", "x i u", axis=0, reduction=kind)]
        yield Sweep(f"ScatterElements {kind}", scatter, feeds)
        rows = (((2, 3), 0), ((0, 3), 0), ((2, 3), 1), ((2, 0), 2), ((0, 3), 1))
        feeds = [
            {"x": _array(a), "i": np.zeros((n, 1), np.int64), "u": _array((n, a[1]))}
            for a, n in rows
        ]
        scatter = [node("ScatterND", "x i u", reduction=kind)]
        yield Sweep(f"ScatterND {kind}", scatter, feeds, last="i")
    for op in ("DepthToSpace", "SpaceToDepth"):
        images = [(1, 8, 2, 4), (0, 8, 2, 4), (1, 8, 0, 4)]
        yield _on(op, node(op, "x", blocksize=2), images)
    feeds = [{"x": _array((4, len(n))), "l": i64(n)} for n in ([4, 1], [0, 2], [5, 0], [-1, 0], [])]
    turned = node("ReverseSequence", "x l", time_axis=0, batch_axis=1)
    yield Sweep("reversed", [turned], feeds, lengths="l")


def _found() -> Iterator[Sweep]:
    """What is done with what a run found, if it found anything."""
    first = [node("NonZero", "x", "n"), node("Transpose", "n", "t", perm=[1, 0])]
    feeds = [{"x": x} for s in ((2, 3), (0, 3), (2, 0)) for x in (_array(s), _zeros(*s))]
    values, places = node("GatherND", "x t", "g"), node("Cast", "t", "f", to=F)
    constants = {"w": floats(2, 64), "v": floats(64, 5), "zero": i64(0), "three": i64([3]),
                 "two": np.float32(2), "s": floats(2), "p": i64([1, 0, 2, 1])}  # fmt: skip
    uses = {
        "sum": [values, node("ReduceSum", "g")],
        "mean": [values, node("ReduceMean", "g")],
        "max": [values, node("ReduceMax", "g")],
        "softmax": [values, node("Softmax", "g")],
        "best": [values, node("Shape", "g", "c"), node("Min", "c three", "k"),
                 node("TopK", "g k", "y i")],
        "products": [places, node("MatMul", "f w", "h"), node("Relu", "h", "r"),
                     node("MatMul", "r v")],
        "pairs": [places, node("Transpose", "f", "q"), node("MatMul", "f q", "m"),
                  node("Softmax", "m", "o"), node("MatMul", "o f")],
        "scattered": [values, node("Mul", "g two", "u"), node("ScatterND", "x t u")],
        "sums": [values, node("CumSum", "g zero")],
        "unique": [values, node("Unique", "g")],
        "norm": [places, node("LayerNormalization", "f s s")],
        "padded": [node("Pad", "t p")],
    }  # fmt: skip
    for name, nodes in uses.items():
        yield Sweep(f"true: {name}", [*first, *nodes], feeds, constants=constants)
    flags = ([True, False, True], [False] * 3, [True] * 3)
    chosen = [{"x": _array((3, 2)), "c": np.array(c)} for c in flags]
    yield Sweep("compressed", [node("Compress", "x c", axis=0)], chosen)
    for axis in (0, 1):
        shapes = [(0, 3), (3, 3), (1, 1)]
        yield _on(
            f"unique {axis}", node("Unique", "x", "u a b c", axis=axis), shapes, outputs="u a b c"
        )
    feeds = [
        {"b": np.abs(_array((n, k, 4))), "s": _array((n, c, k)), "m": i64([3])}
        for n, k, c in ((1, 4, 1), (1, 0, 1), (0, 4, 1), (1, 4, 0))
    ]
    yield Sweep("suppressed", [node("NonMaxSuppression", "b s m")], feeds, last="b")


def _loops() -> Iterator[Sweep]:
    def info(name: str, kind: int, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    step = helper.make_graph(
        [node("Add", "a b", "c"), node("Identity", "c", "d")],
        "step",
        [info("a", F, [3]), info("b", F, [3])],
        [info("c", F, [3]), info("d", F, [3])],
    )
    scan = helper.make_node("Scan", ["i", "x"], ["y", "z"], num_scan_inputs=1, body=step)
    none = {0: {"y": _zeros(3), "z": _zeros(0, 3)}}  # ONNX Runtime wants a step
    rows, state = [(0, 3), (4, 3), (1, 3)], {"i": _zeros(3)}
    yield _on("scan", scan, rows, outputs="y z", constants=state, answered=none, last="x")
    body = helper.make_graph(
        [node("Add", "a x", "c"), node("Identity", "go", "on")],
        "body",
        [info("it", I64, []), info("go", BOOL, []), info("a", F, None)],
        [info("on", BOOL, []), info("c", F, None)],
    )
    loop = helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)
    feeds = [
        {"x": _array(s), "n": i64(n), "t": np.array(t)}
        for s in ((2, 3), (0, 3))
        for n, t in ((0, True), (1, True), (3, True), (-1, True), (SMALLEST, True), (3, False))
    ]
    yield Sweep("loop", [loop], feeds)


def _quantised() -> Iterator[Sweep]:
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "e": floats(4)}
    yield _on("quantised", node("QuantizeLinear", "x s z"), FLAT, constants=constants)
    back = node("DequantizeLinear", "x s z")
    yield _on("dequantised", back, FLAT, dtype=np.uint8, constants=constants)
    dynamic = node("DynamicQuantizeLinear", "x", "y s z")
    yield _on("quantised by its range", dynamic, FLAT, outputs="y s z")
    pairs = [((2, 3), (3, 4)), ((0, 3), (3, 4)), ((2, 3), (3, 0))]
    product = node("QLinearMatMul", "x s z w s z s z")
    bytes_ = (np.uint8, np.uint8)
    yield _of("quantised matmul", product, pairs, dtypes=bytes_, constants=constants)
    skip = node("SkipLayerNormalization", "x w e e", domain=MICROSOFT)
    same = [(s, s) for s in ((2, 3, 4), (0, 3, 4), (2, 0, 4))]
    domains = {"domains": [MICROSOFT], "last": "x w"}
    yield _of("skip norm", skip, same, constants=constants, **domains)


def _tables() -> Iterator[Sweep]:
    rows = [(3, 2), (0, 2), (1, 2)]
    nodes = {
        "Scaler": {"offset": [1.0, 2.0], "scale": [2.0, 3.0]},
        "Normalizer": {"norm": "L2"},
        "LinearRegressor": {"coefficients": [1.0, 2.0], "intercepts": [0.5]},
    }
    for op, attributes in nodes.items():
        made = node(op, "x", domain="ai.onnx.ml", **attributes)
        yield _on(op, made, rows, domains=["ai.onnx.ml"], channels="x")
    tree = {
        "nodes_treeids": [0] * 3, "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0] * 3,
        "nodes_values": [0.5, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [1.0, 2.0], "n_targets": 1,
    }  # fmt: skip
    made = node("TreeEnsembleRegressor", "x", domain="ai.onnx.ml", **tree)
    yield _on("trees", made, rows, domains=["ai.onnx.ml"], channels="x")


def empties() -> list[Sweep]:
    """All of them."""
    makers = (_pointwise, _reductions, _products, _pictures, _recurrent, _moves, _found, _loops,
              _quantised, _tables)  # fmt: skip
    return [sweep for make in makers for sweep in make()]
