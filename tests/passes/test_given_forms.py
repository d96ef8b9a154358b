"""Forms that are given: taken where a group can have them, else refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from suites.case import CaseBuilder, N

from tensmith.backends.llvm.pipeline import make_plan
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.schedule.choices import Choices

TARGET = resolve_target("x86-64-v3")[1]


@dataclass(frozen=True)
class Asking(Choices):
    """Gives nothing, and notes which groups might be given something."""

    asked: list[str] = field(default_factory=list)

    def _given_form(self, group: str) -> object | None:
        self.asked.append(group)
        return None


def planned(graph: Graph, choices: Choices, level: int = 2) -> list[tuple[str, ...]]:
    """The operators of every kernel."""
    options = CompileOptions("m", Path(), opt_level=level, choices=choices)
    return [k.kernel.operators for k in make_plan(graph, TARGET, options, Stages()).kernels]


def whole_key(build: Callable[[], Graph]) -> str:
    """The key of what could become one group, that the last pass asks about."""
    asking = Asking({"": {}})
    planned(build(), asking)
    return asking.asked[-1]


def attention(queries: Dim = 64, keys: Dim = 64, *, between: str = "") -> Graph:
    """Scores, their softmax, and what it weighs. between: what is unusual about that."""
    c = CaseBuilder("attention")
    scores = c.op("matmul", c.input(2, queries, 16), c.input(2, 16, keys))
    if between == "padded":
        wider = {"pads": (0, 0, 0, 0, 0, 8), "mode": "constant"}
        scores, keys = c.op("pad", scores, c.scalar(-1.0), **wider), 72
    weights = c.op("softmax", scores, axis=2)
    lead = (3, 2) if between == "several" else (2,)
    c.output(c.op("matmul", weights, c.input(*lead, keys, 16)))
    return c.graph()


def inverted(kernel: int = 1, side: int = 20) -> Graph:
    """A convolution, and a depthwise one behind it."""
    c = CaseBuilder("inverted")
    window = {"strides": (1, 1), "dilations": (1, 1)}
    pads = (kernel // 2,) * 4
    wide = c.op(
        "conv", c.input(1, 48, side, side), c.weight(96, 48, kernel, kernel), **window, pads=pads,
        groups=1,
    )  # fmt: skip
    c.output(c.op("conv", wide, c.weight(96, 1, 3, 3), **window, pads=(1,) * 4, groups=96))
    return c.graph()


@pytest.mark.parametrize(
    ("build", "form", "reason"),
    [
        (attention, "row_blocks 7", "blocks divide 64 rows"),
        (attention, "row_blocks 0", "blocks divide 64 rows"),
        (attention, "bands 3 block 32", "a group of another kind"),
        (lambda: attention(N, N), "row_blocks 8", "no attention of known sizes"),
        (lambda: attention(between="several"), "row_blocks 8", "more than its own rows"),
        (lambda: attention(between="padded"), "row_blocks 8", "more than a softmax"),
        (inverted, "bands 21 block 32", "bands have 1 to 20 rows"),
        (inverted, "bands 5 block 36", "blocks divide 96 channels"),
        (lambda: inverted(3), "bands 5 block 32", "has the form 'winograd"),
    ],
)
def test_a_form_that_cannot_apply_is_refused(
    build: Callable[[], Graph], form: str, reason: str
) -> None:
    key = whole_key(build)
    with pytest.raises(ScheduleError, match=f"cannot take the form '{form}'") as refused:
        planned(build(), Choices({key: {"form": form}}))
    assert reason in refused.value.why


@pytest.mark.parametrize(
    ("build", "form", "operator"),
    [
        (lambda: attention(4), "row_blocks 2", "matmul"),
        (lambda: inverted(side=12), "bands 1 block 16", "conv"),
    ],
)
def test_a_form_is_taken_where_the_heuristic_takes_none(
    build: Callable[[], Graph], form: str, operator: str
) -> None:
    assert all(ops.count(operator) < 2 for ops in planned(build(), Choices()))
    key = whole_key(build)
    found = planned(build(), Choices({key: {"form": form}}))
    assert sum(ops.count(operator) == 2 for ops in found) == 1
    assert planned(build(), Choices({key: {"form": ""}})) == planned(build(), Choices())


def test_a_form_for_no_group_is_refused() -> None:
    key = whole_key(attention)
    form = {"form": "row_blocks 8"}
    assert planned(attention(), Choices({key: form}))
    for build, given, level in (
        (attention, key, 0),
        (inverted, key, 2),
        (attention, "0123+rows", 2),
    ):
        with pytest.raises(ScheduleError, match=rf"no group '{given[:4]}.* the form 'row_blocks 8"):
            planned(build(), Choices({given: form}), level)
        planned(build(), Choices({given: {"parallel": 0}}), level)
