"""In-place kernels: when an output may be written over an input that nothing needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...ir.dims import Dim, all_calls, substitute, symbol, symbols_of
from ...ir.graph import Graph, Value
from ...ir.groups import is_fused
from .. import expr as ex
from ..expr import EACH_POINT, Expr, Load
from ..kernel import Kernel, Stage, Store
from .plan import Place


def may_share(kernel: Kernel, inputs: frozenset[str], output: str) -> bool:
    """Whether an output parameter may lie in the same memory as the named inputs.

    It may when every element is read for the last time no later than for its own overwriting:
    from the first stage that writes the output on, an input is read only at the very offset that
    the store of the loaded value writes; earlier stages may read anything, or, where stages take
    turns within shared loops, the elements that the same iteration writes. Where stages may run at
    the same time, no other one may read what is overwritten. What is local memory of
    each point may be computed anew wherever it is read: then nothing may be shared.
    """
    if any(s.buffer.local == EACH_POINT for stage in kernel.stages for s in stage.stores):
        return False
    first = next(
        (n for n, s in enumerate(kernel.stages) if any(t.buffer.name == output for t in s.stores)),
        None,
    )
    if first is None or any(_reads(stage, inputs) for stage in kernel.stages[first + 1 :]):
        return False
    if kernel.together and any(_reads(stage, inputs) for stage in kernel.stages[:first]):
        return False
    writer = kernel.stages[first]
    if not _reads_what_it_writes(writer, inputs, output):
        return False
    if not kernel.shared:
        return True
    offsets = {store.offset for store in writer.stores if store.buffer.name == output}
    return all(
        _offsets_seen_from(writer, stage, inputs) <= offsets for stage in kernel.stages[:first]
    )


def _loads(roots: Iterable[Expr], names: frozenset[str]) -> Iterator[Load]:
    """Loads of the named buffers; shared subexpressions are visited once."""
    seen: set[int] = set()
    pending = list(roots)
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Load) and part.buffer.name in names:
            yield part
        pending += ex.children(part)


def _parts(store: Store) -> list[Expr]:
    return [store.value, *(index for index, _ in store.dynamic)]


def _reads(stage: Stage, names: frozenset[str]) -> bool:
    return any(True for _ in _loads(stage.expressions(), names))


def _reads_what_it_writes(stage: Stage, inputs: frozenset[str], output: str) -> bool:
    """Whether every load of the inputs is at the offset that its own store overwrites."""
    if any(
        True for _ in _loads((part for r in stage.reductions for part in r.expressions), inputs)
    ):
        return False
    axes = {axis.name for axis in stage.axes}
    written = False
    for store in stage.stores:
        offsets = {None if load.dynamic else load.offset for load in _loads(_parts(store), inputs)}
        if store.buffer.name == output:
            if store.dynamic or not _parts_points(store.offset, axes):
                return False
            if not offsets <= {store.offset}:
                return False
            written = True
        elif offsets and (written or not offsets <= _only_offset(stage, output)):
            return False
    return True


def _parts_points(offset: Dim, axes: set[str]) -> bool:
    """Whether an offset is another at every point: it moves with each axis, and none is held back
    where it ends, as are blocks of tiles whose last tile is computed again in place of one more."""
    calls = (call for call in all_calls([offset]) if call.fn in ("min", "max"))
    held = {name for call in calls for name in call.symbols}
    return axes <= symbols_of(offset) and not axes & held


def _only_offset(stage: Stage, output: str) -> set[Dim | None]:
    """The offset at which the stage writes the output, if there is just one."""
    offsets: set[Dim | None] = {s.offset for s in stage.stores if s.buffer.name == output}
    return offsets if len(offsets) == 1 else set()


def _offsets_seen_from(writer: Stage, stage: Stage, inputs: frozenset[str]) -> set[Dim | None]:
    """Offsets that a stage reads, its axes called by the writer's names; None: not comparable."""
    own, other = stage.axes + stage.reduce_axes, writer.axes
    loads = list(_loads(stage.expressions(), inputs))
    if not loads:
        return set()
    if [axis.extent for axis in own] != [axis.extent for axis in other]:
        return {None}
    names = {a.name: symbol(b.name) for a, b in zip(own, other, strict=True)}
    return {None if load.dynamic else substitute(load.offset, names) for load in loads}


def aliased(kernel: Kernel, places: tuple[Place, ...]) -> frozenset[str]:
    """Outputs that lie in the memory of another parameter, and those parameters."""
    found: set[str] = set()
    memory = [place.memory for place in places]
    for position in range(len(places) - kernel.outputs, len(places)):
        if memory.count(memory[position]) > 1:
            found.update(
                buffer.name
                for buffer, other in zip(kernel.params, memory, strict=True)
                if other == memory[position]
            )
    return frozenset(found)


def last_uses(graph: Graph) -> dict[Value, int]:
    """Position of the last node that reads each value (or a view of it); outputs: the end.

    A value that a region captures is read by the node that owns the region.
    """
    found: dict[Value, int] = {}

    def read(value: Value, position: int) -> None:
        for owner in _owners(value):
            found[owner] = position

    for position, node in enumerate(graph.nodes):
        for value in node.inputs:
            read(value, position)
        if not is_fused(node):
            for region in node.regions:
                for inner in region.graphs():
                    for value in (*inner.outputs, *(v for n in inner.nodes for v in n.inputs)):
                        read(value, position)
    for value in graph.outputs:
        read(value, len(graph.nodes))
    return found


def _owners(value: Value) -> Iterator[Value]:
    """The values in whose memory a value may lie: an expanded one is often not copied."""
    value = origin(value)
    yield value
    while value.producer is not None and value.producer.op == "expand":
        value = origin(value.producer.inputs[0])
        yield value


def origin(value: Value) -> Value:
    """The value whose memory a reshape outside of kernels gives another shape."""
    while value.producer is not None and value.producer.op == "reshape":
        value = value.producer.inputs[0]
    return value
