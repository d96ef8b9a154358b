"""Which output of a model says which stage of a cascade has answered a row: noted in its file."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ....compiler.errors import InvalidModelError
from ....runtime.abi import MOST_STAGES

KEY = "tensmith.stages"  # of metadata_props; its value is COUNT:OUTPUT


@dataclass(frozen=True)
class StagesNote:
    """output: has a number for every row: that of the stage that answered it, of `count`."""

    output: str
    count: int

    def write(self, model: onnx.ModelProto) -> None:
        """Note it in a model."""
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, f"{self.count}:{self.output}"


def stages_of(model: onnx.ModelProto) -> StagesNote | None:
    """What a model notes; None where it notes nothing.

    Raises InvalidModelError for a note that cannot be.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if text is None:
        return None
    count, _, output = text.partition(":")
    outputs = [info.name for info in model.graph.output]
    if not count.isdecimal() or not 2 <= int(count) <= MOST_STAGES or output not in outputs:
        raise InvalidModelError(
            f"the note {KEY} is '{text[:80]}': not COUNT:OUTPUT, of 2 to {MOST_STAGES} stages"
        )
    return StagesNote(output, int(count))
