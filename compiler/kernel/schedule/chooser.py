"""From a kernel as it was lowered to one that is ready to be emitted: where decisions are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import ScheduleError
from ...ir.dims import Dim
from ...ir.ops.registry import Array
from ...ir.ops.step_groups import GROUP
from ...target import CpuTarget
from ..forms.channel_blocks import best_block, in_channel_blocks
from ..forms.step_groups import best_instruction, in_groups, products_of_groups
from ..instruction import GENERIC, INSTRUCTIONS, MATRICES, PAIRS, without_tiles
from ..kernel import Kernel
from .choice import Choice
from .choices import Choices
from .dot_tiles import with_dot_tiles
from .heuristic import default_choice, naive_choice
from .legality import check_schedule
from .matrix_tiles import with_matrix_tiles
from .packing import Packing, pack
from .pair_tiles import in_pairs, with_pair_tiles
from .partition import by_rows
from .resolve import choice_of, resolve
from .schedule import Schedule


@dataclass(frozen=True)
class Constant:
    """A constant that a kernel reads. packing: what its form needs of it, whatever the schedule."""

    elements: int
    packing: Packing | None = None


@dataclass(frozen=True)
class Request:
    """A kernel to be formed.

    constants: by parameter name. rows_divided: whether threads have divided the rows of an operand.
    key: of the group that it computes, "" for what belongs to none. form: that the group has.
    known: elements of constants, by parameter name.
    """

    kernel: Kernel
    constants: Mapping[str, Constant] = field(default_factory=dict)
    rows_divided: bool = False
    key: str = ""
    form: str = ""
    known: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """A kernel with its schedule, and how constants are packed for it, by parameter name.

    sizes: values of those of the kernel's symbols that the plan does not know.
    """

    kernel: Kernel
    schedule: Schedule
    packings: Mapping[str, Packing]
    choice: Choice
    key: str = ""
    sizes: Mapping[str, Dim] = field(default_factory=dict)


@dataclass(frozen=True)
class Loops:
    """The loops of a kernel before they are scheduled. constants: what they read of them.

    own: what was chosen with them: form, instruction, blocks of channels.
    """

    kernel: Kernel
    constants: Mapping[str, Constant]
    own: Choice


Chooser = Callable[[Request], Chosen]


@dataclass(frozen=True)
class CpuChooser:
    """Chooses by heuristics, but for what was chosen already.

    level: of optimisation; 0: loops as they were written. given: choices by group.
    """

    target: CpuTarget
    level: int
    given: Choices = field(default_factory=Choices)

    def __call__(self, request: Request) -> Chosen:
        """The kernel as it is emitted. Raises ScheduleError for a given choice that is illegal."""
        data = self.given.of(request.key)
        loops = self.loops(request, data)
        choice, schedule = self.usual(loops, request.rows_divided)
        if data is not None:
            choice = choice.with_json(data)
            schedule = resolve(choice, loops.kernel, self.target)
            check_schedule(loops.kernel, schedule)
        return chosen(loops, choice, schedule, request.key)

    def loops(self, request: Request, data: Mapping[str, Any] | None = None) -> Loops:
        """The loops that are to be scheduled. data: a given choice, or some fields of one.

        Raises ScheduleError where they cannot be as it says.
        """
        if data is not None and data.get("form", request.form) != request.form:
            raise ScheduleError(
                f"the group '{request.key}' has the form '{request.form}', not '{data['form']}'",
                why="at this level of optimisation, or beside these neighbours, it gets no other",
                remedy="leave the form out, or compile as the choice was made for",
            )
        channels = best_block(request.kernel)
        if data is not None:
            channels = Choice(channels=channels).with_json({**data, "stages": []}).channels
        kernel = in_channel_blocks(request.kernel, channels)
        if channels and kernel == request.kernel:
            raise ScheduleError(f"the kernel has no channels to go over in blocks of {channels}")
        kernel, instruction, constants = self._in_groups(kernel, request.constants, data)
        own = Choice(request.form, instruction, channels)
        return Loops(replace(kernel, most_stack=self.target.stack_bytes), constants, own)

    def _in_groups(
        self, kernel: Kernel, constants: Mapping[str, Constant], data: Mapping[str, Any] | None
    ) -> tuple[Kernel, str, Mapping[str, Constant]]:
        """The kernel with products in groups, for which instruction, and what it reads of
        constants then."""
        best = best_instruction(kernel, self.target.instructions) if self.level > 0 else None
        plain = {name: c.elements for name, c in constants.items() if c.packing is None}
        grouped = in_groups(kernel, best, plain) if best else None
        already = any(products_of_groups(stage) for stage in kernel.stages)
        name = best.name if best and (grouped or already) else ""
        if data is not None:
            name = self._given_instruction(name, data.get("instruction", name))
        if not name or best is None or grouped is None:
            return kernel, name, constants
        changed = dict(constants)
        for parameter, rows in grouped.transforms.items():
            elements = constants[parameter].elements // best.steps
            packing = Packing(
                elements // rows.columns, rows.columns, rows.columns, 1, rows, GROUP.bytes
            )
            changed[parameter] = Constant(elements, packing)
        return grouped.kernel, name, changed

    def _given_instruction(self, best: str, wanted: object) -> str:
        """The instruction that a choice names. Raises ScheduleError for one that there is not."""
        if not wanted:
            return ""
        found = INSTRUCTIONS.get(str(wanted))
        has = found is not None and found.name in GENERIC | set(self.target.instructions)
        if not best or found is None or not has or found.op != INSTRUCTIONS[best].op:
            raise ScheduleError(
                f"the instruction '{wanted}' computes none of the kernel's products",
                why=f"{self.target.name} has it not, or the products are no such groups",
                remedy="leave the field out, or empty",
            )
        return found.name

    def usual(self, loops: Loops, rows_divided: bool = False) -> tuple[Choice, Schedule]:
        """The heuristic's choice with its schedule."""
        kernel, own = loops.kernel, loops.own

        def whole(choice: Choice) -> Choice:
            return replace(
                choice, form=own.form, instruction=own.instruction, channels=own.channels
            )

        if self.level <= 0:
            choice = whole(naive_choice(kernel))
            return choice, resolve(choice, kernel, self.target)
        choice = whole(default_choice(kernel, self.target))
        if own.instruction in MATRICES | PAIRS:
            if own.instruction in MATRICES:
                tiled = with_matrix_tiles(choice, kernel)
            else:
                tiled = with_pair_tiles(choice, kernel, self.target, loops.constants)
            vectors = without_tiles(INSTRUCTIONS[own.instruction], self.target.instructions)
            choice = tiled or replace(choice, instruction=vectors.name)
            own = replace(own, instruction=choice.instruction)
        choice = with_dot_tiles(choice, kernel, self.target)
        schedule = resolve(choice, kernel, self.target)
        divided = by_rows(kernel, schedule, rows_divided)
        if divided is schedule:
            return choice, schedule
        choice = whole(choice_of(divided, kernel))  # so divided, threads share a panel's fetch
        return choice, resolve(choice, kernel, self.target)


def chosen(loops: Loops, choice: Choice, schedule: Schedule, key: str = "") -> Chosen:
    """The kernel with a legal schedule, made of a choice, and with constants packed for it."""
    constants = loops.constants
    sizes = {name: constant.elements for name, constant in constants.items()}
    packed, packings = pack(in_pairs(loops.kernel, schedule), schedule, sizes)
    for name, constant in constants.items():
        if constant.packing is not None:
            changed = packings.get(name, constant.packing)
            packings[name] = replace(
                changed,
                before=constant.packing.before,
                element_bytes=constant.packing.element_bytes,
            )
    return Chosen(packed, schedule, packings, choice, key)
