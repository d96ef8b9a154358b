"""Several codes of the contractions that most of a run is spent in, of which a GPU takes one.

Which tiles are the fastest is predicted, not known: a file may hold the best few (the knob
`gpu_candidates`), and its first run times them (`runtime/cuda/alternatives.c`). Their sums are
added up equally, and they leave their operands as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ...compiler.compilation import CompileOptions
from ...compiler.errors import UsageError
from ...compiler.kernel.plan.devices import all_steps
from ...compiler.kernel.plan.plan import KernelCall, Plan
from ...compiler.kernel.schedule.tiles import Kind, Tiles
from ...compiler.knobs import GPU_CANDIDATES
from ...compiler.target import GpuTarget
from .candidates import TENSOR_ROWS, WARPS, Problem, predicted
from .kernels import GpuKernels, Images, is_given, other_tiles, part_kernel, part_with
from .targets import targets_of
from .tiles import problem_of_part
from .vetting import Part, compile_parts

MOST_CANDIDATES = 4  # codes of one part
SPARE = 2  # candidates more than are wanted, as some do not pass: assumed, not measured
# of what all contractions of a GPU are predicted to take, from which on one is hot: assumed, not
# measured
HOT = 0.01


@dataclass(frozen=True)
class ProductPart:
    """A contraction of a plan. number: of its kernel. cycles: of all its calls, as predicted for
    the first of its architectures."""

    number: int
    part: Part
    problem: Problem
    calls: int
    cycles: float


def product_parts(plan: Plan, kernels: GpuKernels, target: GpuTarget) -> list[ProductPart]:
    """The contractions whose number of results is known, in the order of kernels."""
    calls = Counter(s.kernel for s in all_steps(plan.steps) if isinstance(s, KernelCall))
    found = []
    for number, parts in kernels.parts.items():
        for part in parts:
            tiles = part[0].tiles
            if tiles.kind is not Kind.PRODUCT:
                continue
            problem = problem_of_part(part_kernel(plan, number, part, target), tiles)
            if not problem.unknown:
                own = targets_of(target)[part[0].architectures[0]]
                cycles = calls[number] * predicted(problem, tiles, own)
                found.append(ProductPart(number, part, problem, calls[number], cycles))
    return found


def adds_equally(problem: Problem, one: Tiles, other: Tiles) -> bool:
    """Whether sums are of the same parts, added up by the same instructions. Scales of rows, which
    programs find before they multiply, are sums in a tree that follows from block and warps."""
    if (one.split, one.depth) != (other.split, other.depth):
        return False
    if problem.whole:
        block = one.rows, one.columns, one.warps
        return block == (other.rows, other.columns, other.warps)
    return problem.is_f32 or _in_groups(one) == _in_groups(other)


def _in_groups(tiles: Tiles) -> bool:
    """Whether groups of four warps multiply blocks together, where the target has that."""
    return tiles.rows >= TENSOR_ROWS and tiles.warps in WARPS


def with_alternatives(
    plan: Plan, kernels: GpuKernels, images: Images, target: GpuTarget, options: CompileOptions
) -> tuple[GpuKernels, Images]:
    """Kernels whose hot contractions have as many codes as the knob says, and all images.

    Raises UsageError for a number of codes that there cannot be.
    """
    count = int(GPU_CANDIDATES.value)
    if not 1 <= count <= MOST_CANDIDATES:
        raise UsageError(
            f"{GPU_CANDIDATES.variable}={count}: there are 1 to {MOST_CANDIDATES} codes of a part"
        )
    if count == 1:
        return kernels, images
    tried = [
        other
        for hot in _hot(plan, kernels, target, options)
        for other in islice(_others(plan, hot, target, options), count - 1 + SPARE)
    ]
    kept: dict[tuple[str, tuple[int, ...]], list[Part]] = {}
    images = dict(images)
    for found in compile_parts(tried, target):
        first = found.part[0]
        own = kept.setdefault((first.part, first.architectures), [])
        if not found.excess and len(own) < count - 1:
            own.append(found.part)
            images |= {f.symbol: i for f, i in zip(found.part, found.images, strict=True)}
    parts = {number: tuple(_with(own, kept)) for number, own in kernels.parts.items()}
    return replace(kernels, parts=parts), images


def _with(
    parts: tuple[Part, ...], kept: dict[tuple[str, tuple[int, ...]], list[Part]]
) -> Iterator[Part]:
    """Each part with its alternatives behind it."""
    for part in parts:
        yield part
        yield from kept.get((part[0].part, part[0].architectures), ())


def _hot(
    plan: Plan, kernels: GpuKernels, target: GpuTarget, options: CompileOptions
) -> list[ProductPart]:
    """Contractions that take a good part of a run, and that may be computed again: no result lies
    where an operand was."""
    found = product_parts(plan, kernels, target)
    whole = dict.fromkeys(target.architectures, 0.0)
    for own in found:
        for number in own.part[0].architectures:
            whole[number] += _cycles(own, number, target)
    return [
        own
        for own in found
        if any(
            _cycles(own, number, target) >= HOT * whole[number]
            for number in own.part[0].architectures
        )
        and not plan.kernels[own.number].aliased
        and not is_given(plan, own.number, options)
    ]


def _cycles(own: ProductPart, number: int, target: GpuTarget) -> float:
    """Of all calls of a contraction on one architecture, as predicted."""
    return own.calls * predicted(own.problem, own.part[0].tiles, targets_of(target)[number])


def _others(
    plan: Plan, hot: ProductPart, target: GpuTarget, options: CompileOptions
) -> Iterator[Part]:
    """A part with other tiles that add up its sums equally, the best first, numbered."""
    ranked = other_tiles(plan, hot.number, hot.part, target, options)
    usual = hot.part[0].tiles
    same = (tiles for tiles in ranked if adds_equally(hot.problem, tiles, usual))
    for alternative, tiles in enumerate(same, 1):
        yield part_with(plan, hot.number, hot.part, tiles, target, alternative)
