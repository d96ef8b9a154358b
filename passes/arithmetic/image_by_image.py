"""Batches of pictures, one picture after the other, where a batch would leave the caches.

A layer over a whole batch reads what the layer before has written N pictures ago. Where everything
acts on each picture by itself, the layers run over one picture (a `scan` over the batch) while it
is in the cache. Weights are read N times then: layers whose arithmetic on one picture takes less
time than reading their weights stay behind the scan, over the whole batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import Dim, estimate
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Builder, Trait, has_trait, make_node
from ...compiler.ir.types import TensorType
from ...compiler.kernel.cost.machine import assumed_machine
from ...compiler.target import CpuTarget, Target
from .apart import first_place
from .narrowing import Narrowed
from .work import TYPICAL, elements, is_free, operations

_PICTURE = 4  # axes of a batch of pictures


@dataclass(frozen=True)
class ImageByImage:
    """What leads from one input, a batch of pictures, to a value that alone the rest reads becomes
    a scan over pictures.

    Expects recognised patterns. target: whose arithmetic and memory decide which weights are
    waited for (`assumed_machine`); None, or one that is no CPU: nothing changes. told: hears of
    bytes that stay in the cache. cache_bytes: what stays near a core, roughly.
    """

    target: Target | None = None
    told: Told | None = None
    cache_bytes: int = 4 << 20
    name: str = "image_by_image"

    def run(self, graph: Graph) -> bool:
        """Divide the batch; whether that pays."""
        if not isinstance(self.target, CpuTarget):
            return False
        if len(graph.inputs) != 1 or not _is_batch(graph.inputs[0]):
            return False
        rate = assumed_machine(self.target).operations_per_byte
        best = _best_cut(graph, self.cache_bytes, rate)
        if best is None:
            return False
        if self.told:
            why = f"layers up to {best.cut} run picture by picture, in the cache"
            self.told(Saving("image_by_image", "", "scan", best.before, best.after, why))
        _divide(graph, best)
        return True


@dataclass(frozen=True)
class _Cut:
    """The first `count` nodes, and the only value of theirs that others read."""

    count: int
    cut: Value
    before: float
    after: float


def _is_batch(value: Value) -> bool:
    dims = value.shape
    return (
        len(dims) == _PICTURE
        and dims[0] not in (0, 1)
        and all(isinstance(dim, int) for dim in dims[1:])
        and value.dtype.is_float
    )


def _of_one(node: Node, batched: Collection[Value]) -> Narrowed | None:
    """The node for one picture; None where it looks at several."""
    if len(node.outputs) != 1 or not node.output.shape:
        return None
    return first_place(node, 0, {value: 0 for value in node.inputs if value in batched})


def _is_repeated(node: Node, size: Dim) -> bool:
    """Whether a node repeats what is the same for all pictures, as a token that all begin with."""
    if node.op != "broadcast_to" or not node.output.shape or node.output.shape[0] != size:
        return False
    return _of_one(node, ()) is not None


def _best_cut(graph: Graph, cache_bytes: int, rate: float) -> _Cut | None:
    """Where dividing the batch saves most of the bytes that leave the cache; None: nowhere. rate:
    operations in the time in which a byte of weights arrives."""
    (source,) = graph.inputs
    size = source.shape[0]
    batch = estimate(size, TYPICAL)
    uses, batched = graph.uses(), {source}
    open_reads = len(uses.get(source, ()))
    live = {source: open_reads}
    saved, best = 0.0, None
    leaving, total = 0.0, 0.0
    for count, node in enumerate(graph.nodes, start=1):
        reads = [value for value in node.inputs if value in live]
        if not reads and _is_repeated(node, size):
            batched.add(node.output)
        if reads:
            fits = _of_one(node, batched) is not None
            if not fits or node.regions or node.output.shape[0] != size:
                break
            batched.add(node.output)
            live[node.output] = len(uses.get(node.output, ()))
            for value in reads:
                live[value] -= 1
            saved -= (batch - 1) * _waits(node, batch, rate)
            if not _is_read_off(node):
                whole_bytes = elements(node.output.shape[1:]) * node.output.dtype.bytes * batch
                total += 2 * whole_bytes
                if whole_bytes > cache_bytes >= whole_bytes / batch:
                    saved += 2 * whole_bytes
        crossing = [value for value, left in live.items() if left > 0]
        if len(crossing) != 1 or crossing[0] is source:
            continue
        if saved > leaving or (best and saved == leaving and _goes_along(node, best)):
            leaving = saved
            best = _Cut(count, crossing[0], total, total - saved)
    return best if best is not None and leaving > best.before / 8 else None


def _is_read_off(node: Node) -> bool:
    """Whether a node is computed where its result is read."""
    return is_free(node) and not has_trait(node, Trait.CONTRACTION)


def _goes_along(node: Node, cut: _Cut) -> bool:
    """Whether what follows a cut at once is no kernel of its own in front of it."""
    reads, makes = elements(cut.cut.shape), elements(node.output.shape)
    return _is_read_off(node) and cut.cut in node.inputs and makes <= reads


def _waits(node: Node, pictures: int, rate: float) -> float:
    """Bytes of a node's weights that do not arrive while it computes one of so many pictures."""
    weights = sum(value.data.nbytes for value in node.inputs if value.data is not None)
    return max(0.0, weights - operations(node) / pictures / rate)


def _divide(graph: Graph, cut: _Cut) -> None:
    """Move the nodes in front of the cut into the region of a scan."""
    (source,) = graph.inputs
    size: Dim = source.shape[0]
    inner = Value(TensorType(source.dtype, source.shape[1:]), "picture")
    body: list[Node] = []
    made: dict[Value, Value] = {}
    view = Builder(body, "picture")
    made[source] = view.emit("reshape", [inner], {"shape": (1, *source.shape[1:])})
    outer: list[Node] = []
    differing = {source}
    for node in graph.nodes[: cut.count]:
        if differing.isdisjoint(node.inputs):
            outer.append(node)
            if not _is_repeated(node, size):
                continue
        else:
            differing.add(node.output)
        found = _of_one(node, made)
        assert found is not None
        operands: Sequence[Value | None] = [
            None if part is None else made.get(value, value)
            for value, part in zip(node.inputs, found.needs, strict=True)
        ]
        made[node.output] = found.make(Builder(body, node.name), operands)
    last = made[cut.cut]
    result = Builder(body, cut.cut.name).emit("reshape", [last], {"shape": last.shape[1:]})
    region = Graph([inner], [result], body, "picture")
    attrs = {"num_state": 0, "trip": size, "reverse_in": (False,), "reverse_out": (False,)}
    scan = make_node("scan", [source], attrs, regions=[region], name="pictures")
    scan.output.name = cut.cut.name
    graph.nodes = [*outer, scan, *graph.nodes[cut.count :]]
    graph.replace_uses({cut.cut: scan.output})
