"""Plans run in numpy over memory that holds garbage wherever nothing may be read.

Kernels work on views of one flat arena, as generated code does. Before every call all bytes of the
arena that belong to no living buffer are overwritten, new memory is garbage, and points run in a
drawn order: a plan that lets two values share memory wrongly computes something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from kernels import positions, store

from tensmith.backends.llvm import pipeline
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import RunError
from tensmith.compiler.ir import Graph, Node, Value, assumptions
from tensmith.compiler.ir.dims import Dim, evaluate
from tensmith.compiler.ir.ops.registry import bind_attrs, lookup
from tensmith.compiler.ir.types import DType
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.plan.plan import (
    Allocate,
    Assign,
    Bind,
    Branch,
    Deliver,
    External,
    KernelCall,
    Launch,
    OpenOutput,
    Place,
    Plan,
    PlannedKernel,
    Receive,
    Repeat,
    Require,
    Space,
    Step,
    Transfer,
    View,
)
from tensmith.compiler.kernel.plan.planner import Planner
from tensmith.compiler.kernel.schedule.chooser import Chosen
from tensmith.compiler.target import Target

Array = np.ndarray[Any, Any]
GARBAGE = 0xFF  # bytes of it are NaN as floats and -1 as integers
ROUNDS = 10_000  # of one loop, that is not expected to end
RELATIONS: dict[str, Callable[[int, int], bool]] = {
    assumptions.EQUAL: lambda a, b: a == b,
    assumptions.AT_MOST: lambda a, b: a <= b,
    assumptions.ONE_OR_EQUAL: lambda a, b: a in (1, b),
    assumptions.OTHER: lambda a, b: a != b,
    assumptions.FITS: lambda a, b: a <= b,
}


class MemoryFault(AssertionError):
    """A kernel is not told that its parameters lie in the same memory."""


class TracedPlanner(Planner):
    """Notes when each call happens, in the clock of the buffers' lifetimes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.clocks: dict[int, int] = {}
        self.nodes: dict[int, Node] = {}

    def append_call(self, chosen: Chosen, places: tuple[Place, ...], steps: list[Step]) -> None:
        super().append_call(chosen, places, steps)
        self.clocks[id(steps[-1])] = self.clock

    def _external(self, node: Node, steps: list[Step]) -> None:
        super()._external(node, steps)
        self.clocks[id(steps[-1])] = self.clock
        self.nodes[id(steps[-1])] = node


class PlannedGraph:
    """A graph with its plan for a target. The graph is rewritten."""

    def __init__(self, graph: Graph, target: Target, level: int = 2, threads: int = 1) -> None:
        made: list[TracedPlanner] = []

        def planner(*arguments: Any) -> Planner:
            made.append(TracedPlanner(*arguments))
            return made[-1]

        options = CompileOptions("model", Path(), opt_level=level, threads=threads)
        with patch.object(pipeline, "Planner", planner):
            self.plan: Plan = pipeline.make_plan(graph, target, options, Stages())
        self.clocks, self.nodes = made[-1].clocks, made[-1].nodes

    def run(self, inputs: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
        """The outputs by name.

        Raises MemoryFault, InternalError for an access outside of memory, and RunError.
        """
        with np.errstate(all="ignore"):
            return self.runner(inputs, np.random.default_rng(seed)).outputs()

    def runner(self, inputs: Mapping[str, Array], order: np.random.Generator) -> PlanRun:
        """What runs the plan once."""
        return PlanRun(self, inputs, order)


class PlanRun:
    """One run of a plan."""

    def __init__(
        self, planned: PlannedGraph, inputs: Mapping[str, Array], order: np.random.Generator
    ) -> None:
        self.plan, self.clocks, self.nodes = planned.plan, planned.clocks, planned.nodes
        self.order = order
        self.env: dict[str, int] = {}
        for value in self.plan.inputs:
            for dim, size in zip(value.shape, inputs[value.name].shape, strict=True):
                if str(dim) in self.plan.symbols:
                    self.env.setdefault(str(dim), size)
        self.arena = _garbage(self.dim(self.plan.arena_bytes))
        far = _garbage(self.arena.size)
        self.memory: dict[tuple[Space, str, int], Array] = {}
        for number, value in enumerate(self.plan.inputs):
            flat = store(value.type, self.env, inputs[value.name])
            self.memory[Place("input", number).memory] = flat.view(np.uint8)
        for number, weight in enumerate(self.plan.weights):
            data = weight.value.data
            assert data is not None
            packed = weight.packing.apply(data) if weight.packing else data
            for space in (Space.HOST, Space.DEVICE):
                held = np.array(packed).reshape(-1).view(np.uint8)
                self.memory[Place("weights", number, space=space).memory] = held
        for number, buffer in enumerate(self.plan.arena):
            start = self.dim(buffer.offset)
            for space, arena in ((Space.HOST, self.arena), (Space.DEVICE, far)):
                part = arena[start : start + self.dim(buffer.size)]
                self.memory[Place("arena", number, space=space).memory] = part

    def outputs(self) -> dict[str, Array]:
        self.steps(self.plan.steps)
        return {
            value.name: self.read(value, Place("output", number))
            for number, value in enumerate(self.plan.outputs)
        }

    def dim(self, dim: Dim) -> int:
        return evaluate(dim, self.env)

    def bytes_at(self, place: Place) -> Array:
        """The memory from a place to the end of what it lies in."""
        return self.memory[place.memory][self.dim(place.offset) :]

    def typed(self, place: Place, dtype: DType) -> Array:
        found = self.bytes_at(place)
        return found[: found.size // dtype.bytes * dtype.bytes].view(dtype.numpy)

    def read(self, value: Value, place: Place) -> Array:
        return np.array(self.typed(place, value.dtype)[positions(value.type, self.env)])

    def bury(self, clock: int) -> None:
        """Overwrite what belongs to no buffer that lives at the time."""
        dead = np.ones(self.arena.size, np.bool_)
        for buffer in self.plan.arena:
            if buffer.first <= clock <= buffer.last:
                start = self.dim(buffer.offset)
                dead[start : start + self.dim(buffer.size)] = False
        self.arena[dead] = GARBAGE

    # steps -----------------------------------------------------------------------------------

    def steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case KernelCall() | External() | Launch() | Transfer():
                    self.work(step)
                case Require(relation=relation, left=left, right=right, text=text):
                    if not RELATIONS[relation](self.dim(left), self.dim(right)):
                        raise RunError(text)
                case Bind(symbols=names, place=place):
                    found = map(int, self.typed(place, DType.I64))
                    self.env.update(zip(names, found, strict=False))
                case Assign(symbols=names, dims=dims):
                    self.env.update(zip(names, [self.dim(dim) for dim in dims], strict=True))
                case OpenOutput() | Receive() | Deliver():
                    self.exchange(step)
                case Allocate():
                    self.allocate(step)
                case View(number=number, source=source):
                    held = Place("heap", number, space=source.space)
                    self.memory[held.memory] = self.bytes_at(source)
                case Branch():
                    self.branch(step)
                case Repeat():
                    self.repeat(step)

    def exchange(self, step: OpenOutput | Receive | Deliver) -> None:
        """What concerns the caller's tensors, which are on the host here."""
        if isinstance(step, OpenOutput):
            self.open(step)
            return
        kind = "input" if isinstance(step, Receive) else "output"
        near, far = (Place(kind, step.number, space=s).memory for s in (Space.HOST, Space.DEVICE))
        if isinstance(step, Receive):
            self.memory[far] = self.bytes_at(step.staging)[: self.dim(step.size)]
            self.memory[far][:] = self.memory[near]
        elif step.on_device:
            assert self.memory[far].size == self.dim(step.size)
            self.memory[near] = self.memory[far]

    def open(self, step: OpenOutput) -> None:
        size = store(self.plan.outputs[step.number].type, self.env).nbytes
        self.memory[Place("output", step.number).memory] = _garbage(size)
        if step.staging is not None:
            far = Place("output", step.number, space=Space.DEVICE).memory
            self.memory[far] = self.bytes_at(step.staging)[:size]
            self.memory[far][:] = GARBAGE

    def branch(self, step: Branch) -> None:
        if isinstance(step.condition, Place):
            holds = bool(self.typed(step.condition, DType.BOOL)[0])
        else:
            holds = all(self.dim(left) == self.dim(right) for left, right in step.condition)
        self.steps(step.then if holds else step.otherwise)
        bound = {name: self.dim(a if holds else b) for name, a, b in step.bound}
        self.env.update(bound)

    def repeat(self, step: Repeat) -> None:
        count = step.count
        rounds = (
            int(self.typed(count, DType.I64)[0]) if isinstance(count, Place) else self.dim(count)
        )
        done = 0
        self.env[step.counter] = 0
        while done < rounds and (
            step.condition is None or bool(self.typed(step.condition, DType.BOOL)[0])
        ):
            assert done < ROUNDS, "the loop does not end"
            self.steps(step.body)
            done += 1
            self.env[step.counter] = done

    def allocate(self, step: Allocate) -> None:
        memory = Place("heap", step.number, space=step.space).memory
        made, kept = _garbage(self.dim(step.size)), self.dim(step.keep)
        if kept:
            made[:kept] = self.memory[memory][:kept]
        self.memory[memory] = made

    def work(self, step: KernelCall | External | Launch | Transfer) -> None:
        match step:
            case KernelCall():
                self.call(step)
            case External():
                self.external(step)
            case Launch():
                self.launch(step)
            case Transfer():
                self.transfer(step)

    def transfer(self, step: Transfer) -> None:
        source, target = self.bytes_at(step.source), self.bytes_at(step.target)
        moved = source.size if step.size is None else self.dim(step.size)
        assert moved <= min(source.size, target.size)
        target[:moved] = source[:moved]

    def launch(self, step: Launch) -> None:
        """The whole kernel of a function that takes all parameters."""
        function = self.plan.functions[step.function]
        self.interpret(KernelCall(function.kernel, step.places, step.sizes))

    def call(self, step: KernelCall) -> None:
        self.bury(self.clocks[id(step)])
        self.interpret(step)

    def interpret(self, step: KernelCall) -> None:
        planned = self.plan.kernels[step.kernel]
        kernel = planned.kernel
        arrays = [
            self.typed(place, buffer.dtype)
            for buffer, place in zip(kernel.params, step.places, strict=True)
        ]
        _check_aliased(planned, arrays)
        sizes = dict(zip(kernel.symbols, [self.dim(size) for size in step.sizes], strict=True))
        panels = {
            own.tile.vector: own.tile.lanes * (own.panel or own.tile.vectors)
            for own in planned.schedule.stages
        }
        names = [buffer.name for buffer in kernel.params]
        interpret(kernel, dict(zip(names, arrays, strict=True)), sizes, panels, self.order)

    def external(self, step: External) -> None:
        self.bury(self.clocks[id(step)])
        node = self.nodes[id(step)]
        places = dict(zip((*node.inputs, *node.outputs), step.places, strict=True))
        meaning = lookup(node.op).evaluate
        assert meaning is not None
        operands = [self.read(value, places[value]) for value in node.inputs]
        results = meaning(operands, bind_attrs(node.attrs, self.env))
        for value, array in zip(node.outputs, results, strict=True):
            memory = self.typed(places[value], value.dtype)
            memory[positions(value.type, self.env)] = array


def _garbage(size: int) -> Array:
    return np.full(size, GARBAGE, np.uint8)


def _check_aliased(planned: PlannedKernel, arrays: Sequence[Array]) -> None:
    names = [buffer.name for buffer in planned.kernel.params]
    first = len(arrays) - planned.kernel.outputs
    for position in range(first, len(arrays)):
        for other, array in enumerate(arrays):
            if other != position and np.may_share_memory(arrays[position], array):
                missing = {names[position], names[other]} - planned.aliased
                if missing:
                    raise MemoryFault(f"{planned.symbol} is not told that {missing} share memory")
