"""Operators with the values that each of their attributes may take, for sweeps of combinations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .oracle import floats

Array = np.ndarray
_RNG = np.random.default_rng(11)
_IMAGE = floats(2, 4, 6, 7, seed=1)
_LINE, _CUBE = floats(1, 2, 9, seed=2), floats(1, 2, 4, 5, 4, seed=3)


@dataclass(frozen=True)
class Swept:
    """An operator, inputs in order (None: absent; constants are given as initialisers), and the
    values of its attributes, of which all combinations are tried."""

    op: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Sequence[Any]]
    opset: int = 20
    constants: Sequence[int] = ()
    outputs: int = 1
    domain: str = ""
    label: str = ""
    types: Sequence[int] = field(default=())

    @property
    def name(self) -> str:
        """What the sweep is called."""
        return " ".join(filter(None, (self.op, self.label)))

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of attributes; a value of None leaves the attribute out."""
        for values in itertools.product(*self.attributes.values()):
            pairs = zip(self.attributes, values, strict=True)
            yield {name: value for name, value in pairs if value is not None}


def _grid(*shape: int) -> Array:
    """Coordinates inside the image, on its border and far outside."""
    grid = _RNG.uniform(-1.6, 1.6, shape).astype(np.float32)
    grid.reshape(-1)[:6] = [-1, 1, 0, -1.0001, 5, -7]
    return grid


def _sampling() -> list[Swept]:
    modes = {
        "mode": ["linear", "nearest", "cubic"],
        "padding_mode": ["zeros", "border", "reflection"],
        "align_corners": [0, 1],
    }
    volume = {**modes, "mode": ["linear", "nearest"]}
    theta = floats(2, 2, 3, seed=4)
    rois = np.array([[0, 0, 3, 4], [1, 2, 5, 5], [-1, -1, 9, 9], [2, 2, 2, 2]], np.float32)
    return [
        Swept("GridSample", [_IMAGE, _grid(2, 5, 4, 2)], modes),
        Swept("GridSample", [_CUBE, _grid(1, 3, 2, 4, 3)], volume, label="of volumes"),
        Swept("AffineGrid", [theta, np.array([2, 3, 5, 4])], {"align_corners": [0, 1]},
              constants=[1]),
        Swept("RoiAlign", [_IMAGE, rois, np.array([0, 1, 1, 0])],
              {"mode": ["avg", "max"], "output_height": [1, 3], "output_width": [2],
               "sampling_ratio": [0, 2], "spatial_scale": [1.0, 0.5],
               "coordinate_transformation_mode": ["half_pixel", "output_half_pixel"]}),
    ]  # fmt: skip


def _resize() -> list[Swept]:
    coordinates = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
                   "asymmetric", "tf_crop_and_resize"]  # fmt: skip
    roi = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.1], np.float32)
    linear = {
        "mode": ["linear"],
        "coordinate_transformation_mode": coordinates,
        "extrapolation_value": [0.0, 7.0],
    }
    cubic = {
        **linear,
        "mode": ["cubic"],
        "exclude_outside": [0, 1],
        "cubic_coeff_a": [-0.75, -0.5],
    }
    nearest = {
        "mode": ["nearest"],
        "coordinate_transformation_mode": coordinates,
        "nearest_mode": ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
    }
    smooth = {"mode": ["linear", "cubic"], "antialias": [1], "exclude_outside": [0, 1],
              "coordinate_transformation_mode": ["half_pixel", "align_corners"]}  # fmt: skip
    policy = {
        "mode": ["linear", "nearest"],
        "axes": [[2, 3]],
        "keep_aspect_ratio_policy": ["stretch", "not_larger", "not_smaller"],
    }
    x = floats(1, 2, 5, 6, seed=5)
    found = []
    for label, sizes in (("up", [1, 2, 8, 11]), ("down", [1, 2, 3, 2])):
        given = [x, roi, None, np.array(sizes)]
        found += [
            Swept("Resize", given, linear, constants=[1, 3], label=label),
            Swept("Resize", given, cubic, constants=[1, 3], label=f"cubic {label}"),
            Swept("Resize", given, nearest, constants=[1, 3], label=f"nearest {label}"),
            Swept("Resize", given, smooth, constants=[1, 3], label=f"smooth {label}"),
            Swept("Resize", [x, None, None, np.array(sizes[2:])], policy, constants=[3],
                  label=f"policy {label}"),
        ]  # fmt: skip
    scales = np.array([1, 1, 1.7, 0.6], np.float32)
    modes = (("scales", linear), ("cubic scales", cubic))
    return [
        *found,
        *(Swept("Resize", [x, roi, scales], m, constants=[1, 2], label=n) for n, m in modes),
    ]


def _windows() -> list[Swept]:
    pads = [None, [1, 0, 1, 1]]
    pool = {"kernel_shape": [[2, 3]], "strides": [None, [2, 2]], "pads": pads,
            "ceil_mode": [0, 1], "dilations": [None, [2, 1]]}  # fmt: skip
    same = {"kernel_shape": [[3, 2]], "strides": [None, [2, 2]],
            "auto_pad": ["SAME_UPPER", "SAME_LOWER", "VALID"]}  # fmt: skip
    w, b = floats(6, 2, 3, 3, seed=6), floats(6, seed=7)
    up = floats(4, 3, 3, 3, seed=8)
    return [
        Swept("AveragePool", [_IMAGE], {**pool, "count_include_pad": [0, 1]}, opset=19),
        Swept("AveragePool", [_IMAGE], {**same, "count_include_pad": [0, 1]}, label="same"),
        Swept("MaxPool", [_IMAGE], {**pool, "storage_order": [0, 1]}, outputs=2),
        Swept("MaxPool", [_IMAGE], same, label="same"),
        Swept("LpPool", [_IMAGE], {**pool, "p": [1, 2, 3]}, opset=18),
        Swept("Conv", [_IMAGE, w, b],
              {"group": [2], "strides": [None, [2, 1]], "pads": pads, "dilations": [None, [1, 2]]},
              constants=[1, 2]),
        Swept("Conv", [_IMAGE, w], {"group": [2], "strides": [None, [2, 3]],
              "auto_pad": ["SAME_UPPER", "SAME_LOWER", "VALID"]}, constants=[1], label="same"),
        Swept("ConvTranspose", [_IMAGE, up],
              {"strides": [None, [2, 3]], "pads": pads, "dilations": [None, [2, 1]],
               "output_padding": [None, [1, 0]]}, constants=[1]),
        Swept("ConvTranspose", [_IMAGE, up], {"strides": [[2, 2]], "output_shape": [[13, 12]],
              "auto_pad": ["NOTSET", "SAME_UPPER", "SAME_LOWER"]}, constants=[1], label="shape"),
        Swept("LRN", [_IMAGE], {"size": [1, 3, 5], "alpha": [0.1], "beta": [0.75, 0.5],
              "bias": [1.0, 2.0]}),
        Swept("DepthToSpace", [floats(2, 8, 3, 2)], {"blocksize": [2], "mode": ["DCR", "CRD"]}),
        Swept("SpaceToDepth", [floats(2, 3, 4, 6)], {"blocksize": [2]}),
        Swept("Col2Im", [floats(1, 12, 9), np.array([4, 4]), np.array([2, 2])],
              {"strides": [None], "pads": [None], "dilations": [None]}, constants=[1, 2]),
        Swept("GlobalLpPool", [_IMAGE], {"p": [1, 2, 3]}),
    ]  # fmt: skip


def _norms() -> list[Swept]:
    x, c = _IMAGE, [floats(4, seed=s) for s in (12, 13, 14)]
    variance = np.abs(floats(4, seed=15)) + np.float32(0.1)
    rank = {"axis": [-1, 0, 1, 2, -3]}
    return [
        Swept("BatchNormalization", [x, *c, variance], {"epsilon": [None, 0.1]}, opset=15),
        Swept("InstanceNormalization", [x, *c[:2]], {"epsilon": [None, 0.1]}),
        Swept("GroupNormalization", [x, *c[:2]], {"num_groups": [1, 2, 4], "epsilon": [None, 0.1]},
              opset=21),
        Swept("LayerNormalization", [x, floats(7), floats(7, seed=1)],
              {"axis": [-1, 3], "epsilon": [None, 0.1]}, outputs=3),
        Swept("LayerNormalization", [x, floats(6, 7)], {"axis": [2, -2]}, label="of two axes"),
        Swept("RMSNormalization", [x, floats(7)], {"axis": [-1], "epsilon": [None, 0.1]},
              opset=23),
        Swept("LpNormalization", [x], {**rank, "p": [1, 2]}),
        Swept("MeanVarianceNormalization", [x], {"axes": [None, [0, 2, 3], [1], [-1]]}),
        *(Swept(op, [x], rank) for op in ("Softmax", "LogSoftmax", "Hardmax")),
        *(Swept(op, [x], {"axis": [0, 1, 2, -1]}, opset=11, label="flat")
          for op in ("Softmax", "LogSoftmax", "Hardmax")),
    ]  # fmt: skip


_UNARY: dict[str, dict[str, Sequence[Any]]] = {
    "Elu": {"alpha": [None, 0.3, 2.0]},
    "Celu": {"alpha": [None, 0.3, 2.0]},
    "Selu": {"alpha": [None, 2.0], "gamma": [None, 0.5]},
    "LeakyRelu": {"alpha": [None, 0.0, 1.5]},
    "ThresholdedRelu": {"alpha": [None, 0.0, -0.5]},
    "HardSigmoid": {"alpha": [None, 0.5], "beta": [None, 0.1]},
    "Shrink": {"lambd": [None, 0.1], "bias": [None, 0.2]},
    "Gelu": {"approximate": ["none", "tanh"]},
    "Swish": {"alpha": [None, 1.7]},
    "Flatten": {"axis": [0, 1, 2, 4, -1, -4]},
    "Trilu": {"upper": [0, 1]},
    "EyeLike": {"k": [None, 1, -2], "dtype": [None, 7]},
    "IsInf": {"detect_positive": [0, 1], "detect_negative": [0, 1]},
}
_PLANES = {"EyeLike", "Trilu"}
_OPSETS = {"Swish": 24}


def _elementwise() -> list[Swept]:
    special = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0], np.float32)
    found = []
    for op, attributes in _UNARY.items():
        x = floats(4, 5) if op in _PLANES else special if op == "IsInf" else _IMAGE
        found.append(Swept(op, [x], attributes, opset=_OPSETS.get(op, 20)))
    whole = np.array([[-7, 7, -8, 5], [3, -3, 100, 0]])
    return [
        *found,
        Swept("Mod", [whole, np.array([3, -3, 5, -7])], {"fmod": [0, 1]}),
        Swept("Mod", [whole.astype(np.float32), np.array([3, -3, 2.5, -7], np.float32)],
              {"fmod": [1]}, label="of floats"),
        Swept("BitShift", [np.array([1, 200, 7], np.uint8), np.array([1, 3, 7], np.uint8)],
              {"direction": ["LEFT", "RIGHT"]}),
        Swept("CumSum", [_IMAGE, np.array(2)], {"exclusive": [0, 1], "reverse": [0, 1]},
              constants=[1]),
    ]  # fmt: skip


def _reductions() -> list[Swept]:
    ops = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
           "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")  # fmt: skip
    x = np.abs(floats(2, 3, 4)) + np.float32(0.1)
    keep = {"keepdims": [0, 1], "noop_with_empty_axes": [0, 1]}
    ties = np.array([[1, 3, 3], [2, 2, 0]], np.float32)
    return [
        *(Swept(op, [x, np.array(axes)], keep, constants=[1], label=str(axes))
          for op in ops for axes in ([0], [-1, 0])),
        *(Swept(op, [x], keep, label="whole") for op in ops),
        *(Swept(op, [ties], {"axis": [0, 1, -1], "keepdims": [0, 1], "select_last_index": [0, 1]})
          for op in ("ArgMax", "ArgMin")),
        Swept("TopK", [floats(3, 5, 4), np.array([3])],
              {"axis": [0, 1, -1], "largest": [0, 1], "sorted": [1]}, constants=[1], outputs=2),
        Swept("TopK", [ties, np.array([2])], {"axis": [1], "largest": [0, 1]}, constants=[1],
              outputs=2, label="of ties"),
    ]  # fmt: skip


def _movement() -> list[Swept]:
    x = floats(3, 4)
    places = np.array([[0, 2, 1, -1], [1, 1, 0, 2]])
    updates = floats(2, 4, seed=3)
    reductions = ["none", "add", "mul", "max", "min"]
    labels = np.array([[1, 7], [-2, 0]])
    return [
        Swept("Gather", [x, np.array([[0, -1], [2, 1]])], {"axis": [0, 1, -1]}),
        Swept("GatherElements", [x, np.array([[0, 1, 2, -1]])], {"axis": [0, -2]}),
        Swept("GatherND", [floats(2, 3, 4), np.array([[[0]], [[-1]]])], {"batch_dims": [0, 1]}),
        Swept("ScatterElements", [x, places, updates], {"axis": [0], "reduction": reductions}),
        Swept("ScatterND", [x, np.array([[1], [0], [1]]), floats(3, 4, seed=4)],
              {"reduction": reductions}),
        Swept("OneHot", [labels, np.array(5), np.array([-1.0, 3.0], np.float32)],
              {"axis": [-1, 0, 1, -2]}, constants=[1]),
        Swept("Concat", [x, floats(3, 4, seed=1)], {"axis": [0, 1, -1]}),
        Swept("Transpose", [_IMAGE], {"perm": [None, [0, 2, 3, 1], [3, 0, 1, 2]]}),
        Swept("Split", [floats(6, 5)], {"axis": [0, 1, -1], "num_outputs": [2]}, outputs=2),
        Swept("ReverseSequence", [floats(4, 3, 2), np.array([1, 4, 2])],
              {"time_axis": [0], "batch_axis": [1]}),
        Swept("Compress", [x, np.array([True, False, True])], {"axis": [None, 0, 1]}),
        Swept("Unique", [labels.astype(np.float32)], {"axis": [None, 0, 1], "sorted": [1]},
              outputs=4),
        *(Swept("Pad", [floats(4, 5), np.array(pads), np.array(2.5, np.float32)],
                {"mode": ["constant", "reflect", "edge", "wrap"]}, constants=[1, 2],
                label=str(pads)) for pads in ([1, 2, 0, 3], [-1, 2, 1, -1])),
        Swept("CenterCropPad", [floats(4, 5), np.array([6, 2])], {"axes": [None, [0, 1], [1, 0]]},
              constants=[1]),
        Swept("Shape", [_IMAGE], {"start": [None, 1, -2, 9], "end": [None, 3, -1, -9]}),
    ]  # fmt: skip


def _products() -> list[Swept]:
    flags = {"alpha": [None, 0.5], "beta": [None, 2.0]}
    square = [floats(4, 4), floats(4, 4, seed=1)]
    return [
        *(Swept("Gemm", [*square, c], {**flags, "transA": [0, 1], "transB": [0, 1]}, label=label)
          for label, c in (("row", floats(4)), ("column", floats(4, 1)), ("one", floats(1)))),
        Swept("Gemm", square, {"transA": [0, 1], "transB": [0, 1]}, label="of two"),
        *(Swept("Einsum", operands, {"equation": [equation]}, label=equation)
          for equation, operands in (
              ("ij,jk->ik", square), ("ij->ji", square[:1]), ("ii->i", square[:1]),
              ("ij,ij", square), ("...i,...i->...", [floats(2, 3, 4), floats(3, 4)]),
              ("bij,bkj->bik", [floats(2, 3, 4), floats(2, 5, 4)]), ("ij,kl->ijkl", square))),
    ]  # fmt: skip


def _quantised() -> list[Swept]:
    x = floats(3, 4, seed=9) * np.float32(40)
    scale, zero = np.array([0.5, 0.25, 1.0], np.float32), np.array([1, -3, 0], np.int8)
    return [
        Swept("QuantizeLinear", [x, scale, zero], {"axis": [0, -2], "saturate": [None, 1]},
              opset=19, constants=[1, 2]),
        Swept("QuantizeLinear", [x, scale], {"axis": [0], "output_dtype": [2, 3, 4, 5]}, opset=21,
              constants=[1]),
        Swept("QuantizeLinear", [x, np.abs(floats(3, 2)) + np.float32(0.1)],
              {"axis": [1], "block_size": [2]}, opset=21, constants=[1], label="blocks"),
        Swept("DequantizeLinear", [_RNG.integers(-128, 128, (3, 4)).astype(np.int8), scale, zero],
              {"axis": [0, -2]}, opset=19, constants=[1, 2]),
        *(Swept("Cast", [x], {"to": [1, 6, 7, 10, 11, 9]}, label=label)
          for label in ("of f32",)),
    ]  # fmt: skip


def _recurrent() -> list[Swept]:
    steps, batch, width, hidden = 4, 3, 2, 5
    found = []
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for ways, directions in ((1, ["forward", "reverse"]), (2, ["bidirectional"])):
            x = floats(steps, batch, width)
            w = floats(ways, gates * hidden, width, seed=1)
            r = floats(ways, gates * hidden, hidden, seed=2)
            b = floats(ways, 2 * gates * hidden, seed=3)
            lengths = np.array([4, 1, 3], np.int32)
            start = floats(ways, batch, hidden, seed=4)
            given = [x, w, r, b, lengths, start, *([start] if op == "LSTM" else [])]
            options: dict[str, Sequence[Any]] = {
                "direction": directions,
                "hidden_size": [hidden],
                "clip": [None, 0.5],
            }
            if op == "GRU":
                options["linear_before_reset"] = [0, 1]
            if op == "LSTM":
                options["input_forget"] = [0, 1]
            outputs = 3 if op == "LSTM" else 2
            label = "both ways" if ways == 2 else ""
            found.append(
                Swept(op, given, options, constants=[1, 2, 3], outputs=outputs, label=label)
            )
            if op == "LSTM":
                peepholes = floats(ways, 3 * hidden, seed=5)
                found.append(
                    Swept(
                        op,
                        [*given, peepholes],
                        options,
                        constants=[1, 2, 3, 7],
                        outputs=outputs,
                        label=f"{label} peepholes",
                    )
                )
    return found  # fmt: skip


def _signal() -> list[Swept]:
    return [
        *(Swept(op, [np.array(9)], {"periodic": [0, 1], "output_datatype": [1, 11]},
                constants=[0]) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")),
        Swept("DFT", [floats(1, 10, 1)], {"inverse": [0], "onesided": [0, 1]}, opset=20),
        Swept("NegativeLogLikelihoodLoss", [floats(3, 5), np.array([1, 0, 4])],
              {"reduction": ["none", "mean", "sum"], "ignore_index": [None, 0]}),
        Swept("SoftmaxCrossEntropyLoss", [floats(3, 5), np.array([1, 0, 4])],
              {"reduction": ["none", "mean", "sum"], "ignore_index": [None, 0]}),
        Swept("NonMaxSuppression",
              [np.abs(floats(1, 6, 4)), np.abs(floats(1, 2, 6)), np.array(3),
               np.array(0.3, np.float32), np.array(0.2, np.float32)],
              {"center_point_box": [0, 1]}, constants=[2, 3, 4]),
        Swept("RotaryEmbedding", [floats(1, 2, 3, 4), floats(1, 3, 2), floats(1, 3, 2, seed=1)],
              {"interleaved": [0, 1]}, opset=23),
    ]  # fmt: skip


SWEEPS = [
    *_sampling(), *_resize(), *_windows(), *_norms(), *_elementwise(), *_reductions(),
    *_movement(), *_products(), *_quantised(), *_recurrent(), *_signal(),
]  # fmt: skip
