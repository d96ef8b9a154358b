"""The pipeline of GPU targets, from an imported graph to code of the host and of the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
from ...compiler.kernel.schedule.choice import Choice
from ...compiler.kernel.schedule.chooser import Chooser, Chosen, CpuChooser, Request
from ...compiler.kernel.schedule.schedule import Schedule, StageSchedule
from ...compiler.pass_manager import Fixpoint, run_passes
from ...compiler.target import GpuTarget
from ...passes.checks.exactness import Exactness
from ...passes.checks.run_time_checks import RunTimeChecks
from ...passes.grouping.concat_views import ConcatViews
from ...passes.grouping.fusion import Fusion
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
from .compiling import FunctionJob, Image, compile_all
from .dots import AS_WRITTEN, Arithmetic
from .emit.function import Function, functions_of, parts_of
from .emit.types import NoDeviceCode
from .packing import pack_factors
from .table import device_code
from .tiles import tiles_of
from .triton_package import reason_unavailable

FP8_INSTRUCTION = "mma.fp8"
TF32 = "tf32"  # the precision in which products of f32 are rounded
DIVISION_STACK = 16  # bytes of stack that the slow path of a division takes: nothing is spilled
HALVES = {"bf16": DType.BF16, "fp16": DType.F16}
_CONTRACTIONS = ("matmul", "conv", "conv_transpose")
POINTER_ALIGNMENT = 16  # bytes: what a thread loads at once at most


@dataclass(frozen=True)
class GpuKernels:
    """What runs of each kernel on the device, by its number, or why it runs on the host."""

    functions: Mapping[int, tuple[Function, ...]]
    reasons: Mapping[int, str]


def compile_cuda(
    graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
) -> Compilation:
    """Compile a graph for GPUs; the graph is rewritten in place and loses its large constants.

    Raises UsageError for what the backend cannot do yet and where Triton is missing, InternalError
    when a stage breaks an invariant.
    """
    _check(target, options)
    decisions: list[Decision] = []
    plan, kernels = make_plan(graph, target, options, stages, decisions.append)
    functions = [function for found in kernels.functions.values() for function in found]
    with stages.stage("gpu code"):
        images = compile_functions(functions, target)
    with stages.stage("weights"):
        weights = write_weights(plan, options.work_dir / "weights.bin")
        defaults = append_defaults(graph.defaults, weights)
    code = generate_code(plan, target.host, options, stages)
    device = device_code(functions, images, target, plan, options.name)
    code = replace(code, device=device, features=target.features)
    model = model_of(graph, plan, code, weights, defaults, options.name)
    arena = plan.arena_bytes if isinstance(plan.arena_bytes, int) else -1
    infos = _infos(plan, kernels, images)
    return Compilation(model, infos, arena, weights.stat().st_size, tuple(decisions))


def supports_cuda(node: Node, target: GpuTarget) -> str | None:
    """Why a node can be compiled neither for the GPU nor for its host, or None when it can."""
    return supports(node, replace(target.host, name=target.name))


def _check(target: GpuTarget, options: CompileOptions) -> None:
    if reason := reason_unavailable():
        raise UsageError(f"nothing can be compiled for '{target.name}' here", why=reason)
    if options.choices.by_key:
        raise UsageError(
            f"choices of schedules are not there for '{target.name}' yet", remedy="leave them out"
        )


def make_plan(
    graph: Graph,
    target: GpuTarget,
    options: CompileOptions,
    stages: Stages,
    note: Note | None = None,
) -> tuple[Plan, GpuKernels]:
    """Optimise a graph in place, form its kernels, and plan what runs where.

    note: is told in which precision products are computed.
    """
    level, half = options.opt_level, HALVES.get(options.precision)
    with stages.stage("passes"):
        bytes_ = (FloatByteProducts(note),) if level > 0 else ()
        usual = optimization_passes(
            level, note, data=DType.I8, in_groups=False, divide_attention=False
        )
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
            *((OutputViews(), ConcatViews()) if level > 0 else ()),
        )
        run_passes(graph, final, dump_after=options.dump_after)
        if options.probe:
            options.probe(graph)
    with stages.stage("kernels"):
        fp8 = FP8_INSTRUCTION in target.instructions
        arithmetic = Arithmetic(options.precision == TF32, fp8)
        choose = GpuChooser(CpuChooser(target.host, level), arithmetic)
        plan = Planner(graph, choose, CONTROL).build()
        kernels = gpu_kernels(plan, choose.reasons)
        if arithmetic.tf32:
            tell(note, _rounded(plan, graph))
        on_device(plan, {n: _planned(n, found) for n, found in kernels.functions.items()})
        limit_sizes(plan)
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


@dataclass(frozen=True)
class GpuChooser:
    """Leaves kernels that the device has code for as they were lowered, with tiles for a schedule.

    host: chooses for those that stay there. arithmetic: how products may be computed.
    reasons: why kernels stay on the host, by the keys of their groups.
    """

    host: Chooser
    arithmetic: Arithmetic = AS_WRITTEN
    reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> Chosen:
        """The kernel, to be emitted for the device or for the host."""
        kernel = request.kernel
        try:
            tiles = tuple(tiles_of(part, self.arithmetic) for part in parts_of(kernel))
            packed = pack_factors(kernel, tiles, request.constants)
            functions_of(packed.kernel, packed.tiles)
        except NoDeviceCode as error:
            self.reasons[request.key] = str(error)
            return self.host(request)
        stages = tuple(StageSchedule() for _ in kernel.stages)
        schedule = Schedule(stages, 0, tiles=packed.tiles)
        return Chosen(packed.kernel, schedule, packed.packings, Choice(), request.key)


def gpu_kernels(plan: Plan, reasons_by_key: Mapping[str, str]) -> GpuKernels:
    """The functions of every kernel of a plan, but of groups that stay on the host for a reason."""
    functions: dict[int, tuple[Function, ...]] = {}
    reasons: dict[int, str] = {}
    index = index_type(plan)
    for number, planned in enumerate(plan.kernels):
        kept = [reasons_by_key[key] for key in planned.keys or ("",) if key in reasons_by_key]
        if kept:
            reasons[number] = kept[0]
        else:
            kernel = replace(planned.kernel, name=planned.symbol)
            aligned = _aligned(plan, number)
            functions[number] = functions_of(kernel, planned.schedule.tiles, aligned, index)
    return GpuKernels(functions, reasons)


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
    return [DeviceFunction(f.symbol, number, f.params, f.symbols, f.programs) for f in functions]


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


def compile_functions(
    functions: Sequence[Function], target: GpuTarget
) -> dict[str, tuple[Image, ...]]:
    """The images of every function, by its symbol.

    Where registers do not hold what a thread needs, it is compiled again for twice as many threads,
    and what keeps less in memory is taken.
    """
    jobs = [FunctionJob(function, n) for n in target.architectures for function in functions]
    if target.ptx:
        jobs += [FunctionJob(function, target.ptx, ptx=True) for function in functions]
    images = compile_all(jobs)
    spilling = [n for n, image in enumerate(images) if image.stack > DIVISION_STACK]
    wider = compile_all([_with_more_threads(jobs[n]) for n in spilling])
    for number, other in zip(spilling, wider, strict=True):
        images[number] = min(images[number], other, key=lambda image: image.stack)
    found: dict[str, tuple[Image, ...]] = {function.symbol: () for function in functions}
    for image in images:
        found[image.symbol] += (image,)
    return found


def _with_more_threads(job: FunctionJob) -> FunctionJob:
    tiles = job.function.tiles
    return replace(job, function=replace(job.function, tiles=replace(tiles, warps=2 * tiles.warps)))


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
                schedule="; ".join(str(function.tiles) for function in functions),
                choice={},
                functions=tuple(_info(function, images[function.symbol]) for function in functions),
            )
        )
    return tuple(told)


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
