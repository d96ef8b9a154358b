"""Fused nodes of two convolutions, so that what is between them stays in the cache.

What a network expands before a depthwise convolution is often its largest tensor; see M. Sandler
et al., "MobileNetV2: inverted residuals and linear bottlenecks", https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.groups import RegionBuilder, Uses, fused_node, is_fused, replace_groups
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.forms.bands_choice import bands_form, bands_illegal
from ...compiler.kernel.forms.form import BandsForm, form_of
from ...compiler.kernel.schedule.choices import Choices
from ...compiler.target import CpuTarget


@dataclass(frozen=True)
class ConvBands:
    """A fused convolution and the fused depthwise one that alone reads it become one node.

    threads: how many are expected to share the work. choices: forms that are given.
    """

    target: CpuTarget
    threads: int = 1
    choices: Choices = field(default_factory=Choices)
    name: str = "conv_bands"

    def run(self, graph: Graph) -> bool:
        """Merge; whether there was anything to merge."""
        if not self.choices.graph.bands:
            return False
        changed = False
        uses = Uses(graph)
        for second in list(graph.nodes):
            first = _producer(uses, second)
            merged = self._merged(first, second) if first else None
            if first and merged:
                replace_groups(graph, [first, second], merged, uses)
                changed = True
        return changed

    def _merged(self, first: Node, second: Node) -> Node | None:
        """Both as one fused node; None where computing them in bands would save nothing.

        Raises ScheduleError for given bands that they cannot have.
        """
        own = form_of(first)
        if own is not None and not self.choices.are_open:
            return None
        builder = RegionBuilder()
        builder.inline(first)
        builder.inline(second)
        operands, region = builder.close(second.outputs)

        def usual() -> BandsForm | None:
            return None if own else bands_form(region, self.target, self.threads)

        def illegal(form: BandsForm) -> str:
            if own:
                return f"its first convolution has the form '{own}'"
            return bands_illegal(region, form)

        form = self.choices.form(operands, region, BandsForm, usual, illegal)
        if form is None:
            return None
        name = second.name or first.name
        return fused_node(operands, second.outputs, region, form=str(form), name=name)


def _conv(node: Node) -> Node | None:
    """The only convolution of a fused node that otherwise works element by element."""
    if not is_fused(node):
        return None
    inner = node.regions[0].nodes
    others = [n for n in inner if not has_trait(n, Trait.POINTWISE)]
    return others[0] if len(others) == 1 and others[0].op == "conv" else None


def _producer(uses: Uses, node: Node) -> Node | None:
    """The fused node whose only result nothing but the node's depthwise convolution reads."""
    conv = _conv(node)
    if conv is None or conv.attrs["groups"] == 1:
        return None
    region = node.regions[0]
    if conv.inputs[0] not in region.inputs:
        return None
    found = uses.sole_group(node.inputs[region.inputs.index(conv.inputs[0])])
    if found is None or _conv(found) is None:
        return None
    return found if len(uses.readers(conv.inputs[0])) == 1 else None
