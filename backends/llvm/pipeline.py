"""The pipeline of every CPU target, from an imported graph to machine code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.artifact import Code, CompiledModel, TensorSpec
from ...compiler.collector import collector_paused
from ...compiler.compilation import Compilation, CompileOptions, KernelInfo, Stages
from ...compiler.decisions import Decision, Note
from ...compiler.errors import ScheduleError
from ...compiler.ir.dims import LEGIBLE, Dim, size_of, symbols_of
from ...compiler.ir.graph import Graph, Meaning, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.kernel.cost.model_cost import RunEstimate, run_estimate
from ...compiler.kernel.cost.slow_kernels import SlowKernel, slow_kernels
from ...compiler.kernel.instruction import byte_data
from ...compiler.kernel.lower import INLINE, REDUCE, SCATTER
from ...compiler.kernel.plan.control_steps import CONTROL
from ...compiler.kernel.plan.devices import all_steps
from ...compiler.kernel.plan.external import EXTERNAL, TAKES_MEMORY
from ...compiler.kernel.plan.plan import ALIGNMENT, Allocate, External, Plan
from ...compiler.kernel.plan.planner import Planner
from ...compiler.kernel.plan.shared_kernels import share_kernels
from ...compiler.kernel.schedule.choices import Choices
from ...compiler.kernel.schedule.chooser import CpuChooser
from ...compiler.pass_manager import run_passes
from ...compiler.target import CpuTarget
from ...passes.checks.exactness import Exactness
from ...passes.checks.run_time_checks import RunTimeChecks
from ...passes.grouping.attention_blocks import AttentionBlocks
from ...passes.grouping.borders import Borders
from ...passes.grouping.choose_forms import ChooseForms
from ...passes.grouping.concat_views import ConcatViews
from ...passes.grouping.conv_bands import ConvBands
from ...passes.grouping.fusion import Fusion
from ...passes.grouping.output_views import OutputViews
from ...passes.layout.operand_panels import OperandPanels
from ...passes.pipeline import SIMPLIFY, optimization_passes
from ...passes.simplify.dce import DeadCodeElimination
from ...passes.simplify.decompose import RULES, Decompose
from ...passes.simplify.long_sums import LongSums
from ...passes.simplify.mirrored_borders import MirroredBorders
from ...passes.simplify.packed_places import PackedPlaces
from ...passes.simplify.separable_pools import SeparablePools
from . import codegen
from .emit.plan_function import emit_plan

Array = np.ndarray[Any, Any]
_STRUCTURAL = frozenset({"read_dims", "check_dims", "fused", "unpack", *RULES})


def compile_cpu(
    graph: Graph, target: CpuTarget, options: CompileOptions, stages: Stages
) -> Compilation:
    """Compile a graph for a CPU; the graph is rewritten in place and loses its large constants.

    Raises InternalError when a stage breaks an invariant.
    """
    decisions: list[Decision] = []
    plan = make_plan(graph, target, options, stages, decisions.append)
    share_kernels(plan)
    with stages.stage("weights"):
        weights = write_weights(plan, options.work_dir / "weights.bin")
        defaults = append_defaults(graph.defaults, weights)
    code = generate_code(plan, target, options, stages)
    model = model_of(graph, plan, code, weights, defaults, options.name)
    arena = plan.arena_bytes if isinstance(plan.arena_bytes, int) else -1
    slow = slow_kernels(plan, target, options.sizes)
    infos = kernel_infos(plan, slow)
    return Compilation(model, infos, arena, weights.stat().st_size, tuple(decisions))


def model_of(
    graph: Graph, plan: Plan, code: Code, weights: Path, defaults: Mapping[str, int], name: str
) -> CompiledModel:
    """What the linker needs of a plan. defaults: as `append_defaults` gives them."""
    shapes = {name: array.shape for name, array in graph.defaults.items()}
    return CompiledModel(
        name=name,
        inputs=tuple(
            replace(_spec(value, graph, set(plan.symbols)), default=shapes.get(value.name))
            for value in plan.inputs
        ),
        outputs=tuple(_spec(value, graph, set(plan.symbols)) for value in plan.outputs),
        symbols=plan.symbols,
        code=code,
        weights=weights,
        bounds={name: graph.bounds[name] for name in plan.symbols if name in graph.bounds},
        defaults=defaults,
        scratch_bytes=scratch_bytes(plan),
    )


def scratch_bytes(plan: Plan) -> int:
    """Memory that a run with one thread takes: of tensors, and of kernels; -1 where symbolic dims,
    or functions of the runtime that take some, decide."""
    steps = list(all_steps(plan.steps))
    if not isinstance(plan.arena_bytes, int) or any(isinstance(s, Allocate) for s in steps):
        return -1
    if any(isinstance(step, External) and step.function in TAKES_MEMORY for step in steps):
        return -1
    return plan.arena_bytes + max((k.kernel.scratch_bytes for k in plan.kernels), default=0)


def slow_kernels_cpu(
    graph: Graph, target: CpuTarget, options: CompileOptions, stages: Stages
) -> tuple[SlowKernel, ...]:
    """The kernels of a graph that are predicted to be slow; the graph is rewritten in place."""
    return slow_kernels(make_plan(graph, target, options, stages), target, options.sizes)


def estimate_cpu(
    graph: Graph, target: CpuTarget, options: CompileOptions, stages: Stages
) -> RunEstimate:
    """What a run of a graph is predicted to need; the graph is rewritten in place."""
    plan = make_plan(graph, target, options, stages)
    return run_estimate(plan, target, options.sizes, max(1, options.threads))


def make_plan(
    graph: Graph,
    target: CpuTarget,
    options: CompileOptions,
    stages: Stages,
    note: Note | None = None,
) -> Plan:
    """Optimise a graph in place, form its kernels, and plan their calls and memory.

    note: is told what becomes of products of what is quantised.
    Raises ScheduleError for given choices that no kernel can have.
    """
    with stages.stage("passes"):
        fuse_groups(graph, target, options, note)
        form_groups(graph, target, options)
        if options.probe:
            options.probe(graph)
    with stages.stage("kernels"):
        choose = CpuChooser(target, options.opt_level, options.choices)
        plan = Planner(graph, choose, CONTROL).build()
        check_forms_used(options.choices, plan, options.opt_level)
        return plan


def fuse_groups(
    graph: Graph, target: CpuTarget, options: CompileOptions, note: Note | None = None
) -> None:
    """Optimise a graph in place, up to the groups that become kernels; of choices only that for the
    graph matters yet."""
    level, choice = options.opt_level, options.choices.graph
    panels = (OperandPanels(target.lanes(32)),) if level > 0 else ()
    last = (
        Decompose(),
        LongSums(),
        *((PackedPlaces(target), MirroredBorders(), SeparablePools()) if level > 0 else ()),
        *panels,
        *SIMPLIFY,
        Exactness(),
        RunTimeChecks(),
        Fusion(level > 0, choice.side_by_side, lanes=target.lanes(32) if level > 0 else 1),
        DeadCodeElimination(),
    )
    data = byte_data(target.instructions)
    passes = (*optimization_passes(level, note, target, choice, data=data, in_groups=True), *last)
    run_passes(graph, passes, dump_after=options.dump_after)


def form_groups(graph: Graph, target: CpuTarget, options: CompileOptions) -> None:
    """Choose the forms of groups, or take the given ones, and what follows from them.

    Raises ScheduleError for a given form that its group cannot have.
    """
    level, threads, choices = options.opt_level, max(1, options.threads), options.choices
    forms = (ChooseForms(target, threads, choices),) if level > 1 else ()
    views = (
        ConvBands(target, threads, choices),
        OutputViews(),
        ConcatViews(),
        AttentionBlocks(choices),
    )
    passes = (*forms, Borders(), *(views if level > 0 else ()))
    run_passes(graph, passes, dump_after=options.dump_after)


def check_forms_used(choices: Choices, plan: Plan, level: int) -> None:
    """Raise ScheduleError for a form that was given to a group that the plan does not compute.

    Schedules for other models do no harm; a form makes the group that it is for.
    """
    used = [key for planned in plan.kernels for key in planned.keys]
    for key in choices.unused(used):
        if form := choices.by_key[key].get("form"):
            raise ScheduleError(
                f"no group '{key}' takes the form '{form}'",
                why=f"at -O{level}, beside these neighbours, the model has no such group",
                remedy="leave the choice out, or compile the model as it was made for",
            )


def generate_code(plan: Plan, target: CpuTarget, options: CompileOptions, stages: Stages) -> Code:
    """Machine code of a plan and its kernels."""
    symbol = f"ts_plan_{options.name}"
    with stages.stage("emit"), collector_paused():
        module = codegen.new_module(options.name, target)
        emit_plan(module, plan, symbol, options.sanitize)
        codegen.set_attributes(module, target)
        parsed = codegen.parse(module)
    level = 2 if options.opt_level else 0
    generator = codegen.target_machine(target, 3 if level else 0)
    with stages.stage("optimise"):
        codegen.optimise(parsed, generator, level)
    texts: dict[str, str] = {}
    if "llvm" in options.texts:
        texts["llvm"] = str(parsed)
    with stages.stage("code"):
        machine_code = generator.emit_object(parsed)
        if "asm" in options.texts or target.bare:  # linking needs it
            texts["asm"] = generator.emit_assembly(parsed)
    return Code(
        objects=((options.name, machine_code),),
        plan_symbol=symbol,
        triple=target.triple,
        features=target.features,
        texts=texts,
        cpu=target.cpu,
    )


def write_weights(plan: Plan, path: Path) -> Path:
    """Write the constants, packed as their kernels read them, at their offsets.

    A constant loses its elements when it is written: code generation needs the memory.
    """
    left = Counter(weight.value for weight in plan.weights)
    with path.open("wb") as file:
        for weight in plan.weights:
            file.write(b"\0" * (weight.offset - file.tell()))
            data = weight.value.data
            assert data is not None
            packed = weight.packing.apply(data) if weight.packing else data
            flat = np.ascontiguousarray(packed).reshape(-1)
            file.write(flat.view("u1").data if packed.size else b"")
            left[weight.value] -= 1
            if not left[weight.value]:
                weight.value.data = None
    return path


def append_defaults(defaults: Mapping[str, Array], path: Path) -> dict[str, int]:
    """Write the values of optional inputs behind the weights; where they begin."""
    places: dict[str, int] = {}
    with path.open("ab") as file:
        for name, array in defaults.items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            places[name] = file.tell()
            flat = np.ascontiguousarray(array).reshape(-1)
            file.write(flat.view("u1").data if array.size else b"")
    return places


def supports(node: Node, target: CpuTarget) -> str | None:
    """Why a node cannot be compiled for a CPU, or None when it can."""
    known = node.op in INLINE or node.op in REDUCE or node.op in SCATTER or node.op in EXTERNAL
    if known or node.op in _STRUCTURAL or has_trait(node, Trait.CONTROL):
        return None
    return f"the operator '{node.op}' has no kernel for {target.name}"


def _spec(value: Value, graph: Graph, symbols: set[str]) -> TensorSpec:
    def dim_text(dim: Dim) -> int | str:
        if isinstance(dim, int):
            return dim
        told = symbols_of(dim) <= symbols and size_of(dim) <= LEGIBLE
        return str(dim) if told else "?"

    meaning = graph.meanings.get(value.name, Meaning())
    dims = tuple(dim_text(dim) for dim in value.shape)
    return TensorSpec(
        value.name, str(value.dtype), dims, meaning.strings, meaning.classes,
        stages=meaning.stages or None, key_type=meaning.key_type or None,
    )  # fmt: skip


def kernel_infos(plan: Plan, slow: Sequence[SlowKernel] = ()) -> tuple[KernelInfo, ...]:
    """The kernels of a plan by number, for reports."""
    found = []
    slow_of = {item.kernel: item for item in slow}
    for number, planned in enumerate(plan.kernels):
        flops = planned.kernel.flops()
        found.append(
            KernelInfo(
                name=planned.symbol,
                operators=planned.kernel.operators,
                flops=flops if isinstance(flops, int) else -1,
                schedule="; ".join(str(stage) for stage in planned.schedule.stages),
                calls=plan.calls.get(number, 0),
                slow=slow_of.get(planned.symbol),
                choice=planned.choice.to_json(),
                keys=planned.keys,
            )
        )
    return tuple(found)
