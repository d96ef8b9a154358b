"""Batches of pictures, or of texts, one after the other, where a batch would leave the caches.

A layer over a whole batch reads what the layer before has written N pictures ago. Where everything
acts on each picture by itself, the layers run over one picture (a `scan` over the batch) while it
is in the cache, also where a reshape merges the batch with windows or heads: those of a picture
lie one behind the other then. Weights are read N times: layers whose arithmetic on one picture
takes less time than reading their weights stay behind the scan, over the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        sources = _sources(graph)
        if not sources:
            return False
        rate = assumed_machine(self.target).operations_per_byte
        best = _best_cut(graph, sources, self.cache_bytes, rate)
        if best is None:
            return False
        if self.told:
            why = f"layers up to {best.cut} run picture by picture, in the cache"
            self.told(Saving("image_by_image", "", "scan", best.before, best.after, why))
        _divide(graph, sources, best)
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


@dataclass(frozen=True)
class _One:
    """How a node is computed for one picture. runs: which of its result are a picture's. along:
    which of its operands' are."""

    narrow: Narrowed
    runs: Runs
    along: Mapping[Value, Runs]


@dataclass
class _Batched:
    """What is known of values so far. size: of the batch. runs: which places of a value are a
    picture's. differing: the values that differ from picture to picture; of others that have runs
    these are the same."""

    size: Dim
    runs: dict[Value, Runs]
    differing: set[Value]

    @classmethod
    def of(cls, sources: Sequence[Value]) -> _Batched:
        """Before the first node."""
        return cls(sources[0].shape[0], dict.fromkeys(sources, Runs(0)), set(sources))

    def take(self, node: Node) -> _One | None:
        """The node for one picture, of which its result is known from now on; None where it looks
        at several, or belongs to none."""
        differs = not self.differing.isdisjoint(node.inputs)
        # a token that all pictures begin with, or what is computed of such, is repeated
        if not differs and node.op != "broadcast_to" and self.runs.keys().isdisjoint(node.inputs):
            return None
        found = self._of_one(node)
        if found is not None:
            self.runs[node.output] = found.runs
        if found is not None and differs:
            self.differing.add(node.output)
        return found

    def _of_one(self, node: Node) -> _One | None:
        if len(node.outputs) != 1 or node.regions:
            return None
        along = {value: self.runs[value] for value in node.inputs if value in self.runs}
        if node.op == "reshape" and along:
            found = reshaped_run(node, along[node.inputs[0]], self.size)
            return None if found is None else _One(*found, along)
        # what is the same for all may be as long as the batch by chance, and be read whole
        alike = tuple(value for value in along if value not in self.differing)
        for whole in dict.fromkeys(((), *((value,) for value in alike), alike)):
            parts = {value: runs for value, runs in along.items() if value not in whole}
            for axis in range(node.output.type.rank):
                runs = runs_along(node.output.shape, axis, self.size)
                narrow = None if runs is None else first_run(node, runs, parts)
                if runs is not None and narrow is not None:
                    return _One(narrow, runs, parts)
        return None


def _best_cut(graph: Graph, sources: Sequence[Value], cache_bytes: int, rate: float) -> _Cut | None:
    """Where dividing the batch saves most of the bytes that leave the cache; None: nowhere. rate:
    operations in the time in which a byte of weights arrives."""
    batched = _Batched.of(sources)
    batch = estimate(batched.size, TYPICAL)
    uses = graph.uses()
    crossing: dict[Value, int] = {}  # how often nodes behind read what is made so far
    saved, best = 0.0, None
    leaving, total = 0.0, 0.0
    for count, node in enumerate(graph.nodes, start=1):
        reads = [value for value in node.inputs if value in batched.differing]
        found = batched.take(node)
        if not reads:
            continue
        if found is None:
            break
        crossing[node.output] = len(uses.get(node.output, ()))
        for value in reads:
            if value in crossing:
                crossing[value] -= 1
        crossing = {value: left for value, left in crossing.items() if left}
        saved -= (batch - 1) * _waits(node, batch, rate)
        if not _is_read_off(node):
            whole_bytes = elements(node.output.shape) * node.output.dtype.bytes
            total += 2 * whole_bytes
            if whole_bytes > cache_bytes >= whole_bytes / batch >= cache_bytes * _LEAST_SHARE:
                saved += 2 * whole_bytes
        cut = next(iter(crossing)) if len(crossing) == 1 else None
        if cut is None or batched.runs[cut].axis:
            continue
        if saved > leaving or (best and saved == leaving and _goes_along(node, best)):
            leaving = saved
            best = _Cut(count, cut, total, total - saved)
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


def _divide(graph: Graph, inputs: Sequence[Value], cut: _Cut) -> None:
    """Move the nodes in front of the cut into the region of a scan over the inputs that they
    read."""
    read = {value for node in graph.nodes[: cut.count] for value in node.inputs}
    sources = [value for value in inputs if value in read]
    inner = [Value(TensorType(v.dtype, v.shape[1:]), "picture") for v in sources]
    body: list[Node] = []
    made: dict[Value, Value] = {}
    view = Builder(body, "picture")
    for source, one in zip(sources, inner, strict=True):
        made[source] = view.emit("reshape", [one], {"shape": (1, *source.shape[1:])})
    outer: list[Node] = []
    alike: dict[Value, Value] = {}  # what is the same for all pictures, made once
    batched = _Batched.of(sources)
    for node in graph.nodes[: cut.count]:
        found = batched.take(node)
        differs = not batched.differing.isdisjoint(node.inputs)
        if not differs:
            outer.append(node)
        if found is None:
            continue
        b, once, narrow = Builder(body, node.name), Builder(outer, node.name), found.narrow
        if not differs:
            operands = operands_of_run(once, node, narrow, alike, found.along)
            made[node.output] = alike[node.output] = narrow.make(once, operands)
        if differs or node.op == "broadcast_to":
            made[node.output] = narrow.make(b, operands_of_run(b, node, narrow, made, found.along))
    last = made[cut.cut]
    shape = last.shape if batched.runs[cut.cut].rows > 1 else last.shape[1:]
    result = Builder(body, cut.cut.name).emit("reshape", [last], {"shape": shape})
    region = Graph(inner, [result], body, "picture")
    forwards = {"reverse_in": (False,) * len(sources), "reverse_out": (False,)}
    attrs = {"num_state": 0, "trip": batched.size, **forwards}
    scan = make_node("scan", sources, attrs, regions=[region], name="pictures")
    scan.output.name = cut.cut.name
    behind: list[Node] = []
    results = scan.output
    if results.shape != cut.cut.shape:
        b = Builder(behind, cut.cut.name)
        results = b.emit("reshape", [results], {"shape": cut.cut.shape})
    graph.nodes = [*outer, scan, *behind, *graph.nodes[cut.count :]]
    graph.replace_uses({cut.cut: results})
