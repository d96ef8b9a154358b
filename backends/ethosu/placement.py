"""What of a model the processor runs: segments with their command streams, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...compiler.ir.copying import copied
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import RegionBuilder
from ...compiler.ir.ops.segment import SEGMENT
from ...compiler.target import NpuTarget
from ...passes.grouping.partition import Legality, Partition, sharing
from ...passes.simplify.dce import DeadCodeElimination
from .legality import INSIDE, carries, computes, legality
from .streams import right_stream_of, stream_of
from .targets import ARENA_CACHE_SIZE
from .vela import CommandStream, NotCompiled

DEVICE = "ethos-u"


@dataclass(frozen=True)
class PlacedNode:
    """An operator of a model in integers. segment: its number; None: it runs on the host, for the
    reason. computes: whether it does more than to move or convert elements."""

    name: str
    op: str
    segment: int | None
    reason: str = ""
    computes: bool = True


@dataclass(frozen=True)
class Placement:
    """graph: with a `segment` node for each of the streams, in the same order. nodes: all that the
    graph was before it was divided, in order."""

    graph: Graph
    streams: tuple[CommandStream, ...]
    nodes: tuple[PlacedNode, ...]

    @property
    def segments(self) -> list[Node]:
        """The segments, by number."""
        return [node for node in self.graph.nodes if node.op == SEGMENT]

    @property
    def outside(self) -> int:
        """How many operators that compute run on the host."""
        return sum(node.segment is None and node.computes for node in self.nodes)

    @property
    def cycles(self) -> int:
        """Of all streams, as Vela estimates them."""
        return sum(stream.estimate.cycles for stream in self.streams)

    def excess(self, target: NpuTarget) -> str:
        """Why the memory that a target allows does not hold it, in words; "": it does."""
        taken = max((s.scratch_bytes for s in self.streams if s.exceeds(target)), default=0)
        why = f"one segment takes {taken} bytes; {ARENA_CACHE_SIZE} allows {target.arena_bytes}"
        return why if taken else ""


def place(
    graph: Graph, target: NpuTarget, others: Mapping[int, NpuTarget] = MappingProxyType({})
) -> Placement:
    """Divide a graph of integers. What Vela refuses stays outside, with its words as the reason.

    others: what segments are compiled for instead, by number; a segment that Vela refuses so is
    divided by what it refuses so.

    Raises UsageError for a memory mode or system configuration that there is not.
    """
    refused: dict[int, str] = {}
    while True:
        copy = copied(graph)
        numbers = {node: number for number, node in enumerate(copy.nodes)}

        partition = Partition(_legality(target, numbers, refused), DEVICE, INSIDE, carries)
        partition.run(copy)
        streams: list[CommandStream] = []
        culprits: dict[Node, str] = {}
        segments = (node for node in copy.nodes if node.op == SEGMENT)
        for number, segment in enumerate(segments):
            own = others.get(number, target)
            try:
                streams.append(right_stream_of(segment.regions[0], own))
            except NotCompiled as error:
                culprits |= _culprits(partition.members[segment], own, error)
        if not culprits:
            return Placement(copy, tuple(streams), _told(copy, partition, numbers))
        refused |= {numbers[node]: reason for node, reason in culprits.items()}


@dataclass(frozen=True)
class Expense:
    """What the parts of a graph take. outside: how many operators that compute run on the host;
    cycles: of all segments, as Vela estimates them; shared_bytes: of the largest arena that the
    processor shares with others."""

    outside: int
    cycles: int
    shared_bytes: int

    @property
    def cost(self) -> tuple[int, int]:
        """What is compared: cycles are of all that the host does not compute, and mean less than
        what it does."""
        return self.outside, self.cycles


def estimated(graph: Graph, target: NpuTarget) -> Expense | None:
    """What the parts of a graph of integers take, of streams that nothing has judged; None where
    Vela refuses one of them. Nodes that nothing needs count for nothing."""
    copy = copied(graph)
    DeadCodeElimination().run(copy)
    Partition(lambda node: legality(node, target), DEVICE, INSIDE, carries).run(copy)
    regions = [node.regions[0] for node in copy.nodes if node.op == SEGMENT]
    try:
        streams = [stream_of(region, target) for region in regions]
    except NotCompiled:
        return None
    shared = (stream.scratch_bytes for stream in streams if not stream.fast_bytes)
    outside = sum(node.op != SEGMENT and computes(node) for node in copy.nodes)
    cycles = sum(stream.estimate.cycles for stream in streams)
    return Expense(outside, cycles, max(shared, default=0))


def _legality(
    target: NpuTarget, numbers: Mapping[Node, int], refused: Mapping[int, str]
) -> Legality:
    """Legality, and what Vela said of nodes, by number."""
    return lambda node: refused.get(numbers[node]) or legality(node, target)


def _culprits(nodes: list[Node], target: NpuTarget, why: NotCompiled) -> dict[Node, str]:
    """Of nodes that have no right stream, those between bytes that have none by themselves, or
    behind what they read; all, where each of these has one."""
    parts = sharing(nodes, INSIDE)
    found: dict[Node, str] = {}
    for part in parts:
        if refusal := _refusal(part, target):
            found |= dict.fromkeys(part, refusal.told())
    for part in parts if not found else ():
        if refusal := _refusal(_with_makers(part, parts, nodes), target):
            found |= dict.fromkeys(part, refusal.told("it behind what it reads"))
    return found or dict.fromkeys(nodes, why.told("what it is part of"))


def _refusal(nodes: list[Node], target: NpuTarget) -> NotCompiled | None:
    """Why nodes have no right command stream, or None."""
    try:
        right_stream_of(_region(nodes), target)
    except NotCompiled as error:
        return error
    return None


def _with_makers(part: list[Node], parts: list[list[Node]], nodes: list[Node]) -> list[Node]:
    """A part with those that make what it reads, in the order of the nodes."""
    read = {value.producer for node in part for value in node.inputs}
    taken = {node for other in parts if other is part or read & set(other) for node in other}
    return [node for node in nodes if node in taken]


def _region(nodes: list[Node]) -> Graph:
    """A graph of copies of nodes, whose results all are outputs unless they are of inner types."""
    made = {value for node in nodes for value in node.outputs}

    def outer(value: Value) -> Value | None:
        return None if value.is_constant or value in made else value

    builder = RegionBuilder(outer)
    for node in nodes:
        builder.copy(node)
    return builder.close([value for value in made if value.dtype not in INSIDE])[1]


def _told(
    graph: Graph, partition: Partition, numbers: Mapping[Node, int]
) -> tuple[PlacedNode, ...]:
    order = [node for node in graph.nodes if node.op == SEGMENT]
    inside = {
        node: number for number, segment in enumerate(order)
        for node in partition.members[segment]
    }  # fmt: skip
    return tuple(
        PlacedNode(
            node.name, node.op, inside.get(node), partition.reasons.get(node, ""), computes(node)
        )
        for node in numbers
    )
