"""Cases of `cliffs.py` in which rows are read or written across the planes of a picture.

Elements that are neighbours in a row of channels lie a plane apart in a picture whose channels come
first. Where the plane is a power of two, all of them fall into few sets of every cache.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .cliff_cases import Array, Built, Node, case, drawn, model, node

# (channels, height, width): planes that are powers of two, multiples of such, and neither
PLANES = (
    (64, 128, 128),
    (64, 127, 129),
    (64, 56, 56),
    (64, 64, 64),
    (96, 64, 64),
    (160, 32, 32),
    (256, 32, 32),
    (320, 16, 16),
    (24, 256, 256),
    (192, 48, 64),
)

Made = tuple[list[Node], dict[str, Array], dict[str, Array]]  # nodes, inputs, constants
Part = Callable[[int, int], Made]


def _norm(channels: int, pixels: int) -> Made:
    numbers = {"scale": drawn(channels, seed=1), "bias": drawn(channels, seed=2)}
    return [node("LayerNormalization", ["t", "scale", "bias"], ["r"], axis=-1)], {}, numbers


def _softmax(channels: int, pixels: int) -> Made:
    return [node("Softmax", ["t"], ["r"], axis=-1)], {}, {}


def _product(channels: int, pixels: int) -> Made:
    weight = {"w": drawn(channels, channels, scale=0.1)}
    return [node("MatMul", ["t", "w"], ["r"])], {}, weight


def _residual(channels: int, pixels: int) -> Made:
    nodes = [node("MatMul", ["z", "w"], ["p"]), node("Add", ["p", "t"], ["r"])]
    inputs = {"z": drawn(1, pixels, channels, seed=3)}
    return nodes, inputs, {"w": drawn(channels, channels, scale=0.1)}


def _mean(channels: int, pixels: int) -> Made:
    return [node("ReduceMean", ["t"], ["r"], axes=[-1], keepdims=1)], {}, {}


def _gelu(channels: int, pixels: int) -> Made:
    nodes = [
        node("Mul", ["t", "half"], ["g0"]),
        node("Tanh", ["g0"], ["g1"]),
        node("Mul", ["t", "g1"], ["r"]),
    ]
    return nodes, {}, {"half": np.array(0.5, np.float32)}


def _normalised_product(channels: int, pixels: int) -> Made:
    first, _, numbers = _norm(channels, pixels)
    nodes = [*first, node("MatMul", ["r", "w"], ["p"]), node("Add", ["p", "t"], ["q"])]
    nodes[-1].output[0], nodes[0].output[0], nodes[1].input[0] = "r", "n", "n"
    return nodes, {}, numbers | {"w": drawn(channels, channels, scale=0.1)}


PARTS: dict[str, Part] = {
    "norm": _norm,
    "softmax": _softmax,
    "product": _product,
    "residual": _residual,
    "mean": _mean,
    "gelu": _gelu,
    "block": _normalised_product,
}


def across(part: str, channels: int, height: int, width: int) -> Built:
    """Rows of channels of a picture whose channels come first."""
    nodes, inputs, numbers = PARTS[part](channels, height * width)
    before = [
        node("Reshape", ["x", "flat"], ["f"]),
        node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
    ]
    nodes[-1].output[0] = "y"
    inputs = {"x": drawn(1, channels, height, width)} | inputs
    numbers["flat"] = np.array([1, channels, height * width])
    return model([*before, *nodes], inputs, {}, ["y"], numbers)


def back(part: str, channels: int, height: int, width: int) -> Built:
    """Rows of channels that lie side by side; the result has its channels first."""
    nodes, inputs, numbers = PARTS[part](channels, height * width)
    behind = [
        node("Transpose", ["r"], ["b"], perm=[0, 2, 1]),
        node("Reshape", ["b", "picture"], ["y"]),
    ]
    inputs = {"t": drawn(1, height * width, channels)} | inputs
    numbers["picture"] = np.array([1, -1, height, width])
    return model([*nodes, *behind], inputs, {}, ["y"], numbers)


def pixels(part: str, channels: int, height: int, width: int) -> Built:
    """Planes of a picture whose channels come last: a row is a plane, its elements lie apart."""
    nodes, inputs, numbers = PARTS[part](height * width, channels)
    before = [node("Transpose", ["x"], ["t"], perm=[0, 2, 1])]
    nodes[-1].output[0] = "y"
    inputs = {"x": drawn(1, height * width, channels)} | inputs
    return model([*before, *nodes], inputs, {}, ["y"], numbers)


def depthwise(part: str, channels: int, height: int, width: int) -> Built:
    """A block on rows of channels between depthwise convolutions (`part` of them in front)."""
    nodes, inputs, numbers = _normalised_product(channels, height * width)
    window = {"group": channels, "pads": [1, 1, 1, 1]}
    before = [
        node("Conv", ["x", "taps"], ["c"], **window),
        node("Reshape", ["c", "flat"], ["f"]),
        node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
    ]
    if part == "behind":
        before[0] = node("Identity", ["x"], ["c"])
    behind = [
        node("Transpose", ["r"], ["b"], perm=[0, 2, 1]),
        node("Reshape", ["b", "picture"], ["d"]),
        node("Conv", ["d", "taps"], ["y"], **window),
    ]
    numbers |= {
        "flat": np.array([1, channels, height * width]),
        "picture": np.array([1, channels, height, width]),
        "taps": drawn(channels, 1, 3, 3, scale=0.3),
    }
    inputs = {"x": drawn(1, channels, height, width)} | inputs
    return model([*before, *nodes, *behind], inputs, {}, ["y"], numbers)


for plane in PLANES:
    size = "x".join(map(str, plane))
    for part in PARTS:
        case(f"across_{part}_{size}", part, *plane)(across)
        case(f"back_{part}_{size}", part, *plane)(back)
    for part in ("norm", "softmax", "mean"):
        case(f"pixels_{part}_{size}", part, *plane)(pixels)
    for part in ("around", "behind"):
        case(f"depthwise_{part}_{size}", part, *plane)(depthwise)
