"""Checks a parsed model before anything is built from it, in time linear in its size.

What onnx's own checker does is not enough for untrusted files: it follows recursive functions,
divides by strides of zero and expands functions without a limit in some versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import onnx
import onnx.defs

from ....compiler.errors import InvalidModelError, Unsupported, UnsupportedError
from ..emitter import SIZE_LIMIT
from .functions import Key, check_functions, key_of
from .node_rules import check_node
from .schemas import domain_of, opsets_of
from .tensors import MAX_RANK
from .topology import is_constant, ordered, subgraphs
from .wire import Source

OLDEST_OPSET = 1
MAX_DEPTH = 64
MAX_NODES = 1_000_000
_REMEDY = "export the model again"


def validate(source: Source) -> None:
    """Check versions, names, graph form, nodes and functions.

    Raises InvalidModelError for a malformed model and UnsupportedError for one that is too old or
    too new.
    """
    model = source.model
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise InvalidModelError(
            f"IR version {model.ir_version} does not exist",
            why=f"versions 1 to {onnx.IR_VERSION} are known",
            remedy="a newer onnx package may know it",
        )
    if not model.HasField("graph"):
        raise InvalidModelError("the model has no graph", remedy=_REMEDY)
    opsets = _opsets(model)
    functions = check_functions(model.functions, model.graph, MAX_NODES)
    checker = _Checker(opsets, functions)
    checker.graph(model.graph, [])
    if not model.graph.output:
        raise InvalidModelError("the model has no outputs", remedy=_REMEDY)
    for function in model.functions:
        checker.function(function)


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    newest = onnx.defs.onnx_opset_version()
    found: dict[str, int] = {}
    for item in model.opset_import:
        domain, version = domain_of(item.domain), item.version
        if version < 1 or found.get(domain, version) != version:
            raise InvalidModelError(
                f"the model imports opset {version} of '{domain or 'ai.onnx'}'",
                why="versions start at 1, one for each domain",
                remedy=_REMEDY,
            )
        found[domain] = version
    found = opsets_of(model)
    if "" not in found and any(not domain_of(n.domain) for n in model.graph.node):
        raise InvalidModelError("the model imports no opset of ai.onnx", remedy=_REMEDY)
    version = found.get("", newest)
    if not OLDEST_OPSET <= version <= newest:
        reason = f"opset {version}; {OLDEST_OPSET} to {newest} are supported"
        remedy = "convert it with onnx.version_converter"
        raise UnsupportedError([Unsupported(model.graph.name, "model", reason, remedy)])
    return found


class _Checker:
    def __init__(
        self,
        opsets: Mapping[str, int],
        functions: Mapping[Key, onnx.FunctionProto],
    ) -> None:
        self.opsets = opsets
        self.functions = functions

    def graph(
        self, graph: onnx.GraphProto, outer: Sequence[set[str]], in_function: bool = False
    ) -> None:
        """Check a graph whose nodes may use the names of the graphs around it.

        What a graph calls by a name of a graph around it hides that one. An initialiser may be an
        input too, and be listed twice.
        """
        if len(outer) > MAX_DEPTH:
            raise InvalidModelError(f"subgraphs are nested more than {MAX_DEPTH} deep")
        names: set[str] = set()
        for info in graph.input:
            _define(info.name, names, f"graph '{graph.name}'")
            if not outer:
                _check_type(info)
        tensors = [*graph.initializer, *(item.values for item in graph.sparse_initializer)]
        initial = {_checked(tensor.name, "initialisers") for tensor in tensors if tensor.name != ""}
        replaceable = initial - names
        names |= initial
        results = [info.name for info in graph.output]
        self.body(graph.node, results, names, outer, self.opsets, in_function, replaceable)

    def function(self, function: onnx.FunctionProto) -> None:
        """Check the body of a local function."""
        names: set[str] = set()
        for name in function.input:
            _define(name, names, f"function '{function.name}'")
        found = {domain_of(item.domain): item.version for item in function.opset_import}
        opsets = {**self.opsets, **found}
        self.body(function.node, function.output, names, [], opsets, in_function=True)

    def body(
        self,
        nodes: Sequence[onnx.NodeProto],
        outputs: Sequence[str],
        names: set[str],
        outer: Sequence[set[str]],
        opsets: Mapping[str, int],
        in_function: bool = False,
        replaceable: Set[str] = frozenset(),
    ) -> None:
        """Check nodes that start from the given names: SSA, known names, order, each node.

        replaceable: names of constants, which a Constant node may define anew.
        """
        constants = set(replaceable)
        for node in nodes:
            for name in node.output:
                if name and not (is_constant(node) and name in constants):
                    _define(name, names, f"node '{node.name[:60]}' ({node.op_type})")
            if is_constant(node):
                constants.update(node.output)
        scopes = [*outer, names]
        for node in nodes:
            for name in node.input:
                if name and not any(name in scope for scope in scopes):
                    raise InvalidModelError(
                        f"node '{_title(node)}' uses '{name[:80]}', which nothing makes",
                        remedy=_REMEDY,
                    )
            check_node(node, opsets, self.functions.get(key_of(node)), in_function)
            for subgraph in subgraphs(node):
                self.graph(subgraph, scopes, in_function)
        for name in outputs:
            if not any(name in scope for scope in scopes):
                raise InvalidModelError(f"output '{name[:80]}' is made by no node", remedy=_REMEDY)
        ordered(nodes)


def _title(node: onnx.NodeProto) -> str:
    return (node.name or f"{node.op_type}:{next(iter(node.output), '')}")[:120]


def _checked(name: str, where: str) -> str:
    if not isinstance(name, str) or not name or "\0" in name:  # bytes: not UTF-8
        raise InvalidModelError(f"the name {name[:60]!r} is not valid", where=where, remedy=_REMEDY)
    return name


def _define(name: str, names: set[str], where: str) -> None:
    if _checked(name, where) in names:
        raise InvalidModelError(
            f"'{name[:80]}' is defined twice",
            where=where,
            why="every name of a graph must have one definition",
            remedy=_REMEDY,
        )
    names.add(name)


def _check_type(info: onnx.ValueInfoProto) -> None:
    tensor = info.type.tensor_type
    if info.type.WhichOneof("value") != "tensor_type":
        return
    dims = tensor.shape.dim
    if len(dims) > MAX_RANK:
        raise InvalidModelError(f"'{info.name}' has {len(dims)} dimensions")
    elements = 1
    for dim in dims:
        if not isinstance(dim.dim_param, str):  # bytes: not UTF-8
            raise InvalidModelError(f"a dimension of '{info.name}' has a name that is no text")
        if dim.HasField("dim_value"):
            if dim.dim_value < -1:
                raise InvalidModelError(
                    f"'{info.name}' has a dimension of {dim.dim_value}", remedy=_REMEDY
                )
            elements *= max(dim.dim_value, 1)
    if elements > SIZE_LIMIT:
        raise InvalidModelError(
            f"'{info.name}' has {elements:.3g} elements", why="no real tensor is that large"
        )
