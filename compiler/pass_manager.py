"""Runs passes over a graph: in sequence or to a fixpoint, verified and observable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from .compilation import Stages
from .errors import InternalError, ScheduleError
from .faults import internal_error
from .ir.graph import Graph
from .ir.verify import Checked
from .ir.verify import verify as verify_graph

Dump = Callable[[str, Graph], None]


class Pass(Protocol):
    """A rewrite of a graph in place; a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str:
        """What dumps, timings and errors call it."""
        ...

    def run(self, graph: Graph) -> bool:
        """Change the graph; whether anything changed."""
        ...


@dataclass(frozen=True)
class Fixpoint:
    """Passes that run in turn until none of them changes the graph, `limit` rounds at most."""

    passes: tuple[Pass, ...]
    limit: int = 10


def run_passes(
    graph: Graph,
    passes: Sequence[Pass | Fixpoint],
    *,
    verify: bool = True,
    dump_after: Dump | None = None,
    stages: Stages | None = None,
) -> bool:
    """Run the passes in order on `graph`; whether anything changed.

    verify: check the graph after every pass that changed it. dump_after: called with
    (pass name, graph) after every run of a pass. stages: gets the seconds of every pass.

    Raises InternalError naming the pass and the node when one fails or leaves an invalid graph.
    """
    runner = _Runner(graph, verify, dump_after, stages)
    changed = False
    for item in passes:
        changed |= runner.fixpoint(item) if isinstance(item, Fixpoint) else runner.step(item)
    return changed


def _interface(graph: Graph) -> list[str]:
    return [value.name for value in (*graph.inputs, *graph.outputs)]


def _check_interface(graph: Graph, names: list[str]) -> None:
    """Raise InternalError unless inputs and outputs are called as before."""
    if _interface(graph) != names:
        raise InternalError(
            "inputs or outputs of the model have other names than before",
            why=f"{_interface(graph)} in place of {names}",
        )


@dataclass(frozen=True)
class _Runner:
    graph: Graph
    verify: bool
    dump_after: Dump | None
    stages: Stages | None
    known: Checked = field(default_factory=Checked)
    quiet: set[int] = field(default_factory=set)  # passes that would not change the graph as it is

    def step(self, item: Pass) -> bool:
        if id(item) in self.quiet:
            return False
        changed = self._run(item)
        if changed:
            self.quiet.clear()
        else:
            self.quiet.add(id(item))
        return changed

    def _run(self, item: Pass) -> bool:
        names = _interface(self.graph)
        with self.stages.stage(item.name) if self.stages else nullcontext():
            try:
                changed = item.run(self.graph)
                if changed and self.verify:
                    verify_graph(self.graph, self.known)
                    _check_interface(self.graph, names)
            except (MemoryError, ScheduleError):  # the machine's fault, or the user's
                raise
            except Exception as error:
                raise internal_error(f"pass '{item.name}' broke the graph", error) from error
        if self.dump_after:
            self.dump_after(item.name, self.graph)
        return changed

    def fixpoint(self, group: Fixpoint) -> bool:
        changed, quiet = False, 0
        for _ in range(group.limit):
            for item in group.passes:
                if self.step(item):
                    changed, quiet = True, 0
                else:
                    quiet += 1
                if quiet == len(group.passes):
                    return changed
        return changed
