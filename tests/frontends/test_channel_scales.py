"""Scales by channel in front of depthwise convolutions: what is written, and when it helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from compiled import needs_native
from onnx import helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.driver.calibrated_recipe import Calibrated
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.channel_scales import scales_of_channels
from tensmith.frontends.onnx.quantising.quantisable import Quantisable
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe

from .float_models import normal, store

Array = np.ndarray[Any, Any]
UNLIKE = np.float32([1.0, 0.01, 0.3, 0.02])  # sizes of channels


def net(folder: Path) -> Path:
    """A convolution that makes channels of unlike sizes, a depthwise one, and one of both kinds.

    The depthwise one is too much of the work to stay in floats for its noise.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], "depthwise", group=4, pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["e", "v"], ["y"], "last"),
    ]
    depthwise = normal(4, 1, 5, 5) / UNLIKE[:, None, None, None]
    weights = {
        "w": normal(4, 3, 3, 3) * UNLIKE[:, None, None, None],
        "d": depthwise.astype(np.float32),
        "v": normal(5, 4, 1, 1),
    }
    return store(folder, nodes, weights)


def peaks_of(channels: int) -> Array:
    return np.arange(1, channels + 1, dtype=np.float64)


def test_relative_scales() -> None:
    np.testing.assert_allclose(scales_of_channels(np.array([4.0, 1.0, 0.0])), [1, 0.5, 1])
    np.testing.assert_array_equal(scales_of_channels(np.zeros(3)), np.ones(3))
    assert scales_of_channels(np.array([1.0, 1e-30])).min() > 0


def test_only_what_depthwise_convolutions_alone_read(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    keys = frozenset(product.key for product in source.products)
    peaks = {"x": peaks_of(3), "r": peaks_of(4), "e": peaks_of(4)}
    found = source.channel_scales(keys, peaks)
    assert list(found) == ["r"]
    np.testing.assert_allclose(found["r"], np.sqrt(peaks_of(4) / 4))
    assert source.channel_scales(keys - {"e"}, peaks) == {}  # that stays in floats
    model = onnx.load(net(tmp_path))
    model.graph.node.append(helper.make_node("Conv", ["r", "v"], ["z"], "beside"))
    model.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    onnx.save(model, tmp_path / "shared.onnx")
    shared = Quantisable(tmp_path / "shared.onnx")
    every = frozenset(product.key for product in shared.products)
    assert shared.channel_scales(every, peaks) == {}


def test_what_is_written(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    scales = np.float32([1.0, 0.5, 0.25, 0.125])
    recipe = Recipe({"r": Limits(-1, 3)}, frozenset({"e"}), scales={"r": scales})
    out = tmp_path / "quantised.onnx"
    source.save(recipe, out)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale, zero = Limits(-1, 3).u8()
    np.testing.assert_allclose(stored["r_scale"], scale * scales)
    np.testing.assert_array_equal(stored["r_zero"], np.full(4, zero, np.uint8))
    axes = [a.i for n in model.graph.node for a in n.attribute if a.name == "axis"]
    assert axes == [1, 1, 0]  # of the data twice, of the weights


def test_it_is_kept_in_other_processes(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    recipe = Recipe(
        {"r": Limits(-1, 3)}, frozenset({"e"}), frozenset({"e"}), scales={"r": np.float32([1, 2])}
    )
    found = Calibrated(source, recipe, False, 4, (0, 2), False, "minmax", {}, {}, {})
    again = Calibrated.from_json(source, found.to_json())
    assert again.judged == (0, 2)
    assert again.recipe.dynamic == recipe.dynamic
    np.testing.assert_array_equal(again.recipe.scales["r"], recipe.scales["r"])


@needs_native
def test_channels_of_unlike_sizes_are_quantised_better(tmp_path: Path) -> None:
    path = net(tmp_path)
    data = np.random.default_rng(2).standard_normal((12, 1, 3, 6, 6)).astype(np.float32)
    model = tensmith.compile(
        path, precision="int8", calibration={"x": data}, force_precision=True, verify=True
    )
    tried = model.manifest["quantisation"]["tried"]
    assert tried["scales of channels"] > tried["minmax"] + 3
    rows = {row["name"]: row["precision"] for row in model.manifest["contractions"]}
    assert rows["depthwise"] == "int8"
    exact = run_graph(load(path), {"x": data[0]})["y"]
    got = model.load()({"x": data[0]})["y"]
    assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()
