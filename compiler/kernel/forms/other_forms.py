"""The forms that a group could have beside its own: what tuning tries."""

from __future__ import annotations

from ...ir.graph import Node
from ...target import CpuTarget
from .bands_choice import bands_forms
from .form import BandsForm, Form, RowBlocksForm, form_of
from .row_blocks_choice import row_blocks_forms
from .winograd_choice import winograd_forms


def other_forms(node: Node, target: CpuTarget, threads: int = 1) -> list[Form | None]:
    """Forms of a fused node that has its form already; None: plain loops.

    Groups that were merged for their form stay so: plain loops would be other groups.
    target: that they are for. threads: that share the work.
    """
    own, region = form_of(node), node.regions[0]
    found: list[Form | None]
    if isinstance(own, BandsForm):
        found = list(bands_forms(region))
    elif isinstance(own, RowBlocksForm):
        found = list(row_blocks_forms(region.nodes))
    else:
        winograd = winograd_forms(node, target, threads)
        found = [None, *winograd] if winograd else []
    return [form for form in found if form != own]
