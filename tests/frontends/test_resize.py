"""Resize and Upsample against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

from .oracle import check, floats, model, node

MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def _run(
    scales: list[float] | None,
    sizes: list[int] | None,
    x: np.ndarray | None = None,
    dims: list[object] | None = None,
    atol: float = 1e-5,
    **attributes: object,
) -> None:
    x = floats(1, 2, 6, 7) if x is None else x
    names, constants = "x - s", {}
    if scales is not None:
        constants["s"] = np.float32(scales)
    else:
        names, constants["s"] = "x - - s", np.int64(sizes)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    proto = model(
        [node("Resize", names, **attributes)],
        {"x": x},
        ["y"],
        constants=constants,
        opset=19,
        types=[kind],
        dims={"x": dims} if dims else None,
    )
    check(proto, {"x": x}, atol=atol)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [[1, 2, 9, 15], [1, 2, 3, 4]])
def test_sizes(mode: str, kind: str, sizes: list[int]) -> None:
    _run(None, sizes, mode=kind, coordinate_transformation_mode=mode)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_rounding(rounding: str) -> None:
    _run([1, 1, 1.7, 0.6], None, mode="nearest", nearest_mode=rounding)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("outside", [0, 1])
@pytest.mark.parametrize("scales", [[1, 1, 0.5, 0.37], [1, 1, 2, 1.5]])
def test_antialias(kind: str, outside: int, scales: list[float]) -> None:
    _run(scales, None, mode=kind, antialias=1, exclude_outside=outside, x=floats(1, 2, 12, 13))


def test_antialias_of_bytes_is_exact() -> None:
    x = np.random.default_rng(0).integers(0, 256, (1, 40, 51, 3)).astype(np.uint8)
    _run([1, 0.4375, 0.7466667, 1], None, x=x, mode="linear", antialias=1, atol=0)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("outside", [0, 1])
def test_weights_of_bytes_are_exact(kind: str, outside: int) -> None:
    """Window, filter and sum of each row as in ONNX Runtime: a last bit of one moves bytes."""
    rng = np.random.default_rng(5)
    for size, out in ((40, 17), (50, 30), (79, 45), (39, 23), (79, 55), (23, 15), (13, 29)):
        x = rng.integers(0, 256, (1, 64, size, size)).astype(np.uint8)
        ways = {"mode": kind, "antialias": 1, "exclude_outside": outside}
        _run(None, [1, 64, out, size], x=x, atol=0, **ways)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 2, 96, 80), (90, 2, 70), (40, 64, 3)])
def test_antialias_reads_windows_alone(dtype: type, shape: tuple[int, ...]) -> None:
    """Of long axes, the last one and others, no product with a matrix that is all but zero."""
    x = (np.abs(floats(*shape)) * 60).astype(dtype)
    sizes = np.int64([n if n < 4 else n // 3 + 4 for n in shape])
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    made = node("Resize", "x - - s", mode="linear", antialias=1)
    proto = model([made], {"x": x}, ["y"], constants={"s": sizes}, opset=19, types=[code])
    graph = check(proto, {"x": x}, atol=1e-3 if dtype is np.float32 else 0, rtol=1e-5)
    dense = [n for n in graph.nodes if n.op == "matmul" and n.inputs[0].is_constant]
    assert not dense
    in_rows = [n for n in graph.nodes if n.op == "matmul"]
    assert bool(in_rows) is (dtype is np.float32 and shape[-1] > 4)


def test_symbolic_sizes() -> None:
    _run([1, 1, 2, 0.5], None, x=floats(1, 2, 6, 8), dims=["n", 2, "h", "w"], mode="nearest")
    _run([1, 1, 1.3, 0.7], None, x=floats(1, 2, 6, 8), dims=["n", 2, "h", "w"], mode="linear")


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("mode", [*MODES, "tf_half_pixel_for_nn"])
def test_repeated_elements_of_symbolic_sizes(mode: str, rounding: str, factor: int) -> None:
    ways = {"coordinate_transformation_mode": mode, "nearest_mode": rounding}
    _run([1, 1, factor, 2], None, floats(1, 2, 6, 8), ["n", 2, "h", 8], mode="nearest", **ways)


def test_repeats_are_axes_of_their_own() -> None:
    """No index is computed for sizes that only a run knows."""
    made = node("Resize", "x - s", mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor")  # fmt: skip
    proto = model(
        [made], {"x": floats(1, 2, 6, 8)}, ["y"], opset=13, dims={"x": [1, 2, "h", "w"]},
        constants={"s": np.float32([1, 1, 2, 2])},
    )  # fmt: skip
    ops = [inner.op for inner in load_model(proto).nodes]
    assert "gather" not in ops
    assert "broadcast_to" in ops


def test_cubic_without_outside() -> None:
    _run([1, 1, 1.5, 0.8], None, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("kind", ["nearest", "linear"])
def test_upsample(opset: int, kind: str) -> None:
    x = floats(1, 2, 4, 5)
    if opset < 9:
        proto = model(
            [node("Upsample", "x", mode=kind, scales=[1.0, 1.0, 2.0, 3.0])],
            {"x": x},
            ["y"],
            opset=opset,
        )
    else:
        proto = model(
            [node("Upsample", "x s", mode=kind)],
            {"x": x},
            ["y"],
            opset=opset,
            constants={"s": np.float32([1, 1, 2, 3])},
        )
    check(proto, {"x": x})


def test_scales_computed_at_run_time() -> None:
    """The scale is a ratio of the input's own size, as preprocessing graphs compute it."""
    x = floats(1, 1, 6, 9)
    nodes = [
        node("Shape", "x", "s"),
        node("Slice", "s two four", "hw"),
        node("Cast", "hw", "f", to=TensorProto.FLOAT),
        node("Div", "t f", "r"),
        node("Concat", "ones r", "scales", axis=0),
        node("Resize", "x - scales", "y", mode="linear", antialias=1),
    ]
    constants = {
        "two": np.int64([2]),
        "four": np.int64([4]),
        "t": np.float32([4, 12]),
        "ones": np.float32([1, 1]),
    }
    proto = model(
        nodes, {"x": x}, ["y"], constants=constants, opset=18, dims={"x": [1, 1, "h", "w"]}
    )
    check(proto, {"x": x})


def test_crop_and_resize() -> None:
    x = floats(1, 1, 6, 7)
    proto = model(
        [
            node(
                "Resize",
                "x roi - s",
                mode="linear",
                extrapolation_value=9.0,
                coordinate_transformation_mode="tf_crop_and_resize",
            )
        ],
        {"x": x},
        ["y"],
        opset=13,
        constants={
            "roi": np.float32([0, 0, 0.2, -0.1, 1, 1, 0.8, 1.2]),
            "s": np.int64([1, 1, 4, 5]),
        },
    )
    check(proto, {"x": x})


@pytest.mark.parametrize("scale", [0.35, 0.6, 0.9, 1.3, 2.5])
@pytest.mark.parametrize("known", [True, False])
def test_nearest_before_opset_11(scale: float, known: bool) -> None:
    """Places between elements are rounded up where the axis shrinks."""
    x, scales = floats(1, 2, 9), np.float32([1, 1, scale])
    inputs = {"x": x} if known else {"x": x, "s": scales}
    constants = {"s": scales} if known else {}
    made = node("Resize", "x s", mode="nearest")
    check(model([made], inputs, ["y"], constants=constants, opset=10), inputs)


LAYOUTS = {"channels first": (2, 3), "channels last": (1, 2), "width": (2,), "height": (1,),
           "picture": (0, 1)}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric"])
@pytest.mark.parametrize("axes", LAYOUTS.values(), ids=LAYOUTS)
def test_linear_integers_are_exact(dtype: type, mode: str, axes: tuple[int, ...]) -> None:
    """Truncated sums, each rounded as in ONNX Runtime: up, down and both."""
    shape = (13, 17) if axes == (0, 1) else (1, 13, 17, 5)
    x = np.random.default_rng(3).integers(0, 120, shape).astype(dtype)
    x = x if dtype is np.uint8 else x - dtype(60)
    for factors in ((2.3, 3.0), (0.6, 0.7), (2.0, 0.45)):
        scales = [1.0] * x.ndim
        for axis, factor in zip(axes, factors, strict=False):
            scales[axis] = factor
        _run(scales, None, x=x, mode="linear", coordinate_transformation_mode=mode, atol=0)


def test_antialias_of_wide_integers_is_exact() -> None:
    """Rounded after every axis, halves away from 0."""
    x = np.random.default_rng(1).integers(-100, 100, (1, 3, 8, 12)).astype(np.int32)
    for kind in ("linear", "cubic"):
        _run([1, 1, 2, 0.5], None, x=x, mode=kind, antialias=1, atol=0)


def test_antialias_of_wide_integers_differs_in_ties_alone() -> None:
    """ONNX Runtime adds f32 products in turn, rounded each; how they are added here depends on the
    machine. Only what is next to the middle of two integers can fall to another side."""
    x = np.random.default_rng(6).integers(0, 256, (1, 1, 50, 60)).astype(np.int32)
    ways = {"mode": "linear", "antialias": 1}
    made, real = ([node("Resize", "x - - s", **ways)] for _ in range(2))
    constants = {"s": np.int64([1, 1, 30, 60])}
    whole = model(made, {"x": x}, ["y"], constants=constants, opset=19, types=[TensorProto.INT32])
    check(whole, {"x": x}, atol=1)
    (mine,) = run_graph(load_model(whole), {"x": x}).values()
    exact = model(real, {"x": x.astype("f4")}, ["y"], constants=constants, opset=19)
    (between,) = run_graph(load_model(exact), {"x": x.astype("f4")}).values()
    assert np.abs(mine - between.astype("f8")).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
def test_cubic_integers_saturate(dtype: type) -> None:
    """What overshoots beside an edge stays at the end of the type, as in the standard."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = np.array([[low, low, low, high, high, high]], dtype)
    constants = {"s": np.float32([1, 2])}
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    proto = model([node("Resize", "x - s", mode="cubic")], {"x": x}, ["y"], constants=constants,
                  opset=19, types=[kind])  # fmt: skip
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    check(proto, {"x": x}, expected={"y": wanted}, rtol=0, atol=0)
    assert wanted.min() == low
    assert wanted.max() == high


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64])
@pytest.mark.parametrize("kind", ["linear", "cubic"])
@pytest.mark.parametrize("antialias", [0, 1])
def test_other_integers_are_rounded_once(dtype: type, kind: str, antialias: int) -> None:
    """ONNX Runtime has no kernels of them; the standard computes in floats. Ties depend
    on their last bits."""
    x = np.random.default_rng(2).integers(0, 90, (1, 1, 9, 11)).astype(dtype)
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    made = node("Resize", "x - s", mode=kind, antialias=antialias)
    proto = model([made], {"x": x}, ["y"], constants={"s": np.float32([1, 1, 1.7, 0.6])},
                  opset=19, types=[code])  # fmt: skip
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    graph = check(proto, {"x": x}, expected={"y": wanted}, rtol=0, atol=1)
    assert np.mean(run_graph(graph, {"x": x})["y"] != wanted) < 0.03
