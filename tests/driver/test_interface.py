"""The command line on what a model declares: shapes that do not hold, shared names, defaults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def test_check_lists_sizes_that_must_agree(save_model, call) -> None:
    path = save_model([helper.make_node("Neg", ["x"], ["y"])], ["n", "n"])
    found = json.loads(call("check", path, "--json")[1])
    assert found["shared"] == ["n"]
    assert found["free"] == {"n": "x:[?,?]"}
    line = "all that is called n has one size; --shape 'x:[?,?]' frees that of 'x'"
    assert line in call("check", path)[1]
    assert json.loads(call("check", path, "--shape", "x:?x?", "--json")[1])["shared"] == []


def test_defaults_of_inputs(model_path: Path, call) -> None:
    """From the command line, with the processor's own backend."""
    proto = onnx.load(model_path)
    proto.graph.node[0].input[1] = "k"
    proto.graph.input.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, [1]))
    proto.graph.initializer.append(helper.make_tensor("k", TensorProto.FLOAT, [1], [2]))
    onnx.save(proto, model_path)
    assert json.loads(call("check", model_path, "--json")[1])["optional"] == ["k"]
    code, out, err = call("compile", model_path, "--json", "-o", "model.so")
    assert code == 0, err
    assert [i.get("default") for i in json.loads(out)["manifest"]["inputs"]] == [None, [1]]
    assert json.loads(out)["verify"]["status"] == "passed"
    np.savez("x.npz", x=np.ones((2, 4), np.float32))
    np.savez("both.npz", x=np.ones((2, 4), np.float32), k=np.float32([5]))
    for file, largest in (("x.npz", 3), ("both.npz", 6)):
        for path in (model_path, "model.so"):
            code, out, err = call("run", path, "--input", file, "--json")
            assert code == 0, err
            assert json.loads(out)["outputs"]["y"]["max"] == largest
    quick = ("--warmup", "1", "--iterations", "2", "--duration", "0", "--json")
    assert call("bench", "model.so", "--shape", "x:2x4", *quick)[0] == 0
    for command in (("run", "--input", "x.npz"), ("bench", *quick), ("inspect",)):
        code, _, err = call(command[0], "model.so", *command[1:], "-O1")
        assert (code, "-O: without effect on a compiled model" in err) == (2, True)
    assert call("run", "model.so", "--shape", "x:2x4", "-O1")[2].count("-O, --shape: without") == 1
    stored = ("--inputs", "x.npz", "--outputs", "x.npz", "-O1")
    assert "-O: without" in call("verify", "model.so", *stored)[2]


def test_declared_shapes_that_do_not_hold_are_said(fake, model_path: Path, call) -> None:
    proto = onnx.load(model_path)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    onnx.save(proto, model_path)
    note = "the model declares shapes that do not hold: 'y' is f32[batch, 4], and not [batch, 7]"
    for more in ((), ("--shape", "x:2x4")):
        code, _, err = call("compile", model_path, "--no-verify", *more)
        assert code == 0
        assert err.startswith("warning: the model declares shapes that do not hold: 'y' is f32[")
    assert note in call("check", model_path)[1]


def test_verify_refuses_what_a_library_does_not_follow(
    fake, model_path: Path, call, batch, tmp_path: Path
) -> None:
    assert call("compile", model_path, "--no-verify")[0] == 0
    library = model_path.with_suffix(".so")
    np.savez(tmp_path / "in.npz", x=batch)
    np.savez(tmp_path / "out.npz", y=2 * batch)
    np.savez(tmp_path / "data.npz", x=batch)
    stored = ("--inputs", "in.npz", "--outputs", "out.npz")
    of_model = ("verify", model_path, "--library", library)
    data, shape = ("--precision", "int8", "--calibration", "data.npz"), ("--shape", "x:8x4")
    lines = [(*given, *stored, *more) for given in (of_model, ("verify", library))
             for more in (data, shape, ("--target", "aarch64"))]  # fmt: skip
    for line in lines:
        code, _, err = call(*line)
        assert code == 2
        assert f"{line[-2]}: without effect on a compiled model" in err, err
        assert "leave them out" in err
    assert call(*of_model, *shape)[0] == 0  # the reference follows it
