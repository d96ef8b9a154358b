"""Forms: what they look like, where they are chosen, and that text keeps them."""

from __future__ import annotations

import pytest
from kernels import fused_nodes
from suites.case import CaseBuilder

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import parse_graph, print_graph, structurally_equal
from tensmith.compiler.kernel.forms.form import (
    BandsForm,
    Form,
    RowBlocksForm,
    WinogradForm,
    form_of,
    parse_form,
    set_form,
)
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.borders import Borders
from tensmith.passes.grouping.choose_forms import ChooseForms

V4 = resolve_target("x86-64-v4")[1]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (WinogradForm((4, 4), 24, 2), "winograd 4x4 block 24 groups 2"),
        (WinogradForm((6,), 7, 1), "winograd 6 block 7 groups 1"),
        (WinogradForm((4, 4), 12, 1, 64), "winograd 4x4 block 12 from 64 groups 1"),
        (BandsForm(9, 48), "bands 9 block 48"),
        (RowBlocksForm(64), "row_blocks 64"),
    ],
)
def test_a_form_is_its_text(form: Form, text: str) -> None:
    assert str(form) == text
    assert parse_form(text) == form


def test_no_form() -> None:
    assert parse_form("") is None
    for wrong in ("winograd", "bands 3", "rows 4", "winograd 4x block 1 groups 1"):
        with pytest.raises(ScheduleError, match="is no form"):
            parse_form(wrong)


def convolution(channels: int = 64) -> Graph:
    """Two 3x3 convolutions, of which the second reads what the first makes."""
    c = CaseBuilder("convolution")
    window = {"strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1), "groups": 1}
    x = c.op("conv", c.input(1, channels, 30, 30), c.weight(channels, channels, 3, 3), **window)
    c.output(c.op("conv", x, c.weight(channels, channels, 3, 3), **window))
    return c.graph()


def test_borders_follow_the_form() -> None:
    """Tiles that reach over the edge want more zeros than the window does, but only where a pass
    has chosen tiles."""
    reach = {}
    for chosen in (False, True):
        graph = convolution()
        groups = list(fused_nodes(graph))
        first = next(n for n in groups if any(i.op == "conv" for i in n.regions[0].nodes))
        if chosen:
            assert run_passes(graph, (ChooseForms(V4), Borders()))
            assert isinstance(form_of(first), WinogradForm)
        reach[chosen] = first.output.type.layout.border
    assert reach[False][1] == (1, 1)
    assert reach[True][1] > (1, 1)


def test_the_text_of_a_graph_keeps_forms() -> None:
    graph = convolution(8)
    node = next(fused_nodes(graph))
    set_form(node, BandsForm(3, 32))
    text = print_graph(graph, full=True)
    assert 'form = "bands 3 block 32"' in text
    assert structurally_equal(parse_graph(text), graph)
