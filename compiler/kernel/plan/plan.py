"""The plan: what a compiled model does, step by step, and where its tensors lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ...ir.dims import Dim, symbol, symbols_of
from ...ir.graph import Graph, Value
from ...ir.types import DType
from ..kernel import Kernel
from ..schedule.choice import Choice
from ..schedule.packing import Packing
from ..schedule.schedule import Schedule

ALIGNMENT = 64  # bytes, of every tensor


class Space(Enum):
    """A memory that tensors lie in: its addresses mean nothing in another."""

    HOST = "host"
    DEVICE = "device"
    SRAM = "sram"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    kind: "input", "output", "weights" (number: entry), "arena" or "heap" (number: buffer).
    offset: in bytes from there; it may use loop counters. space: the memory that all this is in.
    """

    kind: str
    number: int
    offset: Dim = 0
    space: Space = Space.HOST

    @property
    def memory(self) -> tuple[Space, str, int]:
        """What it lies in, wherever there: places of one memory may overlap."""
        return self.space, self.kind, self.number

    def __str__(self) -> str:
        space = "" if self.space is Space.HOST else f"{self.space.value} "
        offset = "" if self.offset == 0 else f" + {self.offset}"
        return f"{space}{self.kind} {self.number}{offset}"


@dataclass(frozen=True)
class KernelCall:
    """Run a kernel on tensors, given in the order of its parameters.

    sizes: the values of the kernel's symbols, in their order.
    """

    kernel: int
    places: tuple[Place, ...]
    sizes: tuple[Dim, ...]


@dataclass(frozen=True)
class Bind:
    """Give symbols the values of an i64 vector in memory; one that is no size ends the run.

    text: how the error begins, with where they come from.
    """

    symbols: tuple[str, ...]
    place: Place
    text: str = ""


@dataclass(frozen=True)
class OpenOutput:
    """Obtain the memory of an output whose dims are known now.

    staging: memory of the device for what is made there, where the caller has none.
    """

    number: int
    staging: Place | None = None


@dataclass(frozen=True)
class Receive:
    """Have an input in the device's memory: the caller's own, or `size` bytes at `staging`."""

    number: int
    staging: Place
    size: Dim


@dataclass(frozen=True)
class Deliver:
    """Hand over an output, of `size` bytes, that is complete. on_device: which memory holds it."""

    number: int
    on_device: bool
    size: Dim


@dataclass(frozen=True)
class Allocate:
    """Obtain heap memory of at least `size` bytes, once that is known.

    Memory that the number stands for already stays where it suffices; otherwise its first `keep`
    bytes move to the new memory. space: that it is in; one number may have memory in several.
    """

    number: int
    size: Dim
    keep: Dim = 0
    space: Space = Space.HOST


@dataclass(frozen=True)
class Assign:
    """Give symbols the values of dims, all at once."""

    symbols: tuple[str, ...]
    dims: tuple[Dim, ...]


@dataclass(frozen=True)
class Branch:
    """Run one of two step lists; each then sets the bound symbols to its own dims.

    condition: the place of a bool, or pairs of dims that all have to be equal.
    """

    condition: Place | tuple[tuple[Dim, Dim], ...]
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]
    bound: tuple[tuple[str, Dim, Dim], ...] = ()


@dataclass(frozen=True)
class View:
    """Let heap memory `number` be what lies at `source`."""

    number: int
    source: Place


@dataclass(frozen=True)
class Repeat:
    """Run steps with `counter` = 0, 1, ..., at most `count` times and while `condition` holds.

    count: a dim, or the place of an i64. Afterwards `counter` is the number of rounds. text: names
    the loop in the error of a run whose rounds are limited; empty: no limit applies.
    """

    counter: str
    count: Dim | Place
    body: tuple[Step, ...]
    condition: Place | None = None
    text: str = ""


@dataclass(frozen=True)
class External:
    """Call a function of the runtime with memory and numbers (see external.py).

    text: if not empty, it gets a pointer to this text behind the places. outputs: how many of the
    places, counted from the end, it writes.
    """

    function: str
    places: tuple[Place, ...]
    arguments: tuple[Dim, ...]
    text: str = ""
    outputs: int = 0


@dataclass(frozen=True)
class Require:
    """End the run with an error that says `text` unless `left relation right`.

    relation: as in `ir/assumptions.py`.
    """

    relation: str
    left: Dim
    right: Dim
    text: str


@dataclass(frozen=True)
class Launch:
    """Run a function of the device on tensors in its memory, given in the order of its parameters,
    the workspace behind them.

    sizes: the values of the function's symbols, in their order. programs: how many run.
    """

    function: int
    places: tuple[Place, ...]
    sizes: tuple[Dim, ...]
    programs: Dim


@dataclass(frozen=True)
class Transfer:
    """Copy so many bytes from one space to another, behind all launches before.

    size: None: all that the memory of the heap has by then, which it has in both.
    """

    source: Place
    target: Place
    size: Dim | None


Step = (
    KernelCall
    | Launch
    | Transfer
    | Receive
    | Deliver
    | External
    | Require
    | Bind
    | OpenOutput
    | Allocate
    | Assign
    | Branch
    | View
    | Repeat
)


@dataclass(frozen=True)
class Weight:
    """A constant in the weights file. offset: in bytes."""

    value: Value
    packing: Packing | None
    offset: int
    size: int


@dataclass
class ArenaBuffer:
    """Memory that one tensor needs from step `first` to step `last`. size, offset: in bytes."""

    size: Dim
    first: int
    last: int
    offset: Dim = 0
    name: str = ""


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel with its schedule.

    aliased: parameters that may lie in the same memory in some call, outputs among them. nodes:
    names of those that its calls compute, where they have one. choice: what the schedule was made
    of. keys: of the groups that it computes.
    """

    symbol: str
    kernel: Kernel
    schedule: Schedule
    aliased: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()
    choice: Choice = field(default_factory=Choice)
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceFunction:
    """A function that runs on a device: a kernel, or one of its stages.

    kernel: its number. params: which of the kernel's parameters it takes. symbols: the kernel's
    that it takes. programs: how many have to run, in the kernel's symbols. workspace: bytes of
    memory that functions of a call share, whose address these take behind the tensors.
    """

    symbol: str
    kernel: int
    params: tuple[int, ...]
    symbols: tuple[str, ...]
    programs: Dim
    workspace: int = 0


@dataclass
class Plan:
    """A whole model. symbols: those that the inputs bind, in order. functions: of the device."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    symbols: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    kernels: list[PlannedKernel] = field(default_factory=list)
    functions: list[DeviceFunction] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    arena: list[ArenaBuffer] = field(default_factory=list)
    arena_bytes: Dim = 0
    calls: dict[int, int] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights file."""
        return max((w.offset + w.size for w in self.weights), default=0)


def bytes_of(dtype: DType, elements: Dim) -> Dim:
    """Bytes of so many elements."""
    return elements * dtype.bytes


def input_symbols(graph: Graph) -> tuple[str, ...]:
    """Symbols that stand alone as a dim of an input, in order of appearance."""
    found: dict[str, None] = {}
    for value in graph.inputs:
        for dim in value.shape:
            names = symbols_of(dim)
            if len(names) == 1 and dim == symbol(next(iter(names))):
                found.update(dict.fromkeys(names))
    return tuple(found)
