"""Models whose inputs are maps, as DictVectorizer pipelines of scikit-learn have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper

from tensmith.compiler.errors import InvalidModelError, UnsupportedError
from tensmith.driver import api, cli
from tensmith.driver.engines import EngineSpec, open_engine
from tensmith.frontends.onnx import load_model
from tensmith.runtime.loader import ModuleError

ML = "ai.onnx.ml"
WORDS = ["height", "colour=red", "w\u00e4hrung", "colour=blue"]
MAPS: list[dict[str, float]] = [
    {"height": 1.5, "colour=red": 1.0},
    {"colour=blue": 1.0, "height": -2.0, "unknown": 9.0},
    {"unknown": 4.0},
    {"w\u00e4hrung": 3.25},
]
pytestmark = needs_native


def _map(key: int, value: int) -> onnx.TypeProto:
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, None))


def _model(nodes: list[onnx.NodeProto], kind: onnx.TypeProto, outputs: dict[str, int]) -> Any:
    results = [helper.make_tensor_value_info(n, code, None) for n, code in outputs.items()]
    graph = helper.make_graph(nodes, "maps", [helper.make_value_info("x", kind)], results)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _vectorizer(output: str = "y", **vocabulary: Any) -> onnx.NodeProto:
    return helper.make_node("DictVectorizer", ["x"], [output], domain=ML, **vocabulary)


def _ort(model: onnx.ModelProto, value: Any) -> list[Any]:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": value}))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dict of features, a linear classifier of named classes."""
    weights = np.random.default_rng(1).standard_normal((2, len(WORDS))).reshape(-1).tolist()
    nodes = [
        _vectorizer("features", string_vocabulary=WORDS),
        helper.make_node(
            "LinearClassifier", ["features"], ["label", "scores"], domain=ML,
            coefficients=weights, intercepts=[0.25, -0.25], classlabels_strings=["no", "yes"],
            post_transform="SOFTMAX",
        ),
    ]  # fmt: skip
    kind = _map(TensorProto.STRING, TensorProto.FLOAT)
    outputs = {"label": TensorProto.STRING, "scores": TensorProto.FLOAT}
    path = tmp_path_factory.mktemp("maps") / "pipeline.onnx"
    onnx.save(_model(nodes, kind, outputs), path)
    return path


@pytest.fixture(scope="module")
def artifact(pipeline: Path) -> api.Artifact:
    return api.compile(pipeline)


def test_dicts_are_taken_as_onnx_runtime_takes_them(pipeline: Path, artifact: api.Artifact) -> None:
    module, model = artifact.load(), onnx.load(pipeline)
    wanted = [_ort(model, one) for one in MAPS]
    for one, (label, scores) in zip(MAPS, wanted, strict=True):
        for given in ({"x": one}, {"x": [one]}):
            found = module(given)
            assert found["label"].tolist() == label.tolist()
            np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    for given in ([*MAPS], np.array(MAPS, object)):
        found = module(given)
        assert found["label"].tolist() == [label[0] for label, _ in wanted]
        scores = np.concatenate([scores for _, scores in wanted])
        np.testing.assert_allclose(found["scores"], scores, atol=1e-6)


def test_the_manifest_tells_which_key_a_column_is_of(artifact: api.Artifact) -> None:
    module = artifact.load()
    (told,) = module.manifest["inputs"]
    assert told["classes"] == WORDS
    assert told["key_type"] == "string"
    assert "key_type" not in module.manifest["outputs"][0]
    rows = np.array([[1.5, 1.0, 0.0, 0.0]], np.float32)
    dense, given = module(rows), module({"x": MAPS[0]})
    assert dense["scores"].tolist() == given["scores"].tolist()


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({3: 1.0}, "no string"),
        ([{"height": 1.0}, 4], "int is given"),
        ({"height": "tall"}, "tall"),
        ({"height": None}, "'height' of a dict has None"),
    ],
)
def test_other_dicts_are_refused(artifact: api.Artifact, value: Any, fault: str) -> None:
    with pytest.raises(ModuleError, match=fault):
        artifact.load()({"x": value})


@pytest.mark.parametrize("empty", [[], (), np.array([], object)], ids=["list", "tuple", "array"])
def test_no_dicts_are_no_rows(artifact: api.Artifact, empty: Any) -> None:
    found = artifact.load()({"x": empty})
    assert found["scores"].shape == (0, 2)
    assert found["label"].shape == (0,)


def test_no_dicts_of_strings_are_no_rows() -> None:
    kind = _map(TensorProto.INT64, TensorProto.STRING)
    module = api.compile(
        _model([_vectorizer(int64_vocabulary=[1, 5])], kind, {"y": TensorProto.STRING})
    ).load()
    assert module({"x": []})["y"].shape == (0, 2)
    with pytest.raises(ModuleError, match="the key 1 of a dict has None"):
        module({"x": {1: None}})


def test_check_and_verify(pipeline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(pipeline)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "input 'x' is a map" in told
    assert "colour=red" in told
    pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test")
    assert cli.main(["verify", str(pipeline), "--against", "onnxruntime", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "passed"


# ONNX Runtime's Python interface takes maps to floats alone, so that what is right is said here.
KINDS = {
    "words to f64": (TensorProto.STRING, TensorProto.DOUBLE, {"b": 0.1}, [0.0, 0.1]),
    "words to i64": (TensorProto.STRING, TensorProto.INT64, {"b": 7, "z": 1}, [0, 7]),
    "numbers to f32": (TensorProto.INT64, TensorProto.FLOAT, {5: 0.5, -3: 2.0, 1: 9}, [2.0, 0.5]),
    "numbers to f64": (TensorProto.INT64, TensorProto.DOUBLE, {np.int64(5): 0.1}, [0.0, 0.1]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_map(name: str) -> None:
    key, value, given, want = KINDS[name]
    vocabulary: dict[str, Any] = {"string_vocabulary": ["a", "b"]}
    if key == TensorProto.INT64:
        vocabulary = {"int64_vocabulary": [-3, 5]}
    model = _model([_vectorizer(**vocabulary)], _map(key, value), {"y": value})
    found = api.compile(model).load()({"x": given})["y"]
    assert found.tolist() == [want]
    assert found.dtype == helper.tensor_dtype_to_np_dtype(value)


def test_strings_of_numbers() -> None:
    kind = _map(TensorProto.INT64, TensorProto.STRING)
    casts = {
        "first": {"map_form": "SPARSE", "max_map": 3, "cast_to": "TO_FLOAT"},
        "words": {"map_form": "SPARSE", "max_map": 2, "cast_to": "TO_STRING"},
        "whole": {"map_form": "SPARSE", "max_map": 2, "cast_to": "TO_INT64"},
    }
    nodes = [
        _vectorizer("y", int64_vocabulary=[1, 5]),
        *(helper.make_node("CastMap", ["x"], [name], domain=ML, **c) for name, c in casts.items()),
    ]
    outputs = {"y": TensorProto.STRING, "first": TensorProto.FLOAT, "words": TensorProto.STRING,
               "whole": TensorProto.INT64}  # fmt: skip
    found = api.compile(_model(nodes, kind, outputs)).load()({"x": {1: "-2.5e0"}})
    assert {name: array.tolist() for name, array in found.items()} == {
        "y": [["-2.5e0", ""]], "first": [[0.0, -2.5, 0.0]], "words": [["0.f", "-2.5e0"]],
        "whole": [[0, -2]],
    }  # fmt: skip


FORMS: dict[str, list[dict[str, Any]]] = {
    "DENSE": [{}],
    "SPARSE": [{"max_map": 4}, {}],
}


@pytest.mark.parametrize("form", FORMS)
def test_casts_of_maps(form: str) -> None:
    nodes, outputs = [], {}
    for number, more in enumerate(FORMS[form]):
        for cast_to, code in (("TO_FLOAT", TensorProto.FLOAT), ("TO_INT64", TensorProto.INT64)):
            name = f"{cast_to}_{number}"
            outputs[name] = code
            nodes.append(
                helper.make_node("CastMap", ["x"], [name], domain=ML, cast_to=cast_to,
                                 map_form=form, **more)
            )  # fmt: skip
    model = _model(nodes, _map(TensorProto.INT64, TensorProto.FLOAT), outputs)
    module = api.compile(model).load()
    for given in ({3: 2.75, 1: -1.5, 0: 4.0}, {2: 8.0}):
        found = module({"x": given})
        for name, want in zip(outputs, _ort(model, given), strict=True):
            assert found[name].tolist() == want.tolist()
            assert found[name].dtype == want.dtype
    if form == "DENSE":
        with pytest.raises(ModuleError, match="different numbers of entries"):
            module([{1: 1.0}, {}])


@pytest.mark.parametrize("keys", [0, -3, 1 << 40])
def test_sparse_casts_of_no_size_or_a_huge_one_are_refused(keys: int) -> None:
    cast = helper.make_node("CastMap", ["x"], ["y"], domain=ML, map_form="SPARSE", max_map=keys)
    model = _model([cast], _map(TensorProto.INT64, TensorProto.FLOAT), {"y": TensorProto.FLOAT})
    why = "more than 16777216 keys" if keys > 0 else f"max_map {keys}: 1 is the least"
    with pytest.raises((UnsupportedError, InvalidModelError), match=why):
        load_model(model)


@pytest.mark.parametrize("rows", [2, 3, 0])
@pytest.mark.parametrize("size", [2, "k"])
def test_onnx_runtime_gets_a_matrix_map_by_map(tmp_path: Path, rows: int, size: int | str) -> None:
    """A table of a fixed size is the same for all of them; another input has a row for each."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is the engine of this test")
    op = "MatMul" if size == 2 else "Add"
    nodes = [
        _vectorizer("f", int64_vocabulary=[1, 5]),
        helper.make_node(op, ["f", "side"], ["y"]),
    ]
    outputs = {"y": TensorProto.FLOAT}
    model = _model(nodes, _map(TensorProto.INT64, TensorProto.FLOAT), outputs)
    model.graph.input.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, [size, 2]))
    onnx.save(model, tmp_path / "model.onnx")
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    side = 1 - np.arange(4 if size == 2 else 2 * rows, dtype=np.float32).reshape(-1, 2)
    found = open_engine(EngineSpec("onnxruntime", tmp_path / "model.onnx"))({"x": x, "side": side})
    np.testing.assert_array_equal(found["y"], x @ side if size == 2 else x + side)


def test_two_vocabularies_share_an_input() -> None:
    nodes = [
        _vectorizer("y", string_vocabulary=["a", "b"]),
        _vectorizer("z", string_vocabulary=["c", "b", "c"]),
    ]
    kind = _map(TensorProto.STRING, TensorProto.FLOAT)
    model = _model(nodes, kind, {"y": TensorProto.FLOAT, "z": TensorProto.FLOAT})
    graph = load_model(model)
    assert graph.meanings["x"].classes == ("a", "b", "c")
    given = {"a": 1.0, "b": 2.0, "c": 3.0}
    found = api.compile(model).load()({"x": given})
    for name, want in zip("yz", _ort(model, given), strict=True):
        assert found[name].tolist() == want.tolist()


def test_what_no_matrix_serves_is_refused() -> None:
    kind = _map(TensorProto.INT64, TensorProto.FLOAT)
    both = [
        _vectorizer("y", int64_vocabulary=[1]),
        helper.make_node("CastMap", ["x"], ["z"], domain=ML),
    ]
    outputs = {"y": TensorProto.FLOAT, "z": TensorProto.FLOAT}
    with pytest.raises(UnsupportedError, match="reads all entries, another some"):
        load_model(_model(both, kind, outputs))
    with pytest.raises(UnsupportedError, match="keys of another type"):
        load_model(_model([_vectorizer(string_vocabulary=["a"])], kind, {"y": TensorProto.FLOAT}))
