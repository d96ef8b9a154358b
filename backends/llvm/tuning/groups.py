"""Groups of operators as a plan calls them: what another choice for one of them starts from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ....compiler.ir.graph import Graph, Node, Value
from ....compiler.ir.groups import group_key, is_fused
from ....compiler.kernel.forms.form import form_of
from ....compiler.kernel.forms.region import Lowered, lower_region
from ....compiler.kernel.plan.constants import constants_of
from ....compiler.kernel.plan.plan import KernelCall, Step
from ....compiler.kernel.plan.planner import Planner, Rule
from ....compiler.kernel.schedule.chooser import Chooser, Chosen, Request


@dataclass(frozen=True, eq=False)
class FormedGroup:
    """A group in one form. inputs, outputs: the values behind the parameters of its kernel."""

    request: Request
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def values(self) -> dict[str, Value]:
        """The values by parameter."""
        both = (*self.inputs, *self.outputs)
        return {b.name: v for b, v in zip(self.request.kernel.params, both, strict=True)}


@dataclass(frozen=True, eq=False)
class Called:
    """A call of a group's kernel in a plan. node: of the graph that was planned."""

    group: FormedGroup
    node: Node
    chosen: Chosen
    step: KernelCall


class RecordingPlanner(Planner):
    """A planner that remembers what the kernels are made of. calls: in the order of the plan."""

    def __init__(self, graph: Graph, choose: Chooser, control: Mapping[str, Rule]) -> None:
        self.calls: list[Called] = []
        self._latest: tuple[Request, Chosen] | None = None

        def recorded(request: Request) -> Chosen:
            chosen = choose(request)
            self._latest = (request, chosen)
            return chosen

        super().__init__(graph, recorded, control)

    def call(
        self,
        lowered: Lowered,
        inputs: list[Value],
        outputs: list[Value],
        steps: list[Step],
        node: Node,
        version: str = "",
    ) -> None:
        """As a planner does."""
        super().call(lowered, inputs, outputs, steps, node, version)
        step = steps[-1]
        assert self._latest is not None
        assert isinstance(step, KernelCall)
        request, chosen = self._latest
        if not request.key:  # nothing is chosen for it
            return
        group = FormedGroup(request, tuple(inputs), tuple(outputs))
        self.calls.append(Called(group, node, chosen, step))


def groups_of(graph: Graph, key: str) -> Iterator[Node]:
    """The fused nodes of a graph that compute the group of a key."""
    for node in graph.walk():
        if is_fused(node) and group_key(node.inputs, node.regions[0]) == key.partition("+")[0]:
            yield node


def in_other_form(node: Node, base: Request) -> FormedGroup:
    """The group of a fused node that has another form than that of a request for it."""
    region = node.regions[0]
    lowered = lower_region(region, form_of(node))
    outer = dict(zip(region.inputs, node.inputs, strict=True))
    outer.update(zip(region.outputs, node.outputs, strict=True))
    inputs = [outer[value] for value in lowered.inputs]
    outputs = [outer[value] for value in lowered.outputs]
    constants = constants_of(lowered, inputs)
    form = node.attrs["form"]
    request = Request(lowered.kernel, constants, base.rows_divided, base.key, form)
    return FormedGroup(request, tuple(inputs), tuple(outputs))
