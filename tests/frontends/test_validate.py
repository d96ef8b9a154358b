"""Malformed and hostile models are refused, clearly and quickly."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.errors import InvalidModelError, TensmithError, UnsupportedError, UsageError
from tensmith.frontends.onnx import load, load_model

from .oracle import floats, model, node

X = {"x": floats(2, 3)}
Build = Callable[[], onnx.ModelProto]


def simple(*nodes: onnx.NodeProto, **more: object) -> onnx.ModelProto:
    return model(nodes, X, ["y"], **more)  # type: ignore[arg-type]


def _recursive() -> onnx.ModelProto:
    imports = [helper.make_opsetid("local", 1)]
    pair = [
        helper.make_function(
            "local",
            name,
            ["a"],
            ["b"],
            [helper.make_node(other, ["a"], ["b"], domain="local")],
            imports,
        )
        for name, other in (("A", "B"), ("B", "A"))
    ]
    return simple(node("A", "x", domain="local"), functions=pair, domains=["local"])


def _bomb() -> onnx.ModelProto:
    """Thirty functions that call the one before twice: 2**30 nodes."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", "L0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], imports
        )
    ]
    for i in range(1, 31):
        calls = [helper.make_node(f"L{i - 1}", [a], [b], domain="local") for a, b in ("at", "tb")]
        functions.append(helper.make_function("local", f"L{i}", ["a"], ["b"], calls, imports))
    return simple(node("L30", "x", domain="local"), functions=functions, domains=["local"])


def _tensor(dims: Sequence[int], raw: bytes, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    proto = simple(node("Add", "x w"))
    proto.graph.initializer.append(
        onnx.TensorProto(name="w", data_type=kind, dims=dims, raw_data=raw)
    )
    return proto


def _edited(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = simple(node("Softmax", "x", axis=0))
    edit(proto)
    return proto


def _set_ir(proto: onnx.ModelProto, version: int) -> None:
    proto.ir_version = version


def _set_opset(proto: onnx.ModelProto, version: int) -> None:
    proto.opset_import[0].version = version


INVALID: dict[str, Build] = {
    "cycle": lambda: simple(node("Add", "x b", "y"), node("Relu", "y", "b")),
    "self cycle": lambda: simple(node("Relu", "y", "y")),
    "defined twice": lambda: simple(node("Relu", "x"), node("Neg", "x")),
    "unknown name": lambda: simple(node("Add", "x ghost")),
    "missing output": lambda: simple(node("Relu", "x", "z")),
    "too many inputs": lambda: simple(node("Relu", "x x x")),
    "too few inputs": lambda: simple(node("Add", "x")),
    "too many outputs": lambda: simple(node("Relu", "x", "y z")),
    "unknown attribute": lambda: simple(node("Relu", "x", bogus=1)),
    "wrong attribute type": lambda: simple(node("Softmax", "x", axis="zero")),
    "missing attribute": lambda: simple(node("Concat", "x x")),
    "axis": lambda: simple(node("Softmax", "x", axis=5)),
    "smallest axis": lambda: simple(node("Softmax", "x", axis=-(2**63))),
    "permutation": lambda: simple(node("Transpose", "x", perm=[0, 0])),
    "broadcast": lambda: simple(node("Add", "x w"), constants={"w": floats(5)}),
    "index": lambda: simple(node("Gather", "x i"), constants={"i": np.int64([10**9])}),
    "tuple of indices": lambda: simple(
        node("GatherND", "x i"), constants={"i": np.int64([[0, 10**9]])}
    ),
    "tuple to scatter to": lambda: simple(
        node("ScatterND", "x i u"), constants={"i": np.int64([[-9, 0]]), "u": floats(1)}
    ),
    "sequence length": lambda: simple(
        node("ReverseSequence", "x n"), constants={"n": np.int64([99, 1, 1])}
    ),
    "reshape": lambda: simple(node("Reshape", "x s"), constants={"s": np.int64([7])}),
    "recursive functions": _recursive,
    "function bomb": _bomb,
    "short data": lambda: _tensor([2, 3], b"\0" * 20),
    "long data": lambda: _tensor([2, 3], b"\0" * 28),
    "negative dimension": lambda: _tensor([-2, -3], b"\0" * 24),
    "dimensions that overflow to 0": lambda: _tensor([2**32, 2**32], b""),
    "rank": lambda: _tensor([1] * 1000, b"\0" * 4),
    "element type": lambda: _tensor([1], b"\0" * 4, 99),
    "IR version": lambda: _edited(lambda proto: _set_ir(proto, 999)),
    "negative IR version": lambda: _edited(lambda proto: _set_ir(proto, -5)),
    "opset 0": lambda: _edited(lambda proto: _set_opset(proto, 0)),
    "no output": lambda: _edited(lambda proto: proto.graph.ClearField("output")),
    "no graph": lambda: onnx.ModelProto(ir_version=8),
    "attribute twice": lambda: _edited(
        lambda proto: proto.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    ),
    "huge result": lambda: simple(
        node("Expand", "x s"), constants={"s": np.int64([10**6, 10**6, 2, 3])}
    ),
    "endless range": lambda: simple(
        node("Range", "a b c"),
        types=[TensorProto.INT64],
        constants={"a": np.int64(0), "b": np.int64(2**63 - 1), "c": np.int64(1)},
    ),
    "range without step": lambda: simple(
        node("Range", "a b c"),
        types=[TensorProto.INT64],
        constants={"a": np.int64(0), "b": np.int64(5), "c": np.int64(0)},
    ),
    "doubling": lambda: model(
        [
            node(
                "Concat",
                f"{'x' if i == 0 else f't{i}'} {'x' if i == 0 else f't{i}'}",
                f"t{i + 1}",
                axis=0,
            )
            for i in range(45)
        ],
        X,
        ["t45"],
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_malformed_models_are_refused(name: str) -> None:
    with pytest.raises(InvalidModelError) as caught:
        load_model(INVALID[name]())
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strides", [0, 0]),
        ("strides", [-1, 1]),
        ("dilations", [0, 1]),
        ("group", 0),
        ("group", 7),
        ("pads", [1]),
        ("pads", [2**62] * 4),
        ("pads", [-9] * 4),
        ("kernel_shape", [9, 9]),
    ],
)
def test_window_attributes_are_checked(key: str, value: object) -> None:
    x = {"x": floats(1, 2, 5, 5)}
    proto = model(
        [node("Conv", "x w", **{key: value})], x, ["y"], constants={"w": floats(2, 2, 3, 3)}
    )
    with pytest.raises(InvalidModelError):
        load_model(proto)


def test_unsorted_nodes_are_sorted() -> None:
    graph = load_model(simple(node("Relu", "a"), node("Neg", "x", "a")))
    assert [n.op for n in graph.nodes] == ["neg", "max"]


def test_all_unsupported_nodes_are_named_at_once() -> None:
    proto = simple(
        helper.make_node("NoSuchOperator", ["x"], ["a"], name="first"),
        node("Relu", "a", "b"),
        helper.make_node("ImageDecoder", ["x"], ["c"], name="second"),
        node("Add", "x x", "y"),
    )
    with pytest.raises(UnsupportedError) as caught:
        load_model(proto)
    assert [item.node for item in caught.value.items] == ["first", "second"]
    assert all(item.reason for item in caught.value.items)


@pytest.mark.parametrize("version", [9999])
def test_opsets_out_of_range(version: int) -> None:
    with pytest.raises(UnsupportedError, match="opset"):
        load_model(_edited(lambda proto: _set_opset(proto, version)))


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "data", [b"", b"this is no model\n" * 50, b"PK\3\4" + b"\0" * 500, bytes(range(256)) * 8]
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError):
        load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    proto = simple(node("Add", "x w"), constants={"w": floats(200, 3)})
    data = proto.SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(1, len(data) - 12, 37):
        path.write_bytes(data[:length])
        with pytest.raises(TensmithError):
            load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load(tmp_path / "nothing.onnx")


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    weights = floats(500, 3)
    path = tmp_path / "model.onnx"
    onnx.save(
        model([node("MatMul", "x w")], {"x": floats(2, 500)}, ["y"], constants={"w": weights}), path
    )
    (found,) = load(path).constants()
    assert found.data is not None
    assert not found.data.flags.owndata
    assert not found.data.flags.writeable
    np.testing.assert_array_equal(found.data, weights)


def _external(folder: Path, **entries: object) -> Path:
    tensor = onnx.TensorProto(
        name="w", data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL
    )
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    proto = model([node("Identity", "w")], {}, ["y"], types=[TensorProto.UINT8])
    proto.graph.initializer.append(tensor)
    (folder / "data.bin").write_bytes(bytes(range(32)))
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_is_read(tmp_path: Path) -> None:
    graph = load(_external(tmp_path, location="data.bin", offset=8, length=16))
    (found,) = graph.constants()
    np.testing.assert_array_equal(found.data, np.arange(8, 24, dtype=np.uint8))


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../" * 12 + "etc/passwd"},
        {"location": "/etc/passwd"},
        {"location": "sub/../../data.bin"},
        {"location": "/dev/zero"},
        {"location": "absent.bin"},
        {"location": "."},
        {"location": ""},
        {},
        {"location": "link.bin"},
        {"location": "data.bin", "offset": 10**6},
        {"location": "data.bin", "offset": -8},
        {"location": "data.bin", "offset": "abc"},
        {"location": "data.bin", "length": 2**62},
        {"location": "data.bin", "length": 4},
    ],
)
def test_external_data_is_confined(tmp_path: Path, entries: dict[str, object]) -> None:
    os.symlink("/etc/passwd", tmp_path / "link.bin")
    with pytest.raises(InvalidModelError):
        load(_external(tmp_path, **entries))


def test_raw_bytes_of_every_type() -> None:
    for dtype in (np.float64, np.float16, np.int32, np.uint8, np.bool_):
        data = np.arange(12).reshape(3, 4).astype(dtype)
        proto = model([node("Identity", "w")], {}, ["y"])
        proto.graph.initializer.append(numpy_helper.from_array(data, "w"))
        proto.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
            data.dtype
        )
        (found,) = load_model(proto).constants()
        np.testing.assert_array_equal(found.data, data)
