"""Initialisers that are inputs too: defaults that a caller may replace, or constants.

Up to IR version 3 every initialiser had to be an input as well, and ONNX Runtime takes all of them
for constants; from version 4 on one that is an input is the default of that input (IR.md of the
standard). Exporters that list all weights as inputs still exist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Set

import onnx

from ...compiler.errors import TensmithError, UnsupportedError, UsageError
from ...compiler.knobs import DEFAULTS
from .origin import node_name
from .reading.topology import names_used

AUTO, CONSTANT, INPUT = "auto", "constant", "input"
MODES = (AUTO, CONSTANT, INPUT)
_FIRST_IR_VERSION = 4
_CONTRACTIONS = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger"}
    | {"QLinearMatMul", "LSTM", "GRU", "RNN"}
)
_MANY_ELEMENTS = 1024


def replaceable(model: onnx.ModelProto, mode: str) -> tuple[frozenset[str], list[str]]:
    """Names of initialisers that stay inputs, and what to tell the user of the others.

    mode: "constant": none; "input": all that are listed as inputs; "auto": these too, but in a file
    of IR version 4 or later only, and if that does not list its weights. Raises UsageError for
    another mode.
    """
    if mode not in MODES:
        remedy = f"choose from {', '.join(MODES)}"
        raise UsageError(f"{DEFAULTS.variable}={mode} is not known", remedy=remedy)
    initial = {tensor.name: tensor for tensor in model.graph.initializer}
    listed = frozenset(info.name for info in model.graph.input if info.name in initial)
    if mode == CONSTANT or (mode == AUTO and model.ir_version < _FIRST_IR_VERSION):
        return frozenset(), []
    if mode == AUTO and _lists_weights(model.graph, initial, listed):
        note = (
            f"the model lists its weights as inputs: all {len(listed)} are constants, unless "
            f"{DEFAULTS.variable}={INPUT}"
        )
        return frozenset(), [note]
    return listed, []


def _lists_weights(
    graph: onnx.GraphProto, initial: dict[str, onnx.TensorProto], listed: Set[str]
) -> bool:
    """Whether most matrices and filters of a model that has several are listed as inputs."""
    used = {name for n in graph.node if n.op_type in _CONTRACTIONS for name in n.input}
    weights = {name for name in used if name in initial and len(initial[name].dims) > 1}
    inputs = weights & listed
    elements = sum(math.prod(initial[name].dims) for name in inputs)
    return len(inputs) > 1 and 2 * len(inputs) > len(weights) and elements >= _MANY_ELEMENTS


def needed_by(graph: onnx.GraphProto, names: Set[str], error: TensmithError) -> frozenset[str]:
    """Those of some defaults that must be constants, for an import failed while they were inputs.

    They are what the nodes that are not supported read, if need be by way of other nodes, behind
    their first input where the parameters of operators are; where there is none, all.
    """
    failed = {item.node for item in error.items} if isinstance(error, UnsupportedError) else set()
    nodes = [node for node in graph.node if node_name(node)[:120] in failed]
    makers = {name: node for node in graph.node for name in node.output}
    parameters = _read(makers, (name for node in nodes for name in node.input[1:]))
    every = _read(makers, (name for node in nodes for name in names_used(node)))
    return frozenset(parameters & names or every & names or names)


def _read(makers: dict[str, onnx.NodeProto], names: Iterable[str]) -> set[str]:
    """The names, and those of everything that they are made from."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += names_used(makers[name]) if name in makers else ()
    return seen


def decided(names: Set[str]) -> str:
    """What to tell the user of defaults that became constants since the compiler needs them."""
    shown = ", ".join(f"'{name[:60]}'" for name in sorted(names)[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"the defaults of {shown}{more} are constants: what they decide is fixed when compiling"
