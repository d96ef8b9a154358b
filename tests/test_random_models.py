"""Random ONNX models beside ONNX Runtime: 200 in every run, 2,000 with the slow tests, which also
run some of them in emulators of every processor for Arm.

A seed that is not right is looked at alone, in tests/, by
`python -m random_models --first SEED --count 1 --save FOLDER`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import EMULATED, needs_native
from random_models.builder import ALL, Features
from random_models.check import BATCH, check
from random_models.emulated import missing, on_target
from random_models.generate import sample

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
        coarse += given.coarse
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
