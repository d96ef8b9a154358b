"""What a backend is asked for, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact import CompiledModel
from .decisions import Decision
from .ir.graph import Graph
from .kernel.schedule.choices import Choices

if TYPE_CHECKING:
    from .kernel.cost.slow_kernels import SlowKernel


@dataclass(frozen=True)
class CompileOptions:
    """What the user asked for.

    name: C identifier of the model. opt_level: 0 (naive kernels) to 3. precision: "fp32", "bf16" or
    "fp16": the graph has it already.
    threads: expected number of threads (a hint for partitioning). work_dir: an existing folder
    for intermediate files. texts: textual forms wanted ("llvm", "asm"). dump_after: called with
    (pass name, graph) after every pass. sanitize: generated kernels check every access to memory.
    sizes: of the inputs' symbolic dims, for which times are predicted. probe: called with the graph
    whose nodes become kernels, to which it may add outputs.
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
    probe: Callable[[Graph], None] | None = None


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
class DeviceFunctionInfo:
    """A function that runs on a device, for reports and for what stands in for the device.

    source: what it was compiled from. signature: types of its arguments. resources: for each
    architecture what it takes there.
    """

    symbol: str
    source: str
    signature: tuple[str, ...]
    resources: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class HostKernel:
    """What of a model for a device runs on the host beside it.

    name: of the kernel, or of the runtime's function. nodes: names of those that it computes, where
    they have one. reason: why it has no code for the device.
    """

    name: str
    nodes: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        nodes = f" (nodes {', '.join(map(repr, self.nodes))})" if self.nodes else ""
        return f"{self.name}{nodes}: {self.reason}"


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of a compiled plan, for reports.

    operators: what it fuses, in order ("conv", "add", ...). flops: floating-point operations of
    one call (-1: depends on symbolic dims). calls: how often the plan calls it. slow: set where it
    is predicted to take far longer than its bytes and operations. choice: the decisions about it
    (`kernel/choice.py`); keys: of the groups that it computes. functions: what of it runs on a
    device, one behind the other.
    """

    name: str
    operators: tuple[str, ...]
    flops: int
    schedule: str
    calls: int = 1
    slow: SlowKernel | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    functions: tuple[DeviceFunctionInfo, ...] = ()


@dataclass(frozen=True)
class Compilation:
    """A backend's answer; it keeps no graph, whose constants would stay in memory.

    arena_bytes: -1 where it depends on symbolic dims. decisions: what became of products of what
    the model has quantised.
    """

    model: CompiledModel
    kernels: tuple[KernelInfo, ...]
    arena_bytes: int
    weight_bytes: int
    decisions: tuple[Decision, ...] = ()
