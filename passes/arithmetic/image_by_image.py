"""Batches of pictures, or of texts, one after the other, where a batch would leave the caches.

A layer over a whole batch reads what the layer before has written N pictures ago. Where everything
acts on each picture by itself, the layers run over one picture (a `scan` over the batch) while it
is in the cache, also where a reshape merges the batch with windows or heads: those of a picture
lie one behind the other then. Weights are read N times: layers whose arithmetic on one picture
takes less time than reading their weights stay behind the scan, over the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import Dim, estimate
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Builder, Trait, has_trait, make_node
from ...compiler.ir.types import TensorType
from ...compiler.kernel.cost.machine import assumed_machine
from ...compiler.target import CpuTarget, Target
from .apart import Runs, first_run, operands_of_run, reshaped_run, runs_along
from .narrowing import Narrowed
from .work import TYPICAL, elements, is_free, operations

_PICTURE, _TEXT = 4, 2  # axes of a batch of pictures, and of one of tokens
# of the cache, that a picture's result has to be to be worth a round of the scan (assumed: the
# calls of its kernels take as long as some tens of kB from the third-level cache)
_LEAST_SHARE = 1 / 64


@dataclass(frozen=True)
class ImageByImage:
    """What leads from inputs that are batches of pictures, or of tokens, to a value that alone the
    rest reads becomes a scan over pictures.

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
        if not _sources(graph):
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


def _sources(graph: Graph) -> tuple[Value, ...]:
    """The inputs of a graph, where all of them are batches of one size; else none."""
    sizes = {value.shape[:1] for value in graph.inputs}
    found = len(sizes) == 1 and all(map(_is_batch, graph.inputs))
    return tuple(graph.inputs) if found else ()


def _is_batch(value: Value) -> bool:
    dims = value.shape
    return (
        len(dims) == (_PICTURE if value.dtype.is_float else _TEXT)
        and dims[0] not in (0, 1)
        and all(isinstance(dim, int) for dim in dims[1:])
    )


def _of_one(node: Node, size: Dim, batched: Mapping[Value, Runs]) -> tuple[Narrowed, Runs] | None:
    """The node for one picture of so many, and which runs of its result are a picture's; None where
    it looks at several."""
    if len(node.outputs) != 1 or node.regions:
        return None
    along = {value: batched[value] for value in node.inputs if value in batched}
    if node.op == "reshape" and along:
        return reshaped_run(node, along[node.inputs[0]], size)
    for axis in range(node.output.type.rank):
        runs = runs_along(node.output.shape, axis, size)
        found = None if runs is None else first_run(node, runs, along)
        if runs is not None and found is not None:
            return found, runs
    return None


def _repeated(node: Node, size: Dim, batched: Mapping[Value, Runs]) -> tuple[Narrowed, Runs] | None:
    """A node that repeats what is the same for all pictures, as a token that all begin with, or
    that is computed of such, for one of them; None for others. batched: of what it reads, only what
    is the same for all."""
    if node.op != "broadcast_to" and batched.keys().isdisjoint(node.inputs):
        return None
    return _of_one(node, size, batched)


def _best_cut(graph: Graph, cache_bytes: int, rate: float) -> _Cut | None:
    """Where dividing the batch saves most of the bytes that leave the cache; None: nowhere. rate:
    operations in the time in which a byte of weights arrives."""
    sources = _sources(graph)
    size = sources[0].shape[0]
    batch = estimate(size, TYPICAL)
    uses, batched = graph.uses(), dict.fromkeys(sources, Runs(0))
    live = {source: len(uses.get(source, ())) for source in sources}
    saved, best = 0.0, None
    leaving, total = 0.0, 0.0
    for count, node in enumerate(graph.nodes, start=1):
        reads = [value for value in node.inputs if value in live]
        if not reads and (same := _repeated(node, size, batched)):
            batched[node.output] = same[1]
        if reads:
            found = _of_one(node, size, batched)
            if found is None:
                break
            batched[node.output] = found[1]
            live[node.output] = len(uses.get(node.output, ()))
            for value in reads:
                live[value] -= 1
            saved -= (batch - 1) * _waits(node, batch, rate)
            if not _is_read_off(node):
                whole_bytes = elements(node.output.shape) * node.output.dtype.bytes
                total += 2 * whole_bytes
                if whole_bytes > cache_bytes >= whole_bytes / batch >= cache_bytes * _LEAST_SHARE:
                    saved += 2 * whole_bytes
        crossing = [value for value, left in live.items() if left > 0 and value not in sources]
        if len(crossing) != 1 or batched[crossing[0]].axis:
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
    """Bytes of a node's weights that do not arrive while it computes one of so many pictures; of
    a table only rows are read."""
    if has_trait(node, Trait.LOOKUP):
        return 0.0
    weights = sum(value.data.nbytes for value in node.inputs if value.data is not None)
    return max(0.0, weights - operations(node) / pictures / rate)


def _divide(graph: Graph, cut: _Cut) -> None:
    """Move the nodes in front of the cut into the region of a scan."""
    read = {value for node in graph.nodes[: cut.count] for value in node.inputs}
    sources = [value for value in _sources(graph) if value in read]
    size: Dim = sources[0].shape[0]
    inner = [Value(TensorType(v.dtype, v.shape[1:]), "picture") for v in sources]
    body: list[Node] = []
    made: dict[Value, Value] = {}
    view = Builder(body, "picture")
    for source, one in zip(sources, inner, strict=True):
        made[source] = view.emit("reshape", [one], {"shape": (1, *source.shape[1:])})
    outer: list[Node] = []
    alike: dict[Value, Value] = {}  # what is the same for all pictures, made once
    differing, batched = set(sources), dict.fromkeys(sources, Runs(0))
    for node in graph.nodes[: cut.count]:
        differs = not differing.isdisjoint(node.inputs)
        if differs:
            differing.add(node.output)
        else:
            outer.append(node)
        found = (_of_one if differs else _repeated)(node, size, batched)
        if found is None:
            continue
        b, once, along = Builder(body, node.name), Builder(outer, node.name), dict(batched)
        narrow, batched[node.output] = found
        if not differs:
            operands = operands_of_run(once, node, narrow, alike, along)
            made[node.output] = alike[node.output] = narrow.make(once, operands)
        if differs or node.op == "broadcast_to":
            made[node.output] = narrow.make(b, operands_of_run(b, node, narrow, made, along))
    last = made[cut.cut]
    shape = last.shape if batched[cut.cut].rows > 1 else last.shape[1:]
    result = Builder(body, cut.cut.name).emit("reshape", [last], {"shape": shape})
    region = Graph(inner, [result], body, "picture")
    forwards = {"reverse_in": (False,) * len(sources), "reverse_out": (False,)}
    attrs = {"num_state": 0, "trip": size, **forwards}
    scan = make_node("scan", sources, attrs, regions=[region], name="pictures")
    scan.output.name = cut.cut.name
    behind: list[Node] = []
    results = scan.output
    if results.shape != cut.cut.shape:
        b = Builder(behind, cut.cut.name)
        results = b.emit("reshape", [results], {"shape": cut.cut.shape})
    graph.nodes = [*outer, scan, *behind, *graph.nodes[cut.count :]]
    graph.replace_uses({cut.cut: results})
