"""From a kernel as it was lowered to one that is ready to be emitted: where decisions are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ...errors import ScheduleError
from ...target import CpuTarget
from ..forms.channel_blocks import best_block, in_channel_blocks
from ..kernel import Kernel
from .choice import Choice
from .choices import Choices
from .heuristic import default_choice, naive_choice
from .legality import check_schedule
from .packing import Packing, pack
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
    """

    kernel: Kernel
    constants: Mapping[str, Constant] = field(default_factory=dict)
    rows_divided: bool = False
    key: str = ""
    form: str = ""


@dataclass(frozen=True)
class Chosen:
    """A kernel with its schedule, and how constants are packed for it, by parameter name."""

    kernel: Kernel
    schedule: Schedule
    packings: Mapping[str, Packing]
    choice: Choice
    key: str = ""


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
        choice = self._heuristic(kernel, request)
        choice = replace(choice, form=request.form, channels=channels)
        if data is not None:
            choice = choice.with_json(data)
        schedule = resolve(choice, kernel, self.target)
        if data is not None:
            check_schedule(kernel, schedule)
        kernel, packings = _packed(kernel, schedule, request.constants)
        return Chosen(kernel, schedule, packings, choice, request.key)

    def _heuristic(self, kernel: Kernel, request: Request) -> Choice:
        if self.level <= 0:
            return naive_choice(kernel)
        choice = default_choice(kernel, self.target)
        schedule = resolve(choice, kernel, self.target)
        divided = by_rows(kernel, schedule, request.rows_divided)
        return choice if divided is schedule else choice_of(divided, kernel)


def _packed(
    kernel: Kernel, schedule: Schedule, constants: Mapping[str, Constant]
) -> tuple[Kernel, dict[str, Packing]]:
    sizes = {name: constant.elements for name, constant in constants.items()}
    packed, packings = pack(kernel, schedule, sizes)
    for name, constant in constants.items():
        if constant.packing is not None:
            changed = packings.get(name, constant.packing)
            packings[name] = replace(changed, before=constant.packing.before)
    return packed, packings
