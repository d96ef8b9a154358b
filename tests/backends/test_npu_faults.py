"""Graphs of which Vela 5.2 makes wrong streams, or streams without some output, as they would be
given to it: what is given to it instead is right, on every family, and everything is on the NPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from integer_graphs import WINDOW, Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu import placement as placement_module
from tensmith.backends.ethosu import streams
from tensmith.backends.ethosu.channel_groups import SplitGroups
from tensmith.backends.ethosu.legality import legality
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.report import report_of
from tensmith.backends.ethosu.simulator import datapath
from tensmith.backends.ethosu.stream_check import fault_of
from tensmith.backends.ethosu.streams import right_stream_of, stream_of
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.graph import TosaGraph
from tensmith.backends.ethosu.tosa.region import tosa_of
from tensmith.backends.ethosu.tosa.schema import ElementType, Op
from tensmith.backends.ethosu.vela import WrongStream
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.graph import Graph, Node, Value, constant
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.ir.types import DType, TensorType
from tensmith.compiler.ir.verify import verify
from tensmith.driver.console import Console
from tensmith.driver.placement import show_placement

ALL = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
EDGES = {"quantize", "dequantize", "reshape", "transpose"}
GRAPHS = {}
pytestmark = needs_vela


def graph(make):
    """Decorator: a graph by the name of what makes it."""
    GRAPHS[make.__name__] = make
    return make


def _rows(s: Sketch, x: Value, axis: int, start: int) -> Value:
    """A part of a tensor along an axis, from a place on."""
    starts = tuple(start if a == axis else 0 for a in range(x.type.rank))
    return s.op("slice", x, starts=starts, stops=x.shape, steps=(1,) * x.type.rank)


@graph
def part_times_data(s: Sketch):
    x = _rows(s, s.op("tanh", s.input(3, 6, 20)), 1, 1)
    return (s.op("matmul", x, s.input(3, 20, 7)),)


@graph
def part_transposed_conv(s: Sketch):
    x = _rows(s, s.conv(s.input(1, 4, 7, 6), 8, (1, 1)), 2, 2)
    attrs = {**WINDOW, "strides": (2, 2), "output_padding": (0, 0)}
    return (s.op("conv_transpose", x, s.weights(8, 6, 3, 3), **attrs),)


@graph
def greatest_of_part(s: Sketch):
    x = _rows(s, s.conv(s.input(1, 4, 7, 6), 8, (1, 1)), 3, 1)
    return tuple(s.op("reduce_max", x, axes=(axis,), keepdims=True) for axis in (1, 2))


@graph
def wide_dilation_of_part(s: Sketch):
    x = _rows(s, s.conv(s.input(1, 4, 11, 10), 8, (1, 1)), 2, 1)
    return (s.conv(x, 5, dilations=(3, 1)),)


@graph
def least_of_axes(s: Sketch):
    x = s.op("tanh", s.input(3, 4, 5))
    return s.op("tanh", s.op("reduce_min", x, axes=(0, 2), keepdims=False)), x


@graph
def numbers_of_one_element(s: Sketch):
    """They come first, and have fewer axes."""
    x, number = s.op("tanh", s.input(2, 2, 1, 8, 5)), s.op("tanh", s.input())
    wide = s.op("add", s.op("tanh", s.input(1)), x)
    return s.op("mul", number, s.op("add", wide, 0.25)), s.op("add", number, wide)


def _first_of_one_element(op: str):
    """It is of one axis, and an inner one of none, with what has five and six."""

    def make(s: Sketch):
        x, y = s.op("tanh", s.input(2, 2, 1, 8, 5)), s.op("tanh", s.input(2, 3, 2, 4, 5, 1))
        one, number = s.op("tanh", s.input(1)), s.op("tanh", s.op("mul", s.input(), 3.0))
        return s.op("tanh", s.op(op, one, x)), s.op(op, number, s.op(op, one, y))

    return make


GRAPHS |= {f"{op}_of_one_element": _first_of_one_element(op) for op in ("sub", "max", "min")}


@graph
def constant_matrices_with_sums(s: Sketch):
    x = s.op("tanh", s.input(2, 3, 9, 8))
    return (s.op("add", s.op("matmul", x, s.weights(2, 3, 8, 4)), s.weights(4)),)


@graph
def one_window(s: Sketch):
    """There is no step to a next one."""
    return (s.op("tanh", s.conv(s.op("tanh", s.input(1, 8, 7, 6)), 8, (2, 6), strides=(3, 9))),)


@graph
def windows_of_images_with_rest(s: Sketch):
    """What windows leave over is cut off, and there are margins."""
    x = s.input(2, 3, 14, 12)
    attrs = {"strides": (1, 3), "pads": (0, 1, 0, 0)}
    depthwise = s.conv(s.op("tanh", x), 3, (4, 3), groups=3, **attrs)
    attrs = {**WINDOW, "kernel": (2, 4), "strides": (2, 1), "pads": (1, 0, 0, 0)}
    return depthwise, s.op("tanh", s.op("max_pool", s.input(2, 8, 12, 6), **attrs))


@graph
def several_for_each_channel(s: Sketch):
    x = s.conv(s.input(1, 12, 8, 16), 48, (3, 3), groups=12, strides=(2, 2), pads=(2, 1, 0, 0))
    return (s.op("tanh", x),)


@graph
def small_groups(s: Sketch):
    x = s.op("tanh", s.input(1, 80, 6, 5))
    return (s.op("tanh", s.conv(x, 160, groups=40, pads=(1, 1, 1, 1))),)


@graph
def joined_constant(s: Sketch):
    x = s.op("tanh", s.input(3, 4))
    return (s.op("concat", x, s.op("mul", x, 0.5), s.weights(3, 3), axis=1),)


@graph
def view_beside_what_reads_it(s: Sketch):
    view = s.op("reshape", s.conv(s.input(1, 8, 3, 6), 3, (1, 1)), shape=(3, 18))
    turned = s.op("transpose", s.op("tanh", view), perm=(1, 0))
    return view, s.op("matmul", turned, s.weights(3, 5))


@graph
def views_that_are_read(s: Sketch):
    view = s.op("reshape", s.op("matmul", s.input(6, 8), s.weights(8, 3)), shape=(6, 1, 3))
    turned = s.op("transpose", view, perm=(1, 2, 0))
    return view, s.op("matmul", turned, s.weights(6, 5))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("target", ALL)
def test_streams_are_right_and_nothing_is_left_out(name, target, monkeypatch):
    monkeypatch.setattr(placement_module, "right_stream_of", stream_of)  # the first one has to be
    integers, _, samples, floats = integers_made(GRAPHS[name], 1)
    placed = place(integers, TARGETS[target])
    assert {node.op for node in placed.nodes if node.segment is None} <= EDGES
    for segment, stream in zip(placed.segments, placed.streams, strict=True):
        assert fault_of(segment.regions[0], stream) == ""
    for sample, wanted in zip(samples, floats, strict=True):
        for key, array in run_graph(integers, sample).items():
            noise = np.abs(array - wanted[key]).max() / np.abs(wanted[key]).max()
            assert noise < 0.1, key


def test_groups_are_taken_together_until_blocks_are_full():
    integers, *_ = integers_made(GRAPHS["small_groups"], 1)
    convs = [node for node in integers.nodes if node.op == "conv"]
    assert [node.inputs[0].shape[-1] for node in convs] == [8] * 10
    assert all(node.attrs["groups"] == 1 for node in convs)
    whole, *_ = integers_made(GRAPHS["several_for_each_channel"], 1)
    (conv,) = [node for node in whole.nodes if node.op == "conv"]
    assert conv.inputs[1].shape == (3, 3, 12, 48)
    assert np.count_nonzero(conv.inputs[1].data) <= 9 * 48


def test_what_is_repeated_is_one_axis_of_bytes():
    """Of a tensor of one element, from which another one is taken."""
    integers, *_ = integers_made(GRAPHS["sub_of_one_element"], 1)
    region = place(integers, TARGETS[ALL[0]]).segments[0].regions[0]
    tiles = [o for o in tosa_of(region).operators if o.op is Op.TILE]
    assert {o.output.type for o in tiles} == {ElementType.INT8}
    assert sorted(o.output.shape for o in tiles) == [
        (1, 1, 1, 1, 5), (1, 1, 1, 1, 5, 1), (1, 1, 1, 1, 5, 1),
    ]  # fmt: skip


def test_what_the_simulator_has_not_is_taken_and_told(monkeypatch, capsys):
    region = _region("joined_constant")
    assert right_stream_of(region, TARGETS[ALL[0]]).unchecked == ""
    integers, *_ = integers_made(GRAPHS["one_window"], 1)
    monkeypatch.setattr(datapath, "_MOST_WEIGHTS", 8)
    placed = place(integers, TARGETS[ALL[0]])
    assert not [node for node in placed.nodes if node.segment is None and node.computes]
    (stream,) = placed.streams
    assert stream.unchecked.endswith(" weights")
    told = report_of(placed).to_json()
    assert [segment["unchecked"] for segment in told["npu"]["segments"]] == [stream.unchecked]
    show_placement(Console(), told)
    printed = f"segment 0 is not checked: the simulator does not have {stream.unchecked}"
    assert printed in " ".join(capsys.readouterr().out.split())


def test_groups_of_what_makes_no_bytes_are_told():
    """Sums that are an output: there is no step back."""
    nodes: list[Node] = []
    builder = Builder(nodes)
    x = Value(TensorType(DType.I8, (1, 6, 5, 8)), "x")
    wide = builder.emit("cast", [x], {"dtype": DType.I32})
    weights = constant(np.ones((3, 3, 4, 6), np.int32))
    attrs = {**WINDOW, "groups": 2, "layout": "NHWC"}
    sums = builder.emit("conv", [wide, weights], attrs)
    assert not SplitGroups().run(Graph([x], [sums], nodes))
    assert legality(nodes[-1], TARGETS[ALL[0]]) == (
        "channels are in 2 groups: such a convolution reads bytes, and its sums become bytes in "
        "the next step alone"
    )


def test_groups_of_volumes_stay_whole():
    def volumes(s: Sketch):
        w = s.weights(8, 2, 2, 2, 2)
        attrs = {"strides": (1,) * 3, "pads": (0,) * 6, "dilations": (1,) * 3, "groups": 2}
        return (s.op("tanh", s.op("conv", s.input(1, 4, 4, 4, 5), w, **attrs)),)

    integers, *_ = integers_made(volumes, 1)
    reasons = {n.op: n.reason for n in place(integers, TARGETS[ALL[0]]).nodes if n.segment is None}
    assert reasons["conv"] == "convolutions have two spatial axes, not 3"


def _region(name: str):
    integers, *_ = integers_made(GRAPHS[name], 1)
    return place(integers, TARGETS[ALL[0]]).segments[0].regions[0]


def test_faults_are_found():
    region = _region("several_for_each_channel")
    stream = stream_of(region, TARGETS[ALL[0]])
    assert fault_of(region, stream) == ""
    weights = bytearray(stream.weights)
    weights[0] ^= 64  # a bias
    assert "bytes of i8[1, 4, 8, 48] are others" in fault_of(
        region, replace(stream, weights=bytes(weights))
    )
    small = replace(stream, weights=stream.weights[:64])
    assert fault_of(region, small).startswith("OUT_OF_BOUNDS")


def test_another_way_is_taken_where_the_first_is_wrong(monkeypatch):
    """And a reason given where all are."""
    region, tried = _region("joined_constant"), []

    def fault(_, stream):
        tried.append(stream)
        return "" if len(tried) % 4 == 3 else f"broken {len(tried)}"

    monkeypatch.setattr(streams, "fault_of", fault)
    target = TARGETS[ALL[0]]
    size = stream_of(region, replace(target, optimise="Size"))
    assert right_stream_of(region, target) == size
    monkeypatch.setattr(streams, "fault_of", lambda *_: "broken")
    with pytest.raises(WrongStream) as caught:
        right_stream_of(region, target)
    assert caught.value.told() == "the command stream made of it is wrong: broken"


def test_no_other_way_is_taken_that_the_memory_does_not_hold(monkeypatch):
    """The segment is none then; another way that is as small is taken still."""
    region, made = _region("joined_constant"), []
    target = replace(TARGETS[ALL[0]], arena_bytes=4096)

    def larger(region, target):
        stream = stream_of(region, target)
        if target.optimise == "Size":
            made.append(replace(stream, scratch_bytes=scratch))
            return made[-1]
        return stream

    monkeypatch.setattr(streams, "stream_of", larger)
    monkeypatch.setattr(streams, "fault_of", lambda _, s: "" if s in made else "broken")
    scratch = target.arena_bytes
    assert right_stream_of(region, target) is made[-1]
    scratch += 16
    with pytest.raises(WrongStream, match="broken"):
        right_stream_of(region, target)
    assert made[-1].exceeds(target)
    fast = replace(made[-1], fast_bytes=16)  # the arena may lie elsewhere
    assert not fast.exceeds(target)


def test_what_is_wrong_behind_another_operator_alone_runs_beside_the_processor(monkeypatch):
    """A product is wrong where what it reads is made in its segment: the product is left out."""

    def pair(s: Sketch):
        x = s.op("tanh", s.op("tanh", s.input(2, 12)))
        return (s.op("tanh", s.op("matmul", x, s.weights(12, 4))),)

    def fault(region, _):
        ops = [node.op for node in region.nodes]
        return "broken" if {"byte_table", "matmul"} <= set(ops[: ops.index("requantize")]) else ""

    monkeypatch.setattr(streams, "fault_of", lambda r, s: fault(r, s) if _has_product(r) else "")
    integers, *_ = integers_made(pair, 1)
    placed = place(integers, TARGETS[ALL[0]])
    verify(placed.graph)
    beside = {node.op: node.reason for node in placed.nodes if node.segment is None}
    assert beside["matmul"] == (
        "the command stream made of it behind what it reads is wrong: broken"
    )
    assert sum(node.op == "byte_table" and node.segment is not None for node in placed.nodes) == 2


def _has_product(region) -> bool:
    return any(node.op == "matmul" for node in region.nodes)


def test_an_output_that_is_left_out_is_no_stream(monkeypatch):
    def left_out(blob, target):
        stream = compiled(blob, target)
        return replace(stream, outputs=stream.outputs[:-1])

    compiled = streams.compiled
    region = _region("view_beside_what_reads_it")
    monkeypatch.setattr(streams, "compiled", left_out)
    with pytest.raises(WrongStream, match="inputs or outputs have"):
        stream_of(region, TARGETS[ALL[0]])


def test_what_is_stored_once_is_read_by_all():
    """Parts that operators do not read in their place, and sums of parts."""
    built = TosaGraph()
    x = built.input((1, 4, 6, 8), ElementType.INT8)
    part = (1, 2, 6, 8)
    cut = built.emit(
        Op.SLICE, [x, built.sizes([0, 1, 0, 0]), built.sizes(part)], part, ElementType.INT8
    )
    for axis in (1, 2):
        shape = tuple(1 if a == axis else n for a, n in enumerate(part))
        built.output(built.emit(Op.REDUCE_MAX, [cut], shape, ElementType.INT8, axis=axis))
    assert [operator.op for operator in built.operators].count(Op.CLAMP) == 1


def test_what_is_infinite_stays_in_floats():
    """As masks are that are added to scores."""

    def masked(s: Sketch):
        x, mask = s.op("tanh", s.input(3, 6)), s.op("max", s.input(3, 6), 0.0)
        return (s.op("tanh", s.op("add", x, s.op("log", mask))),)

    with np.errstate(divide="ignore"):
        integers, _, samples, floats = integers_made(masked, 1)
        placed = place(integers, TARGETS[ALL[0]])
        for sample, wanted in zip(samples, floats, strict=True):
            found = run_graph(placed.graph, sample)
            np.testing.assert_allclose(found["y0"], wanted["y0"], atol=0.05)
    beside = {node.op: node.reason for node in placed.nodes if node.segment is None}
    assert beside["add"] == "it computes in f32, and the processor in integers alone"
    assert any(node.op == "byte_table" and node.segment is not None for node in placed.nodes)
