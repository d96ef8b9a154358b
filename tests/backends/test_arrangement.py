"""What is decided of command streams without being told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from integer_graphs import Sketch, integers_made, integers_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu import arrangement, vela
from tensmith.backends.ethosu import placement as placement_module
from tensmith.backends.ethosu.arrangement import AXES, KEPT, SWAPPED, arranged, decisions_of
from tensmith.backends.ethosu.folded_width import folds
from tensmith.backends.ethosu.joined_sums import (
    ADDED,
    COPIED,
    JOINED,
    is_exact,
    scaled_sums,
)
from tensmith.backends.ethosu.pipeline import require_memory
from tensmith.backends.ethosu.targets import TARGETS, parse_target
from tensmith.backends.ethosu.tuning import StreamsTunable
from tensmith.backends.ethosu.vela import NotCompiled
from tensmith.backends.ethosu.vela_worker import VelaProcess
from tensmith.backends.reference import run_graph
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError, UsageError
from tensmith.compiler.ir.graph import constant

pytestmark = needs_vela


def _twice(s: Sketch):
    """Convolutions of an image of one channel, which Vela interleaves where no columns are one."""
    same = (2, 2, 2, 2)
    x = s.relu(s.conv(s.input(1, 1, 48, 48), 8, (5, 5), pads=same))
    return (s.relu(s.conv(x, 8, (5, 5), pads=same)),)


def test_columns_that_make_the_whole_slower_are_not_folded(monkeypatch):
    def four_channels(s: Sketch):
        return (s.op("tanh", s.conv(s.input(1, 4, 24, 32), 16, (1, 5), pads=(0, 2, 0, 2))),)

    graph, *_ = integers_made(four_channels, 6)
    target = TARGETS["ethos-u55-128"]
    (columns,) = (d for d in decisions_of(graph, target) if d.name.startswith("columns"))

    def cycles(choice):
        return arranged(graph, target, {**choice, AXES: KEPT}).cycles

    by_columns = {value: cycles({columns.name: value}) for value in columns.values}
    worst = max(by_columns, key=lambda value: by_columns[value])
    assert by_columns[worst] > by_columns[1]

    def slowest(chain, target, **more):
        return next(fold for fold in folds(chain) if fold.word == worst)

    monkeypatch.setattr(arrangement, "least_cycles", slowest)
    assert cycles({}) == by_columns[1]


@pytest.mark.parametrize(
    ("strides", "best"), [((1, 1), "2 behind the margin"), ((2, 2), "rows and columns")]
)
def test_images_of_few_channels_are_folded_as_takes_the_fewest_cycles(strides, best):
    """The host lays the margin, or moves rows: nothing of that is in the segment."""

    def image(s: Sketch):
        return (s.relu(s.conv(s.input(1, 3, 48, 48), 16, strides=strides, pads=(1,) * 4)),)

    graph, _, samples, _ = integers_made(image, 2)
    target = TARGETS["ethos-u55-128"]
    (columns,) = (d for d in decisions_of(graph, target) if d.name.startswith("columns"))
    ways = {word: arranged(graph, target, {columns.name: word}) for word in columns.values}
    assert min(ways, key=lambda word: ways[word].cycles) == best
    usual = arranged(graph, target, {})
    assert usual.streams == ways[best].streams
    (segment,) = usual.segments
    assert {"pad", "transpose"}.isdisjoint(node.op for node in segment.regions[0].nodes)
    for sample in samples:
        found, wanted = (run_graph(g, sample)["y0"] for g in (usual.graph, graph))
        np.testing.assert_array_equal(found, wanted)


def test_columns_are_not_folded_where_memory_holds_no_more_than_the_whole_without():
    graph, *_ = integers_made(_twice, 2)
    target = parse_target("ethos-u55-128+optimise=Size+arena-cache-size=30000")
    (columns,) = (d for d in decisions_of(graph, target) if d.name.startswith("columns"))
    usual = arranged(graph, target, {})
    require_memory(usual, target)
    assert usual.streams == arranged(graph, target, {columns.name: 1}).streams
    folded = [arranged(graph, target, {columns.name: value}) for value in columns.values[1:]]
    assert min(placement.cycles for placement in folded) < usual.cycles
    roomy = parse_target("ethos-u55-128+optimise=Size")
    assert arranged(graph, roomy, {}).cycles < usual.cycles
    for placement in folded:
        with pytest.raises(UsageError, match="does not fit the memory") as caught:
            require_memory(placement, target)
        assert "optimise" not in caught.value.remedy  # it is given


def test_tuning_takes_nothing_that_the_memory_does_not_hold():
    graph, *_ = integers_made(_twice, 2)
    target = parse_target("ethos-u55-128+optimise=Size+arena-cache-size=30000")
    options = CompileOptions("net", Path())
    tunable = StreamsTunable(graph, target, options, Stages())
    (task,) = tunable.tasks
    candidates = tunable.candidates(task)
    errors = [built.error for built in tunable.codes(task, candidates)]
    assert not errors[0]
    assert any("arena-cache-size allows 30000" in error for error in errors)
    for candidate, error in zip(candidates, errors, strict=True):
        if not error:
            require_memory(arranged(graph, target, candidate.choice), target)
    graph, *_ = integers_made(_twice, 2)
    small = parse_target("ethos-u55-128+arena-cache-size=5000")
    with pytest.raises(UsageError, match="does not fit the memory"):
        StreamsTunable(graph, small, options, Stages())


def test_a_segment_that_only_the_chosen_arrangement_has_can_be_decided(monkeypatch):
    """Vela takes no convolution with columns folded: there is no segment then."""

    def one(s: Sketch):
        return (s.conv(s.input(1, 1, 12, 20), 8, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),)

    def refusing(region, target):
        if any(node.op == "conv" and node.inputs[1].shape[2] > 1 for node in region.nodes):
            raise NotCompiled("no such images")
        return right_stream_of(region, target)

    graph, *_ = integers_made(one, 2)
    target = TARGETS["ethos-u55-128"]
    (columns,) = (d for d in decisions_of(graph, target) if d.name.startswith("columns"))
    assert arranged(graph, target, {}).streams != arranged(graph, target, {columns.name: 1}).streams
    right_stream_of = placement_module.right_stream_of
    monkeypatch.setattr(placement_module, "right_stream_of", refusing)
    listed = [d for d in decisions_of(graph, target) if d.name.startswith("optimise")]
    assert [d.name for d in listed] == ["optimise of segment 0"]
    assert len(arranged(graph, target, {listed[0].name: "Size"}).streams) == 1
    with pytest.raises(ScheduleError, match="optimise of segment 1"):
        arranged(graph, target, {"optimise of segment 1": "Size"})


def _strided(s: Sketch):
    """Convolutions of an image that is wider than high, and the mean of what they make."""
    x = s.relu(s.conv(s.input(1, 3, 10, 49), 8, strides=(2, 2), pads=(1, 1, 1, 1)))
    x = s.relu(s.conv(x, 16, pads=(1, 1, 1, 1)))
    return (s.conv(s.op("reduce_mean", x, axes=(2, 3), keepdims=True), 4, (1, 1)),)


def test_axes_are_swapped_where_the_memory_holds_nothing_else():
    """It takes more cycles."""
    graph, *_ = integers_made(_strided, 2)
    target = parse_target("ethos-u55-128+arena-cache-size=3800")
    kept, swapped = (arranged(graph, target, {AXES: how}) for how in (KEPT, SWAPPED))
    assert kept.cycles < swapped.cycles
    assert kept.excess(target)
    assert not swapped.excess(target)
    assert arranged(graph, target, {}).streams == swapped.streams


def test_vela_is_asked_once_for_what_stays_the_same(monkeypatch):
    asked: list[bytes] = []

    class Counting(VelaProcess):
        def ask(self, *arguments):
            asked.append(arguments[1])
            return super().ask(*arguments)

    process = Counting()
    monkeypatch.setattr(vela, "VELA", vela.RememberedVela(process))
    graph, *_ = integers_made(_strided, 2)
    target = TARGETS["ethos-u55-128"]
    first = arranged(graph, target, {})
    count = len(asked)
    assert count
    assert arranged(graph, target, {}).streams == first.streams
    assert len(asked) == count
    monkeypatch.setattr(vela, "MOST_KEPT", 0)
    arranged(graph, target, {"optimise of segment 0": "Size"})
    again = len(asked)
    assert again > count
    arranged(graph, target, {"optimise of segment 0": "Size"})
    assert len(asked) > again  # nothing is kept any more
    process.close()


def test_what_a_sum_reads_beside_others_is_copied_by_a_convolution():
    graph, _, samples, _ = integers_of("residual", 4)
    target = TARGETS["ethos-u55-128"]
    (decision,) = (d for d in decisions_of(graph, target) if d.name.startswith("sum of"))
    assert decision.values == (ADDED, JOINED, COPIED)
    placed = {how: arranged(graph, target, {decision.name: how}) for how in (JOINED, COPIED)}
    convs = [sum(n.op == "conv" for n in placed[how].nodes) for how in (JOINED, COPIED)]
    assert convs[1] == convs[0] + 1
    assert placed[COPIED].cycles < placed[JOINED].cycles
    for sample in samples:
        one, other = (run_graph(placed[how].graph, sample)["y0"] for how in (JOINED, COPIED))
        np.testing.assert_array_equal(one, other)


def test_what_nothing_else_reads_is_not_copied():
    def apart(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 8, 8), 8))
        return (s.op("add", s.conv(x, 8), s.conv(x, 8)),)

    graph, *_ = integers_made(apart, 2)
    target = TARGETS["ethos-u55-128"]
    (decision,) = (d for d in decisions_of(graph, target) if d.name.startswith("sum of"))
    assert decision.values == (ADDED, JOINED)
    with pytest.raises(ScheduleError, match="sum of"):
        arranged(graph, target, {decision.name: COPIED})


def _sum_with(scale: float, result: float, op: str = "add"):
    """A graph of integers: a sum of bytes by two scales, as bytes by a third one."""

    def parts(s: Sketch):
        x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
        y = s.op("tanh", s.conv(x, 8, (1, 1)))
        return (s.op(op, s.conv(x, 8, (1, 1)), y),)

    graph, *_ = integers_made(parts, 2)
    (scaled,) = scaled_sums(graph)
    left, right = (value.producer for value in scaled.inputs[0].producer.inputs)
    for node, number in ((left, 2.0**19), (right, scale * 2.0**19), (scaled, result / 2.0**19)):
        node.inputs[1] = constant(np.float32(number))
    return graph, scaled


@pytest.mark.parametrize("op", ["add", "sub"])
@pytest.mark.parametrize(
    ("scale", "result", "exact"),
    [(1.0, 0.7312, True), (0.5, 0.9071, True), (100 / 127, 0.5519, True), (0.7311, 0.83, False)],
)
def test_all_pairs_of_bytes_tell_whether_a_convolution_is_exact(op, scale, result, exact):
    graph, scaled = _sum_with(scale, result, op)
    assert is_exact(scaled) == exact
    target = TARGETS["ethos-u55-128"]
    (decision,) = (d for d in decisions_of(graph, target) if d.name.startswith("sum of"))
    assert decision.exact == exact
    usual = arranged(graph, target, {})
    assert any(node.op == "concat" for node in usual.nodes) == exact
    assert usual.cycles <= arranged(graph, target, {decision.name: ADDED}).cycles


def _added(s: Sketch):
    """A sum of two convolutions, of which nothing else reads the results."""
    x = s.relu(s.conv(s.input(1, 16, 16, 16), 16, (1, 1)))
    return (s.relu(s.op("add", s.conv(x, 32, pads=(1, 1, 1, 1)), s.conv(x, 32, (1, 1)))),)


def _read_again(s: Sketch):
    """A sum of which a convolution reads one operand, too."""
    x = s.relu(s.conv(s.input(1, 16, 24, 24), 16, (1, 1)))
    return (s.relu(s.op("add", s.conv(x, 16, pads=(1, 1, 1, 1)), x)),)


@pytest.mark.parametrize("make", [_added, _read_again])
def test_sums_are_convolutions_where_that_gives_the_same_bits_in_fewer_cycles(make):
    """Unless it takes more memory, which only who tunes may want."""
    graph, _, samples, _ = integers_made(make, 4)
    target = TARGETS["ethos-u55-128"]
    (decision,) = (d for d in decisions_of(graph, target) if d.name.startswith("sum of"))
    assert decision.exact
    ways = [arranged(graph, target, {decision.name: how}) for how in decision.values]
    added, best = ways[0], min(ways, key=lambda placement: placement.cycles)
    assert best.cycles < added.cycles
    usual = arranged(graph, target, {})
    larger = best.streams[0].scratch_bytes > added.streams[0].scratch_bytes
    assert larger == (make is _read_again)
    assert usual.streams == (added if larger else best).streams
    for sample in samples:
        found, wanted = (run_graph(g, sample)["y0"] for g in (best.graph, graph))
        np.testing.assert_array_equal(found, wanted)
