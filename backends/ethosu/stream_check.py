"""Whether a command stream gives the bits that its region says: one simulated run decides.

Vela 5.2 makes streams that are wrong of some graphs that it takes: copies that operators read in
their place, operators that it divides, transfers that do not wait. All bytes that a segment reads
are drawn, and so is what memory holds before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...compiler.backend import backend_of
from ...compiler.ir.copying import copied
from ...compiler.ir.graph import Graph
from ...compiler.ir.ops.quantization import REACHED
from .simulator import Rule, SimulationError, simulate
from .vela import CommandStream, Extent

Array = np.ndarray[Any, Any]
_SEED = 22


class NotSimulated(Exception):
    """A stream has an operation that the simulator has not: it is not judged."""


def fault_of(region: Graph, stream: CommandStream) -> str:
    """What is wrong with the stream of a region, in words; "": nothing is.

    Raises NotSimulated, with what the simulator has not, for a stream that it cannot judge.
    """
    rng = np.random.default_rng(_SEED)
    own = copied(region)
    inputs: dict[str, Array] = {}
    for number, value in enumerate(own.inputs):
        value.name = f"input_{number}"
        low, high = REACHED[value.dtype]
        drawn = rng.integers(low, high, value.type.static_shape, endpoint=True)
        inputs[value.name] = drawn.astype(value.dtype.numpy)
    for number, value in enumerate(own.outputs):
        value.name = f"output_{number}"
    memory = _memory(stream, rng)
    for extent, array in zip(stream.inputs, inputs.values(), strict=True):
        _part(memory, extent)[:] = array.reshape(-1).view(np.uint8)
    try:
        simulate(stream.commands, memory)
    except SimulationError as error:
        if error.rule is Rule.NOT_SIMULATED:
            raise NotSimulated(error.why) from None
        return str(error).splitlines()[0]
    evaluate = backend_of("reference").evaluate
    assert evaluate is not None
    wanted = evaluate(own, inputs)
    for extent, value in zip(stream.outputs, own.outputs, strict=True):
        right = np.ascontiguousarray(wanted[value.name]).reshape(-1).view(np.uint8)
        if wrong := int((_part(memory, extent) != right).sum()):
            return f"{wrong} of {right.size} bytes of {value.type} are others"
    return ""


def _memory(stream: CommandStream, rng: np.random.Generator) -> dict[int, Array]:
    """What each region holds before a run; read-only data may not be written."""
    memory: dict[int, Array] = {stream.weights_region: np.frombuffer(stream.weights, np.uint8)}
    sizes = {stream.scratch_region: stream.scratch_bytes, stream.fast_region: stream.fast_bytes}
    for number, size in sizes.items():
        if size:
            memory[number] = rng.integers(0, 256, size, np.uint8)
    return memory


def _part(memory: dict[int, Array], extent: Extent) -> Array:
    return memory[extent.region][extent.offset : extent.offset + extent.size]
