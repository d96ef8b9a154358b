"""Tree ensembles of two classes whose leaves speak of one class, of both or of none.

How ONNX Runtime treats a row depends on the classes that the leaves it reaches have weights for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load_model
from tensmith.runtime.meaning import decode

from .oracle import model, run_ort
from .ort_cases import OrtCase, check_all
from .test_ml_trees import ML, grown

FIRST, SECOND, BOTH, NONE = (0,), (1,), (0, 1), ()
LEAVES = [
    [FIRST], [SECOND], [BOTH], [FIRST, SECOND], [BOTH, FIRST], [BOTH, SECOND],
    [FIRST, NONE], [SECOND, NONE], [FIRST, SECOND, NONE],
]  # fmt: skip
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
BASES = [[], [0.2], [0.3, -0.4]]


def ensemble(
    seed: int, leaves: list[tuple[int, ...]], positive: bool, strings: bool, **extra: Any
) -> OrtCase:
    """Random trees; each leaf has weights for the classes of a drawn entry of `leaves`."""
    rng = np.random.default_rng(seed)
    made: dict[str, list[Any]] = {"class_ids": []}
    trees = 1 + 3 * (seed % 2)

    def put(**entries: Any) -> None:
        for name, value in entries.items():
            made.setdefault(name, []).append(value)

    for number in range(trees):
        tree = grown(rng, 3, ["BRANCH_LEQ"])
        for i, mode in enumerate(tree["mode"]):
            put(nodes_treeids=number, nodes_nodeids=i, nodes_modes=mode)
            put(nodes_featureids=tree["feature"][i], nodes_values=tree["value"][i])
            put(nodes_truenodeids=tree["yes"][i], nodes_falsenodeids=tree["no"][i])
            for target in leaves[rng.integers(len(leaves))] if mode == "LEAF" else ():
                weight = float(rng.standard_normal())
                put(class_treeids=number, class_nodeids=i, class_ids=target)
                put(class_weights=abs(weight) / trees if positive else weight)
    labels = {"classlabels_strings": ["a", "b"]} if strings else {"classlabels_int64s": [13, 23]}
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["l", "y"], domain=ML, **labels, **made,
        **{name: value for name, value in extra.items() if value},
    )  # fmt: skip
    x = (rng.integers(-6, 7, (30, 5)) / 2).astype(np.float32)
    types = [TensorProto.STRING if strings else TensorProto.INT64, TensorProto.FLOAT]
    proto = model([node], {"x": x}, ["l", "y"], types=types, domains=[ML])
    name = f"{leaves} {'positive' if positive else 'mixed'} {extra}"
    return OrtCase(name, proto, {"x": x})


def ensembles() -> Iterator[tuple[OrtCase, bool]]:
    """All combinations, and whether ONNX Runtime gives every row two scores.

    It leaves the second one as memory was where it has one score that it neither completes nor,
    with one base value, takes for that of a probability.
    """
    choices = product(LEAVES, TRANSFORMS, [False, True], BASES)
    for seed, (leaves, name, positive, base) in enumerate(choices):
        chosen = {"post_transform": name, "base_values": base}
        case = ensemble(seed, leaves, positive, seed % 3 == 0, **chosen)
        one = len({c for leaf in leaves for c in leaf}) == 1
        whole = leaves == [BOTH] or len(base) == 2 or (name != "PROBIT" and (one or not base))
        yield case, whole


def _labels(labels: Any, proto: onnx.ModelProto) -> list[str]:
    strings = proto.graph.output[0].type.tensor_type.elem_type == TensorProto.STRING
    found = decode(labels) if strings and labels.dtype == np.uint8 else labels
    return [str(label) for label in found]


def test_every_combination() -> None:
    wrong, swept = [], 0
    for case, whole in ensembles():
        inputs = dict(case.inputs)
        want, got = run_ort(case.proto, inputs), run_graph(load_model(case.proto), inputs)
        swept += 1
        columns = 2 if whole else 1
        # PROBIT has poles, and ends in NaN for what is no probability
        sure = np.abs(np.nan_to_num(want["y"], nan=9)) < (2 if "PROBIT" in case.name else np.inf)
        near = np.isclose(got["y"], want["y"], 1e-3, 1e-4, equal_nan=True) | ~sure
        if not near[:, :columns].all() or _labels(got["l"], case.proto) != _labels(
            want["l"], case.proto
        ):
            wrong.append(case.name)
    assert not wrong, f"{len(wrong)} of {swept}:\n" + "\n".join(wrong)


def test_undefined_scores_are_zero() -> None:
    """Rows of the first class only, of a model that has both: one base value completes nothing."""
    case = ensemble(4, [BOTH, FIRST], False, False, base_values=[0.2], post_transform="SOFTMAX")
    inputs = dict(case.inputs)
    got = run_graph(load_model(case.proto), inputs)["y"]
    lone = got[:, 1] == 0
    assert 0 < lone.sum() < len(lone)
    np.testing.assert_allclose(got[~lone].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(got[:, 0], run_ort(case.proto, inputs)["y"][:, 0], rtol=1e-5)


@pytest.mark.parametrize("name", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_compiled(tmp_path: Path, name: str) -> None:
    cases = [
        ensemble(seed, leaves, False, False, post_transform=name, base_values=base)
        for seed, (leaves, base) in enumerate(
            [([FIRST, SECOND], []), ([FIRST, SECOND], [0.3, -0.4]), ([SECOND, NONE], [0.2])]
        )
    ]
    check_all(cases, tmp_path)
