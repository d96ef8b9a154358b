"""Which regions can be computed in bands, and in which."""

from __future__ import annotations

import pytest
from suites.case import CaseBuilder, N

from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.forms.bands_choice import bands_forms, bands_illegal
from tensmith.compiler.kernel.forms.form import BandsForm

PLAIN = {"strides": (1, 1), "dilations": (1, 1)}


def region(layout: str = "NHWC", rows: Dim = 12, depthwise: bool = True, groups: int = 1) -> Graph:
    """Two convolutions, the second of 24 channels one by one."""
    c = CaseBuilder("two")
    last = layout == "NHWC"
    size = (1, rows, 10, 8) if last else (1, 8, rows, 10)
    one = (1, 1, 8 // groups, 24) if last else (24, 8 // groups, 1, 1)
    per_group = 1 if depthwise else 24
    window = (3, 3, per_group, 24) if last else (24, per_group, 3, 3)
    first = {**PLAIN, "pads": (0,) * 4, "layout": layout, "groups": groups}
    second = {**PLAIN, "pads": (1,) * 4, "layout": layout, "groups": 24 if depthwise else 1}
    y = c.op("conv", c.input(*size), c.weight(*one), **first)
    y = c.op("max", y, c.scalar(0))
    c.output(c.op("conv", y, c.weight(*window), **second))
    return c.graph()


def test_the_usual_region_takes_bands() -> None:
    usual = region()
    assert bands_illegal(usual, BandsForm(12, 24)) == ""
    found = bands_forms(usual)
    assert {(form.rows, form.block) for form in found} >= {(1, 24), (12, 24), (3, 12)}
    assert all(form.rows <= 12 and 24 % form.block == 0 for form in found)


@pytest.mark.parametrize(
    "other", [region("NCHW"), region(rows=N), region(depthwise=False), region(groups=2)]
)
def test_other_regions_take_none(other: Graph) -> None:
    assert bands_forms(other) == []
    assert "no convolution followed by a depthwise one" in bands_illegal(other, BandsForm(1, 24))


@pytest.mark.parametrize(
    ("rows", "block", "why"),
    [(0, 24, "1 to 12 rows"), (13, 24, "1 to 12 rows"), (1, 0, "blocks"), (1, 7, "blocks")],
)
def test_bands_that_cannot_be(rows: int, block: int, why: str) -> None:
    assert why in bands_illegal(region(), BandsForm(rows, block))
