"""From a `fused` node's region to a kernel, in the form that was chosen for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.dims import Dim
from ...ir.graph import Graph, Node, Value
from ...ir.ops.quantised_product import QUANTISED_MATMUL
from ..expr import Buffer, Load, unique_parts
from ..kernel import Kernel, Stage
from ..lower.plain import plain_stages
from ..lower.quantised import Change, constant_changes
from ..lower.reductions import REDUCE
from ..lower.scope import Scope
from ..simplify import simplify
from .bands import Bands, band_stages
from .form import BandsForm, Form, NormalisedForm, RowBlocksForm, TogetherForm, WinogradForm
from .normalised import normalised_kernel
from .row_blocks import NotRowByRow, RowBlocks, row_block_kernel
from .winograd import Winograd, winograd_stages
from .winograd_transforms import FilterTransform

ConstantChange = FilterTransform | Change


@dataclass(frozen=True)
class Lowered:
    """A kernel and the region values behind its parameters, inputs before outputs.

    transforms: by parameter name, how a constant is changed before the kernel reads it.
    """

    kernel: Kernel
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    transforms: dict[str, ConstantChange]


def lower_region(region: Graph, form: Form | None = None) -> Lowered:
    """The kernel of a fused region. form: which algorithm computes it; None: plain loops.

    Raises InternalError for a region that has no such form.
    """
    if isinstance(form, RowBlocksForm):
        lowered = _in_row_blocks(region, form)
    elif isinstance(form, NormalisedForm):
        lowered = _normalised(region)
    else:
        lowered = _lower(region, form)
    kernel = replace(simplify(lowered.kernel), together=isinstance(form, TogetherForm))
    return replace(lowered, kernel=kernel)


def sizes_for(region: Graph, form: Form | None) -> tuple[tuple[Dim, Dim], ...]:
    """Pairs of dims that are equal in runs for which the form is the faster one; in others plain
    loops are. Empty where it is so in every run."""
    if not isinstance(form, WinogradForm):
        return ()
    [conv] = _convolutions(region)
    return Winograd(conv, form).enough()


def goes_row_by_row(region: Graph, form: RowBlocksForm) -> bool:
    """Whether fused nodes of attention can be computed in blocks of rows: each part has to read
    and write the rows of a block alone."""
    try:
        _in_row_blocks(region, form)
    except NotRowByRow:
        return False
    return True


def goes_normalised(region: Graph) -> bool:
    """Whether a norm and a product, fused nodes, can be one kernel."""
    try:
        _normalised(region)
    except NotRowByRow:
        return False
    return True


def _normalised(region: Graph) -> Lowered:
    buffers = {value: Buffer(f"i{n}", value.dtype) for n, value in enumerate(region.inputs)}
    buffers |= {value: Buffer(f"o{n}", value.dtype) for n, value in enumerate(region.outputs)}

    def lower(part: Graph) -> tuple[Kernel, tuple[Value, ...]]:
        lowered = _lower(part, None)
        return simplify(lowered.kernel), lowered.inputs

    kernel = normalised_kernel(region, buffers, lower)
    return Lowered(kernel, tuple(region.inputs), tuple(region.outputs), {})


def _in_row_blocks(region: Graph, form: RowBlocksForm) -> Lowered:
    buffers = {value: Buffer(f"i{n}", value.dtype) for n, value in enumerate(region.inputs)}
    buffers.update((value, Buffer("o0", value.dtype)) for value in region.outputs)

    def lower(part: Graph) -> tuple[Kernel, tuple[Value, ...]]:
        lowered = _lower(part, None)
        return lowered.kernel, lowered.inputs

    scores, softmax, result = region.nodes
    blocks = RowBlocks(scores, softmax, result, form.rows)
    kernel = row_block_kernel(blocks, buffers, lower)
    return Lowered(kernel, tuple(region.inputs), tuple(region.outputs), {})


def _lower(region: Graph, form: Form | None) -> Lowered:
    """The kernel of a region that holds no fused nodes, with its loops as they were written."""
    scope = Scope()
    for position, value in enumerate(region.inputs):
        scope.buffers[value] = Buffer(f"i{position}", value.dtype)
    outputs = {value: Buffer(f"o{n}", value.dtype) for n, value in enumerate(region.outputs)}
    transforms: dict[str, ConstantChange] = {}
    if isinstance(form, WinogradForm):
        [conv] = _convolutions(region)
        winograd = Winograd(conv, form)
        stages, shared = winograd_stages(scope, winograd, outputs)
        transforms[scope.buffers[conv.inputs[1]].name] = winograd.filter_transform
    elif isinstance(form, BandsForm):
        first, second = _convolutions(region)
        stages, shared = band_stages(scope, Bands(first, second, form), outputs)
    else:
        stages, shared = plain_stages(scope, region, outputs)
        transforms = _changes(scope, region)
    used = _used_buffers(stages)
    inputs = tuple(v for v in region.inputs if scope.buffers[v].name in used)
    params = tuple(scope.buffers[v] for v in inputs) + tuple(outputs.values())
    operators = tuple(node.op for node in region.nodes)
    nodes = tuple(dict.fromkeys(node.name for node in region.nodes if node.name))
    kernel = Kernel("", params, len(outputs), tuple(stages), shared, operators, nodes)
    return Lowered(kernel, inputs, tuple(outputs), transforms)


def _convolutions(region: Graph) -> list[Node]:
    return [node for node in region.nodes if node.op in REDUCE]


def _changes(scope: Scope, region: Graph) -> dict[str, ConstantChange]:
    """How constants are stored for the products that read them packed, by parameter."""
    return {
        scope.buffers[value].name: change
        for node in region.nodes
        if node.op == QUANTISED_MATMUL
        for value, change in constant_changes(node).items()
        if value in scope.buffers
    }


def _used_buffers(stages: list[Stage]) -> set[str]:
    return {
        part.buffer.name
        for stage in stages
        for expression in stage.expressions()
        for part in unique_parts(expression)
        if isinstance(part, Load)
    }
