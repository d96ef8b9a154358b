"""Vela, in a process of its own: TOSA graphs to command streams, with what they are estimated to
take."""

from __future__ import annotations

import configparser
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from ...compiler.errors import InternalError, UsageError
from ...compiler.target import NpuTarget
from .vela_package import INSTALL, own_config, require_vela
from .vela_worker import VelaEndedError, VelaProcess

SEARCHED_BYTES = 4 << 20  # of an arena that shares its memory with others, unless it is told
MOST_KEPT = 64 << 20  # bytes of answers
ALIGNMENT = 16  # bytes: of what lies in memory for the processor
_INSIDE = ("shram", "lutram")  # memories of the processor itself
_SECTIONS = {"system_config": "System_Config", "memory_mode": "Memory_Mode"}


class RememberedVela:
    """A process of Vela, and its answers by what it was asked: compilations ask for the same
    segments again, as one of them is changed and the others are not. Of the last answers,
    `MOST_KEPT` bytes are kept at most."""

    def __init__(self, process: VelaProcess) -> None:
        self.process = process
        self._known: OrderedDict[bytes, tuple[str, Any]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def ask(self, architecture: str, blob: bytes, *arguments: str) -> tuple[str, Any]:
        """The answer to a request. Raises VelaEndedError where there is none, which is not kept."""
        words = repr((architecture, *arguments)).encode()
        key = sha256(words + b"\0" + blob).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        answer = self.process.ask(architecture, blob, *arguments)
        with self._lock:
            if key not in self._known:
                self._known[key] = answer
                self._bytes += _size_of(answer)
            while self._bytes > MOST_KEPT:
                self._bytes -= _size_of(self._known.popitem(last=False)[1])
        return answer


def _size_of(answer: tuple[str, Any]) -> int:
    said, found = answer
    return len(found["commands"]) + len(found["weights"][0]) if said == "made" else len(found)


VELA = RememberedVela(VelaProcess())


class NotCompiled(Exception):
    """Vela refuses a graph, for the reason."""

    def told(self, what: str = "it") -> str:
        """In words, of what."""
        return f"Vela refuses {what}: {self}"


class WrongStream(NotCompiled):
    """Vela makes a command stream of a graph that is wrong, for the reason."""

    def told(self, what: str = "it") -> str:
        """In words, of what."""
        return f"the command stream made of {what} is wrong: {self}"


@dataclass(frozen=True)
class Extent:
    """Where an input or output lies: region, and offset and size there in bytes."""

    region: int
    offset: int
    size: int


@dataclass(frozen=True)
class MemoryUse:
    """Of one memory: bytes occupied at most, read and written."""

    peak_bytes: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class OperatorEstimate:
    """Of one operator of a stream. name: of the tensor that it makes. cycles, macs: as of a run."""

    name: str
    cycles: int
    macs: int


@dataclass(frozen=True)
class VelaEstimate:
    """What Vela expects of a run; "should not be taken as accurate" (PERFORMANCE.md).

    cycles: of the whole; npu_cycles: of arithmetic alone. macs: multiply-adds. memories: what is
    used of each, by its name. operators: in the order of the stream.
    """

    cycles: int
    npu_cycles: int
    macs: int
    memories: Mapping[str, MemoryUse]
    operators: tuple[OperatorEstimate, ...] = ()


@dataclass(frozen=True)
class CommandStream:
    """What a processor runs, and the memory that it needs.

    commands: the driver's payload. weights: read-only data, region `weights_region`. scratch_bytes,
    fast_bytes: of the arena and of memory for intermediates besides (0: none), with their regions.
    unchecked: what of it the simulator has not, so that nothing is known of its bits; "": all of it
    is simulated.
    """

    commands: bytes
    weights: bytes
    weights_region: int
    scratch_bytes: int
    scratch_region: int
    fast_bytes: int
    fast_region: int
    inputs: tuple[Extent, ...]
    outputs: tuple[Extent, ...]
    estimate: VelaEstimate
    unchecked: str = ""

    def exceeds(self, target: NpuTarget) -> bool:
        """Whether it takes more memory than a target allows, which Vela may do: all of its arena
        counts, where none of that may lie elsewhere."""
        allowed = target.arena_bytes
        return allowed is not None and not self.fast_bytes and self.scratch_bytes > allowed


def compiled(blob: bytes, target: NpuTarget, kind: str = "TOSA") -> CommandStream:
    """The command stream of a file, of the kind TOSA or TFLITE.

    Raises NotCompiled where Vela refuses it or crashes; InternalError where its process fails
    otherwise; UsageError without Vela, and for a memory mode or system configuration that its file
    has not.
    """
    text, arena = _configuration(target)
    options = (
        "\n[compiler]\nenable_db=true\noutput_format=Raw\ncop_format=COP1\n"
        f"\n[scheduler]\noptimize={target.optimise}\narena_size_limit={arena}\ndisable_feature=\n"
        f"cpu_tensor_alignment={ALIGNMENT}\ntensor_allocator=HillClimb\n\n[graph]\n"
    )
    try:
        said, found = VELA.ask(target.architecture, blob, kind, text, options)
    except VelaEndedError as error:
        if error.crashed:
            raise NotCompiled(f"Vela did not end well: {error}") from None
        raise InternalError(
            f"the process of Vela failed: {error}",
            where=f"target '{target.name}'",
            why=error.printed,
            remedy=f"if its installation is not whole: {INSTALL}",
        ) from None
    if said != "made":
        raise NotCompiled(found)
    return _stream(found)


@lru_cache
def core_clock(target: NpuTarget) -> float:
    """Hertz of the processor, as its system configuration says."""
    text, _ = _configuration(target)
    known = configparser.ConfigParser()
    known.read_string(text)
    return float(known[f"System_Config.{target.system_config}"]["core_clock"])


@lru_cache
def _configuration(target: NpuTarget) -> tuple[str, int]:
    """(the configuration as Vela reads it, bytes of an arena)."""
    require_vela(f"nothing can be compiled for '{target.name}'")
    text = Path(target.config).read_text(encoding="utf-8") if target.config else own_config()
    known = configparser.ConfigParser()
    known.read_string(text)
    for field, kind in _SECTIONS.items():
        name = getattr(target, field)
        if f"{kind}.{name}" not in known:
            names = [s.partition(".")[2] for s in known.sections() if s.startswith(f"{kind}.")]
            raise UsageError(
                f"target '{target.name}': there is no {field.replace('_', ' ')} '{name}'",
                remedy=f"choose from {', '.join(names)}",
            )
    head = (
        f"[architecture]\nmacs={target.macs // target.cores}\ncores={target.cores}\n[vela]\n"
        f"system_config_name={target.system_config}\nmemory_mode_name={target.memory_mode}\n"
    )
    arena = target.arena_bytes or _inherited(known, f"Memory_Mode.{target.memory_mode}")
    return head + text, arena


def _inherited(known: configparser.ConfigParser, section: str) -> int:
    """The arena of a memory mode, its own or of those that it inherits from."""
    seen: set[str] = set()
    while section in known and section not in seen:
        seen.add(section)
        if "arena_cache_size" in known[section]:
            return int(known[section]["arena_cache_size"])
        section = known[section].get("inherit", "")
    return SEARCHED_BYTES


def _stream(found: Mapping[str, Any]) -> CommandStream:
    return CommandStream(
        commands=found["commands"],
        weights=found["weights"][0],
        weights_region=found["weights"][1],
        scratch_bytes=found["scratch"][0],
        scratch_region=found["scratch"][1],
        fast_bytes=found["fast"][0],
        fast_region=found["fast"][1],
        inputs=tuple(Extent(*place) for place in found["inputs"]),
        outputs=tuple(Extent(*place) for place in found["outputs"]),
        estimate=VelaEstimate(
            cycles=found["cycles"],
            npu_cycles=found["npu_cycles"],
            macs=found["macs"],
            memories={
                name: MemoryUse(*used)
                for name, used in found["memories"].items()
                if name.lower() not in _INSIDE
            },
            operators=tuple(
                OperatorEstimate(row["name"], int(row["op_cycles"]), int(row["mac_count"]))
                for row in found["operators"]
            ),
        ),
    )
