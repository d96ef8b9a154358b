"""The pipeline of the Ethos-U: integers, segments, command streams, and the host's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...compiler.backend import IntegerForm, WeightDecision
from ...compiler.compilation import Compilation, CompileOptions, NpuReport, Stages
from ...compiler.errors import UsageError
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.segment import INVOKE
from ...compiler.ir.types import DType, TensorType
from ...compiler.kernel.schedule.choices import Choices
from ...compiler.pass_manager import run_passes
from ...compiler.target import NpuTarget
from ...passes.precision.fixed_point.quantise_floats import Range, to_quantise
from ..llvm.pipeline import compile_cpu, supports
from .arrangement import arranged, change_results, choice_key
from .channel_groups import block_channels
from .integer_form import FLOAT_FORM, integer_passes
from .placement import Placement, place
from .program import device_code, function_name
from .report import report_of
from .targets import OPTIMISE
from .vela import ALIGNMENT, CommandStream
from .vela_package import installed_version, require_vela
from .weight_steps import decide_weights, steps_key, weight_decisions


def compile_ethosu(
    graph: Graph, target: NpuTarget, options: CompileOptions, stages: Stages
) -> Compilation:
    """Compile a graph for an Ethos-U and the processor beside it; the graph is rewritten in place.

    Raises UsageError where Vela is missing, and for memory modes and system configurations that
    there are not.
    """
    _require_compiler(target)
    placement = placed(graph, target, options, stages)
    _take_over(graph, placement, options.name)
    found = compile_cpu(graph, target.host, replace(options, precision="fp32"), stages)
    device = device_code(options.name, placement.streams)
    code = replace(found.model.code, device=device)
    return replace(
        found,
        model=replace(found.model, code=code),
        npu=report_of(placement),
    )


def placed(graph: Graph, target: NpuTarget, options: CompileOptions, stages: Stages) -> Placement:
    """Rewrite a graph into integers, in place, and divide a copy of it.

    Raises UsageError where it takes more memory than the target says may be used.
    """
    with stages.stage("integers"):
        integers_of(graph, target, options)
    with stages.stage("vela"):
        if options.opt_level == 0:
            placement = place(graph, target)
        else:
            given = options.choices.by_key
            choice = options.choices.of(choice_key(graph, target)) if given else None
            placement = arranged(graph, target, choice or {})
    require_memory(placement, target)
    return placement


def integers_of(graph: Graph, target: NpuTarget, options: CompileOptions) -> Graph:
    """Rewrite a graph into integers, with weights as given choices say, in place."""
    if not options.ranges:  # who asked for them has rewritten the graph so
        run_passes(graph, FLOAT_FORM, dump_after=options.dump_after)
    passes = integer_passes(options.ranges, block_channels(target))
    run_passes(graph, passes, dump_after=options.dump_after)
    _decide_weights(graph, options.choices)
    return graph


def supports_ethosu(node: Node, target: NpuTarget) -> str | None:
    """Why a node can be compiled neither for the processor nor for its host, or None."""
    return supports(node, replace(target.host, name=target.name))


def _require_compiler(target: NpuTarget) -> None:
    require_vela(f"nothing can be compiled for '{target.name}'")


def require_memory(placement: Placement, target: NpuTarget) -> None:
    """Raises UsageError where a placement takes more memory than the target says may be used."""
    if why := placement.excess(target):
        other = "" if target.optimise == "Size" else f", try +{OPTIMISE}=Size,"
        raise UsageError(
            f"the model does not fit the memory of '{target.name}'",
            why=why,
            remedy=f"allow more{other} or name a memory mode that is 'Dedicated', where what does "
            "not fit lies in another memory",
        )


def _take_over(graph: Graph, placement: Placement, name: str) -> None:
    """Let the graph be the divided one, with calls in the place of segments."""
    graph.inputs, graph.outputs = placement.graph.inputs, placement.graph.outputs
    graph.nodes = placement.graph.nodes
    for number, segment in enumerate(placement.segments):
        stream = placement.streams[number]
        invoke = _invoke(segment, stream, function_name(name, number))
        graph.nodes[graph.nodes.index(segment)] = invoke


def _invoke(segment: Node, stream: CommandStream, function: str) -> Node:
    """The call of a stream, with memory for its arena."""
    arena = Value(TensorType(DType.U8, (max(stream.scratch_bytes, ALIGNMENT),)), "arena")
    outputs = [*segment.outputs, arena]
    attrs = {
        "function": function,
        "dtypes": tuple(value.dtype for value in outputs),
        "shapes": tuple(value.shape for value in outputs),
    }
    return Node(INVOKE, segment.inputs, outputs, attrs, name=segment.name)


def _observed(graph: Graph, target: NpuTarget) -> Sequence[Value]:
    run_passes(graph, FLOAT_FORM)
    return to_quantise(graph)


def _rewrite(graph: Graph, target: NpuTarget, ranges: Mapping[Value, Range]) -> None:
    run_passes(graph, integer_passes(ranges, block_channels(target)))


def _decide(graph: Graph, target: NpuTarget, choices: Mapping[str, Mapping[str, Any]]) -> None:
    _decide_weights(graph, Choices(choices))
    if choices and (choice := Choices(choices).of(choice_key(graph, target))):
        change_results(graph, dict(choice))


def _decide_weights(graph: Graph, choices: Choices) -> None:
    if choices.by_key and (choice := choices.of(steps_key(graph))):
        decide_weights(graph, choice)


def _weights(graph: Graph) -> tuple[str, Sequence[WeightDecision]]:
    return steps_key(graph), weight_decisions(graph)


def _reported(
    graph: Graph, target: NpuTarget, options: CompileOptions, stages: Stages
) -> NpuReport:
    _require_compiler(target)
    return report_of(placed(graph, target, options, stages))


INTEGERS = IntegerForm(_observed, _rewrite, _decide, _weights, _reported, installed_version)
