"""From a fused graph to a plan: kernels lowered and scheduled, tensors placed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ...errors import InternalError
from ...ir.dims import Dim, symbols_of
from ...ir.graph import Graph, Node, Value
from ...ir.groups import is_fused
from ...ir.ops.registry import make_node
from ...ir.types import TensorType
from ..forms.border import border_kernel
from ..forms.form import form_of
from ..forms.region import Lowered, lower_region, sizes_for
from ..kernel import Kernel, kernel_label, kernel_text
from ..lower.scope import storage_elements
from ..schedule.chooser import Chooser, Chosen, Request
from ..schedule.packing import Packing
from ..schedule.partition import is_by_rows
from ..schedule.schedule import Schedule
from .arena import assign_offsets
from .concat_parts import Part, parts_of, piece_offsets
from .constants import constants_of, elements_of
from .external import EXTERNAL
from .in_place import aliased, last_uses, may_share, origin
from .kernel_keys import SMALL, kernel_key
from .parameters import of_any_size, parametrised
from .plan import (
    ALIGNMENT,
    Allocate,
    ArenaBuffer,
    Bind,
    Branch,
    External,
    KernelCall,
    OpenOutput,
    Place,
    Plan,
    PlannedKernel,
    Require,
    Step,
    Weight,
    input_symbols,
)
from .verify_plan import verify_plan
from .versions import Fit, fitted, fitting

Rule = Callable[["Planner", Node, list[Step]], None]
CHECK = ("relation", "left", "right", "what")  # the attributes of check_dims


class Planner:
    """Builds the plan of one graph.

    choose: makes each kernel ready to be emitted. control: the rules of nodes with regions, and of
    others that become branches of steps (`control_steps.py`).
    """

    def __init__(self, graph: Graph, choose: Chooser, control: Mapping[str, Rule]) -> None:
        self.graph = graph
        self.choose = choose
        self.control = control
        self.plan = Plan(tuple(graph.inputs), tuple(graph.outputs), input_symbols(graph))
        self.places: dict[Value, Place] = {}
        self.parts: dict[Value, Part] = {}
        self.states: dict[Value, tuple[Value, Place]] = {}
        self.clock = self.numbers = self.heap = 0
        self.known = set(self.plan.symbols)
        self.opened: set[int] = set()
        self.final: dict[Value, int] = {}
        self._kernels: dict[tuple[str, Schedule], int] = {}
        self._weights: dict[tuple[int, Packing | None], int] = {}
        self._keep: list[object] = []
        self._by_rows: set[Value] = set()  # results that threads divided so
        self.views: dict[int, Place] = {}  # memory that heap memory may stand for

    def build(self) -> Plan:
        """The plan of the whole graph."""
        for number, value in enumerate(self.graph.inputs):
            self.places[value] = Place("input", number)
        for number, value in enumerate(self.graph.outputs):
            source = origin(value)
            if source.producer is not None:
                self.final.setdefault(source, number)
        steps: list[Step] = []
        for number, value in enumerate(self.graph.outputs):
            self._open(number, value, steps)
        self.block(self.graph, steps)
        for number, value in enumerate(self.graph.outputs):
            self._open(number, value, steps)
            if self.places.get(value) != Place("output", number):
                self.copy(value, Place("output", number), steps)
        self.plan.steps = tuple(steps)
        self.plan.arena_bytes = assign_offsets(self.plan.arena)
        verify_plan(self.plan)
        return self.plan

    def block(self, graph: Graph, steps: list[Step]) -> None:
        """Append the steps of a graph's nodes."""
        ends = last_uses(graph)
        self.parts.update(parts_of(graph))
        made = {v for node in graph.nodes if is_fused(node) for v in node.outputs}
        states = {old for old, _ in self.states.values()}
        for position, node in enumerate(graph.nodes):
            self.clock += 1
            if is_fused(node):
                last = {v for v in node.inputs if ends[origin(v)] == position}
                for value in node.outputs:
                    self._update_in_place(value, ends, position)
                self._fused(node, {v for v in last if origin(v) in made | states}, steps)
            elif node.op == "reshape":
                self.places[node.output] = self.place(node.inputs[0])
            elif node.op == "concat":
                self._check_parts(node)
            elif node.op == "read_dims":
                names = tuple(node.attrs["symbols"])
                text = f"node '{node.name}' computes"
                steps.append(Bind(names, self.use(node.inputs[0]), text))
                self.known.update(names)
            elif node.op == "check_dims":
                steps.append(Require(*(node.attrs[key] for key in CHECK)))
            elif node.op in EXTERNAL:
                self._external(node, steps)
            elif node.op in self.control:
                self.control[node.op](self, node, steps)
            else:
                raise InternalError(f"'{node.op}' was not fused into a kernel")

    def _external(self, node: Node, steps: list[Step]) -> None:
        function, arguments = EXTERNAL[node.op]
        for value in node.outputs:
            self.reserve(value, steps)
        places = tuple(self.use(value) for value in (*node.inputs, *node.outputs))
        function = function or node.attrs["function"]
        text, outputs = node.attrs.get("what", ""), len(node.outputs)
        steps.append(External(function, places, arguments(node), text, outputs))

    # places --------------------------------------------------------------------------------

    def place(self, value: Value) -> Place:
        """Where a value lies; a constant joins the weights. Raises InternalError if unknown."""
        if value in self.places:
            return self.places[value]
        if value.is_constant:
            return Place("weights", self._weight(value, None))
        raise InternalError(f"{value} is used before it is made")

    def use(self, value: Value) -> Place:
        """Where a value lies, noting that it is needed until now."""
        place = self.place(value)
        self.touch(place)
        return place

    def touch(self, place: Place) -> None:
        """Note that the memory at a place is needed until now."""
        place = self._memory(place)
        if place.kind == "arena":
            buffer = self.plan.arena[place.number]
            buffer.last = max(buffer.last, self.clock)

    def _memory(self, place: Place) -> Place:
        """Where what lies at a place is, if it was not copied on the way there."""
        while place.kind == "heap" and place.number in self.views:
            place = self.views[place.number]
        return place

    def reserve(self, value: Value, steps: list[Step]) -> Place:
        """A place for a value that is made now: its output, the arena, or the heap."""
        if value in self.places:
            return self.places[value]
        if value in self.parts:
            part = self.parts[value]
            whole = self.reserve(part.whole, steps)
            self.places[value] = replace(whole, offset=whole.offset + part.offset)
            return self.places[value]
        self.places[value] = self._new_place(value, steps)
        if value.type.layout.border:
            self._fill_border(value.type, self.places[value], steps)
        return self.places[value]

    def _new_place(self, value: Value, steps: list[Step]) -> Place:
        number = self.final.get(value)
        if number is not None:
            self._open(number, self.graph.outputs[number], steps)
            if number in self.opened:
                return Place("output", number)
        return self.memory(value.type, steps, value.name)

    def _check_parts(self, node: Node) -> None:
        """Raise InternalError unless all operands of a concat lie in their part of its result."""
        whole = self.use(node.output)
        for value, offset in zip(node.inputs, piece_offsets(node), strict=True):
            if self.place(value) != replace(whole, offset=whole.offset + offset):
                raise InternalError(f"{value} is not made where the concat wants it")

    def memory(self, type_: TensorType, steps: list[Step], name: str = "") -> Place:
        """New memory for a tensor."""
        size = _bytes(type_)
        if symbols_of(size) <= set(self.plan.symbols):
            self.plan.arena.append(ArenaBuffer(size, self.clock, self.clock, name=name))
            return Place("arena", len(self.plan.arena) - 1)
        self.heap += 1
        steps.append(Allocate(self.heap, size))
        return Place("heap", self.heap)

    def _open(self, number: int, value: Value, steps: list[Step]) -> None:
        if number in self.opened:
            return
        if all(symbols_of(dim) <= self.known for dim in value.shape):
            steps.append(OpenOutput(number))
            self.opened.add(number)

    def _weight(self, value: Value, packing: Packing | None) -> int:
        key = (id(value.data), packing)
        if key not in self._weights:
            self._keep.append(value.data)
            elements = packing.elements if packing else int(value.type.elements)  # type: ignore[arg-type]
            wide = packing.element_bytes if packing else 0
            size = elements * (wide or value.dtype.bytes)
            last = self.plan.weights[-1] if self.plan.weights else None
            end = last.offset + last.size if last else 0
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            self.plan.weights.append(Weight(value, packing, offset, size))
            self._weights[key] = len(self.plan.weights) - 1
        return self._weights[key]

    # kernels -------------------------------------------------------------------------------

    def _fused(self, node: Node, dying: set[Value], steps: list[Step]) -> None:
        """Append the call of a fused node; `dying`: operands whose memory it may overwrite."""
        region, form = node.regions[0], form_of(node)
        try:
            lowered = lower_region(region, form)
        except InternalError as error:
            operators = " ".join(inner.op for inner in region.nodes)
            raise InternalError(
                f"no kernel for the group '{operators}'", where=node.name, why=str(error)
            ) from error
        outer = dict(zip(region.inputs, node.inputs, strict=True))
        outer.update(zip(region.outputs, node.outputs, strict=True))
        inputs, outputs = ([outer[v] for v in part] for part in (lowered.inputs, lowered.outputs))
        fits, large = fitting(lowered.kernel), sizes_for(region, form)
        for value in outputs:
            place = self._overwritten(lowered.kernel, inputs, outputs, value, dying)
            if place is not None and not fits and not large:
                self.places[value] = place
            self.reserve(value, steps)
        if not large:
            self._fitting(lowered, fits, inputs, outputs, steps, node)
            return
        versions: tuple[list[Step], list[Step]] = ([], [])
        self._fitting(lowered, fits, inputs, outputs, versions[0], node)
        plain = lower_region(region)
        self.call(plain, [outer[v] for v in plain.inputs], outputs, versions[1], node, SMALL)
        steps.append(Branch(large, tuple(versions[0]), tuple(versions[1])))

    def _fitting(
        self,
        lowered: Lowered,
        fits: tuple[Fit, ...],
        inputs: list[Value],
        outputs: list[Value],
        steps: list[Step],
        node: Node,
    ) -> None:
        """Append the call of a kernel, or of a simpler version where a run's sizes fit."""
        if not fits:
            self.call(lowered, inputs, outputs, steps, node)
            return
        simpler = replace(lowered, kernel=fitted(lowered.kernel, fits))
        versions: tuple[list[Step], list[Step]] = ([], [])
        self.call(simpler, inputs, outputs, versions[0], node, "+fitting")
        self.call(lowered, inputs, outputs, versions[1], node)
        condition = tuple(fit.condition for fit in fits)
        steps.append(Branch(condition, tuple(versions[0]), tuple(versions[1])))

    def _overwritten(
        self,
        kernel: Kernel,
        inputs: list[Value],
        outputs: list[Value],
        value: Value,
        dying: set[Value],
    ) -> Place | None:
        """The memory of an operand over which the kernel can write an output, if there is any."""
        if value in self.places or value in self.final or value in self.parts:
            return None
        taken = {self.places.get(other) for other in outputs}
        output = kernel.params[len(inputs) + outputs.index(value)].name
        places = [self.places.get(operand) for operand in inputs]  # constants have none yet
        memory = [place and self._memory(place) for place in places]
        for operand, place in zip(inputs, places, strict=True):
            if operand not in dying or place is None or place in taken:
                continue
            if not self._fits(operand, value, place):
                continue
            same = frozenset(
                buffer.name
                for buffer, other in zip(kernel.params, memory, strict=False)
                if other and other.memory == place.memory
            )
            if may_share(kernel, same, output):
                return place
        return None

    def _update_in_place(self, value: Value, ends: dict[Value, int], position: int) -> None:
        """Let a loop's new state be made over the old one, if nothing reads that any more."""
        if value in self.states:
            old, place = self.states[value]
            if ends.get(old, -1) < position:
                self.places[value] = place

    def _fits(self, old: Value, new: Value, place: Place) -> bool:
        """Whether a value takes up exactly the memory that another has for itself."""
        size = _bytes(new.type)
        if origin(old).producer is None:  # the state of a loop
            return self.states.get(new) == (origin(old), place)
        whole = place.offset == 0 and (
            place.kind == "arena" and self.plan.arena[place.number].size == size
        )
        return whole and old.type.layout == new.type.layout and _bytes(old.type) == size

    def call(
        self,
        lowered: Lowered,
        inputs: list[Value],
        outputs: list[Value],
        steps: list[Step],
        node: Node,
        version: str = "",
    ) -> None:
        """Append the call of a fused node's kernel; constants are packed as its schedule asks."""
        following = any(origin(value) in self._by_rows for value in inputs)
        constants = constants_of(lowered, inputs, self.places)
        key = kernel_key(node, version, following)
        known = elements_of(lowered, inputs)
        form = "" if version == SMALL else node.attrs["form"]
        chosen = self.choose(Request(lowered.kernel, constants, following, key, form, known))
        if is_by_rows(chosen.kernel, chosen.schedule):
            self._by_rows.update(map(origin, outputs))
        places: list[Place] = []
        for buffer, value in zip(chosen.kernel.params, inputs, strict=False):
            packing = chosen.packings.get(buffer.name)
            if packing is not None:
                places.append(Place("weights", self._weight(value, packing)))
            else:
                places.append(self.use(value))
        places += [self.use(value) for value in outputs]
        self.append_call(chosen, tuple(places), steps)

    def append_call(self, chosen: Chosen, places: tuple[Place, ...], steps: list[Step]) -> None:
        """Append the call of a kernel that is ready; equal ones are emitted once."""
        kernel, schedule = chosen.kernel, chosen.schedule
        general, sizes = parametrised(kernel, chosen.sizes)
        key = (kernel_text(general), schedule)
        number = self._kernels.get(key)
        if number is None:
            number = self._kernels[key] = len(self.plan.kernels)
            name = f"k{number}_{kernel_label(kernel)}"
            made = PlannedKernel(name, replace(general, name=name), schedule, choice=chosen.choice)
            self.plan.kernels.append(made)
        self.plan.calls[number] = self.plan.calls.get(number, 0) + 1
        planned = self.plan.kernels[number]
        shared = planned.aliased | aliased(kernel, tuple(map(self._memory, places)))
        nodes = tuple(dict.fromkeys((*planned.nodes, *kernel.nodes)))
        keys = tuple(dict.fromkeys((*planned.keys, *([chosen.key] if chosen.key else ()))))
        self.plan.kernels[number] = replace(planned, aliased=shared, nodes=nodes, keys=keys)
        steps.append(KernelCall(number, places, sizes))

    def copy(self, value: Value, target: Place, steps: list[Step]) -> None:
        """Append a copy of a value (densely stored) to another place."""
        self.clock += 1
        source = Value(value.type)
        node = make_node("reshape", [source], {"shape": value.shape})
        lowered = lower_region(Graph([source], [node.output], [node]))
        places = (self.use(value), target)
        self.touch(target)
        self.append_call(self.choose(Request(lowered.kernel)), places, steps)

    def write_dims(self, dims: tuple[Dim, ...], target: Place, steps: list[Step]) -> None:
        """Append a kernel that writes dims into an i64 vector."""
        node = make_node("dims", [], {"values": dims})
        kernel = lower_region(Graph([], [node.output], [node])).kernel
        self.touch(target)
        self.append_call(self.choose(Request(kernel)), (target,), steps)

    def _fill_border(self, type_: TensorType, place: Place, steps: list[Step]) -> None:
        kernel, sizes = of_any_size(border_kernel(type_))
        self.append_call(replace(self.choose(Request(kernel)), sizes=sizes), (place,), steps)

    def fresh(self, prefix: str) -> str:
        """A new symbol name."""
        self.numbers += 1
        return f"{prefix}{self.numbers}"


def _bytes(type_: TensorType) -> Dim:
    return storage_elements(type_) * type_.dtype.bytes
