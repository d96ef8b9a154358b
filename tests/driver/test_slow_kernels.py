"""`check` and `inspect` on kernels that are predicted to take far longer than they need."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

TARGET = ("--target", "x86-64-v3")


def constant(name: str, values: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def wrapped() -> list[onnx.NodeProto]:
    """Every position is taken modulo a size that a run decides."""
    return [
        constant("pads", np.array([0, 0, 2, 2, 0, 0, 2, 2])),
        helper.make_node("Pad", ["x", "pads"], ["y"], name="around", mode="wrap"),
    ]


def test_divisions_by_sizes(save_model, call) -> None:
    path = save_model(wrapped(), ["n", 64, "h", "w"])
    code, out, _ = call("check", path, *TARGET, "--json")
    assert code == 0
    (slow,) = json.loads(out)["slow"]
    assert slow["nodes"] == ["around"]
    assert slow["sizes"] == {"n": 1, "h": 128, "w": 128}
    assert slow["seconds"] > 4 * slow["direct_seconds"]
    assert slow["share"] == pytest.approx(1)
    assert "--shape" in slow["reasons"][0]["remedy"]
    text = call("check", path, *TARGET)[1]
    assert f"slow: kernel {slow['kernel']} ('around')" in text
    assert slow["reasons"][0]["why"] in text
    pinned = call("check", path, *TARGET, "--shape", "x:1x64x128x128", "--json")[1]
    assert json.loads(pinned)["slow"] == []


def test_beside_the_kernels(save_model, call) -> None:
    path = save_model(wrapped(), ["n", 64, "h", "w"])
    out = call("inspect", path, *TARGET, "--kernels", "--json")[1]
    (kernel,) = json.loads(out)["manifest"]["kernels"]
    assert kernel["slow"]["kernel"] == kernel["name"]
    assert "slow: kernel" in call("inspect", path, *TARGET, "--kernels")[1]
    pinned = ("--shape", "x:1x64x128x128")
    out = call("inspect", path, *TARGET, *pinned, "--kernels", "--json")[1]
    assert [k["slow"] for k in json.loads(out)["manifest"]["kernels"]] == [None]


def test_a_small_kernel_does_not_matter(save_model, call) -> None:
    path = save_model(wrapped(), ["n", 1, 8, "w"])
    assert json.loads(call("check", path, *TARGET, "--json")[1])["slow"] == []


def test_large_models_are_not_planned(save_model, call, monkeypatch) -> None:
    monkeypatch.setattr("tensmith.driver.preflight.MAX_PLANNED_NODES", 0)
    path = save_model(wrapped(), ["n", 64, "h", "w"])
    assert json.loads(call("check", path, *TARGET, "--json")[1])["slow"] is None
    out = call("check", path, *TARGET)[1]
    assert "inspect --kernels" in out
    assert "slow: kernel" not in out


@pytest.mark.parametrize("mode", ["rows", "nearest", "strided", "convolution", "softmax"])
def test_what_a_model_asks_for_is_no_cliff(save_model, call, mode: str) -> None:
    weight = np.ones((16, 64, 3, 3), np.float32)
    nodes = {
        "rows": [
            constant("i", np.arange(0, 60, 7)),
            helper.make_node("Gather", ["x", "i"], ["y"], axis=3),
        ],
        "nearest": [
            constant("scales", np.array([1, 1, 2, 2], np.float32)),
            helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest"),
        ],
        "strided": [
            constant("from", np.array([0])),
            constant("to", np.array([1 << 30])),
            constant("axis", np.array([3])),
            constant("step", np.array([2])),
            helper.make_node("Slice", ["x", "from", "to", "axis", "step"], ["y"]),
        ],
        "convolution": [
            constant("w", weight),
            helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
        ],
        "softmax": [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
    }[mode]
    path = save_model(nodes, ["n", 64, "h", "w"])
    assert json.loads(call("check", path, *TARGET, "--json")[1])["slow"] == []
