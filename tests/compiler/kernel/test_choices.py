"""Choices: they say all that a schedule is made of, and what cannot be emitted is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import pytest
from kernels import fused_nodes
from suites.case import Case, CaseBuilder, N
from suites.cases import ALL_CASES

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import ScheduleError, UsageError
from tensmith.compiler.ir import Node
from tensmith.compiler.ir.groups import group_key
from tensmith.compiler.kernel.forms.channel_blocks import in_channel_blocks
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Kernel
from tensmith.compiler.kernel.schedule import chooser
from tensmith.compiler.kernel.schedule.choice import Choice
from tensmith.compiler.kernel.schedule.choices import Choices, choices_json, read_choices
from tensmith.compiler.kernel.schedule.chooser import CpuChooser, Request
from tensmith.compiler.kernel.schedule.heuristic import default_choice, naive_choice
from tensmith.compiler.kernel.schedule.legality import check_schedule
from tensmith.compiler.kernel.schedule.resolve import choice_of, resolve
from tensmith.compiler.kernel.schedule.space import choices

TARGETS = ("x86-64-v3", "x86-64-v4", "aarch64")
V3 = resolve_target("x86-64-v3")[1]


def product(rows: int = 64, depth: int = 512, columns: int = 96) -> CaseBuilder:
    c = CaseBuilder("product")
    y = c.op("matmul", c.input(rows, depth), c.weight(depth, columns))
    c.output(c.op("max", y, c.scalar(0)))
    return c


def kernel_of(case: CaseBuilder) -> tuple[Node, Kernel]:
    [node] = fused_nodes(case.graph())
    return node, lower_region(node.regions[0]).kernel


def check_choices_of(cases: Iterable[Case], name: str) -> None:
    """Choices of every kernel give its schedule, and JSON gives the choices."""
    target = resolve_target(name)[1]
    for case in cases:
        if any(node.op == "fused" for node in case.graph().nodes):
            continue
        for node in fused_nodes(case.graph()):
            kernel = lower_region(node.regions[0]).kernel
            for choice in (default_choice(kernel, target), naive_choice(kernel)):
                schedule = resolve(choice, kernel, target)
                check_schedule(kernel, schedule)
                assert choice_of(schedule, kernel) == choice
                text = json.dumps(choice.to_json())
                empty = replace(choice, stages=tuple(type(s)() for s in choice.stages))
                blank = replace(empty, form="", channels=0, parallel=0, ahead=0)
                assert blank.with_json(json.loads(text)) == choice


@pytest.mark.parametrize("name", TARGETS)
def test_a_choice_says_all(name: str) -> None:
    """Every operator case for one of the targets."""
    check_choices_of(ALL_CASES[TARGETS.index(name) :: len(TARGETS)], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_a_choice_says_all_for_every_target(name: str) -> None:
    check_choices_of(ALL_CASES, name)


def test_what_fits_no_register_is_not_computed_side_by_side() -> None:
    _, kernel = kernel_of(product())
    usual = default_choice(kernel, V3)
    for lanes, abreast in ((4, 4), (8, 4), (16, 1), (32, 1)):
        [own] = usual.stages
        choice = replace(usual, stages=(replace(own, lanes=lanes),))
        assert resolve(choice, kernel, V3).stages[0].unrolling.abreast == abreast


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("divided", [False, True])
def test_a_schedule_is_that_of_its_choice(level: int, divided: bool) -> None:
    choose, ahead = CpuChooser(V3, level), 0
    builders = [product(), product(columns=96), product(depth=8)]
    for graph in (*(builder.graph() for builder in builders), *(c.graph() for c in ALL_CASES)):
        if any(node.op == "fused" for node in graph.nodes):
            continue
        for node in fused_nodes(graph):
            kernel = lower_region(node.regions[0]).kernel
            chosen = choose(Request(kernel, rows_divided=divided))
            blocked = in_channel_blocks(kernel, chosen.choice.channels)
            assert chosen.schedule == resolve(chosen.choice, blocked, V3)
            ahead += chosen.choice.ahead > 0
    assert (ahead > 0) == (level > 0)


def test_what_nothing_changes_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[Choice] = []

    def counted(choice: Choice, *others: object) -> object:
        resolved.append(choice)
        return resolve(choice, *others)

    monkeypatch.setattr(chooser, "resolve", counted)
    _, kernel = kernel_of(product())
    for level in (0, 2):
        chosen = CpuChooser(V3, level)(Request(kernel))
        assert resolved.pop() == chosen.choice
        assert not resolved


def test_the_space_begins_with_the_heuristic() -> None:
    _, kernel = kernel_of(product())
    found = list(islice(choices(kernel, V3), 2000))
    assert found[0] == default_choice(kernel, V3)
    assert len(set(found)) == len(found) > 100
    tiles = {(choice.stages[0].rows, choice.stages[0].vectors) for choice in found}
    assert len(tiles) > 10
    assert any(choice.stages[0].block for choice in found)
    assert len({choice.stages[0].order for choice in found}) == 3
    assert len({(choice.parallel, choice.ahead) for choice in found}) > 2


def test_what_is_left_out_is_the_heuristics() -> None:
    node, kernel = kernel_of(product())
    key = group_key(node.inputs, node.regions[0])
    usual = CpuChooser(V3, 2)(Request(kernel, key=key))
    given = Choices({key: {"stages": [{"unroll": 8}]}})
    chosen = CpuChooser(V3, 2, given)(Request(kernel, key=key))
    assert chosen.schedule.stages[0].unrolling.unroll == 8
    [old], [new] = usual.choice.stages, chosen.choice.stages
    assert replace(new, unroll=old.unroll) == old
    others = CpuChooser(V3, 2, Choices({"another": {"parallel": 0}}))(Request(kernel, key=key))
    assert others == usual


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"stages": [{"order": ["p0"]}]}, "the order has 1 loops"),
        ({"stages": [{"order": ["p0", "p7"]}]}, "no axis 'p7'"),
        ({"stages": [{"vector": "p1", "row": "p1"}]}, "another than lanes"),
        ({"stages": [{"vector": "r0", "row": ""}]}, "rows run along no axis"),
        ({"stages": [{"lanes": 6}]}, "no 6 lanes"),
        ({"stages": [{"rows": 40, "vectors": 4}]}, "1 to 64 registers"),
        ({"stages": [{"unroll": 0}]}, "not 0"),
        ({"stages": [{"block": 7, "order": ["p1", "blocks", "p0"]}]}, "do not divide a sum"),
        ({"stages": [{"block": 64, "order": ["blocks", "p1", "p0"]}]}, "inside that over columns"),
        ({"stages": [{"panel": 7}]}, "panels of 7 vectors"),
        ({"stages": [{"prefetch": 5, "order": ["p1", "p0"]}]}, "no cache level 5"),
        ({"parallel": 9}, "threads can divide"),
        ({"parallel": -1, "ahead": 2}, "threads can divide"),
        ({"stages": [{"panel": -1}]}, "panels of -1 vectors"),
        (
            {"stages": [{"block": 64, "band": -8, "order": ["p1", "bands", "blocks", "p0"]}]},
            "bands of -8",
        ),
        ({"stages": [{"order": [1, ["p0"]]}]}, "is no tuple"),
        ({"stages": [[]]}, "is an object"),
        ({"channels": 7}, "no channels to go over in blocks of 7"),
        ({"channels": -7}, "no channels to go over in blocks of -7"),
        ({"form": "bands 3 block 32"}, "has the form '', not 'bands 3 block 32'"),
        ({"stages": [{}, {}]}, "for 1 stages has 2"),
        ({"tile": 4}, "no field 'tile'"),
        ({"stages": [{"rows": "four"}]}, "is no int"),
    ],
)
def test_illegal_choices_are_refused(data: dict, reason: str) -> None:
    node, kernel = kernel_of(product())
    key = group_key(node.inputs, node.regions[0])
    with pytest.raises(ScheduleError, match=reason):
        CpuChooser(V3, 2, Choices({key: data}))(Request(kernel, key=key))
    assert ScheduleError.exit_code == 2


@pytest.mark.parametrize("target", ["x86-64-v3", "cortex-m55"])
def test_partial_sums_fit_the_stack_of_the_target(target: str) -> None:
    node, kernel = kernel_of(product())
    key = group_key(node.inputs, node.regions[0])
    block = {"block": 64, "lanes": 4, "rows": 2, "vectors": 1, "order": ["p1", "blocks", "p0"]}
    given = {"parallel": 1, "stages": [block]}
    chooser_ = CpuChooser(resolve_target(target)[1], 2, Choices({key: given}))
    if target == "x86-64-v3":
        assert chooser_(Request(kernel, key=key)).schedule.stages[0].blocks.steps == 64
        return
    with pytest.raises(ScheduleError, match="partial sums of 64 rows do not fit 512 bytes"):
        chooser_(Request(kernel, key=key))


def test_blocks_need_columns_of_known_number() -> None:
    c = CaseBuilder("open")
    c.output(c.op("matmul", c.input(64, 512), c.input(512, N)))
    node, kernel = kernel_of(c)
    key = group_key(node.inputs, node.regions[0])
    given = Choices({key: {"stages": [{"block": 64, "order": ["p1", "blocks", "p0"]}]}})
    with pytest.raises(ScheduleError, match="only sums and columns of known size"):
        CpuChooser(V3, 2, given)(Request(kernel, key=key))


def test_keys_are_of_what_is_computed() -> None:
    nodes = [kernel_of(case)[0] for case in (product(), product(), product(columns=97))]
    keys = [group_key(node.inputs, node.regions[0]) for node in nodes]
    assert keys[0] == keys[1] != keys[2]


def test_files(tmp_path) -> None:
    path = tmp_path / "choices.json"
    data = {"k": Choice(parallel=2).to_json()}
    path.write_text(json.dumps({"choices": choices_json(data, "x86-64-v3", 1), "manifest": {}}))
    assert read_choices(path, "x86-64-v3", 1).by_key == data
    path.write_text(json.dumps(choices_json(data, "x86-64-v3", 1)))
    found = read_choices(path, "x86-64-v3", 1)
    assert found.of("k+rows") == data["k"]
    assert found.unused(["k+rows"]) == []
    assert found.unused(["other"]) == ["k"]
    for target, threads in (("x86-64-v4", 1), ("x86-64-v3", 2)):
        with pytest.raises(UsageError, match="is for 'x86-64-v3' and 1 thread"):
            read_choices(path, target, threads)
    for text in (
        "",
        "[]",
        '{"version": 1, "target": "", "threads": 1, "choices": {"k": 3}}',
        '{"version": 1}',
        '{"version": 9, "choices": {}}',
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"choices|version"):
            read_choices(path, "x86-64-v3", 1)
    with pytest.raises(UsageError, match="cannot read"):
        read_choices(tmp_path / "none.json", "x86-64-v3", 1)
