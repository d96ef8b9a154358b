"""Graphs planned for a GPU and run in numpy, each device function by Triton's interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from plan_runs import Array, PlannedGraph, PlanRun, TracedPlanner

from tensmith.backends.cuda import pipeline
from tensmith.backends.cuda.emit.function import Function
from tensmith.backends.cuda.fake.interpreter import Program
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.triton_package import reason_unavailable
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.decisions import Decision
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import evaluate
from tensmith.compiler.kernel.plan.plan import Launch
from tensmith.compiler.kernel.plan.planner import Planner
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.target import GpuTarget
from tensmith.driver.halves import InPrecision

TARGET = TARGETS["cuda:sm_80"]
_REASON = reason_unavailable() or ""
needs_triton = pytest.mark.skipif(bool(_REASON), reason=_REASON)


class GpuGraph(PlannedGraph):
    """A graph with its plan for a GPU; it is rewritten. reasons: why kernels run on the host.

    decisions: what was told of products."""

    def __init__(
        self,
        graph: Graph,
        target: GpuTarget = TARGET,
        level: int = 2,
        precision: str = "fp32",
        choices: Choices | None = None,
    ) -> None:
        made: list[TracedPlanner] = []
        self.decisions: list[Decision] = []

        def planner(*arguments: Any) -> Planner:
            made.append(TracedPlanner(*arguments))
            return made[-1]

        options = CompileOptions(
            "model",
            Path(),
            opt_level=level,
            precision=precision,
            choices=choices or Choices(),
        )
        InPrecision(precision, target).rewrite(graph)
        with patch.object(pipeline, "Planner", planner):
            note = self.decisions.append
            self.plan, kernels = pipeline.make_plan(graph, target, options, Stages(), note)
        self.clocks, self.nodes = made[-1].clocks, made[-1].nodes
        self.functions: list[Function] = [f for all_ in kernels.functions.values() for f in all_]
        self.reasons = dict(kernels.reasons)

    def runner(self, inputs: Mapping[str, Array], order: np.random.Generator) -> PlanRun:
        return _GpuRun(self, inputs, order)


class _GpuRun(PlanRun):
    def __init__(
        self, planned: GpuGraph, inputs: Mapping[str, Array], order: np.random.Generator
    ) -> None:
        super().__init__(planned, inputs, order)
        self.functions = planned.functions
        self.programs: dict[int, Program] = {}

    def launch(self, step: Launch) -> None:
        number = step.function
        if number not in self.programs:
            function = self.functions[number]
            assert function.symbol == self.plan.functions[number].symbol
            self.programs[number] = Program(function.source, function.symbol, function.signature)
        own = step.places[:-1] if self.functions[number].scratch else step.places
        addresses = [self.bytes_at(place).ctypes.data for place in own]
        programs = self.dim(step.programs)
        if programs:
            sizes = [self.dim(size) for size in step.sizes]
            self.programs[number].run(programs, [*addresses, *sizes])


def inputs_of(graph: Graph, **sizes: int) -> dict[str, Any]:
    """Numbers for a graph's inputs, by name; sizes: of its symbols."""
    rng = np.random.default_rng(0)
    shapes = {v: [evaluate(dim, sizes) for dim in v.shape] for v in graph.inputs}
    return {v.name: rng.standard_normal(s).astype(v.dtype.numpy) for v, s in shapes.items()}
