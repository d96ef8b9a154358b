"""Graphs that are opened for tuning; batches run without the measuring program, and in numpy."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from suites.case import CaseBuilder

from tensmith.backends.llvm.tuning.measurer import CpuMeasurer
from tensmith.backends.llvm.tuning.tunable import CpuTunable
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.schedule.packing import Packing
from tensmith.compiler.tuning.task import Batch, Candidate, Task
from tensmith.runtime.library import open_library

Array = np.ndarray[Any, Any]
SLACK = 4096  # bytes behind operands that may be read


def measurer_here(target: str) -> CpuMeasurer:
    """What times code of a target on this machine."""
    backend, parsed = resolve_target(target)
    assert backend.tuning is not None
    found = backend.tuning.measurer(parsed, "local")
    assert isinstance(found, CpuMeasurer)
    return found


def _pieces(batch: Batch) -> tuple[list[list[str]], list[list[str]]]:
    """The words of the lines of memory, and of candidates."""
    _, *lines = batch.files["batch.txt"].decode().splitlines()
    rows = [line.split() for line in lines]
    kinds = ("candidate", "absent")
    return [row for row in rows if row[0] not in kinds], [row for row in rows if row[0] in kinds]


def _content(batch: Batch, words: list[str]) -> Array:
    data = np.frombuffer(batch.files["data.bin"], np.uint8)
    kind, *numbers = words
    if kind == "output":
        return np.zeros(int(numbers[0]), np.uint8)
    size, offset, *packed = map(int, numbers)
    if kind != "packed":
        return data[offset : offset + size].copy()
    element, rows, columns, width, matrices = packed
    whole = data[offset : offset + element * rows * columns * matrices]
    units = whole.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[element])
    return Packing(rows, columns, width, matrices).apply(units).view(np.uint8)


def _operands(batch: Batch, position: int) -> list[Array]:
    pieces, candidates = _pieces(batch)
    return [_content(batch, pieces[int(n)]) for n in candidates[position][7:]]


def _names(batch: Batch, position: int) -> list[str]:
    """Of outputs, the parameter's; of others nothing."""
    pieces, candidates = _pieces(batch)
    rows = [pieces[int(n)] for n in candidates[position][7:]]
    return [row[3] if row[0] == "output" else "" for row in rows]


def outputs_of(batch: Batch, position: int, folder: Path) -> dict[str, Array]:
    """What a candidate's machine code writes, by parameter, as bytes."""
    path = Path(tempfile.mkdtemp(dir=folder)) / "code.so"  # one that is open stays as it is
    path.write_bytes(batch.files["code.so"])
    words = _pieces(batch)[1][position]
    memory = []
    for content in _operands(batch, position):
        room = np.zeros(content.size + SLACK + 64, np.uint8)
        start = -room.ctypes.data % 64
        room[start : start + content.size] = content
        memory.append(room[start : start + content.size])
    scratch = np.zeros(int(words[4]) + 64, np.uint8)
    pointers = (ctypes.c_void_p * len(memory))(*(part.ctypes.data for part in memory))
    function = getattr(open_library(path), words[1])
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    function.restype = None
    aligned = scratch.ctypes.data + -scratch.ctypes.data % 64
    function(pointers, aligned, 0, int(words[5]))
    return {name: part for name, part in zip(_names(batch, position), memory, strict=True) if name}


def interpreted_outputs(
    tunable: CpuTunable, task: Task, candidate: Candidate, batch: Batch, position: int
) -> dict[str, Array]:
    """What the candidate's kernel writes when it is run in numpy, by parameter."""
    made = tunable._compile(task, candidate)
    assert not isinstance(made, str)
    kernel = made.planned.kernel
    arrays = {}
    for buffer, content in zip(kernel.params, _operands(batch, position), strict=True):
        whole = content[: content.size // buffer.dtype.bytes * buffer.dtype.bytes]
        arrays[buffer.name] = whole.view(buffer.dtype.numpy)
    panels = {
        own.tile.vector: own.tile.lanes * (own.panel or own.tile.vectors)
        for own in made.planned.schedule.stages
        if own.tile.vector
    }
    interpret(kernel, arrays, made.sizes, panels)
    return {b.name: arrays[b.name] for b in kernel.params[-kernel.outputs :]}


WINDOW = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4}
Build = Callable[[CaseBuilder], None]


def product(c: CaseBuilder) -> None:
    """A layer."""
    y = c.op("matmul", c.input(21, 96), c.weight(96, 37))
    c.output(c.op("max", c.op("add", y, c.weight(37)), c.scalar(0)))


def opened(build: Build, target: str, folder: Path, threads: int = 1) -> CpuTunable:
    """A graph of its own, opened for tuning."""
    backend, parsed = resolve_target(target)
    c = CaseBuilder(build.__name__)
    build(c)
    assert backend.tuning is not None
    options = CompileOptions("m", folder, threads=threads, sizes={"n": 9})
    found = backend.tuning.open(c.graph(), parsed, options, Stages())
    assert isinstance(found, CpuTunable)
    return found
