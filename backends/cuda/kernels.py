"""The functions that a plan's kernels become for a GPU, with tiles that their code passes with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ...compiler.compilation import CompileOptions
from ...compiler.ir.dims import Dim, Sym
from ...compiler.kernel.kernel import Kernel
from ...compiler.kernel.plan.devices import all_steps
from ...compiler.kernel.plan.plan import KernelCall, Plan
from ...compiler.kernel.schedule.tiles import Tiles
from ...compiler.target import GpuTarget
from .addressing import index_type
from .choosing import choice_of_tiles, ranked_tiles, with_tiles
from .compiling import Image
from .dots import Arithmetic
from .emit.function import Function, parts_of
from .targets import targets_of
from .variants import PartMaker, tiles_for
from .vetting import OtherTiles, Part, vetted

FP8_INSTRUCTION = "mma.fp8"
TF32 = "tf32"  # the precision in which products of f32 are rounded
POINTER_ALIGNMENT = 16  # bytes: what a thread loads at once at most
Images = dict[str, tuple[Image, ...]]  # of every function, by its symbol


@dataclass(frozen=True)
class GpuKernels:
    """What runs of each kernel on the device, by its number, or why it runs on the host.

    parts: the functions of each part of a kernel.
    """

    parts: Mapping[int, tuple[Part, ...]]
    reasons: Mapping[int, str]

    @property
    def functions(self) -> dict[int, tuple[Function, ...]]:
        """The functions of each kernel, one behind the other."""
        return {
            number: tuple(function for part in parts for function in part)
            for number, parts in self.parts.items()
        }


def arithmetic_of(target: GpuTarget, options: CompileOptions) -> Arithmetic:
    """How products may be computed."""
    return Arithmetic(options.precision == TF32, FP8_INSTRUCTION in target.instructions)


def gpu_kernels(plan: Plan, reasons_by_key: Mapping[str, str], target: GpuTarget) -> GpuKernels:
    """The functions of every kernel of a plan, but of groups that stay on the host for a reason."""
    parts: dict[int, tuple[Part, ...]] = {}
    reasons: dict[int, str] = {}
    for number, planned in enumerate(plan.kernels):
        kept = [reasons_by_key[key] for key in planned.keys or ("",) if key in reasons_by_key]
        if kept:
            reasons[number] = kept[0]
        else:
            parts[number] = part_maker(plan, number, target).parts(planned.schedule)
    return GpuKernels(parts, reasons)


def part_maker(plan: Plan, number: int, target: GpuTarget) -> PartMaker:
    """What makes the functions of a kernel."""
    planned = plan.kernels[number]
    kernel = replace(planned.kernel, name=planned.symbol)
    return PartMaker(kernel, target, _aligned(plan, number), index_type(plan))


def _aligned(plan: Plan, number: int) -> frozenset[int]:
    """The parameters of a kernel that every call gives memory at a multiple of 16 bytes."""
    calls = [
        step for step in all_steps(plan.steps)
        if isinstance(step, KernelCall) and step.kernel == number
    ]  # fmt: skip
    count = len(plan.kernels[number].kernel.params)
    return frozenset(
        param for param in range(count)
        if all(_is_multiple(call.places[param].offset) for call in calls)
    )  # fmt: skip


def _is_multiple(offset: Dim) -> bool:
    factors = [factor for _, factor in offset.terms] if isinstance(offset, Sym) else [offset]
    return all(factor % POINTER_ALIGNMENT == 0 for factor in factors)


def vet_kernels(
    plan: Plan, kernels: GpuKernels, target: GpuTarget, options: CompileOptions
) -> tuple[GpuKernels, Images]:
    """Compile all functions; (kernels with the tiles that their code passes with, the images of
    every function by its symbol). What was chosen by hand keeps its tiles."""
    others: dict[str, OtherTiles] = {}
    for number, parts in kernels.parts.items():
        if not is_given(plan, number, options):
            for part in parts:
                ranked = other_tiles(plan, number, part, target, options)
                make = partial(part_with, plan, number, part, target=target)
                others[part[0].symbol] = OtherTiles(ranked, make)
    found = vetted([part for parts in kernels.parts.values() for part in parts], others, target)
    changed = {}
    for number, parts in kernels.parts.items():
        planned = plan.kernels[number]
        changed[number] = tuple(found[part[0].symbol].part for part in parts)
        tiles = {
            n: tuple(p[0].tiles for p in changed[number] if n in p[0].architectures)
            for n in target.architectures
        }
        schedule, choice = with_tiles(planned.schedule, tiles), choice_of_tiles(tiles)
        plan.kernels[number] = replace(planned, schedule=schedule, choice=choice)
    images = {
        function.symbol: of_function
        for own in found.values()
        for function, of_function in zip(own.part, own.images, strict=True)
    }
    return replace(kernels, parts=changed), images


def is_given(plan: Plan, number: int, options: CompileOptions) -> bool:
    """Whether a kernel's tiles were chosen by hand."""
    return any(options.choices.of(key) for key in plan.kernels[number].keys)


def other_tiles(
    plan: Plan, number: int, part: Part, target: GpuTarget, options: CompileOptions
) -> Iterator[Tiles]:
    """Other tiles of one part of a kernel, in the order in which they are tried."""
    maker, own = part_maker(plan, number, target), part[0]
    first = own.architectures[0]
    of_part = parts_of(maker.kernel)[own.place]
    ranked = ranked_tiles(of_part, targets_of(target)[first], arithmetic_of(target, options))
    for tiles in ranked:
        tried = with_shape(own.tiles, tiles)
        if tried != own.tiles:
            yield tried


def with_shape(tiles: Tiles, shape: Tiles) -> Tiles:
    """Other tiles for the same data: constants packed as they are, the same keys gone over."""
    return replace(shape, packed=tiles.packed, band=tiles.band, looks=tiles.looks)


def part_with(
    plan: Plan, number: int, part: Part, tiles: Tiles, target: GpuTarget, alternative: int = 0
) -> Part:
    """One part of a kernel with other tiles. alternative: its number among those of a GPU."""
    own = part[0]
    usual = tiles_for(plan.kernels[number].schedule, target)[own.architectures[0]]
    chosen = [tiles if n == own.place else old for n, old in enumerate(usual)]
    maker = part_maker(plan, number, target)
    return maker.part(chosen, own.place, own.architectures, alternative)


def part_kernel(plan: Plan, number: int, part: Part, target: GpuTarget) -> Kernel:
    """What of a kernel a part computes."""
    return parts_of(part_maker(plan, number, target).kernel)[part[0].place]
