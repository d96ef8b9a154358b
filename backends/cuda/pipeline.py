"""The pipeline of GPU targets, from an imported graph to code of the host and of the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

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
from ...compiler.ir.graph import Graph, Node
from ...compiler.ir.types import DType
from ...compiler.kernel.plan.control_steps import CONTROL
from ...compiler.kernel.plan.devices import all_steps, on_device
from ...compiler.kernel.plan.plan import DeviceFunction, External, Plan
from ...compiler.kernel.plan.planner import Planner
from ...compiler.kernel.schedule.chooser import CpuChooser
from ...compiler.pass_manager import Fixpoint, run_passes
from ...compiler.target import GpuTarget
from ...passes.checks.exactness import Exactness
from ...passes.checks.run_time_checks import RunTimeChecks
from ...passes.grouping.computed_pieces import ComputedPieces
from ...passes.grouping.concat_views import ConcatViews
from ...passes.grouping.fusion import Fusion
from ...passes.grouping.normalised_products import NormalisedProducts
from ...passes.grouping.output_views import OutputViews
from ...passes.grouping.shared_launches import SharedLaunches
from ...passes.grouping.whole_concats import WholeConcats
from ...passes.layout.broadcast_operands import BroadcastOperands
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
from .addressing import limit_sizes
from .alternatives import with_alternatives
from .attention_kernel import streams
from .choosing import GpuChooser
from .compiling import Image
from .emit.function import Function
from .emit.types import has_types
from .forms import device_forms
from .kernels import TF32, GpuKernels, arithmetic_of, gpu_kernels, vet_kernels
from .table import device_code
from .triton_package import reason_unavailable, triton_version
from .vetting import Part

HALVES = {"bf16": DType.BF16, "fp16": DType.F16}
_CONTRACTIONS = ("matmul", "conv", "conv_transpose")
# behind fusion: fewer launches, and fewer copies in them
_LAUNCHES = (
    NormalisedProducts(),
    ComputedPieces(has_types),
    OutputViews(),
    ConcatViews(),
    WholeConcats(),
    SharedLaunches(has_types),
)


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
        kernels, images = with_alternatives(plan, kernels, images, target, options)
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
            *((BroadcastOperands(), DeadCodeElimination()) if level > 0 else ()),
            Fusion(epilogues=level > 0, strided=True),
            DeadCodeElimination(),
            *(_LAUNCHES if level > 0 else ()),
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
    same = [part[0] for part in parts if part[0].part == function.part]
    alone = len({own.architectures for own in same}) == 1
    where = "" if alone else ", ".join(f"sm_{n}" for n in function.architectures) + ": "
    return f"{'or ' * bool(function.alternative)}{where}{function.tiles}"


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
