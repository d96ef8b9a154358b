"""The interface between the driver and a backend, and how backends are found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact import CompiledModel
from .errors import UsageError
from .ir.graph import Graph, Node
from .kernel.choices import Choices
from .target import Target

if TYPE_CHECKING:
    from .kernel.slow_kernels import SlowKernel
    from .profile import Profile, ProfileOptions

BUILTIN = {
    "x86": "tensmith.backends.x86:BACKEND",
    "arm": "tensmith.backends.arm:BACKEND",
    "reference": "tensmith.backends.reference:BACKEND",
}


@dataclass(frozen=True)
class CompileOptions:
    """What the user asked for.

    name: C identifier of the model. opt_level: 0 (naive kernels) to 3. precision: "fp32".
    threads: expected number of threads (a hint for partitioning). work_dir: an existing folder
    for intermediate files. texts: textual forms wanted ("llvm", "asm"). dump_after: called with
    (pass name, graph) after every pass. sanitize: generated kernels check every access to memory.
    sizes: of the inputs' symbolic dims, for which times are predicted.
    """

    name: str
    work_dir: Path
    opt_level: int = 2
    precision: str = "fp32"
    threads: int = 1
    texts: frozenset[str] = frozenset()
    dump_after: Callable[[str, Graph], None] | None = None
    sanitize: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    choices: Choices = field(default_factory=Choices)


@dataclass
class Stages:
    """Seconds that each stage took, in order; `progress` is told when one begins.

    latest: the stage that began last.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    progress: Callable[[str], None] | None = None
    latest: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage: `with stages.stage("fusion"): ...`."""
        self.latest = name
        if self.progress:
            self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of a compiled plan, for reports.

    operators: what it fuses, in order ("conv", "add", ...). flops: floating-point operations of
    one call (-1: depends on symbolic dims). calls: how often the plan calls it. slow: set where it
    is predicted to take far longer than its bytes and operations. choice: the decisions about it
    (`kernel/choice.py`); keys: of the groups that it computes.
    """

    name: str
    operators: tuple[str, ...]
    flops: int
    schedule: str
    calls: int = 1
    slow: SlowKernel | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compilation:
    """A backend's answer; it keeps no graph, whose constants would stay in memory.

    arena_bytes: -1 where it depends on symbolic dims.
    """

    model: CompiledModel
    kernels: tuple[KernelInfo, ...]
    arena_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class Backend:
    """A validated manifest of one backend.

    targets: target strings it accepts, for listing, the default first.
    parse_target: target string -> Target, or None when it is not this backend's.
    supports: (node, target) -> reason why the node cannot be compiled, or None.
    compile: (graph, target, options, stages) -> Compilation; may change the graph.
    available: reason why the backend cannot be used here, or None.
    profile: (graph, target, options, stages, what to measure) -> times of every kernel on this
    machine; may change the graph. None where a backend has no such measurement.
    slow_kernels: (graph, target, options, stages) -> the kernels that `KernelInfo.slow` is set for,
    without code being generated; may change the graph. None where a backend predicts nothing.
    """

    name: str
    targets: tuple[str, ...]
    parse_target: Callable[[str], Target | None]
    supports: Callable[[Node, Target], str | None]
    compile: Callable[[Graph, Target, CompileOptions, Stages], Compilation]
    available: Callable[[], str | None]
    profile: Callable[[Graph, Target, CompileOptions, Stages, ProfileOptions], Profile] | None = (
        None
    )
    slow_kernels: (
        Callable[[Graph, Target, CompileOptions, Stages], tuple[SlowKernel, ...]] | None
    ) = None


@cache
def backends() -> dict[str, Backend]:
    """Every backend, by name: the built-in ones and those of the `tensmith.backends` entry points.

    Raises UsageError when an entry point does not lead to a Backend.
    """
    found: dict[str, Backend] = {}
    points = {
        name: metadata.EntryPoint(name, value, "tensmith.backends")
        for name, value in BUILTIN.items()
    }
    for point in metadata.entry_points(group="tensmith.backends"):
        points.setdefault(point.name, point)
    for name, point in points.items():
        backend = point.load()
        if not isinstance(backend, Backend):
            raise UsageError(f"entry point 'tensmith.backends:{name}' is not a Backend")
        found[name] = backend
    return found


def resolve_target(text: str) -> tuple[Backend, Target]:
    """The backend and target for a target string such as "native" or "aarch64:cortex-a76".

    Raises UsageError for one that no backend knows.
    """
    for backend in backends().values():
        target = backend.parse_target(text)
        if target is not None:
            return backend, target
    known = ", ".join(name for backend in backends().values() for name in backend.targets)
    raise UsageError(f"unknown target '{text}'", remedy=f"known targets: {known}")
