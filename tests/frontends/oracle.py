"""Builds small models and compares the imported graph, run by numpy, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.frontends.onnx import load_model

Array = np.ndarray


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Array],
    outputs: Sequence[str],
    *,
    constants: dict[str, Array] | None = None,
    opset: int = 17,
    dims: dict[str, Sequence[int | str | None]] | None = None,
    types: Sequence[int] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model with inputs like the given arrays; `dims` declares other (symbolic) shapes."""
    made = []
    for name, array in inputs.items():
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = (dims or {}).get(name, array.shape)
        made.append(helper.make_tensor_value_info(name, code, shape))
    results = []
    for index, name in enumerate(outputs):
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = types[index] if types else TensorProto.FLOAT
        results.append(info)
    tensors = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", made, results, tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    ir = min(helper.find_min_ir_version_for(imports[:1]), 10) if not functions else 8
    return helper.make_model(
        graph, opset_imports=imports, ir_version=max(ir, 4), functions=list(functions)
    )


def run_ort(proto: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime computes, without graph optimisations."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(
    proto: onnx.ModelProto,
    inputs: dict[str, Array],
    *,
    expected: dict[str, Array] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Graph:
    """Import, run, and compare types, shapes and values; returns the imported graph."""
    graph = load_model(proto)
    found = run_graph(graph, inputs)
    wanted = expected if expected is not None else run_ort(proto, inputs)
    for name, want in wanted.items():
        got = np.asarray(found[name])
        assert got.dtype == want.dtype, name
        assert got.shape == want.shape, name
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=atol, err_msg=name
        )
    return graph


def node(op: str, inputs: str, outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    """A node from names separated by blanks; `-` is an absent input."""
    names = ["" if name == "-" else name for name in inputs.split()]
    domain = str(attributes.pop("domain", ""))
    return helper.make_node(
        op, names, ["" if n == "-" else n for n in outputs.split()], domain=domain, **attributes
    )


def floats(*shape: int, seed: int = 0) -> Array:
    """Seeded normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
