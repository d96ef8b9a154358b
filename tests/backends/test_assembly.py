"""The innermost loops of matrix products and convolutions, in the assembly that is emitted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from suites.case import I64, CaseBuilder

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Compilation, CompileOptions, KernelInfo, Stages

FMA = re.compile(r"\s(vfn?madd\d+ps|fmla)\s")
LABEL = re.compile(r"(\.L\w+):")
JUMP = re.compile(r"\s(?:j\w+|b\.\w+|cb\w+\s+\w+,|tb\w+\s+\w+,\s*#\d+,)\s+(\.L\w+)")
STACK = re.compile(r"%rsp|\[sp\b")


def matmul(c: CaseBuilder) -> None:
    product = c.op("matmul", c.input(64, 256), c.weight(256, 128))
    c.output(c.op("max", c.op("add", product, c.weight(128)), c.scalar(0)))


def matmul_odd(c: CaseBuilder) -> None:
    c.output(c.op("matmul", c.input(61, 250), c.weight(250, 127)))


def conv(c: CaseBuilder) -> None:
    window = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    c.output(c.op("conv", c.input(1, 32, 56, 56), c.weight(64, 32, 3, 3), c.weight(64), **window))


def conv_stem(c: CaseBuilder) -> None:
    """Nine terms in a line of the window: LLVM spills in a loop of two rounds."""
    window = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    c.output(c.op("conv", c.input(1, 3, 64, 64), c.weight(32, 3, 3, 3), c.weight(32), **window))


def conv_few_channels(c: CaseBuilder) -> None:
    """The largest tile, unrolled twice: LLVM loads the second step's weights early and spills.

    The depthwise convolution behind it wants a border, so that a tile ends with a line.
    """
    one = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
    three = {**one, "pads": (1, 1, 1, 1), "groups": 32}
    y = c.op("conv", c.input(1, 32, 60, 80), c.weight(32, 32, 1, 1), c.weight(32), **one)
    c.output(c.op("conv", c.op("max", y, c.scalar(0)), c.weight(32, 1, 3, 3), **three))


def conv_winograd(c: CaseBuilder) -> None:
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    c.output(c.op("conv", c.input(1, 64, 28, 28), c.weight(64, 64, 3, 3), **window))


@dataclass(frozen=True)
class Loop:
    """An innermost loop: the lines of its body."""

    lines: tuple[str, ...]

    @property
    def fmas(self) -> int:
        return sum(bool(FMA.search(line)) for line in self.lines)

    @property
    def spills(self) -> list[str]:
        return [line.strip() for line in self.lines if STACK.search(line)]


def innermost_loops(assembly: str, function: str) -> list[Loop]:
    """The blocks of a function that jump back to their own label."""
    body = assembly.split(f"\n{function}:\n", 1)[1].split("\n.Lfunc_end", 1)[0]
    found = []
    label, block = "", []
    for line in body.splitlines():
        start = LABEL.match(line)
        if start:
            label, block = start[1], []
            continue
        block.append(line)
        jump = JUMP.search(line)
        if jump and jump[1] == label:
            found.append(Loop(tuple(block)))
    return found


def compiled(fill: Callable[[CaseBuilder], None], name: str, folder: Path) -> Compilation:
    builder = CaseBuilder(fill.__name__)
    fill(builder)
    backend, target = resolve_target(name)
    options = CompileOptions("model", folder, texts=frozenset({"asm"}))
    return backend.compile(builder.graph(), target, options, Stages())


def expected_fmas(kernel: KernelInfo, lanes: int) -> set[int]:
    """Fused multiply-adds in a round of each stage's main loop: rows x vectors x unroll."""
    stages = re.findall(r"(\d+)x(\d+) \S+ unroll (\d+)", kernel.schedule)
    return {int(rows) * int(width) // lanes * int(unroll) for rows, width, unroll in stages}


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "aarch64"])
@pytest.mark.parametrize(
    "fill", [matmul, matmul_odd, conv, conv_stem, conv_few_channels, conv_winograd]
)
def test_main_loop(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fill: Callable[[CaseBuilder], None],
    name: str,
) -> None:
    monkeypatch.setattr("tensmith.compiler.kernel.forms.bands_choice.MIN_BETWEEN_BYTES", 1 << 30)
    result = compiled(fill, name, tmp_path)
    lanes = resolve_target(name)[1].lanes(32)
    kernel, *behind = [k for k in result.kernels if {"matmul", "conv"} & set(k.operators)]
    assert len(behind) == (fill is conv_few_channels)
    loops = innermost_loops(result.model.code.texts["asm"], kernel.name)
    main = max(loops, key=lambda loop: (loop.fmas, -len(loop.lines)))
    assert main.fmas in expected_fmas(kernel, lanes), kernel.schedule
    assert main.fmas >= 2 * resolve_target(name)[1].fma_ports * 4, "the latency is not hidden"
    assert not main.spills


@pytest.mark.parametrize("last", [True, False])
def test_rows_at_indices_are_loaded_as_vectors(tmp_path: Path, last: bool) -> None:
    """Lanes that are neighbours wherever an index says that they begin need no gather."""

    def picked(c: CaseBuilder) -> None:
        index = c.weight(24, dtype=I64, high=16, low=0)
        rows = c.op("gather", c.input(16, 16, 64), index, axis=2 if last else 1)
        c.output(c.op("mul", rows, c.op("exp", rows)))

    texts = compiled(picked, "x86-64-v4", tmp_path).model.code.texts
    assert ("vgather" in texts["asm"]) == last
