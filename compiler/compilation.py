"""What a backend is asked for, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .artifact import CompiledModel
from .decisions import Decision
from .ir.graph import Graph, Value
from .kernel.schedule.choices import Choices

if TYPE_CHECKING:
    from .kernel.cost.slow_kernels import SlowKernel


@dataclass(frozen=True)
class CompileOptions:
    """What the user asked for.

    name: C identifier of the model. opt_level: 0 (naive kernels) to 3. precision: "fp32", "bf16" or
    "fp16": the graph has it already.
    threads: expected number of threads (a hint for partitioning). work_dir: an existing folder
    for intermediate files. texts: forms of code wanted ("llvm", ...). dump_after: called with
    (pass name, graph) after every pass. sanitize: generated kernels check every access to memory.
    sizes: of the inputs' symbolic dims, for which times are predicted. probe: called with the graph
    whose nodes become kernels, to which it may add outputs. ranges: between which numbers values of
    the graph lie that a backend has asked about (`Backend.integers`).
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
    ranges: Mapping[Value, tuple[float, float]] = field(default_factory=dict)


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
class NodeCycles:
    """What a node of the model takes of a segment's cycles and multiply-adds; name: "" of what is
    no node's."""

    name: str
    cycles: int
    macs: int


@dataclass(frozen=True)
class NpuSegment:
    """A part of a model that a processor for neural networks runs by one command stream.

    cycles: of a run; npu_cycles: of arithmetic alone. macs: multiply-adds. arena_bytes, fast_bytes:
    of memory for intermediates, and of such that the processor has for itself. memories: bytes
    occupied at most, read and written, by the name of the memory. nodes: as the stream has them.
    unchecked: what the simulator has not, so that its bits are not compared; "": they are.
    """

    cycles: int
    npu_cycles: int
    macs: int
    command_bytes: int
    weight_bytes: int
    arena_bytes: int
    fast_bytes: int
    memories: Mapping[str, tuple[int, int, int]]
    nodes: tuple[NodeCycles, ...] = ()
    unchecked: str = ""


@dataclass(frozen=True)
class PlacedOperator:
    """Where an operator of a model in integers runs: in a segment, by its number, or (None) on the
    host, for the reason. name: of the model's node. computes: whether it does more than to move or
    convert elements."""

    name: str
    op: str
    segment: int | None
    reason: str = ""
    computes: bool = True


@dataclass(frozen=True)
class NpuReport:
    """Of a model for such a processor. origin: where figures of cycles and memory come from."""

    origin: str
    segments: tuple[NpuSegment, ...]
    operators: tuple[PlacedOperator, ...]

    @property
    def share(self) -> float:
        """Of the operators that compute, the part in segments."""
        computing = [operator for operator in self.operators if operator.computes]
        inside = [operator for operator in computing if operator.segment is not None]
        return len(inside) / len(computing) if computing else 1.0

    def to_json(self) -> dict[str, Any]:
        """Entries of a manifest: `npu`, and `cpu`, what runs beside it and why."""
        on_host = [operator for operator in self.operators if operator.segment is None]
        memories: dict[str, dict[str, int]] = {}
        for segment in self.segments:
            for name, (peak, read, written) in segment.memories.items():
                known = memories.setdefault(name, {"peak": 0, "read": 0, "written": 0})
                known["peak"] = max(known["peak"], peak)
                known["read"] += read
                known["written"] += written
        return {
            "npu": {
                "estimated_cycles": sum(segment.cycles for segment in self.segments),
                "origin": self.origin,
                "operators": len(self.operators) - len(on_host),
                "share": self.share,
                "macs": sum(segment.macs for segment in self.segments),
                "command_bytes": sum(segment.command_bytes for segment in self.segments),
                "weight_bytes": sum(segment.weight_bytes for segment in self.segments),
                "arena_bytes": max((s.arena_bytes for s in self.segments), default=0),
                "fast_bytes": max((s.fast_bytes for s in self.segments), default=0),
                "memories": memories,
                "segments": [asdict(segment) for segment in self.segments],
            },
            "cpu": {
                "operators": [
                    {"name": operator.name, "op": operator.op, "reason": operator.reason}
                    for operator in on_host
                ]
            },
        }


@dataclass(frozen=True)
class Compilation:
    """A backend's answer; it keeps no graph, whose constants would stay in memory.

    arena_bytes: -1 where it depends on symbolic dims. decisions: what became of products of what
    the model has quantised. npu: of targets that have command streams. made_by: versions, by name,
    of what made code beside LLVM.
    """

    model: CompiledModel
    kernels: tuple[KernelInfo, ...]
    arena_bytes: int
    weight_bytes: int
    decisions: tuple[Decision, ...] = ()
    npu: NpuReport | None = None
    made_by: Mapping[str, str] = field(default_factory=dict)
