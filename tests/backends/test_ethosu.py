"""Models for the Ethos-U: command streams in the simulator, and TOSA files in Arm's reference
model, give the bits that graphs of integers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from integer_graphs import CASES, Sketch, case, integers_of
from tosa_runs import needs_model, needs_vela, reference_run

from tensmith.backends.ethosu import streams
from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.folded_width import conv_chains, fold_width, folds
from tensmith.backends.ethosu.placement import Placement, place
from tensmith.backends.ethosu.simulator import simulate
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.region import tosa_of
from tensmith.backends.ethosu.tosa.schema import Op
from tensmith.backends.ethosu.tuning import StreamsTunable
from tensmith.backends.ethosu.vela import NotCompiled
from tensmith.backends.ethosu.vela import compiled as vela_compiled
from tensmith.backends.reference import run_graph
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Value
from tensmith.compiler.ir.types import DType
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping import partition as partition_module
from tensmith.passes.grouping.partition import BELONGS, Partition
from tensmith.passes.simplify.dce import DeadCodeElimination

SIMULATED = ("ethos-u55-128", "ethos-u65-256")
ALL = (*SIMULATED, "ethos-u85-256")
RUNS = 2


def _bytes_of(region, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.integers(-128, 128, value.type.static_shape).astype(np.int8)
        for value in region.inputs
    }


def _named(region) -> None:
    for number, value in enumerate(region.inputs):
        value.name = f"in{number}"
    for number, value in enumerate(region.outputs):
        value.name = f"out{number}"


def _placed(name: str, target: str, seed: int = 3) -> Placement:
    graph, *_ = integers_of(name, seed)
    return place(graph, TARGETS[target])


def _refuse_tables(monkeypatch, of=lambda target: True) -> None:
    """Vela takes all of the cases: it refuses tables, for such targets."""
    lowered = []

    def refusing(region):
        lowered.append(tosa_of(region))
        return lowered[-1]

    def compiled(blob, target):
        if of(target) and any(operator.op is Op.TABLE for operator in lowered[-1].operators):
            raise NotCompiled("no tables today")
        return vela_compiled(blob, target)

    monkeypatch.setattr(streams, "tosa_of", refusing)
    monkeypatch.setattr(streams, "compiled", compiled)


def _simulated(stream, inputs) -> list[np.ndarray]:
    rng = np.random.default_rng(0)  # what memory holds before a run counts for nothing
    memory = {
        stream.weights_region: np.frombuffer(stream.weights, np.uint8),
        stream.scratch_region: rng.integers(0, 256, stream.scratch_bytes).astype(np.uint8),
    }
    if stream.fast_bytes:
        memory[stream.fast_region] = rng.integers(0, 256, stream.fast_bytes).astype(np.uint8)
    for extent, array in zip(stream.inputs, inputs, strict=True):
        place_ = slice(extent.offset, extent.offset + extent.size)
        memory[extent.region][place_] = array.reshape(-1).view(np.uint8)
    simulate(stream.commands, memory)
    return [memory[e.region][e.offset : e.offset + e.size].view(np.int8) for e in stream.outputs]


@needs_vela
@pytest.mark.parametrize("name", CASES)
def test_everything_is_placed_in_one_segment(name):
    for target in ALL:
        placement = _placed(name, target)
        assert len(placement.segments) == 1
        outside = {node.op for node in placement.nodes if node.segment is None}
        assert outside <= {"quantize", "dequantize", "reshape", "transpose"}
        inner = [node.op for node in placement.segments[0].regions[0].nodes]
        assert "transpose" not in inner or name == "attention"


@needs_vela
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", SIMULATED)
def test_command_streams_give_the_same_bits(name, target):
    placement = _placed(name, target)
    for segment, stream in zip(placement.segments, placement.streams, strict=True):
        _check_stream(segment.regions[0], stream)


def _check_stream(region, stream) -> None:
    """The simulator gives the bits of a region."""
    _named(region)
    for seed in range(RUNS):
        inputs = _bytes_of(region, seed)
        wanted = run_graph(region, inputs)
        found = _simulated(stream, list(inputs.values()))
        for number, array in enumerate(found):
            np.testing.assert_array_equal(array, wanted[f"out{number}"].reshape(-1))


@needs_vela
@needs_model
@pytest.mark.parametrize("name", CASES)
def test_the_reference_model_gives_the_same_bits(name):
    from tensmith.backends.ethosu.tosa.writer import serialised

    for segment in _placed(name, ALL[0]).segments:
        region = segment.regions[0]
        _named(region)
        blob = serialised(tosa_of(region))
        for seed in range(RUNS):
            inputs = _bytes_of(region, seed)
            wanted = run_graph(region, inputs)
            for number, array in enumerate(reference_run(blob, inputs.values())):
                np.testing.assert_array_equal(array, wanted[f"out{number}"])


@needs_vela
def test_what_vela_refuses_runs_beside_the_processor(monkeypatch):
    _refuse_tables(monkeypatch)
    placed = _placed("swish", ALL[0])
    beside = {node.op: node.reason for node in placed.nodes if node.segment is None}
    assert "no tables today" in beside["byte_table"]
    assert len(placed.segments) == len(placed.streams) == 1
    assert "conv" in {node.op for node in placed.segments[0].regions[0].nodes}


@needs_vela
def test_a_segment_is_divided_by_what_its_own_options_refuse(monkeypatch):
    _refuse_tables(monkeypatch, lambda target: target.optimise == "Size")
    graph, *_ = integers_of("swish", 3)
    target = TARGETS[ALL[0]]
    placed = place(graph, target, {0: replace(target, optimise="Size")})
    beside = {node.op: node.reason for node in placed.nodes if node.segment is None}
    assert beside["byte_table"] == "Vela refuses it: no tables today"
    assert "conv" in {node.op for node in placed.segments[0].regions[0].nodes}


@needs_vela
def test_no_candidate_has_more_operators_on_the_host(monkeypatch, tmp_path):
    _refuse_tables(monkeypatch, lambda target: target.optimise == "Size")
    graph, *_ = integers_of("swish", 3)
    options = CompileOptions(name="net", work_dir=tmp_path)
    tunable = StreamsTunable(graph, TARGETS[ALL[0]], options, Stages())
    (task,) = tunable.tasks
    moved = tunable.candidate(task, {"optimise of segment 0": "Size"})
    batch = tunable.build(task, [tunable.base(task), moved])
    assert [bool(built.error) for built in batch.built] == [False, True]
    assert "more operators would run on the host" in batch.built[1].error
    assert 0 < task.seconds < 0.1  # of the stream alone


@needs_vela
@pytest.mark.parametrize(
    ("made", "kept"),
    [
        ({984: (50, 800), 784: (50, 700), 684: (51, 600)}, 700),  # the last takes more cycles
        ({984: (50, 1200)}, 1000),  # what it is told to do with is not what Vela takes
        ({984: (40, 1000)}, 1000),
        ({}, 1000),  # and it may refuse
    ],
)
def test_an_arena_is_as_small_as_costs_no_cycles(made, kept, monkeypatch):
    region = _placed("residual", ALL[0]).segments[0].regions[0]
    usual = streams.stream_of(region, TARGETS[ALL[0]])

    def stream_of(_, target):
        if target.arena_bytes and target.arena_bytes not in made:
            raise NotCompiled("too small")
        cycles, scratch = made.get(target.arena_bytes, (50, 1000))
        estimate = replace(usual.estimate, cycles=cycles)
        return replace(usual, scratch_bytes=scratch, estimate=estimate)

    monkeypatch.setattr(streams, "stream_of", stream_of)
    assert streams.frugal_stream_of(region, TARGETS[ALL[0]]).scratch_bytes == kept


@needs_vela
def test_what_vela_refuses_is_told():
    with pytest.raises(NotCompiled):
        vela_compiled(b"nothing", TARGETS[ALL[0]])


def test_segments_are_convex():
    """An operator outside, between two of one segment's: what reads it is another segment's."""
    sketch = Sketch(0)
    x = sketch.input(4, 4)
    first = sketch.op("neg", x)
    outside = sketch.op("exp", first)
    beside = sketch.op("abs", first)
    last = sketch.op("add", outside, beside)
    graph = sketch.graph(sketch.op("abs", last))
    wanted = run_graph(graph, sketch.draw(1))["y0"]
    reasons = {}
    partition = Partition(
        lambda node: "never" if node.op == "exp" else None, "device", frozenset(),
        lambda node: False, reasons,
    )  # fmt: skip
    assert partition.run(graph)
    verify(graph)
    inner = [[n.op for n in s.regions[0].nodes] for s in graph.nodes if s.op == "segment"]
    assert inner == [["neg", "abs"], ["add", "abs"]]
    assert list(reasons.values()) == ["never"]
    np.testing.assert_array_equal(run_graph(graph, sketch.draw(1))["y0"], wanted)


def test_values_inside_are_never_cut():
    sketch = Sketch(0)
    x = sketch.input(4, 4)
    wide = sketch.op("cast", x, dtype=DType.I32)
    read_outside = sketch.op("cast", sketch.op("neg", wide), dtype=DType.F32)
    graph = sketch.graph(sketch.op("abs", read_outside))
    partition = Partition(
        lambda node: "floats" if node.op == "abs" or node.output.dtype is DType.F32 else None,
        "device", frozenset({DType.I32}), lambda node: False,
    )  # fmt: skip
    assert not partition.run(graph)
    assert sorted(partition.reasons.values()) == sorted(["floats", "floats", BELONGS, BELONGS])


def _longer_way(*, inner: bool):
    """A value of an inner type that is read behind an operator which the device has not; inner:
    what that operator reads is made of the value as well."""
    sketch = Sketch(0)
    x = sketch.input(4, 4)
    wide = sketch.op("cast", x, dtype=DType.I32)
    before = sketch.op("cast", wide, dtype=DType.F32) if inner else x
    outside = sketch.op("neg", sketch.op("exp", sketch.op("neg", before)))
    both = sketch.op("add", wide, sketch.op("cast", outside, dtype=DType.I32))
    graph = sketch.graph(sketch.op("cast", both, dtype=DType.F32))
    reasons = {}
    partition = Partition(
        lambda node: "never" if node.op == "exp" else None, "device", frozenset({DType.I32}),
        lambda node: False, reasons,
    )  # fmt: skip
    wanted = run_graph(graph, sketch.draw(1))["y0"]
    partition.run(graph)
    verify(graph)
    np.testing.assert_array_equal(run_graph(graph, sketch.draw(1))["y0"], wanted)
    segments = [node for node in graph.nodes if node.op == "segment"]
    for segment in segments:
        assert all(v.dtype is DType.F32 for v in (*segment.inputs, *segment.outputs))
    return [[n.op for n in s.regions[0].nodes] for s in segments], reasons


def test_what_is_read_late_is_made_in_the_segment_that_reads_it():
    segments, reasons = _longer_way(inner=False)
    assert sorted(map(len, segments)) == [1, 5]
    assert list(reasons.values()) == ["never"]


def test_what_no_segment_can_hold_is_left_out():
    segments, reasons = _longer_way(inner=True)
    assert segments == [["neg"], ["neg"]]
    assert set(reasons.values()) == {"never", BELONGS}


def test_long_chains_are_divided_in_few_rounds(monkeypatch):
    """As many as segments have to wait for each other, not as many as there are operators."""
    rounds = []
    inner = partition_module._numbers
    monkeypatch.setattr(
        partition_module, "_numbers", lambda *given: rounds.append(1) or inner(*given)
    )
    sketch = Sketch(0)
    x = sketch.input(4, 4)
    wide = sketch.op("cast", x, dtype=DType.I32)
    outside = sketch.op("exp", sketch.op("cast", wide, dtype=DType.F32))
    both = sketch.op("add", wide, sketch.op("cast", outside, dtype=DType.I32))
    end = sketch.op("cast", both, dtype=DType.F32)
    for _ in range(40):
        end = sketch.op("exp", sketch.op("abs", sketch.op("neg", end)))
    graph = sketch.graph(end)
    partition = Partition(
        lambda node: "never" if node.op == "exp" else None, "device", frozenset({DType.I32}),
        lambda node: False,
    )  # fmt: skip
    assert partition.run(graph)
    verify(graph)
    assert sum(node.op == "segment" for node in graph.nodes) == 40
    assert len(rounds) < 5


@case
def few_channels(s: Sketch) -> Value:
    return s.relu(s.conv(s.input(1, 1, 12, 20), 8, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1)))


@case
def columns_beyond_both_sides(s: Sketch) -> Value:
    return s.conv(s.input(1, 2, 5, 8), 3, (1, 7), pads=(0, 3, 0, 3), bias=False)


@needs_vela
@pytest.mark.parametrize("name", ["few_channels", "columns_beyond_both_sides"])
def test_folded_columns_give_the_same_bits(name):
    graph, _, samples, _ = integers_of(name, 5)
    target = TARGETS["ethos-u55-128"]
    (chain,) = conv_chains(graph, target)
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    assert len(folds(chain)) >= 2
    for fold in folds(chain):
        folded = copied(graph)
        (own,) = conv_chains(folded, target)
        fold_width(folded, own, fold)
        run_passes(folded, (DeadCodeElimination(),))
        verify(folded)
        for sample, exact in zip(samples, wanted, strict=True):
            np.testing.assert_array_equal(run_graph(folded, sample)["y0"], exact)


@needs_vela
def test_columns_are_folded_where_that_takes_fewer_cycles():
    graph, *_ = integers_of("few_channels", 6)
    target = TARGETS["ethos-u55-128"]
    before = place(copied(graph), target).streams[0].estimate.cycles
    assert arranged(graph, target, {}).streams[0].estimate.cycles <= before
    wide, *_ = integers_of("conv_relu", 6)  # five channels: blocks are half full
    assert not conv_chains(wide, target)


@needs_vela
@pytest.mark.parametrize("name", ["residual", "few_channels", "difference"])
def test_every_decision_gives_a_stream_that_is_right(name):
    """Exact ones give the same bits; sums as convolutions are a step away, at most."""
    target = TARGETS["ethos-u55-128"]
    graph, _, samples, _ = integers_of(name, 4)
    wanted = run_graph(graph, samples[0])["y0"]
    step = max(float(n.inputs[1].data) for n in graph.nodes if n.op == "dequantize")
    decisions = decisions_of(graph, target)
    assert {d.name.partition(" of ")[0] for d in decisions} >= {"optimise", "arena"}
    for decision in decisions:
        for value in decision.values:
            placement = arranged(graph, target, {decision.name: value})
            found = run_graph(placement.graph, samples[0])["y0"]
            assert np.abs(found - wanted).max() <= (0 if decision.exact else 1.001 * step)
            for segment, stream in zip(placement.segments, placement.streams, strict=True):
                _check_stream(segment.regions[0], stream)


@case
def sums_in_a_row(s: Sketch) -> Value:
    x = s.conv(s.input(1, 4, 8, 8), 8, (1, 1))
    for _ in range(3):
        x = s.op("add", s.conv(x, 8, pads=(1, 1, 1, 1)), x)
    return x


@needs_vela
def test_sums_of_sums_are_convolutions_together():
    target = TARGETS["ethos-u55-128"]
    graph, _, samples, _ = integers_of("sums_in_a_row", 4)
    wanted = run_graph(graph, samples[0])["y0"]
    step = max(float(n.inputs[1].data) for n in graph.nodes if n.op == "dequantize")
    sums = [d.name for d in decisions_of(graph, target) if d.name.startswith("sum of ")]
    assert len(sums) == 3
    placement = arranged(graph, target, dict.fromkeys(sums, "convolution"))
    verify(placement.graph)
    found = run_graph(placement.graph, samples[0])["y0"]
    assert np.abs(found - wanted).max() < 8 * step
    assert sum(node.op == "concat" for node in placement.nodes) == 3
    for segment, stream in zip(placement.segments, placement.streams, strict=True):
        _check_stream(segment.regions[0], stream)


@needs_vela
def test_decisions_that_there_are_not():
    target = TARGETS["ethos-u55-128"]
    for choice in ({"columns of nothing": 2}, {"optimise of segment 0": "Beauty"},
                   {"arena of segment x": 5}, {"optimise of segment 99": "Size"},
                   {"arena of segment 1": 1 << 20}):  # fmt: skip
        graph, *_ = integers_of("few_channels", 4)
        with pytest.raises(ScheduleError, match="cannot be decided"):
            arranged(graph, target, choice)
