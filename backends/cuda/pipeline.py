"""The pipeline of GPU targets, from an imported graph to code of the host and of the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...compiler.compilation import (
    Compilation,
    CompileOptions,
    DeviceFunctionInfo,
    HostKernel,
    KernelInfo,
    Stages,
)
from ...compiler.decisions import Decision, Note, tell
from ...compiler.errors import UsageError
from ...compiler.ir.dims import Dim, Sym
from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.types import DType
from ...compiler.kernel.plan.control_steps import CONTROL
from ...compiler.kernel.plan.devices import all_steps, on_device
from ...compiler.kernel.plan.plan import DeviceFunction, External, KernelCall, Plan
from ...compiler.kernel.plan.planner import Planner
from ...compiler.kernel.schedule.chooser import CpuChooser
from ...compiler.pass_manager import Fixpoint, run_passes
from ...compiler.target import GpuTarget
from ...passes.checks.exactness import Exactness
from ...passes.checks.run_time_checks import RunTimeChecks
from ...passes.grouping.concat_views import ConcatViews
from ...passes.grouping.fusion import Fusion
from ...passes.grouping.normalised_products import NormalisedProducts
from ...passes.grouping.output_views import OutputViews
from ...passes.patterns.joint_products import JointProducts
from ...passes.pipeline import SIMPLIFY, optimization_passes
from ...passes.precision.float_byte_products import FloatByteProducts
from ...passes.precision.half import StoreHalves
from ...passes.simplify.dce import DeadCodeElimination
from ...passes.simplify.decompose import Decompose
from ..llvm.pipeline import (
    append_defaults,
    generate_code,
    kernel_infos,
    model_of,
    supports,
    write_weights,
)
from .addressing import index_type, limit_sizes
from .attention_kernel import streams
from .choosing import GpuChooser, choice_of_tiles, ranked_tiles, with_tiles
from .compiling import Image
from .dots import Arithmetic
from .emit.function import Function, parts_of
from .forms import device_forms
from .table import device_code
from .targets import targets_of
from .triton_package import reason_unavailable, triton_version
from .variants import PartMaker, tiles_for
from .vetting import Part, vetted

FP8_INSTRUCTION = "mma.fp8"
TF32 = "tf32"  # the precision in which products of f32 are rounded
HALVES = {"bf16": DType.BF16, "fp16": DType.F16}
_CONTRACTIONS = ("matmul", "conv", "conv_transpose")
POINTER_ALIGNMENT = 16  # bytes: what a thread loads at once at most


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


def compile_cuda(
    graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
) -> Compilation:
    """Compile a graph for GPUs; the graph is rewritten in place and loses its large constants.

    Raises UsageError for what the backend cannot do yet and where Triton is missing, InternalError
    when a stage breaks an invariant.
    """
    _check(target)
    decisions: list[Decision] = []
    plan, kernels = form_kernels(graph, target, options, stages, decisions.append)
    with stages.stage("gpu code"):
        kernels, images = vet_kernels(plan, kernels, target, options)
    launch_kernels(plan, kernels)
    functions = [function for found in kernels.functions.values() for function in found]
    with stages.stage("weights"):
        weights = write_weights(plan, options.work_dir / "weights.bin")
        defaults = append_defaults(graph.defaults, weights)
    code = generate_code(plan, target.host, options, stages)
    device = device_code(functions, images, target, plan, options.name)
    texts, archives = device_forms(functions, images, target, options.texts)
    code = replace(
        code,
        device=device,
        features=target.features,
        texts={**code.texts, **texts},
        archives=archives,
    )
    model = model_of(graph, plan, code, weights, defaults, options.name)
    arena = plan.arena_bytes if isinstance(plan.arena_bytes, int) else -1
    infos = _infos(plan, kernels, images)
    size, made_by = weights.stat().st_size, {"triton": triton_version()}
    return Compilation(model, infos, arena, size, tuple(decisions), made_by=made_by)


def supports_cuda(node: Node, target: GpuTarget) -> str | None:
    """Why a node can be compiled neither for the GPU nor for its host, or None when it can."""
    return supports(node, replace(target.host, name=target.name))


def _check(target: GpuTarget) -> None:
    if reason := reason_unavailable():
        raise UsageError(f"nothing can be compiled for '{target.name}' here", why=reason)


def make_plan(
    graph: Graph,
    target: GpuTarget,
    options: CompileOptions,
    stages: Stages,
    note: Note | None = None,
) -> tuple[Plan, GpuKernels]:
    """Optimise a graph in place, form its kernels, and plan what runs where, without compiling.

    note: is told in which precision products are computed.
    """
    plan, kernels = form_kernels(graph, target, options, stages, note)
    launch_kernels(plan, kernels)
    return plan, kernels


def launch_kernels(plan: Plan, kernels: GpuKernels) -> None:
    """Have kernels run on the device, with transfers where they must be."""
    on_device(plan, {n: _planned(n, found) for n, found in kernels.functions.items()})
    limit_sizes(plan)


def form_kernels(
    graph: Graph,
    target: GpuTarget,
    options: CompileOptions,
    stages: Stages,
    note: Note | None = None,
) -> tuple[Plan, GpuKernels]:
    """Optimise a graph in place and form its kernels; the plan is still one for the host."""
    level, half = options.opt_level, HALVES.get(options.precision)
    with stages.stage("passes"):
        bytes_ = (FloatByteProducts(note),) if level > 0 else ()
        usual = optimization_passes(level, note, data=DType.I8, in_groups=False, divide=False)
        run_passes(graph, (*bytes_, *usual), dump_after=options.dump_after)
        final = (
            *((JointProducts(), DeadCodeElimination()) if level > 0 else ()),
            *((Fixpoint((StoreHalves(half), *SIMPLIFY)),) if half else ()),
            Decompose(keeps=streams),
            *SIMPLIFY,
            Exactness(),
            RunTimeChecks(),
            Fusion(epilogues=level > 0, strided=True),
            DeadCodeElimination(),
            *((NormalisedProducts(),) if level > 0 else ()),
            *((OutputViews(), ConcatViews()) if level > 0 else ()),
        )
        run_passes(graph, final, dump_after=options.dump_after)
        if options.probe:
            options.probe(graph)
    with stages.stage("kernels"):
        host = CpuChooser(target.host, level, options.choices)
        choose = GpuChooser(host, target, arithmetic_of(target, options), options.choices)
        plan = Planner(graph, choose, CONTROL).build()
        kernels = gpu_kernels(plan, choose.reasons, target)
        if choose.arithmetic.tf32:
            tell(note, _rounded(plan, graph))
    return plan, kernels


def host_kernels(
    graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
) -> tuple[HostKernel, ...]:
    """What of a graph would run on the host; the graph is rewritten in place."""
    plan, kernels = make_plan(graph, target, options, stages)
    found = [
        HostKernel(plan.kernels[number].symbol, plan.kernels[number].nodes, reason)
        for number, reason in kernels.reasons.items()
    ]
    functions = (step.function for step in all_steps(plan.steps) if isinstance(step, External))
    found += [HostKernel(name, (), "it is no loop nest") for name in dict.fromkeys(functions)]
    return tuple(found)


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
            parts[number] = _maker(plan, number, target).parts(planned.schedule)
    return GpuKernels(parts, reasons)


def _maker(plan: Plan, number: int, target: GpuTarget) -> PartMaker:
    planned = plan.kernels[number]
    kernel = replace(planned.kernel, name=planned.symbol)
    return PartMaker(kernel, target, _aligned(plan, number), index_type(plan))


def _rounded(plan: Plan, graph: Graph) -> Iterator[Decision]:
    """Which contractions multiply f32 as tf32."""
    contractions = {node.name: node.op for node in graph.walk() if node.op in _CONTRACTIONS}
    for planned in plan.kernels:
        tf32 = any(tiles.tf32 for tiles in planned.schedule.tiles)
        for name in planned.nodes:
            if name in contractions:
                reason = "" if tf32 else "it has few rows or columns, or its sums have to be exact"
                yield Decision(name, contractions[name], TF32 if tf32 else "fp32", reason)


def _planned(number: int, functions: Sequence[Function]) -> list[DeviceFunction]:
    return [
        DeviceFunction(f.symbol, number, f.params, f.symbols, f.programs, f.workspace)
        for f in functions
    ]


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
) -> tuple[GpuKernels, dict[str, tuple[Image, ...]]]:
    """Compile all functions; (kernels with the tiles that their code passes with, the images of
    every function by its symbol). What was chosen by hand keeps its tiles."""
    others: dict[str, Iterator[Part]] = {}
    for number, parts in kernels.parts.items():
        keys = plan.kernels[number].keys
        if not any(options.choices.of(key) for key in keys):
            for part in parts:
                others[part[0].symbol] = _others(plan, number, part, target, options)
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


def _others(
    plan: Plan, number: int, part: Part, target: GpuTarget, options: CompileOptions
) -> Iterator[Part]:
    """One part of a kernel with its other tiles, in the order in which they are tried."""
    maker, own = _maker(plan, number, target), part[0]
    first = own.architectures[0]
    usual = tiles_for(plan.kernels[number].schedule, target)[first]
    of_part = parts_of(maker.kernel)[own.place]
    ranked = ranked_tiles(of_part, targets_of(target)[first], arithmetic_of(target, options))
    for tiles in ranked:
        tried = replace(tiles, packed=own.tiles.packed, band=own.tiles.band)
        if tried != own.tiles:
            chosen = [tried if n == own.place else tiles for n, tiles in enumerate(usual)]
            yield maker.part(chosen, own.place, own.architectures)


def _infos(
    plan: Plan, kernels: GpuKernels, images: Mapping[str, Sequence[Image]]
) -> tuple[KernelInfo, ...]:
    """The kernels of a plan by number, for reports."""
    told = []
    for number, info in enumerate(kernel_infos(plan)):
        if number in kernels.reasons:
            told.append(replace(info, schedule=f"on the host: {kernels.reasons[number]}"))
            continue
        functions = kernels.functions[number]
        told.append(
            replace(
                info,
                schedule="; ".join(
                    _told(function, kernels.parts[number]) for function in functions
                ),
                functions=tuple(_info(function, images[function.symbol]) for function in functions),
            )
        )
    return tuple(told)


def _told(function: Function, parts: Sequence[Part]) -> str:
    """The tiles of a function, and for which architectures they are where others have others."""
    alone = sum(part[0].part == function.part for part in parts) == 1
    where = ", ".join(f"sm_{number}" for number in function.architectures)
    return str(function.tiles) if alone else f"{where}: {function.tiles}"


def _info(function: Function, images: Sequence[Image]) -> DeviceFunctionInfo:
    resources = {
        f"sm_{image.architecture}": {
            "registers": image.registers,
            "stack_bytes": image.stack,
            "shared_bytes": image.shared,
            "threads": image.threads,
            "code_bytes": len(image.data),
        }
        for image in images
        if not image.ptx
    }
    return DeviceFunctionInfo(function.symbol, function.source, function.signature, resources)
