"""If. A condition that is known at import leaves only the branch it takes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from .....compiler.ir import Dim, DType, Graph, Value
from .....compiler.ir.assumptions import EQUAL, OTHER, Assumption
from .....compiler.ir.dims import symbols_of
from .....compiler.ir.ops.registry import make_node
from ...containers import Content, Growing, flattened, refilled, shape_of
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.growing import as_growing, common_form


def flag(s: Site, value: Value) -> Value:
    """A condition as a scalar. Raises ValueError for what is no single boolean."""
    if value.dtype is not DType.BOOL or (value.type.is_static and value.type.elements != 1):
        raise ValueError(f"a condition is {value.type}, not one boolean")
    return s.reshape(value, ())


@lowers("If")
def if_(s: Site) -> Sequence[Content]:
    condition = flag(s, s.input(0))
    then, other = s.graph("then_branch"), s.graph("else_branch")
    for branch in (then, other):
        if branch.input:
            raise ValueError("a branch has inputs")
        if len(branch.output) < len(s.node.output):
            raise ValueError(f"a branch has {len(branch.output)} outputs")
    if len(then.output) != len(other.output):
        raise ValueError("the branches differ in their number of outputs")
    known = s.known(condition)
    if known is not None:
        return s.importer.region_entries(then if known[()] else other, s.scope, {})
    regions, entries = _regions(s, (then, other))
    chosen = _branch_of_rank(s, (then, other), [graph for graph, _ in regions])
    if chosen is not None:
        _need_branch(s, condition, chosen, regions[chosen][0])
        return s.importer.region_entries((then, other)[chosen], s.scope, {})
    local = regions[0][1] | regions[1][1]
    _same_ranks(regions[0][0], regions[1][0])
    shapes = []
    for a, b in zip(regions[0][0].outputs, regions[1][0].outputs, strict=True):
        if a.dtype is not b.dtype or a.type.rank != b.type.rank:
            raise NotSupported(f"its branches give {a.type} and {b.type}", _deciding(s, condition))
        shapes += list(zip(a.shape, b.shape, strict=True))
    bound = [s.emitter.fresh("branch") for a, b in shapes if a != b or symbols_of(a) & local]
    graphs = [graph for graph, _ in regions]
    results = s.emitter.emit_node("if", [condition], {"bound": tuple(bound)}, regions=graphs)
    return refilled(entries, iter(results))


def either(s: Site, condition: Value, then: Value, other: Value) -> Value:
    """One of two values of one type but for sizes, by a condition that only a run knows."""
    shapes = zip(then.shape, other.shape, strict=True)
    bound = tuple(s.emitter.fresh("branch") for a, b in shapes if a != b)
    graphs = [Graph([], [s.emitter.real(value)], [], "branch") for value in (then, other)]
    return s.emitter.emit_node("if", [condition], {"bound": bound}, regions=graphs)[0]


def _regions(
    s: Site, branches: Sequence[onnx.GraphProto]
) -> tuple[list[tuple[Graph, set[str]]], list[Content]]:
    """The branches with the symbols that are bound in them, and what their outputs make up."""
    found, forms = [], []
    wanted = _forms(s, branches)
    for proto in branches:
        s.emitter.enter()
        try:
            entries = s.importer.region_entries(proto, s.scope, {})
            for place, form in wanted.items():
                entries[place] = as_growing(s, entries[place], form)
            outputs = [s.emitter.real(value) for value in flattened(entries)]
        finally:
            nodes, bound = s.emitter.leave()
        found.append((Graph([], outputs, nodes, proto.name or "branch"), bound))
        forms.append(entries)
    if len({tuple(shape_of(entry) for entry in entries) for entries in forms}) > 1:
        raise NotSupported("its branches give sequences or optionals that differ in structure")
    return found, forms[0]


def _forms(s: Site, branches: Sequence[onnx.GraphProto]) -> dict[int, Growing]:
    """What sequences become, by their place, of which the branches give different numbers."""
    if not any(i.type.WhichOneof("value") == "sequence_type" for b in branches for i in b.output):
        return {}
    trials, local = [], set()
    for proto in branches:
        s.emitter.enter()
        try:
            trials.append(s.importer.region_entries(proto, s.scope, {}))
        finally:
            local |= s.emitter.leave()[1]
    pairs = enumerate(zip(*trials, strict=True))
    forms = {place: common_form(s, pair, frozenset(local)) for place, pair in pairs}
    return {place: form for place, form in forms.items() if form is not None}


def _same_ranks(then: Graph, other: Graph) -> None:
    """Give results of one element each the greater of the two branches' ranks."""
    for place, pair in enumerate(zip(then.outputs, other.outputs, strict=True)):
        ranks = [value.type.rank for value in pair]
        if ranks[0] == ranks[1] or not _are_of_one_element(pair):
            continue
        graph, value = (then, pair[0]) if ranks[0] < ranks[1] else (other, pair[1])
        node = make_node("reshape", [value], {"shape": (1,) * max(ranks)})
        graph.nodes.append(node)
        graph.outputs[place] = node.output


def _are_of_one_element(values: Sequence[Value]) -> bool:
    return all(value.type.elements == 1 for value in values)


def _branch_of_rank(
    s: Site, branches: Sequence[onnx.GraphProto], regions: Sequence[Graph]
) -> int | None:
    """Which branch the model goes on with, where they give different ranks; else None.

    A rank that depends on data has no type. The model's declared ranks tell which one is meant.
    Without them, of `If(dim == 1, Squeeze(x), Identity(x))`, which exporters write for x.squeeze()
    along an axis that is not known to be 1, it is the one that squeezes. Of other pairs it is the
    one that only passes values on: what the other is there for need not be done. Results of one
    element each are given one rank instead (`_same_ranks`).
    """
    ranks = [[value.type.rank for value in region.outputs] for region in regions]
    if ranks[0] == ranks[1]:
        return None
    declared = [s.declared_rank(place) for place in range(len(s.node.output))]
    fitting = [
        number
        for number, found in enumerate(ranks)
        if all(want in (None, rank) for want, rank in zip(declared, found, strict=False))
    ]
    if len(fitting) == 1:
        return fitting[0]
    ops = [[n.op_type for n in graph.node if n.op_type != "Constant"] for graph in branches]
    if sorted(ops) == [["Identity"], ["Squeeze"]]:
        return ops.index(["Squeeze"])
    pairs = zip(*(region.outputs for region in regions), strict=True)
    if all(a.type.rank == b.type.rank or _are_of_one_element((a, b)) for a, b in pairs):
        return None
    passing = [set(kinds) <= {"Identity"} for kinds in ops]
    return passing.index(True) if sum(passing) == 1 else None


def _need_branch(s: Site, condition: Value, chosen: int, region: Graph) -> None:
    """End a run that takes the other branch."""
    needed = _needed_sizes(condition, chosen == 0)
    if needed is None:
        flag = s.reshape(s.cast(condition, DType.I64), (1,))
        needed = Assumption(EQUAL, s.emitter.read_dims(flag, "taken")[0], 1 - chosen)
    name, ranks = ("then", "else")[chosen], [value.type.rank for value in region.outputs]
    what = (
        f"node '{s.emitter.name}' (If) is compiled for its {name}_branch, whose results have "
        f"{' '.join(map(str, ranks))} dimensions, and this run takes the other one; "
        f"{_deciding(s, condition)}"
    )
    attrs = {"relation": needed.relation, "left": needed.left, "right": needed.right, "what": what}
    s.emitter.emit_node("check_dims", [], attrs)


def _needed_sizes(condition: Value, wanted: bool) -> Assumption | None:
    """What holds of sizes just when a condition is as wanted, if it compares two of them.

    A run can check that before anything else.
    """
    node = condition.producer
    while node is not None and node.op in ("reshape", "not"):
        wanted = wanted != (node.op == "not")
        node = node.inputs[0].producer
    if node is None or node.op != "eq" or not node.inputs[0].dtype.is_integer:
        return None
    left, right = (_size(value) for value in node.inputs)
    if left is None or right is None:
        return None
    return Assumption(EQUAL if wanted else OTHER, left, right)


def _size(value: Value) -> Dim | None:
    """The only element of a value where it is a number or computed from dims, else None."""
    if value.data is not None and value.data.size == 1:
        return int(value.data.reshape(-1)[0])
    node = value.producer
    while node is not None and node.op in ("reshape", "cast"):
        node = node.inputs[0].producer
    if node is None or node.op != "dims" or len(node.attrs["values"]) != 1:
        return None
    size: Dim = node.attrs["values"][0]
    return size


def _deciding(s: Site, condition: Value) -> str:
    """What makes a condition known when compiling: sizes of inputs that are pinned, or values that
    are; or what to do where the model itself computes it."""
    names: set[str] = set()
    read: dict[str, None] = {}
    pending, seen = [condition], {condition}
    while pending:
        value = pending.pop()
        node = value.producer
        if node is None:
            if not value.is_constant:
                read[value.name] = None
            continue
        for dim in node.attrs.get("values", ()):
            names |= symbols_of(dim)
        pending += [value for value in node.inputs if value not in seen]
        seen.update(node.inputs)
    if read and not names:
        given = ", ".join(f"'{name[:60]}'" for name in list(read)[:3])
        return (
            f"the elements of {given} decide it: make these a constant of the model, or give the "
            "results of both branches one rank"
        )
    pinned = names.difference(*s.emitter.bound)
    if names and not pinned:
        return (
            f"sizes that a run computes decide it ({', '.join(sorted(names))}): give the results "
            "of both branches one rank"
        )
    found = f", {', '.join(sorted(pinned))}," if pinned else ""
    return f"pin the sizes{found} that decide it with --shape"
