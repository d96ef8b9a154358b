"""Random ONNX models beside ONNX Runtime: 200 in every run, 2,000 with the slow tests, which also
run some of them in emulators of every processor for Arm.

A seed that is not right is looked at alone, in tests/, by
`python -m random_models --first SEED --count 1 --save FOLDER`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import EMULATED, needs_native
from onnx import TensorProto, helper, numpy_helper
from random_models.builder import ALL, Features
from random_models.check import BATCH, Oracle, check, differences
from random_models.coarse import coarse_outputs
from random_models.emulated import missing, on_target
from random_models.generate import Sample, sample

from tensmith.backends.arm.cortex_m import BOARDS

pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of these tests")

ALWAYS, IN_ALL = 200, 2000
EMULATED_TARGETS = (*EMULATED, *BOARDS)
# seeds whose models differ for a reason that is no fault, and the reason
LISTED: dict[int, str] = {}


def _check(first: int, folder: Path, features: Features = ALL) -> None:
    found = check(range(first, first + BATCH), folder, features)
    wrong = [str(finding) for finding in found if finding.seed not in LISTED]
    assert not wrong, "\n".join(wrong)


@needs_native
@pytest.mark.parametrize("first", range(0, ALWAYS, BATCH))
def test_models(first: int, tmp_path: Path) -> None:
    _check(first, tmp_path)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("first", range(ALWAYS, IN_ALL, BATCH))
def test_many_models(first: int, tmp_path: Path) -> None:
    _check(first, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "target"), list(enumerate(EMULATED_TARGETS)))
def test_models_in_emulators(number: int, target: str, tmp_path: Path) -> None:
    if why := missing(target):
        pytest.skip(why)
    first = number * BATCH
    found = check(range(first, first + BATCH), tmp_path, compiled=on_target(target))
    wrong = [str(finding) for finding in found if finding.seed not in LISTED]
    assert not wrong, "\n".join(wrong)


COARSE_NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[3] x, float16[3] h, double[3] d, bool flag) => (float[3] fine, float[3] short,
    float[3] mixed, float[3] region, int64[1] sizes, float[3] halved, float[3] last)
<float16[3] w = {1, 1, 1}>
{
    fine = Relu (x)
    wide = Cast <to = 1> (h)
    mixed = Add (wide, fine)
    brain = Cast <to = 16> (x)
    short = Cast <to = 1> (brain)
    region = If (flag) <
        then_branch = yes () => (float[3] a) { a = Neg (wide) },
        else_branch = no () => (float[3] b) { b = Neg (x) }>
    sizes = Shape (h)
    halved = Cast <to = 1> (w)
    last = Cast <to = 1> (d)
}
"""


def test_outputs_that_depend_on_floats_of_16_bits() -> None:
    """And no others: those of the same model are held to the tolerances of f32."""
    coarse = coarse_outputs(onnx.parser.parse_model(COARSE_NET))
    assert coarse == {"mixed", "short", "region", "halved"}
    want = {name: np.ones(3, np.float32) for name in ("mixed", "fine")}
    got = {name: array * np.float32(1.003) for name, array in want.items()}
    (wrong,) = differences(got, want, {}, coarse)
    assert wrong.startswith("fine")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (TensorProto.FLOAT16, True),
        (TensorProto.FLOAT16, False),
        (TensorProto.BFLOAT16, False),  # ONNX Runtime takes no such array
        (TensorProto.DOUBLE, True),
        (TensorProto.DOUBLE, False),
    ],
)
def test_floats_of_every_type_are_moved(kind: int, given: bool) -> None:
    """Those that a call brings and those of the model, where a step amplifies what they lose."""
    numbers = np.float32([1, 2]).astype(helper.tensor_dtype_to_np_dtype(kind))
    nodes = [
        helper.make_node("Cast", ["a"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Floor", ["wide"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("a", kind, [2])] if given else [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [] if given else [numpy_helper.from_array(numbers, "a")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    oracle = Oracle(model)
    call = {"a": numbers} if given else {}
    want = oracle.run(call)
    own = Sample(0, model, (call,), coarse_outputs(model))
    np.testing.assert_array_equal(oracle.spread(call, want, own)["y"], 1)


def test_a_seed_is_one_model() -> None:
    models = [sample(seed).model.SerializeToString(deterministic=True) for seed in (3, 4, 3)]
    assert models[0] == models[2] != models[1]


def test_what_the_models_hold() -> None:
    """The generator reaches most operators, regions within regions, and sizes that differ; types
    of elements, and amounts that a call brings."""
    operators: set[str] = set()
    depths: set[int] = set()
    sizes = amounts = coarse = 0

    def visit(nodes, depth: int) -> None:
        for node in nodes:
            operators.add(node.op_type)
            depths.add(depth)
            for attribute in node.attribute:
                visit(attribute.g.node, depth + 1)

    for seed in range(600):
        given = sample(seed)
        visit(given.model.graph.node, 0)
        first, second = ({name: a.shape for name, a in call.items()} for call in given.calls)
        sizes += first != second
        amounts += bool(given.amounts)
        coarse += bool(given.coarse)
    assert depths == {0, 1, 2, 3}
    assert min(sizes, amounts) > 200
    assert coarse > 20
    assert {"If", "Loop", "Scan", "LSTM", "GRU", "RNN"} <= operators
    assert {
        "SequenceInsert",
        "Optional",
        "QLinearConv",
        "BitShift",
        "Einsum",
        "Unique",
    } <= operators
    assert len(operators) > 160
