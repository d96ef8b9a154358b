"""Fused nodes of two convolutions, so that what is between them stays in the cache.

What a network expands before a depthwise convolution is often its largest tensor; see M. Sandler
et al., "MobileNetV2: inverted residuals and linear bottlenecks", https://arxiv.org/abs/1801.04381.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.groups import fused_node
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.forms.bands_choice import bands_form, bands_illegal
from ...compiler.kernel.forms.form import BandsForm, form_of
from ...compiler.kernel.schedule.choices import Choices


@dataclass(frozen=True)
class ConvBands:
    """A fused convolution and the fused depthwise one that alone reads it become one node.

    threads: how many are expected to share the work. choices: forms that are given.
    """

    threads: int = 1
    choices: Choices = field(default_factory=Choices)
    name: str = "conv_bands"

    def run(self, graph: Graph) -> bool:
        """Merge; whether there was anything to merge."""
        changed = False
        for second in list(graph.nodes):
            first = _producer(graph, second)
            merged = self._merged(first, second) if first else None
            if first and merged:
                graph.nodes[graph.nodes.index(second)] = merged
                graph.nodes.remove(first)
                changed = True
        return changed

    def _merged(self, first: Node, second: Node) -> Node | None:
        """Both as one fused node; None where computing them in bands would save nothing."""
        operands, region = _together(first, second)
        form = self.choices.form(
            operands,
            region,
            BandsForm,
            partial(bands_form, region, self.threads),
            partial(bands_illegal, region),
        )
        if form is None:
            return None
        name = second.name or first.name
        return fused_node(operands, second.outputs, region, form=str(form), name=name)


def _conv(node: Node) -> Node | None:
    """The only convolution of a fused node that otherwise works element by element."""
    if node.op != "fused":
        return None
    inner = node.regions[0].nodes
    others = [n for n in inner if not has_trait(n, Trait.POINTWISE)]
    return others[0] if len(others) == 1 and others[0].op == "conv" else None


def _producer(graph: Graph, node: Node) -> Node | None:
    """The fused node whose only result nothing but the node's depthwise convolution reads."""
    conv = _conv(node)
    if conv is None or conv.attrs["groups"] == 1:
        return None
    region = node.regions[0]
    if conv.inputs[0] not in region.inputs:
        return None
    value = node.inputs[region.inputs.index(conv.inputs[0])]
    found = next((n for n in graph.nodes if value in n.outputs), None)
    if found is None or _conv(found) is None or len(found.outputs) > 1:
        return None
    reads = sum(other is value for n in graph.walk() for other in n.inputs)
    reads += sum(  # a branch may return what the graph around it made
        other is value for n in graph.walk() for inner in n.regions for other in inner.outputs
    )
    inside = sum(other is conv.inputs[0] for n in region.nodes for other in n.inputs)
    free = value not in graph.outputs and conv.inputs[0] not in region.outputs
    direct = form_of(found) is None
    return found if reads == inside == 1 and free and direct else None


def _together(first: Node, second: Node) -> tuple[list[Value], Graph]:
    """(operands, region) of both nodes as one."""
    mapping: dict[Value, Value] = {}
    operands: dict[Value, Value] = {}
    region = Graph(name="fused")
    for node in (first, second):
        own = node.regions[0]
        for outer, inner in zip(node.inputs, own.inputs, strict=True):
            if outer is first.output:
                mapping[inner] = mapping[first.regions[0].outputs[0]]
                continue
            if outer not in operands:
                operands[outer] = Value(inner.type, inner.name)
                region.inputs.append(operands[outer])
            mapping[inner] = operands[outer]
        for inner_node in own.nodes:
            inputs = [mapping.get(value, value) for value in inner_node.inputs]
            outputs = [Value(value.type, value.name) for value in inner_node.outputs]
            mapping.update(zip(inner_node.outputs, outputs, strict=True))
            region.nodes.append(
                Node(inner_node.op, inputs, outputs, inner_node.attrs, (), inner_node.name)
            )
    region.outputs = [mapping[value] for value in second.regions[0].outputs]
    return list(operands), region
