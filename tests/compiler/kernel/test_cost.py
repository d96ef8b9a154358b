"""The cost model: traffic and bounds of kernels whose figures follow by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kernels import fused_nodes
from suites.case import CaseBuilder, N

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.kernel.cost.cost import KernelCost, kernel_cost
from tensmith.compiler.kernel.cost.machine import assumed_machine
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.instruction import INSTRUCTIONS
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.packing import pack
from tensmith.compiler.target import CpuTarget

TARGET = resolve_target("x86-64-v4")[1]
MACHINE = assumed_machine(TARGET)


def product(
    rows: int, depth: int, columns: int, *, constant_bytes: int = 0, instruction: str = ""
) -> KernelCost:
    """The cost of x[rows, depth] times packed weights [depth, columns]."""
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(N, depth), c.weight(depth, columns)))
    (node,) = fused_nodes(c.graph())
    lowered = lower_region(node.regions[0])
    constants = {
        param.name: outer.data.size
        for param, outer in zip(lowered.kernel.params, node.inputs, strict=False)
        if outer.data is not None
    }
    schedule = default_schedule(lowered.kernel, TARGET)
    stages = tuple(replace(stage, instruction=instruction) for stage in schedule.stages)
    schedule = replace(schedule, stages=stages)
    kernel, packings = pack(lowered.kernel, schedule, constants)
    assert packings
    return kernel_cost(
        kernel,
        schedule,
        TARGET,
        MACHINE,
        {name: rows for name in kernel.symbols},
        constants=frozenset(constants),
        constant_bytes=constant_bytes,
    )


def test_flops_and_bytes() -> None:
    cost = product(7, 64, 96)
    assert cost.flops == 2 * 7 * 64 * 96
    assert cost.bytes == 4 * (7 * 64 + 64 * 96 + 7 * 96)
    assert [operand.constant for operand in cost.operands] == [False, True, False]
    assert [operand.written for operand in cost.operands] == [False, False, True]


def test_one_row_reads_packed_weights_once() -> None:
    weights = 4 * 256 * 512  # more than the first level holds, less than the second
    cost = product(1, 256, 512, constant_bytes=weights)
    traffic = dict(cost.traffic)
    assert weights <= traffic["L2"] < 1.1 * weights
    assert traffic["memory"] == 0
    level = next(level for level in MACHINE.levels if level.name == "L2")
    assert dict(cost.level_seconds)["L2"] == pytest.approx(traffic["L2"] / level.bandwidth)


def test_weights_of_a_large_model_come_from_memory() -> None:
    cost = product(1, 256, 512, constant_bytes=1 << 30)
    assert cost.bound == "memory"
    assert dict(cost.traffic)["memory"] >= 4 * 256 * 512
    assert cost.roof_seconds == cost.seconds == dict(cost.level_seconds)["memory"]


def test_many_rows_are_bound_by_arithmetic() -> None:
    cost = product(512, 256, 256, constant_bytes=4 * 256 * 256)
    assert cost.bound == "compute"
    assert cost.roof_seconds == pytest.approx(cost.flops / MACHINE.flops_per_second)
    assert cost.seconds >= cost.roof_seconds


def test_products_of_bytes_are_measured_by_their_own_peak() -> None:
    """Groups of four bytes by vpdpbusd, each 8 operations, in the time of a multiply-add."""
    zen5 = resolve_target("znver5")[1]
    assert isinstance(zen5, CpuTarget)
    assert INSTRUCTIONS["vnni"].gain(zen5) == 4.0
    assert INSTRUCTIONS["maddw"].gain(zen5) == 2.0
    assert INSTRUCTIONS["madd"].gain(zen5) == 1.0
    assert INSTRUCTIONS["bytes"].gain(zen5) == 0.5
    plain, grouped = (product(512, 256, 256, instruction=name) for name in ("", "vnni"))
    assert plain.bound == grouped.bound == "compute"
    assert grouped.roof_seconds == pytest.approx(plain.roof_seconds / 4)


def test_time_grows_with_rows() -> None:
    times = [product(rows, 64, 96).seconds for rows in (1, 8, 64, 512)]
    assert times == sorted(times)
    assert times[-1] > 10 * times[0]


def test_rows_transposed_in_registers_cost_pieces_not_elements() -> None:
    """16 lanes of f32 come in 4 pieces and 2 rounds of shuffles a row, not in 16 loads."""
    seconds = []
    for perm in ((0, 1), (1, 0)):
        c = CaseBuilder("sum")
        turned = c.op("transpose", c.input(64, 64), perm=perm)
        c.output(c.op("add", turned, c.input(64, 64)))
        (node,) = fused_nodes(c.graph())
        kernel = lower_region(node.regions[0]).kernel
        cost = kernel_cost(kernel, default_schedule(kernel, TARGET), TARGET, MACHINE, {})
        seconds.append(cost.compute_seconds)
    assert 1 < seconds[1] / seconds[0] < 5
