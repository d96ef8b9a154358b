"""The models of `cliffs.py`: built from a few nodes, with seeded weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Built = tuple[onnx.ModelProto, dict[str, Array]]
Node = onnx.NodeProto
node = helper.make_node


@dataclass(frozen=True)
class CliffCase:
    """A model by name; `build` makes it and its inputs."""

    name: str
    build: Callable[[], Built]


CASES: list[CliffCase] = []


def case(name: str, *arguments: Any) -> Callable[[Callable[..., Built]], Callable[..., Built]]:
    """Decorator: a function is the case `name` with these arguments. Repeatable."""

    def add(build: Callable[..., Built]) -> Callable[..., Built]:
        CASES.append(CliffCase(name, lambda: build(*arguments)))
        return build

    return add


def drawn(*shape: int, scale: float = 1.0, seed: int = 0) -> Array:
    """Normal f32 elements."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def model(
    nodes: Sequence[Node],
    inputs: dict[str, Array],
    dims: dict[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: dict[str, Array] | None = None,
) -> Built:
    """A model of opset 17; dims: declared shapes of inputs that are not as the arrays are."""

    def info(name: str, array: Array) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, dims.get(name, array.shape))

    made = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [info(*item) for item in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        made,
    )
    for output in graph.output:
        output.ClearField("type")
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    versions.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=versions, ir_version=8), inputs


# ---------------------------------------------------------------------- sizes of several names


@case("cross_attention", 1, 1, 128)
@case("cross_attention_batch", 4, 4, 64)
def cross_attention(batch: int, other: int, length: int) -> Built:
    """Keys and values are split by their own batch and flattened by the queries'."""
    shapes = {"b": "q", "e": "k"}
    nodes = []
    for size, tensor in shapes.items():
        nodes += [node("Shape", [tensor], [tensor + "s"])]
        nodes += [node("Gather", [tensor + "s", "zero"], [size])]
        nodes += [node("Concat", [size, "any", "heads", "size"], ["split_" + tensor], axis=0)]
    nodes += [node("Mul", ["b", "heads"], ["bh"])]
    nodes += [node("Concat", ["bh", "any", "size"], ["flat"], axis=0)]
    for t in "qkv":
        split = "split_q" if t == "q" else "split_k"
        nodes += [node("Reshape", [t, split], [t + "1"])]
        nodes += [node("Transpose", [t + "1"], [t + "2"], perm=[0, 2, 1, 3])]
        nodes += [node("Reshape", [t + "2", "flat"], [t + "3"])]
    nodes += [
        node("Transpose", ["k3"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q3", "kt"], ["s"]),
    ]
    nodes += [node("Softmax", ["s"], ["p"], axis=-1), node("MatMul", ["p", "v3"], ["y"])]
    inputs = {"q": drawn(batch, length, 96), "k": drawn(other, length, 96, seed=1)}
    inputs["v"] = drawn(other, length, 96, seed=2)
    dims = {"q": ["b", "s", 96], "k": ["e", "n", 96], "v": ["e", "n", 96]}
    numbers = {"zero": np.array([0]), "heads": np.array([4]), "any": np.array([-1])}
    return model(nodes, inputs, dims, ["y"], numbers | {"size": np.array([24])})


@case("windows")
def windows() -> Built:
    """A map of unknown size cut into windows of 7 x 7, and back."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Split", ["s"], ["n", "h", "w", "c"], axis=0),
        node("Div", ["h", "seven"], ["hw"]),
        node("Div", ["w", "seven"], ["ww"]),
        node("Concat", ["n", "hw", "seven", "ww", "seven", "c"], ["cut"], axis=0),
        node("Reshape", ["x", "cut"], ["x1"]),
        node("Transpose", ["x1"], ["x2"], perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", ["x2", "flat"], ["x3"]),
        node("MatMul", ["x3", "weight"], ["x4"]),
        node("Concat", ["n", "hw", "ww", "seven", "seven", "c"], ["joined"], axis=0),
        node("Reshape", ["x4", "joined"], ["x5"]),
        node("Transpose", ["x5"], ["x6"], perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", ["x6", "s"], ["y"]),
    ]
    numbers = {"seven": np.array([7]), "flat": np.array([-1, 49, 32]), "weight": drawn(32, 32)}
    return model(nodes, {"x": drawn(1, 56, 56, 32)}, {"x": ["n", "h", "w", 32]}, ["y"], numbers)


@case("shuffle_static", False)
@case("shuffle_dynamic", True)
def shuffle(dynamic: bool) -> Built:
    """Space to depth to space, of a map of known or unknown size."""
    nodes = [
        node("SpaceToDepth", ["x"], ["a"], blocksize=2),
        node("Relu", ["a"], ["b"]),
        node("DepthToSpace", ["b"], ["y"], blocksize=2, mode="CRD"),
    ]
    dims = {"x": [1, 8, "h", "w"]} if dynamic else {}
    return model(nodes, {"x": drawn(1, 8, 64, 64)}, dims, ["y"])


@case("group_norm_dynamic")
def group_norm() -> Built:
    """Normalisation of groups of channels, by a reshape to [n, groups, -1]."""
    nodes = [
        node("Reshape", ["x", "grouped"], ["g"]),
        node("InstanceNormalization", ["g", "scale", "bias"], ["i"], epsilon=1e-5),
        node("Shape", ["x"], ["s"]),
        node("Reshape", ["i", "s"], ["y"]),
    ]
    numbers = {
        "grouped": np.array([0, 8, -1]), "scale": np.ones(8, np.float32),
        "bias": np.zeros(8, np.float32),
    }  # fmt: skip
    return model(nodes, {"x": drawn(1, 64, 40, 40)}, {"x": ["n", 64, "h", "w"]}, ["y"], numbers)


@case("tokens_of_map")
def tokens_of_map() -> Built:
    """[n, c, h, w] to tokens, a product, and back, sizes read from the tensor."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Split", ["s"], ["n", "c", "h", "w"], axis=0),
        node("Concat", ["n", "c", "any"], ["flat"], axis=0),
        node("Reshape", ["x", "flat"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "weight"], ["m"]),
        node("Transpose", ["m"], ["u"], perm=[0, 2, 1]),
        node("Reshape", ["u", "s"], ["y"]),
    ]
    numbers = {"any": np.array([-1]), "weight": drawn(64, 64, scale=0.1)}
    dims = {"x": ["n", 64, "h", "w"]}
    return model(nodes, {"x": drawn(1, 64, 28, 28)}, dims, ["y"], numbers)


@case("roll", 2)
@case("roll_last", 3)
def roll(axis: int) -> Built:
    """The first half of an axis of unknown size goes behind the second."""
    nodes = [
        node("Shape", ["x"], ["s"], start=axis, end=axis + 1),
        node("Div", ["s", "two"], ["half"]),
        node("Slice", ["x", "half", "s", "axis"], ["a"]),
        node("Slice", ["x", "zero", "half", "axis"], ["b"]),
        node("Concat", ["a", "b"], ["r"], axis=axis),
        node("Relu", ["r"], ["y"]),
    ]
    numbers = {"two": np.array([2]), "zero": np.array([0]), "axis": np.array([axis])}
    dims = {"x": [1, 16, "h", "w"]}
    return model(nodes, {"x": drawn(1, 16, 56, 56)}, dims, ["y"], numbers)


@case("tile_dynamic")
def tile() -> Built:
    nodes = [node("Tile", ["x", "times"], ["t"]), node("Relu", ["t"], ["y"])]
    dims = {"x": ["n", "k"]}
    return model(nodes, {"x": drawn(64, 100)}, dims, ["y"], {"times": np.array([3, 4])})


@case("upsample_dynamic", "nearest")
@case("upsample_linear_dynamic", "linear")
def upsample(mode: str) -> Built:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [node("Resize", ["x", "", "scales"], ["y"], mode=mode,
                  coordinate_transformation_mode="half_pixel")]  # fmt: skip
    return model(nodes, {"x": drawn(1, 16, 40, 40)}, {"x": [1, 16, "h", "w"]}, ["y"], scales)


@case("reflect_pad")
def reflect_pad() -> Built:
    nodes = [node("Pad", ["x", "pads"], ["y"], mode="reflect")]
    pads = {"pads": np.array([0, 0, 3, 3, 0, 0, 3, 3])}
    return model(nodes, {"x": drawn(1, 16, 64, 64)}, {}, ["y"], pads)


# ---------------------------------------------------------------------- trees and vectors


def random_forest(trees: int, leaves: int, classes: int) -> dict[str, list[Any]]:
    """Attributes of random trees over 10 features; classes: 0 for a regression."""
    rng = np.random.default_rng(3)
    prefix = "class" if classes else "target"
    found: dict[str, list[Any]] = {}

    def put(**values: Any) -> None:
        for name, value in values.items():
            found.setdefault(name, []).append(value)

    for tree in range(trees):
        children: dict[int, tuple[int, int]] = {}
        ends, count = [0], 1
        while len(ends) < leaves:
            children[ends.pop(int(rng.integers(len(ends))))] = (count, count + 1)
            ends += [count, count + 1]
            count += 2
        for number in range(count):
            inner = number in children
            yes, no = children.get(number, (0, 0))
            put(nodes_treeids=tree, nodes_nodeids=number, nodes_truenodeids=yes)
            put(nodes_falsenodeids=no, nodes_modes="BRANCH_LEQ" if inner else "LEAF")
            put(nodes_featureids=int(rng.integers(10)) if inner else 0)
            put(nodes_values=float(np.float32(rng.standard_normal())) if inner else 0.0)
            for target in range(max(1, classes)) if not inner else ():
                put(**{f"{prefix}_treeids": tree, f"{prefix}_nodeids": number})
                put(**{f"{prefix}_ids": target, f"{prefix}_weights": float(rng.random() / trees)})
    return found


@case("forest_1", 1, 50, 400, 0)
@case("forest_40", 40, 50, 400, 0)
@case("forest_5000", 5000, 50, 400, 0)
@case("boosted_1000", 1000, 200, 15, 0)
@case("forest_classes_300", 300, 40, 100, 6)
def forest(rows: int, trees: int, leaves: int, classes: int) -> Built:
    made = random_forest(trees, leaves, classes)
    kind = "TreeEnsembleClassifier" if classes else "TreeEnsembleRegressor"
    extra: dict[str, Any] = {"n_targets": 1}
    if classes:
        extra = {"classlabels_int64s": list(range(classes))}
    outputs = ["label", "y"] if classes else ["y"]
    nodes = [node(kind, ["x"], outputs, domain="ai.onnx.ml", **made, **extra)]
    return model(nodes, {"x": drawn(rows, 10)}, {"x": ["n", 10]}, outputs)


@case("svc_1", 1)
@case("svc_30", 30)
@case("svc_1000", 1000)
def svc(rows: int) -> Built:
    """A support vector classifier of four classes with probabilities."""
    rng, counts = np.random.default_rng(0), [30, 25, 35, 20]
    total = sum(counts)
    nodes = [
        node(
            "SVMClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", kernel_type="RBF",
            classlabels_ints=[0, 1, 2, 3], vectors_per_class=counts, kernel_params=[0.1, 0.0, 3.0],
            support_vectors=rng.standard_normal(total * 12).tolist(),
            coefficients=rng.standard_normal(3 * total).tolist(),
            rho=rng.standard_normal(6).tolist(), prob_a=(-1 - rng.random(6)).tolist(),
            prob_b=rng.standard_normal(6).tolist(), post_transform="NONE",
        )
    ]  # fmt: skip
    return model(nodes, {"x": drawn(rows, 12)}, {"x": ["n", 12]}, ["label", "y"])


# ---------------------------------------------------------------------- operators


@case("scatter_rows", "none")
@case("scatter_rows_add", "add")
def scatter_rows(reduction: str) -> Built:
    """ScatterND of slices."""
    nodes = [node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)]
    where = np.random.default_rng(0).permutation(512)[:128].reshape(-1, 1)
    inputs = {"x": drawn(512, 256), "i": where, "u": drawn(128, 256, seed=1)}
    return model(nodes, inputs, {}, ["y"])


@case("scatter_cache")
def scatter_cache() -> Built:
    """One position of a cache [1, heads, length, size] is written."""
    nodes = [node("ScatterND", ["x", "i", "u"], ["y"])]
    where = np.array([[[[0, h, 7]] for h in range(8)]])
    return model(nodes, {"x": drawn(1, 8, 256, 64), "i": where, "u": drawn(1, 8, 1, 64)}, {}, ["y"])


@case("scatter_elements", 0)
@case("scatter_elements_last", 1)
def scatter_elements(axis: int) -> Built:
    nodes = [node("ScatterElements", ["x", "i", "u"], ["y"], axis=axis)]
    where = np.random.default_rng(0).integers(0, 64, (64, 64))
    return model(nodes, {"x": drawn(256, 64), "i": where, "u": drawn(64, 64)}, {}, ["y"])


@case("sin_small", "Sin", 1.0)
@case("sin_large", "Sin", 1e4)
@case("cos_large", "Cos", 1e4)
@case("sin_huge", "Sin", 1e8)
def trigonometric(op: str, scale: float) -> Built:
    return model([node(op, ["x"], ["y"])], {"x": drawn(64, 1024, scale=scale)}, {}, ["y"])


@case("conv1d_1_16", 1, 16, 4000, 15, 1, 1)
@case("conv1d_2_8", 2, 8, 4000, 5, 1, 1)
@case("conv1d_16_1", 16, 1, 4000, 7, 1, 1)
@case("conv1d_4_4", 4, 4, 4000, 3, 1, 1)
@case("conv1d_1_32_strided", 1, 32, 16000, 10, 5, 1)
@case("conv1d_8_8_dilated", 8, 8, 4000, 3, 1, 4)
def conv1d(into: int, out: int, length: int, taps: int, stride: int, dilation: int) -> Built:
    pad = (taps - 1) * dilation // 2
    nodes = [node("Conv", ["x", "w", "b"], ["y"], strides=[stride], dilations=[dilation],
                  pads=[pad, pad])]  # fmt: skip
    numbers = {"w": drawn(out, into, taps, scale=0.2), "b": drawn(out)}
    return model(nodes, {"x": drawn(1, into, length)}, {}, ["y"], numbers)


@case("conv_64_3", 64, 3, 64, 3)
@case("conv_64_3_wide", 64, 3, 64, 9)
@case("conv_64_1", 64, 1, 64, 3)
@case("conv_32_2_pointwise", 32, 2, 64, 1)
@case("conv_128_4", 128, 4, 32, 3)
@case("conv_3_16", 3, 16, 64, 3)
@case("conv_1_8", 1, 8, 64, 5)
def conv2d(into: int, out: int, size: int, taps: int) -> Built:
    nodes = [node("Conv", ["x", "w", "b"], ["y"], pads=[taps // 2] * 4)]
    numbers = {"w": drawn(out, into, taps, taps, scale=0.1), "b": drawn(out)}
    return model(nodes, {"x": drawn(1, into, size, size)}, {}, ["y"], numbers)
