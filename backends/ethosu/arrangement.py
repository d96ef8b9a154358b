"""What of the command streams of a model can be decided otherwise, and how decisions are carried
out.

A choice is an object of decisions by their names, as records hold it; what it leaves out is decided
as usual. Names are of the model's nodes and of segments by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...compiler.errors import ScheduleError
from ...compiler.ir.copying import copied
from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.groups import group_key
from ...compiler.pass_manager import run_passes
from ...compiler.target import NpuTarget
from ...passes.simplify.dce import DeadCodeElimination
from .conv_chain import ConvChain
from .copied_images import COPIED, DIRECT, can_be_copied, copy_image, given_images
from .folded_width import UNFOLDED, Fold, conv_chains, fold_width, folds, least_cycles
from .joined_sums import ADDED, is_exact, join_sum, scaled_sums, ways_to_join
from .means import CONVOLUTION, POOLING, convolve, pooled_means
from .picked_windows import APART, NEAR, bring_near, host_cycles, moved_bytes, wide_windows
from .placement import Placement, estimated, place
from .swapped_axes import swap_axes, swaps

Choice = Mapping[str, Any]
T = TypeVar("T")
CAPS = (0.75, 0.5)  # of the arena that a segment has by itself
OPTIMISED = ("Performance", "Size")
MOST_MEANS = 8  # that are tried both ways without being told
MOST_IMAGES = 4  # of which copies are tried without being told
MOST_SUMS = 8  # that are tried in all exact ways without being told
MOST_WINDOWS = 8  # poolings and convolutions of wide strides that are tried without being told
AXES = "axes of images"
KEPT, SWAPPED = "kept", "swapped"


@dataclass(frozen=True)
class StreamDecision:
    """Something that can be decided otherwise. values: in which ways. exact: no bit changes."""

    name: str
    values: tuple[Any, ...]
    exact: bool = True


def choice_key(graph: Graph, target: NpuTarget) -> str:
    """Under which a compilation looks up the choice for a graph of integers."""
    return f"streams {target.name} {group_key(graph.inputs, graph)}"


def decisions_of(graph: Graph, target: NpuTarget) -> list[StreamDecision]:
    """What can be decided of a graph of integers, which stays as it is."""
    windows = _named("windows", wide_windows(graph), lambda node: node)
    apart = [StreamDecision(name, (APART, NEAR)) for name in windows]
    graph, *_ = _bring_near(graph, target, {})
    found = [
        StreamDecision(name, tuple(fold.word for fold in (UNFOLDED, *folds(chain))))
        for name, chain in _named("columns", conv_chains(graph, target), lambda c: c.conv).items()
    ]
    found += [
        StreamDecision(name, (ADDED, *ways_to_join(graph, scaled)), exact=is_exact(scaled))
        for name, scaled in _named("sum", scaled_sums(graph), lambda scaled: scaled).items()
    ]
    found += [
        StreamDecision(name, (POOLING, CONVOLUTION))
        for name in _named("mean", pooled_means(graph, target), lambda chain: chain.conv)
    ]
    found += [
        StreamDecision(name, (DIRECT, COPIED))
        for name, conv in _named("image", given_images(graph, target), lambda c: c).items()
        if can_be_copied(conv)
    ]
    if swaps(graph):
        found.append(StreamDecision(AXES, (KEPT, SWAPPED)))
    for number, stream in enumerate(arranged(graph, target, {}).streams):
        other = tuple(word for word in OPTIMISED if word != target.optimise)
        caps = tuple(int(share * stream.scratch_bytes) for share in CAPS)
        found.append(StreamDecision(f"optimise of segment {number}", other))
        found.append(StreamDecision(f"arena of segment {number}", caps))
    return apart + found


def arranged(graph: Graph, target: NpuTarget, choice: Choice) -> Placement:
    """Carry out a choice for a graph of integers, which stays as it is, and divide what it becomes.

    Columns that nothing decides are folded as takes the fewest cycles: of a convolution by itself,
    and then, as that may keep it from being interleaved with what follows, of the whole, if the
    memory holds it. So are axes of images swapped, and images copied. Sums are convolutions where
    these give the same bits, in fewer cycles of the whole and no larger arena. Windows that are far
    apart are brought near where that is worth it (`_is_worth`), and the memory holds it.

    Raises ScheduleError for decisions that there are not.
    """
    near, left, brought = _bring_near(graph, target, choice)
    placement = _arranged(near, target, left)
    if not brought or not placement.excess(target):
        return placement
    return arranged(graph, target, {**choice, **dict.fromkeys(brought, APART)})


def _arranged(graph: Graph, target: NpuTarget, choice: Choice) -> Placement:
    """As `arranged`, of a graph of which windows are decided."""
    ways = [_Way(choice)]
    changed, left, usual = _carried_out(graph, target, ways[0])
    either = AXES not in choice and swaps(graph)
    if not usual and not either:
        return _divided(changed, target, left)
    tried = [(ways[0], changed, left)]
    if any(fold.with_rows for fold in usual.values()):  # which keeps axes from being swapped
        ways.append(_Way(choice, with_rows=False))
    if usual:
        ways.append(_Way({**choice, **dict.fromkeys(usual, UNFOLDED.word)}))
    tried += [(way, *_carried_out(graph, target, way)[:2]) for way in ways[1:]]
    found: list[Placement] = []
    refusals: list[ScheduleError] = []
    for _, one, decisions in tried:
        try:
            found.append(_divided(one, target, decisions))
        except ScheduleError as error:  # it may have fewer segments than the other one
            refusals.append(error)
    if not found:
        raise refusals[0]
    for own, *_ in tried if either else ():
        if (swapped := _swapped(graph, target, own, found)) is not None:
            found.append(swapped)
    return min(found, key=lambda placement: _cost(placement, target))


@dataclass(frozen=True)
class _Way:
    """How a choice is carried out. with_rows: whether rows of images are folded, too, where nothing
    decides."""

    choice: Choice
    with_rows: bool = True


def _swapped(
    graph: Graph, target: NpuTarget, way: _Way, known: list[Placement]
) -> Placement | None:
    """The placement with axes swapped, where that promises to cost less than those that the memory
    holds."""
    swapped = replace(way, choice={**way.choice, AXES: SWAPPED})
    changed, left, _ = _carried_out(graph, target, swapped)
    expense = estimated(changed, target)
    fitting = [(one.outside, one.cycles) for one in known if not one.excess(target)]
    if expense is None or (fitting and expense.cost >= min(fitting)):
        return None
    try:
        return _divided(changed, target, left)
    except ScheduleError:  # a decision about a segment that there is not so
        return None


def _cost(placement: Placement, target: NpuTarget) -> tuple[bool, int, int]:
    """(whether the memory does not hold it, operators beside the processor, cycles of it)"""
    return bool(placement.excess(target)), placement.outside, placement.cycles


def _carried_out(
    graph: Graph, target: NpuTarget, way: _Way
) -> tuple[Graph, dict[str, Any], dict[str, Fold]]:
    """(what a choice makes of a graph, what it decides of segments, the columns that were folded
    without a decision)"""
    graph, left, usual = copied(graph), dict(way.choice), dict[str, Fold]()
    sums = _named("sum", scaled_sums(graph), lambda scaled: scaled)
    undecided = [scaled for name, scaled in sums.items() if name not in way.choice]
    changed, axes = change_results(graph, left), left.pop(AXES, KEPT)
    graph, joined = _join_sums(graph, undecided, target)
    changed |= joined
    _require(axes == KEPT or (axes == SWAPPED and swaps(graph)), AXES, axes)
    for name, chain in _named("columns", conv_chains(graph, target), lambda c: c.conv).items():
        known = {fold.word: fold for fold in (UNFOLDED, *folds(chain))}
        word = left.pop(name, None)
        _require(word is None or word in known, name, word)
        fold = known.get(word) or least_cycles(chain, target, with_rows=way.with_rows)
        if word is None and fold != UNFOLDED:
            usual[name] = fold
        if fold != UNFOLDED:
            fold_width(graph, chain, fold)
            changed = True
    if axes == SWAPPED:
        swap_axes(graph)
        for chain in conv_chains(graph, target):
            fold = least_cycles(chain, target, with_rows=way.with_rows)
            if fold != UNFOLDED:
                fold_width(graph, chain, fold)
        changed = True
    if changed:
        run_passes(graph, (DeadCodeElimination(),))
    graph = _copy_images(graph, target, left)
    _decide_means(graph, target, left)
    return graph, left, usual


def _copy_images(graph: Graph, target: NpuTarget, left: dict[str, Any]) -> Graph:
    """Carry out, and take from a choice, which images are copied before they are read; those that
    nothing decides, where the whole takes fewer cycles so. The last one is decided first: those
    before it keep their names."""

    def images(graph: Graph) -> dict[str, Node]:
        return _named("image", given_images(graph, target), lambda conv: conv)

    for number, name in reversed(list(enumerate(images(graph)))):
        how = left.pop(name, None)
        can = can_be_copied(images(graph)[name])
        _require(how in (None, DIRECT) or (how == COPIED and can), name, how)
        if how == DIRECT or not can or (how is None and number >= MOST_IMAGES):
            continue
        tried = copied(graph)
        copy_image(tried, images(tried)[name], target)
        if how == COPIED or _takes_less(tried, graph, target):
            graph = tried
    return graph


def _takes_less(graph: Graph, other: Graph, target: NpuTarget) -> bool:
    """Whether a graph of integers costs less than another, and takes no larger arena."""
    found, before = estimated(graph, target), estimated(other, target)
    if found is None or before is None:
        return False
    return found.cost < before.cost and found.shared_bytes <= before.shared_bytes


def _bring_near(
    graph: Graph, target: NpuTarget, choice: Choice
) -> tuple[Graph, dict[str, Any], list[str]]:
    """(a graph in which windows are near that were far apart, where a choice says so or that is
    worth it; what else the choice decides; the names of what was brought near without a decision).
    The last one is decided first: those before it keep their numbers."""
    left, brought = dict(choice), list[str]()
    names = list(_named("windows", wide_windows(graph), lambda node: node))
    for number, name in reversed(list(enumerate(names))):
        how = left.pop(name, None)
        if how == APART or (how is None and number >= MOST_WINDOWS):
            continue
        tried = copied(graph)
        can = bring_near(tried, wide_windows(tried)[number])
        _require(how is None or (how == NEAR and can), name, how)
        if can and how is None and _is_worth(tried, graph, number, target):
            brought.append(name)
        elif not can or how is None:
            continue
        graph = tried
    return graph, left, brought


def _is_worth(near: Graph, apart: Graph, number: int, target: NpuTarget) -> bool:
    """Whether windows brought near leave the host less to do, take the NPU no more cycles than
    the host needs for them, and its arena no more bytes than the host reads and makes."""
    found, before = estimated(near, target), estimated(apart, target)
    if found is None or before is None or found.outside >= before.outside:
        return False
    node = wide_windows(apart)[number]
    more = found.shared_bytes - before.shared_bytes
    return found.cycles - before.cycles <= host_cycles(node) and more <= moved_bytes(node)


def _join_sums(graph: Graph, sums: list[Node], target: NpuTarget) -> tuple[Graph, bool]:
    """(a graph in which sums are convolutions where that gives the same bits in fewer cycles of the
    whole and in no larger arena, one behind the other; whether there are any).

    The last one is decided first: those before it keep their places among the nodes.
    """
    places = [graph.nodes.index(scaled) for scaled in sums if is_exact(scaled)][:MOST_SUMS]
    least = estimated(graph, target) if places else None
    if least is None:
        return graph, False
    joined = False
    for number in reversed(places):
        before = graph
        for how in ways_to_join(before, before.nodes[number]):
            tried = copied(before)
            join_sum(tried, tried.nodes[number], how)
            found = estimated(tried, target)
            if found is None or found.shared_bytes > least.shared_bytes:
                continue
            if found.cost < least.cost:
                least, graph, joined = found, tried, True
    return graph, joined


def _decide_means(graph: Graph, target: NpuTarget, left: dict[str, Any]) -> None:
    """Carry out, and take from a choice, how means are made; those that nothing decides as takes
    fewer cycles of the whole, one behind the other."""
    undecided: list[ConvChain] = []
    for name, chain in _named("mean", pooled_means(graph, target), lambda c: c.conv).items():
        how = left.pop(name, None)
        _require(how in (None, POOLING, CONVOLUTION), name, how)
        if how == CONVOLUTION:
            convolve(chain)
        elif how is None and len(undecided) < MOST_MEANS:
            undecided.append(chain)
    least = estimated(graph, target) if undecided else None
    if least is None:
        return
    for chain in undecided:
        before = chain.conv.inputs[1], chain.scaled.inputs[1]
        convolve(chain)
        found = estimated(graph, target)
        if found is not None and found.cost < least.cost:
            least = found
        else:
            chain.conv.inputs[1], chain.scaled.inputs[1] = before


def _divided(graph: Graph, target: NpuTarget, choice: Choice) -> Placement:
    """Divide a graph, with what a choice decides of segments."""
    placement = place(graph, target, _targets(choice, target))
    for name, value in choice.items():
        _require(_decided(name)[1] < len(placement.streams), name, value)
    return placement


def change_results(graph: Graph, left: dict[str, Any]) -> bool:
    """Carry out, and take from a choice, those decisions that change results; whether there is one.

    Raises ScheduleError as `arranged` does.
    """
    changed = False
    for name, scaled in _named("sum", scaled_sums(graph), lambda scaled: scaled).items():
        if (how := left.pop(name, None)) is not None:
            _require(how in (ADDED, *ways_to_join(graph, scaled)), name, how)
            if how != ADDED:
                join_sum(graph, scaled, how)
                changed = True
    return changed


def _targets(left: Choice, target: NpuTarget) -> dict[int, NpuTarget]:
    """The target that segments are compiled for, by number, where it is another one."""
    found: dict[int, NpuTarget] = {}
    for name, value in left.items():
        what, number = _decided(name)
        _require(what in ("optimise", "arena"), name, value)
        before = found.get(number, target)
        if what == "optimise":
            _require(value in OPTIMISED, name, value)
            found[number] = replace(before, optimise=value)
        else:
            _require(isinstance(value, int) and value > 0, name, value)
            found[number] = replace(before, arena_bytes=value)
    return found


def _decided(name: str) -> tuple[str, int]:
    """(what is decided, of the segment with that number); ("", 0) for a name of something else."""
    what, _, number = name.partition(" of segment ")
    return (what, int(number)) if number.isdecimal() else ("", 0)


def _require(holds: bool, name: str, value: object) -> None:
    if not holds:
        raise ScheduleError(f"'{name}' cannot be decided as {value!r}")


def _named(what: str, items: Iterable[T], node_of: Any) -> dict[str, T]:
    """Things by what they are and the names of nodes; the second of a name has a number."""
    found: dict[str, T] = {}
    for item in items:
        node: Node = node_of(item)
        name, number = f"{what} of {node.name}", 2
        while name in found:
            name, number = f"{what} of {node.name} ({number})", number + 1
        found[name] = item
    return found
