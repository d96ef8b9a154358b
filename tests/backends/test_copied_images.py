"""Images that are copied before a convolution reads them: the same bits, in fewer cycles."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu import copied_images
from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.copied_images import COPIED, DIRECT, copy_image, given_images
from tensmith.backends.ethosu.folded_width import conv_chains, fold_width, folds
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.lowering import narrowed
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Graph, Value, constant
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.types import DType, TensorType
from tensmith.compiler.ir.verify import verify

U65 = TARGETS["ethos-u65-256"]


def image(s: Sketch) -> tuple[Value, ...]:
    x = s.relu(s.conv(s.input(1, 3, 64, 64), 8, strides=(2, 2), pads=(1,) * 4))
    return (s.relu(s.conv(x, 8, (1, 1))),)


def two_images(s: Sketch) -> tuple[Value, ...]:
    """One of them read twice."""
    x, y = s.input(1, 4, 32, 32), s.input(1, 8, 32, 32)
    sides = s.conv(x, 8, (1, 1)), s.conv(y, 8, (1, 1))
    return (s.op("add", s.op("add", *sides), s.conv(y, 8, (1, 1))),)


def two_forms(s: Sketch) -> tuple[Value, ...]:
    """An image that two convolutions read: with rows folded, and as it is."""
    x = s.input(1, 3, 64, 64)
    return (
        s.relu(s.conv(x, 8, strides=(2, 2), pads=(1,) * 4)),
        s.relu(s.conv(x, 8, pads=(2,) * 4, dilations=(2, 2))),
    )


def _decisions(graph, target) -> list[str]:
    found = [d for d in decisions_of(graph, target) if d.name.startswith("image of")]
    assert all(d.exact and d.values == (DIRECT, COPIED) for d in found)
    return [d.name for d in found]


def _pools(placement) -> int:
    return sum(node.op == "max_pool" for node in placement.nodes)


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_images_are_copied_where_that_takes_fewer_cycles(target: str) -> None:
    """Where they lie in DRAM: an Ethos-U55 has them in SRAM."""
    graph, _, samples, _ = integers_made(image, 2)
    (name,) = _decisions(graph, TARGETS[target])
    ways = {how: arranged(graph, TARGETS[target], {name: how}) for how in (DIRECT, COPIED)}
    assert {how: _pools(placement) for how, placement in ways.items()} == {DIRECT: 0, COPIED: 1}
    usual = arranged(graph, TARGETS[target], {})
    assert usual.cycles == min(placement.cycles for placement in ways.values())
    assert _pools(usual) == ("u55" not in target)
    assert not any(stream.unchecked for stream in usual.streams)
    for sample in samples:
        found, wanted = (run_graph(g, sample)["y0"] for g in (usual.graph, graph))
        np.testing.assert_array_equal(found, wanted)


@needs_vela
def test_each_image_is_decided_by_itself() -> None:
    graph, _, samples, _ = integers_made(two_images, 2)
    names = _decisions(graph, U65)
    assert len(names) == 2
    for chosen in ((), names[:1], names[1:], names):
        choice = {name: COPIED if name in chosen else DIRECT for name in names}
        placement = arranged(graph, U65, choice)
        assert _pools(placement) == len(chosen)
        found, wanted = (run_graph(g, samples[0])["y0"] for g in (placement.graph, graph))
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ScheduleError, match="image of"):
        arranged(graph, U65, {names[0]: "painted"})


@needs_vela
def test_a_copy_is_for_all_that_read_an_image() -> None:
    graph, *_ = integers_made(two_images, 2)
    for number, readers in ((0, 1), (1, 2)):
        one = copied(graph)
        copy_image(one, given_images(one, U65)[number], U65)
        verify(one)
        (pool,) = (node for node in one.nodes if node.op == "max_pool")
        assert len(one.uses()[pool.output]) == 1
        view = one.uses()[pool.output][0][0]
        assert len(one.uses()[view.output]) == readers  # type: ignore[union-attr]


@needs_vela
@pytest.mark.parametrize("how", [None, DIRECT, COPIED])
def test_an_image_is_read_in_several_forms(how: str | None) -> None:
    """Columns of one convolution are folded: both are of bytes that are moved, at most."""
    graph, _, samples, _ = integers_made(two_forms, 2)
    (name,) = _decisions(graph, U65)
    placement = arranged(graph, U65, {} if how is None else {name: how})
    assert not placement.outside
    assert _pools(placement) >= (how == COPIED)
    found, wanted = (run_graph(g, samples[0]) for g in (placement.graph, graph))
    for output, array in wanted.items():
        np.testing.assert_array_equal(found[output], array)
    with pytest.raises(ScheduleError, match="image of no convolution"):
        arranged(graph, U65, {"image of no convolution": COPIED})


@needs_vela
def test_forms_of_an_image_are_copied_by_themselves() -> None:
    graph, _, samples, _ = integers_made(two_forms, 2)
    for chain in conv_chains(graph, U65):
        fold_width(graph, chain, next(fold for fold in folds(chain) if fold.with_rows))
    assert len(given_images(graph, U65)) == 2
    wanted = run_graph(graph, samples[0])
    for number in (0, 1):
        one = copied(graph)
        chosen, other = given_images(one, U65)[number], given_images(one, U65)[1 - number]
        copy_image(one, chosen, U65)
        verify(one)
        assert given_images(one, U65) == [other]
        copy_image(one, other, U65)
        verify(one)
        assert not given_images(one, U65)
        found = run_graph(one, samples[0])
        for output, array in wanted.items():
            np.testing.assert_array_equal(found[output], array)


@needs_vela
def test_what_the_host_reads_is_not_the_copy() -> None:
    """Neither what it makes of the image, nor what a region does that reads it from outside."""
    graph, *_ = integers_made(image, 2)
    (conv,) = given_images(graph, U65)
    source, _ = narrowed(conv.inputs[0])
    step = constant(np.float32(0.5)), constant(np.int8(0))
    told = make_node("dequantize", [source, *step])
    inner = [make_node("dequantize", [source, *step]) for _ in range(2)]
    condition = Value(TensorType(DType.BOOL, ()), "condition")
    branches = [Graph([], [node.output], [node]) for node in inner]
    chosen = make_node("if", [condition], {"bound": ()}, regions=branches)
    graph.inputs.append(condition)
    graph.nodes += [told, chosen]
    graph.outputs += [told.output, chosen.output]
    copy_image(graph, conv, U65)
    assert not given_images(graph, U65)
    assert all(node.inputs[0] is source for node in (told, *inner))


@needs_vela
def test_what_has_no_shape_of_many_channels_is_read_where_it_lies() -> None:
    def odd(s: Sketch) -> tuple[Value, ...]:
        return (s.conv(s.input(1, 3, 1, 131), 8, (1, 3)),)

    graph, *_ = integers_made(odd, 2)
    assert not _decisions(graph, U65)
    assert not _pools(arranged(graph, U65, {}))


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u65-256", "ethos-u85-256"])
def test_the_shape_of_a_copy_takes_fewer_cycles_than_a_row(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, *_ = integers_made(image, 2)
    usual = arranged(graph, TARGETS[target], {})
    monkeypatch.setattr(copied_images, "_CHANNELS", (16,))
    monkeypatch.setattr(copied_images, "_WIDTHS", (1,))
    assert usual.cycles < arranged(graph, TARGETS[target], {}).cycles
