"""The choice of forms: which algorithm computes a fused group.

What takes several groups together (`bands.py`, `attention_blocks.py`) chooses with the merge.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.ir.graph import Graph
from ..compiler.kernel.forms import set_form
from ..compiler.kernel.forms.winograd_choice import has_near_weights, winograd_form


@dataclass(frozen=True)
class ChooseForms:
    """Convolutions of fused nodes take Winograd's algorithm where it is the faster one.

    threads: how many are expected to share the work.
    """

    threads: int = 1
    name: str = "choose_forms"

    def run(self, graph: Graph) -> bool:
        """Choose; whether any node got another form than plain loops."""
        near = has_near_weights(graph)
        changed = False
        for node in list(graph.walk()):
            form = winograd_form(node, near, self.threads) if node.op == "fused" else None
            if form is not None:
                set_form(node, form)
                changed = True
        return changed
