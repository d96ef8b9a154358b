"""Every combination of attributes against two engines that share no code with the importer.

ONNX Runtime and the evaluator of the onnx package compute each case; where both do and differ, the
result must be one of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model

from .attribute_cases import SWEEPS, Swept
from .oracle import run_ort

Array = np.ndarray
IN_EVERY_RUN = 4  # combinations of each operator; the slow sweep has all


def _model(swept: Swept, attributes: dict[str, Any]) -> tuple[onnx.ModelProto, dict[str, Array]]:
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(swept.inputs)]
    feeds, infos, constants = {}, [], []
    for index, (name, array) in enumerate(zip(names, swept.inputs, strict=True)):
        if array is None:
            continue
        if index in swept.constants:
            constants.append(numpy_helper.from_array(array, name))
            continue
        feeds[name] = array
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        infos.append(helper.make_tensor_value_info(name, code, array.shape))
    outputs = [f"y{i}" for i in range(swept.outputs)]
    node = helper.make_node(swept.op, names, outputs, domain=swept.domain, **attributes)
    graph = helper.make_graph([node], "g", infos, [], constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", swept.opset)], ir_version=10
    )
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    kinds = {info.name: info.type.tensor_type.elem_type for info in inferred}
    for name in outputs:
        info = onnx.ValueInfoProto(name=name)
        info.type.tensor_type.elem_type = kinds.get(name, TensorProto.FLOAT)
        graph.output.append(info)
    model.graph.CopyFrom(graph)
    return model, feeds


def _evaluated(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = ReferenceEvaluator(model)
    return dict(zip(session.output_names, session.run(None, feeds), strict=True))


def _attempt(run: Callable[..., dict[str, Array]], *arguments: Any) -> dict[str, Array] | None:
    """What an engine computes; None where it refuses."""
    try:
        return run(*arguments)
    except Exception:  # the engines raise what they like
        return None


def _differences(found: dict[str, Array], wanted: dict[str, Array]) -> list[str]:
    wrong = []
    for name, want in wanted.items():
        got, want = np.asarray(found[name]), np.asarray(want)
        if got.shape != want.shape or got.dtype != want.dtype:
            wrong.append(f"{name} is {got.dtype}{got.shape}, not {want.dtype}{want.shape}")
            continue
        a, b = got.astype(np.float64), want.astype(np.float64)
        close = np.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        if not close.all():
            wrong.append(f"{name}: {(~close).sum()} of {close.size}, {a[~close][0]} {b[~close][0]}")
    return wrong


def _check(swept: Swept, attributes: dict[str, Any]) -> str | None:
    """What is wrong with one combination, "" where nothing is; None where no engine takes it."""
    model, feeds = _model(swept, attributes)
    oracles = {"onnxruntime": _attempt(run_ort, model, feeds)}
    if oracles["onnxruntime"] is None or _differs(model, feeds, oracles["onnxruntime"]):
        oracles["onnx"] = _attempt(_evaluated, model, feeds)
    answers = {name: wanted for name, wanted in oracles.items() if wanted is not None}
    if not answers:
        return None
    try:
        found = run_graph(load_model(model), feeds)
    except Exception as error:
        return f"{attributes}: {type(error).__name__}: {error}"
    wrong = {name: _differences(found, wanted) for name, wanted in answers.items()}
    return f"{attributes}: {wrong}" if all(wrong.values()) else ""


def _differs(model: onnx.ModelProto, feeds: dict[str, Array], wanted: dict[str, Array]) -> bool:
    found = _attempt(lambda: run_graph(load_model(model), feeds))
    return found is None or bool(_differences(found, wanted))


def _sweep(swept: Swept, combinations: Sequence[dict[str, Any]]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    found = [_check(swept, attributes) for attributes in combinations]
    assert any(text is not None for text in found), "no engine takes any of them"
    wrong = list(filter(None, found))
    assert not wrong, "\n".join(wrong)


_each = pytest.mark.parametrize("swept", SWEEPS, ids=lambda swept: swept.name)


@_each
def test_some_combinations(swept: Swept) -> None:
    every = list(swept.combinations())
    chosen = np.random.default_rng(5).permutation(len(every))[:IN_EVERY_RUN]
    _sweep(swept, [every[index] for index in sorted(chosen)])


@pytest.mark.slow
@_each
def test_all_combinations(swept: Swept) -> None:
    _sweep(swept, list(swept.combinations()))


def test_cubic_sampling_takes_each_neighbour_from_the_border() -> None:
    (swept,) = (item for item in SWEEPS if item.name == "GridSample")
    cubic = [a for a in swept.combinations() if a["mode"] == "cubic"]
    assert len(cubic) == 6
    _sweep(swept, cubic)
