"""Tree ensembles of ai.onnx.ml against ONNX Runtime, on random trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import TensmithError
from tensmith.frontends.onnx import load_model
from tensmith.runtime.meaning import decode

from .oracle import model, run_ort
from .ort_cases import OrtCase, check_all

ML = "ai.onnx.ml"
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]


def grown(
    rng: np.random.Generator, depth: int, modes: list[str], chain: bool = False
) -> dict[str, list[Any]]:
    """One random tree; values are multiples of 1/2, so that equality happens.

    chain: whatever holds leads to a leaf.
    """
    tree: dict[str, list[Any]] = {key: [] for key in ("mode", "feature", "value", "yes", "no")}

    def add(level: int) -> int:
        own = len(tree["mode"])
        leaf = level == 0 or (level < depth and not chain and rng.random() < 0.2)
        tree["mode"].append("LEAF" if leaf else modes[rng.integers(len(modes))])
        tree["feature"].append(0 if leaf else int(rng.integers(5)))
        tree["value"].append(0.0 if leaf else float(rng.integers(-3, 4)) / 2)
        tree["yes"].append(0)
        tree["no"].append(0)
        if not leaf:
            tree["yes"][own] = add(0 if chain else level - 1)
            tree["no"][own] = add(level - 1)
        return own

    add(depth)
    return tree


def attributes(
    rng: np.random.Generator,
    trees: int,
    depth: int,
    prefix: str,
    targets: list[int],
    *,
    modes: list[str] | None = None,
    per_leaf: int = 1,
    positive: bool = False,
    rotate: bool = False,
    chain: bool = False,
) -> dict[str, Any]:
    """The nodes_* and target_* or class_* attributes of a random ensemble."""
    found: dict[str, list[Any]] = {}

    def put(name: str, value: Any) -> None:
        found.setdefault(name, []).append(value)

    for number in range(trees):
        tree = grown(rng, depth, modes or ["BRANCH_LEQ"], chain)
        for i, mode in enumerate(tree["mode"]):
            put("nodes_treeids", number)
            put("nodes_nodeids", i)
            put("nodes_modes", mode)
            put("nodes_featureids", tree["feature"][i])
            put("nodes_values", tree["value"][i])
            put("nodes_truenodeids", tree["yes"][i])
            put("nodes_falsenodeids", tree["no"][i])
            put("nodes_missing_value_tracks_true", int(rng.integers(2)) if mode != "LEAF" else 0)
            if mode != "LEAF":
                continue
            chosen = rng.permutation(targets)[:per_leaf]
            for target in [targets[number % len(targets)]] if rotate else chosen:
                put(f"{prefix}_treeids", number)
                put(f"{prefix}_nodeids", i)
                put(f"{prefix}_ids", int(target))
                weight = float(rng.standard_normal())
                put(f"{prefix}_weights", abs(weight) / trees if positive else weight)
    return found


def samples(rng: np.random.Generator, count: int = 40, dtype: Any = np.float32) -> np.ndarray:
    """Rows of 5 features that hit thresholds exactly, and hold NaN here and there."""
    x = (rng.integers(-6, 7, (count, 5)) / 2).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(x.shape) < 0.1] = np.nan
    return x


def regressor(name: str, seed: int, trees: int = 6, depth: int = 4, **options: Any) -> OrtCase:
    rng = np.random.default_rng(seed)
    extra = options.pop("attributes", {})
    targets, rows = options.pop("targets", [0]), options.pop("rows", 40)
    dtype = options.pop("dtype", np.float32)
    made = attributes(rng, trees, depth, "target", targets, **options)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain=ML, n_targets=max(targets) + 1,
        **(made | extra),
    )  # fmt: skip
    x = samples(rng, rows, dtype)
    return OrtCase(name, model([node], {"x": x}, ["y"], domains=[ML]), {"x": x})


def classifier(name: str, seed: int, classes: int, trees: int = 6, **options: Any) -> OrtCase:
    rng = np.random.default_rng(seed)
    extra = options.pop("attributes", {})
    used = options.pop("used", list(range(classes)))
    dtype = options.pop("dtype", np.float32)
    made = attributes(rng, trees, 4, "class", used, **options)
    labels = [10 * c + 3 for c in range(classes)]
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["l", "y"], domain=ML, classlabels_int64s=labels,
        **(made | extra),
    )  # fmt: skip
    x = samples(rng, dtype=dtype)
    types = [TensorProto.INT64, TensorProto.FLOAT]
    return OrtCase(name, model([node], {"x": x}, ["l", "y"], types=types, domains=[ML]), {"x": x})


def regressors() -> list[OrtCase]:
    cases = [
        regressor("regressor", 0),
        regressor("every mode", 1, modes=MODES),
        regressor("deep", 2, trees=3, depth=12),
        regressor("one leaf", 3, depth=0),
        regressor("three targets in turn", 4, targets=[0, 1, 2], rotate=True),
        regressor("targets unequally", 5, trees=5, targets=[0, 1, 2], rotate=True),
        regressor("several per leaf", 6, targets=[0, 1, 2], per_leaf=2),
        regressor("f64", 8, dtype=np.float64),
        regressor("probit", 9, positive=True, attributes={"post_transform": "PROBIT"}),
        regressor("base value", 10, attributes={"base_values": [0.7]}),
        regressor("one row", 11, trees=21, rows=1, modes=MODES),
        regressor("few rows", 12, trees=3, rows=7),
        regressor("many rows", 13, trees=9, rows=200, targets=[0, 1, 2], per_leaf=2),
        regressor("a list of tests", 14, trees=2, depth=60, modes=["BRANCH_EQ"], chain=True),
    ]
    for i, function in enumerate(("AVERAGE", "MIN", "MAX")):
        chosen = {"aggregate_function": function, "base_values": [0.5, -1.0, 2.0]}
        cases.append(regressor(function, 20 + i, targets=[0, 1, 2], per_leaf=2, attributes=chosen))
        single = {"aggregate_function": function}
        cases.append(regressor(f"{function} of one", 30 + i, attributes=single))
    for i, function in enumerate(("SUM", "AVERAGE", "MIN", "MAX")):
        chosen = {"aggregate_function": function, "base_values": [0.5, -1.0, 2.0]}
        sparse = f"{function} of what only some rows hear of"
        cases.append(regressor(sparse, 24 + i, trees=2, targets=[0, 1, 2], attributes=chosen))
    for i, name in enumerate(("SOFTMAX", "SOFTMAX_ZERO", "LOGISTIC")):
        chosen = {"post_transform": name}
        cases.append(regressor(name, 40 + i, targets=[0, 1, 2], per_leaf=3, attributes=chosen))
    return cases


def classifiers() -> list[OrtCase]:
    cases = [
        classifier("three classes", 50, 3, per_leaf=3),
        classifier("sparse classes", 51, 4, trees=2),
        classifier("in turn", 52, 3, rotate=True, attributes={"base_values": [0.1, 0.4, -0.3]}),
        classifier("i64", 55, 3, per_leaf=3, dtype=np.int64, modes=MODES),
        classifier("f64", 56, 3, per_leaf=3, dtype=np.float64, modes=MODES),
        classifier("two, both given", 53, 2, per_leaf=2),
        classifier("two, both positive", 54, 2, per_leaf=2, positive=True),
    ]
    for i, name in enumerate(("NONE", "SOFTMAX", "LOGISTIC")):
        chosen: dict[str, Any] = {"post_transform": name, "base_values": [0.1]}
        cases.append(classifier(f"one class, {name}", 57 + i, 1, attributes=chosen))
    for i, name in enumerate(("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")):
        chosen = {"post_transform": name}
        cases.append(classifier(f"three, {name}", 60 + i, 3, per_leaf=3, attributes=chosen))
        for used in (0, 1):
            for positive in (False, True):
                for base in ([], [0.2], [0.2, 0.3]):
                    text = f"{name}, class {used}, {'positive' if positive else 'mixed'}, {base}"
                    extra = chosen | ({"base_values": base} if base else {})
                    cases.append(
                        classifier(text, 70 + i, 2, used=[used], positive=positive,
                                   attributes=extra)
                    )  # fmt: skip
    return cases


def newer(name: str, seed: int, dtype: Any = np.float32, **attributes: Any) -> OrtCase:
    """TreeEnsemble of opset 5: three trees, with membership tests and a shared leaf."""
    rng = np.random.default_rng(seed)

    def tensor(values: list[Any], kind: Any = dtype) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, kind))

    node = helper.make_node(
        "TreeEnsemble", ["x"], ["y"], domain=ML, n_targets=2,
        tree_roots=[0, 3, 4],
        nodes_featureids=[0, 1, 2, 3, 4],
        nodes_splits=tensor([0.5, 0.0, -0.5, 0.0, 1.0]),
        nodes_modes=tensor([0, 6, 3, 6, 0], np.uint8),
        nodes_missing_value_tracks_true=[0, 1, 0, 1, 0],
        nodes_truenodeids=[1, 0, 2, 4, 6], nodes_trueleafs=[0, 1, 1, 1, 1],
        nodes_falsenodeids=[2, 1, 3, 5, 6], nodes_falseleafs=[0, 1, 1, 1, 1],
        membership_values=tensor([3.0, 1.0, -1.0, np.nan, 0.0, 2.0, np.nan]),
        leaf_targetids=[0, 1, 0, 1, 0, 1, 0],
        leaf_weights=tensor(list(rng.standard_normal(7))),
        **attributes,
    )  # fmt: skip
    x = np.trunc(samples(rng, dtype=dtype))  # ONNX Runtime rounds what it tests for membership
    types = [helper.np_dtype_to_tensor_dtype(x.dtype)]
    proto = model([node], {"x": x}, ["y"], types=types, domains=[ML])
    proto.opset_import[1].version = 5
    return OrtCase(name, proto, {"x": x})


def newer_ensembles() -> list[OrtCase]:
    cases = [newer("opset 5", 0), newer("opset 5 in f64", 1, np.float64)]
    cases += [newer(f"aggregate {i}", 2 + i, aggregate_function=i) for i in range(4)]
    # ONNX Runtime exchanges SOFTMAX (1) and LOGISTIC (2)
    return cases + [newer(f"transform {i}", 6 + i, post_transform=i) for i in (0, 3)]


def test_softmax_and_logistic_of_opset_5() -> None:
    plain = newer("plain", 3)
    x = dict(plain.inputs)
    scores = run_graph(load_model(plain.proto), x)["y"]
    powers = np.exp(scores)
    for number, want in ((1, powers / powers.sum(1, keepdims=True)), (2, 1 / (1 + 1 / powers))):
        graph = load_model(newer("transformed", 3, post_transform=number).proto)
        np.testing.assert_allclose(run_graph(graph, x)["y"], want, rtol=1e-5)


@pytest.mark.parametrize("group", [regressors, classifiers, newer_ensembles])
def test_ensembles(group: Any, tmp_path: Path) -> None:
    check_all(group(), tmp_path)


def _stump(**changes: Any) -> onnx.ModelProto:
    made: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0], "class_nodeids": [1, 2], "class_ids": [0, 1],
        "class_weights": [1.0, 2.0], "classlabels_int64s": [5, 6],
    }  # fmt: skip
    made |= changes
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["l", "y"], domain=ML, **made)
    x = np.zeros((2, 1), np.float32)
    return model([node], {"x": x}, ["l", "y"], types=[7, 1], domains=[ML])


def test_string_labels() -> None:
    for classes in ([0, 0], [1, 1]):
        proto = _stump(classlabels_strings=["a", "b\u00e9"], class_ids=classes)
        attributes = proto.graph.node[0].attribute
        attributes.remove(next(a for a in attributes if a.name == "classlabels_int64s"))
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
        x = np.array([[0.0], [1.0]], np.float32)
        found, wanted = run_graph(load_model(proto), {"x": x}), run_ort(proto, {"x": x})
        assert decode(found["l"]).tolist() == wanted["l"].tolist()
        np.testing.assert_allclose(found["y"], wanted["y"])


def test_sets_of_categories_lead_to_one_child(tmp_path: Path) -> None:
    """x0 in {1, 3, 4} as three tests with one true child, which other depths have, too."""
    proto = _stump(
        nodes_treeids=[0] * 7, nodes_nodeids=list(range(7)), nodes_featureids=[0, 0, 0, 1, 0, 0, 0],
        nodes_modes=["BRANCH_EQ"] * 3 + ["BRANCH_LEQ"] + ["LEAF"] * 3,
        nodes_values=[1.0, 3.0, 4.0, 0.5, 0.0, 0.0, 0.0],
        nodes_truenodeids=[3, 3, 3, 4, 0, 0, 0], nodes_falsenodeids=[1, 2, 6, 5, 0, 0, 0],
        class_treeids=[0] * 3, class_nodeids=[4, 5, 6], class_ids=[0, 1, 2],
        class_weights=[1.0, 2.0, 3.0], classlabels_int64s=[5, 6, 7],
    )  # fmt: skip
    rows = np.array([[c, v] for c in range(6) for v in (0, 1)], np.float32)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(rows)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    check_all([OrtCase("categories", proto, {"x": rows})], tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes_falsenodeids": [0, 0, 0]},
        {"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], "nodes_truenodeids": [1, 0, 0]},
        {"nodes_truenodeids": [7, 0, 0]},
        {"nodes_truenodeids": [0, 0, 0]},
        {"nodes_featureids": [3, 0, 0]},
        {"class_ids": [0, 2]},
        {"class_nodeids": [1, 9]},
        {"class_weights": [1.0]},
        {"nodes_values": [0.5]},
        {"nodes_nodeids": [0, 1, 1]},
    ],
    ids=str,
)
def test_malformed_trees_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TensmithError):
        load_model(_stump(**changes))
