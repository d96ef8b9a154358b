"""The choice of forms: which algorithm computes a fused group.

What takes several groups together (`conv_bands.py`, `attention_blocks.py`) chooses with the merge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ...compiler.ir.graph import Graph
from ...compiler.ir.groups import is_fused
from ...compiler.kernel.forms.form import WinogradForm, set_form
from ...compiler.kernel.forms.winograd_choice import (
    has_near_weights,
    winograd_form,
    winograd_illegal,
)
from ...compiler.kernel.schedule.choices import Choices
from ...compiler.target import CpuTarget


@dataclass(frozen=True)
class ChooseForms:
    """Convolutions of fused nodes take Winograd's algorithm where it is the faster one.

    threads: how many are expected to share the work. choices: forms that are given.
    """

    target: CpuTarget
    threads: int = 1
    choices: Choices = field(default_factory=Choices)
    name: str = "choose_forms"

    def run(self, graph: Graph) -> bool:
        """Choose; whether any node got another form than plain loops."""
        near = has_near_weights(graph)
        changed = False
        for node in [node for node in graph.walk() if is_fused(node)]:
            form = self.choices.form(
                node.inputs,
                node.regions[0],
                WinogradForm,
                partial(winograd_form, node, self.target, near, self.threads),
                partial(winograd_illegal, node),
            )
            if form is not None:
                set_form(node, form)
                changed = True
        return changed
