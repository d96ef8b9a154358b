"""Damaged model files: the importer gives a sound graph or a clear error, whatever the bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tensmith.compiler.errors import InternalError, TensmithError
from tensmith.compiler.ir.verify import verify
from tensmith.frontends.onnx import load

from .oracle import floats, model, node

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _info(name: str, kind: int, shape: list[int | str | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _network() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c g g g g", "n"),
        node("MaxPool", "n", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f m", transB=1),
    ]
    constants = {"w": floats(4, 3, 3, 3), "g": np.abs(floats(4)), "m": floats(5, 64)}
    x = {"x": floats(1, 3, 16, 16)}
    return model(nodes, x, ["y"], constants=constants, dims={"x": ["N", 3, 16, 16]})


def _shapes() -> onnx.ModelProto:
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Concat", "n minus", "t", axis=0),
        node("Reshape", "x t", "r"),
        node("Slice", "r one two one", "c"),
        node("QuantizeLinear", "c scale point", "q"),
        node("DequantizeLinear", "q scale point"),
    ]
    constants = {
        "zero": np.int64([0]),
        "one": np.int64([1]),
        "two": np.int64([2]),
        "minus": np.int64([-1]),
        "scale": np.float32(0.1),
        "point": np.uint8(3),
    }
    return model(nodes, {"x": floats(2, 3, 4)}, ["y"], constants=constants, dims={"x": ["N", 3, 4]})


def _control() -> onnx.ModelProto:
    body = helper.make_graph(
        [
            node("Add", "a x", "a2"),
            node("Identity", "c", "c2"),
            node("Square", "a2", "o", domain="l"),
        ],
        "body",
        [_info("i", I64, []), _info("c", B, []), _info("a", F, [3])],
        [_info("c2", B, []), _info("a2", F, [3]), _info("o", F, [3])],
    )
    square = helper.make_function(
        "l", "Square", ["a"], ["b"], [node("Mul", "a a", "b")], [helper.make_opsetid("", 17)]
    )
    loop = helper.make_node("Loop", ["m", "t", "x"], ["y", "all"], body=body)
    return model(
        [loop],
        {"x": floats(3)},
        ["y", "all"],
        constants={"m": np.int64(4), "t": np.array(True)},
        functions=[square],
        domains=["l"],
    )


@functools.cache
def _bytes(build: Callable[[], onnx.ModelProto]) -> bytes:
    return build().SerializeToString()


@dataclass(frozen=True)
class Damage:
    """Edits of a file, one after another; places are fractions of its length.

    edits: (kind, place, number); kind: "flip" a bit, "set" a byte, "cut" or "copy" some bytes,
    "end" the file.
    """

    build: Callable[[], onnx.ModelProto]
    edits: tuple[tuple[str, float, int], ...]

    def apply(self) -> bytes:
        data = bytearray(_bytes(self.build))
        for kind, place, number in self.edits:
            at = int(place * len(data))
            if kind == "flip":
                data[at] ^= 1 << number % 8
            elif kind == "set":
                data[at] = number
            elif kind == "cut":
                del data[at : at + number % 16 + 1]
            elif kind == "copy":
                data[at:at] = data[at : at + number % 64]
            else:
                del data[at:]
            if not data:
                break
        return bytes(data)


KINDS = st.sampled_from(["flip", "flip", "set", "set", "cut", "copy", "end"])
PLACES = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
EDITS = st.lists(st.tuples(KINDS, PLACES, st.integers(0, 255)), min_size=1, max_size=3).map(tuple)
DAMAGES = st.builds(Damage, st.sampled_from([_network, _shapes, _control]), EDITS)
OPTIONS: dict[str, Any] = {"suppress_health_check": list(HealthCheck)}


def check(folder: Path, damage: Damage) -> None:
    path = folder / "model.onnx"
    path.write_bytes(damage.apply())
    try:
        graph = load(path)
    except TensmithError as error:
        if isinstance(error, InternalError) or not error.what:
            raise
    else:
        verify(graph)


def test_the_models_are_sound(tmp_path: Path) -> None:
    for build in (_network, _shapes, _control):
        check(tmp_path, Damage(build, ()))
        path = tmp_path / "model.onnx"
        assert path.read_bytes() == _bytes(build)
        assert load(path).nodes


@settings(max_examples=200, **OPTIONS)
@example(Damage(_network, (("flip", 0.9853905929552139, 7),)))  # the name of a dimension
@given(DAMAGES)
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, damage: Damage) -> None:
    check(tmp_path_factory.getbasetemp(), damage)


@pytest.mark.slow
@settings(max_examples=20_000, **OPTIONS)
@given(DAMAGES)
def test_many_damaged_files(tmp_path_factory: pytest.TempPathFactory, damage: Damage) -> None:
    check(tmp_path_factory.getbasetemp(), damage)
