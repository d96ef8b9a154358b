"""Checks of a finished plan: every step speaks of memory that there is, and that it can reach."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InternalError
from .plan import (
    Allocate,
    Bind,
    Branch,
    Deliver,
    External,
    KernelCall,
    Launch,
    OpenOutput,
    Place,
    Plan,
    Receive,
    Repeat,
    Space,
    Step,
    Transfer,
    View,
)


def verify_plan(plan: Plan) -> None:
    """Raise InternalError unless the host can run the plan.

    What the host reads and writes is in its memory, what launches take in the device's, which has
    the inputs that it received and the outputs that are open there; inputs, weights and the arena
    have what they name, outputs are open and memory of the heap is there before it is named; calls
    have what kernels take.
    """
    _Verifier(plan).steps(plan.steps)


class _Verifier:
    """Walks steps in order. heap, opened: what is there by now, in whichever way steps went.
    received: the inputs that the device has."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.counts = {
            "input": len(plan.inputs), "weights": len(plan.weights), "arena": len(plan.arena)
        }  # fmt: skip
        self.heap: frozenset[tuple[Space, int]] = frozenset()
        self.opened: frozenset[tuple[Space, int]] = frozenset()
        self.received: set[int] = set()

    def steps(self, steps: Sequence[Step]) -> None:
        """Check steps, one behind the other."""
        for step in steps:
            match step:
                case KernelCall():
                    self._call(step)
                case Launch():
                    self._launch(step)
                case Transfer(source=source, target=target):
                    self._transfer(source, target)
                case External(function=function, places=places):
                    for place in places:
                        self._place(place, f"'{function}'")
                case Bind(place=place):
                    self._place(place, "the binding of symbols")
                case Branch():
                    self._branch(step)
                case Repeat():
                    self._repeat(step)
                case _:
                    self._memory(step)

    def _memory(self, step: Step) -> None:
        """Check a step that makes memory known, or hands it over."""
        match step:
            case View(number=number, source=source):
                self._place(source, "a view", source.space)
                self.heap |= {(source.space, number)}
            case Allocate(number=number, space=space):
                self.heap |= {(space, number)}
            case Receive(number=number, staging=staging):
                self._place(staging, "an input", Space.DEVICE)
                self.received.add(number)
            case OpenOutput(number=number, staging=staging):
                self.opened |= {(Space.HOST, number)}
                if staging is not None:
                    self._place(staging, "an output", Space.DEVICE)
                    self.opened |= {(Space.DEVICE, number)}
            case Deliver(number=number, on_device=on_device):
                space = Space.DEVICE if on_device else Space.HOST
                self._place(Place("output", number, 0, space), "the caller", space)

    def _call(self, step: KernelCall) -> None:
        if not 0 <= step.kernel < len(self.plan.kernels):
            raise InternalError(f"the plan has no kernel {step.kernel}")
        planned = self.plan.kernels[step.kernel]
        given = len(step.places), len(step.sizes)
        taken = len(planned.kernel.params), len(planned.kernel.symbols)
        if given != taken:
            raise InternalError(
                f"{planned.symbol} takes {taken[0]} tensors and {taken[1]} sizes,"
                f" not {given[0]} and {given[1]}"
            )
        for place in step.places:
            self._place(place, planned.symbol)

    def _launch(self, step: Launch) -> None:
        if not 0 <= step.function < len(self.plan.functions):
            raise InternalError(f"the plan has no function {step.function} of the device")
        function = self.plan.functions[step.function]
        given = len(step.places), len(step.sizes)
        taken = len(function.params) + (function.workspace > 0), len(function.symbols)
        if given != taken:
            raise InternalError(
                f"{function.symbol} takes {taken[0]} tensors and {taken[1]} sizes,"
                f" not {given[0]} and {given[1]}"
            )
        for place in step.places:
            self._place(place, function.symbol, Space.DEVICE)

    def _transfer(self, source: Place, target: Place) -> None:
        if source.space is target.space:
            raise InternalError(f"a transfer from {source} to {target} leads nowhere")
        for place in (source, target):
            self._place(place, "a transfer", place.space)

    def _branch(self, step: Branch) -> None:
        if isinstance(step.condition, Place):
            self._place(step.condition, "a branch")
        before = self.heap, self.opened
        self.steps(step.then)
        then = self.heap, self.opened
        self.heap, self.opened = before
        self.steps(step.otherwise)
        self.heap &= then[0]
        self.opened &= then[1]

    def _repeat(self, step: Repeat) -> None:
        for place in (step.count, step.condition):
            if isinstance(place, Place):
                self._place(place, "a loop")
        before = self.heap, self.opened
        self.steps(step.body)
        self.heap, self.opened = before  # there may be no round

    def _place(self, place: Place, who: str, space: Space = Space.HOST) -> None:
        """Check a place that a step reads or writes, which has to be in a space."""
        if place.space is not space:
            raise InternalError(f"{who} cannot reach {place}: it has other memory")
        if place.kind == "heap":
            there = (space, place.number) in self.heap
        elif place.kind == "output":
            there = (space, place.number) in self.opened
        elif place.kind == "input" and space is not Space.HOST:
            there = place.number in self.received
        else:
            there = 0 <= place.number < self.counts.get(place.kind, 0)
        if not there:
            raise InternalError(f"{who} is given {place}, which is not there")
