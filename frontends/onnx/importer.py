"""Walks the nodes of a validated model and lowers them to a Graph of core operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from ...compiler.errors import (
    REPORT,
    InternalError,
    InvalidModelError,
    TensmithError,
    Unsupported,
    UnsupportedError,
    UsageError,
)
from ...compiler.ir import Dim, Graph, Value
from ...compiler.ir.rewrite import bind_symbols
from . import ops as _ops  # noqa: F401  (fills the operator table)
from . import text_moves, widening
from .container_inputs import (
    ValueSpec,
    container_parts,
    fixed_input,
    holds_nothing,
    remedy,
)
from .containers import TAKE_CONTAINERS, Content, Growing, Maps, Maybe, Text, ValueList
from .emitter import GraphEmitter
from .model_border import Border
from .origin import node_name
from .reading.declared import DeclaredTypes, declared_ranks
from .reading.functions import key_of, local_functions
from .reading.schemas import body_of, domain_of, opsets_of, schema_of
from .reading.scopes import MISSING, Entry, Missing, NameScope, initial_values
from .reading.tensors import UnsupportedType
from .reading.topology import names_used, ordered
from .reading.wire import Source
from .site import NotSupported, Site
from .table import find, is_refused
from .unread import check_unread

ShapeSpec = Mapping[str, Sequence[Dim | str]]


_NO_LOWERING = "there is no lowering for this operator"
_EXPORT = "export it as operators of the standard, or compute it outside of the model"


class Importer:
    """Imports one model; `run` gives its graph.

    replaceable: initialisers that stay inputs, with a default. least: what symbols of the inputs
    are at least, which their name tells.
    """

    def __init__(
        self,
        source: Source,
        shapes: ShapeSpec,
        values: ValueSpec,
        replaceable: Set[str] = frozenset(),
        least: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.model = source.model
        self.raw = source.raw
        self.folder = source.folder
        self.shapes, self.fixed, self.replaceable = shapes, values, replaceable
        self.defaults: dict[str, np.ndarray[Any, Any]] = {}
        self.notes: list[str] = []
        self.emitter = GraphEmitter()
        self.problems: dict[tuple[str, str, str], Unsupported] = {}
        self.declared = DeclaredTypes(self.emitter, least)
        self.ranks = declared_ranks(self.model.graph)
        self.functions = local_functions(self.model.functions)

    def run(self) -> Graph:
        """The imported graph.

        Raises InvalidModelError, or UnsupportedError that names every node that is not supported.
        """
        proto = self.model.graph
        scope = NameScope(None, opsets_of(self.model))
        scope.values.update(initial_values(proto, self.raw, self.folder, self.emitter.unpacked))
        inputs = self._inputs(proto, scope)
        self.nodes(proto.node, scope)
        if self.problems:
            raise UnsupportedError(list(self.problems.values()))
        border = Border(self.model, scope, self.emitter)
        outputs = border.outputs(inputs)
        graph = Graph(inputs, outputs, self.emitter.nodes, proto.name or "graph")
        bind_symbols(graph, self.declared.excess, infer=False)
        graph.bounds = self.declared.bounds
        wrong = border.contradictions([*inputs, *outputs], self.defaults)
        graph.notes = [*self.notes, *wrong]
        graph.meanings = border.meanings()
        graph.defaults = self.defaults
        return graph

    # ------------------------------------------------------------------ inputs

    def _inputs(self, proto: onnx.GraphProto, scope: NameScope) -> list[Value]:
        made, initial, settled = [], set(scope.values), set(self.fixed)
        for info in proto.input:
            try:
                if holds_nothing(info, self.shapes):
                    scope.values[info.name] = fixed_input(info, None)
                    settled.add(info.name)
                elif info.name in self.fixed:
                    scope.values[info.name] = fixed_input(info, self.fixed[info.name])
                elif info.name in initial:
                    made += self._default(info, scope)
                else:
                    made += self._input(info, scope)
            except UnsupportedType as error:
                self._problem(info.name, "input", f"{error} is not supported", remedy(info))
                scope.values[info.name] = MISSING
        fixed = {info.name for info in proto.input} & settled
        unknown = sorted({*self.shapes, *self.fixed} - {value.name for value in made} - fixed)
        if unknown and not self.problems:
            raise UsageError(
                f"the model has no input {unknown}",
                why=f"its inputs are {[value.name for value in made]}",
            )
        return made

    def _default(self, info: onnx.ValueInfoProto, scope: NameScope) -> list[Value]:
        """The input that an initialiser is the default of, where callers may replace that."""
        entry = scope.values[info.name]
        stored = entry.data if isinstance(entry, Text) else entry
        if info.name not in self.replaceable or not isinstance(stored, Value):
            return []
        parts = container_parts(info, self.shapes, self.model.graph)
        (part,) = parts.infos
        pinned = parts.pinned(part, self.shapes)
        kind = self.declared.type_with_default(part, pinned, stored.type, parts.last_dim(part))
        value = Value(kind, info.name)
        data = self.emitter.constant(stored)
        assert data is not None
        self.defaults[info.name] = data
        scope.values[info.name] = parts.assemble([value])
        return [value]

    def _input(self, info: onnx.ValueInfoProto, scope: NameScope) -> list[Value]:
        """The values that an input becomes: of a sequence, the elements whose shapes are pinned."""
        parts = container_parts(info, self.shapes, self.model.graph)
        values = [
            Value(self.declared.type_of(p, parts.pinned(p, self.shapes), parts.last_dim(p)), p.name)
            for p in parts.infos
        ]
        scope.values[info.name] = parts.assemble(values)
        if parts.maps is not None:
            self.notes.append(parts.maps.note(info.name))
        return values

    # ------------------------------------------------------------------ nodes

    def value(self, scope: NameScope, name: str) -> Value:
        """The value called `name`. Raises InvalidModelError when there is none."""
        found = scope.find(name)
        if not isinstance(found, Value):
            raise InvalidModelError(f"there is no value '{name[:80]}'")
        return found

    def nodes(self, nodes: Sequence[onnx.NodeProto], scope: NameScope) -> None:
        """Lower nodes in a scope; what is not supported is collected in `problems`."""
        for node in ordered(nodes):
            missing = [e for e in map(scope.find, names_used(node)) if isinstance(e, Missing)]
            if missing:
                self._blame(missing)
                self._note_unknown(node, scope)
                results: list[Entry | None] = [MISSING] * len(node.output)
            else:
                found = [scope.find(name) if name else None for name in node.input]
                inputs = [entry if not isinstance(entry, Missing) else None for entry in found]
                results = self._node(node, inputs, scope)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    scope.values[name] = MISSING if result is None else result

    def _blame(self, entries: Iterable[Missing]) -> None:
        """Report why values that something uses could not be made."""
        for problem in (entry.problem for entry in entries):
            if problem is not None:
                self.problems[problem.node, problem.op, problem.reason] = problem

    def _note_unknown(self, node: onnx.NodeProto, scope: NameScope) -> None:
        """Report an operator that could not be lowered whatever its inputs were."""
        domain = domain_of(node.domain)
        if is_refused(domain, node.op_type):
            self._node(node, [None] * len(node.input), scope)
        if key_of(node) in self.functions or find(domain, node.op_type):
            return
        schema = schema_of(domain, node.op_type, scope.opsets.get(domain, 1))
        if schema is None or not (schema.has_function or schema.has_context_dependent_function):
            self._problem(node_name(node), node.op_type, _NO_LOWERING, _EXPORT)

    def _node(
        self, node: onnx.NodeProto, inputs: list[Content | None], scope: NameScope
    ) -> list[Entry | None]:
        name = node_name(node)
        outer, self.emitter.name = self.emitter.name, name
        try:
            results = list(self._lower(node, inputs, scope))
        except (NotSupported, UnsupportedType) as error:
            reason = error.reason if isinstance(error, NotSupported) else f"{error}"
            remedy = error.remedy if isinstance(error, NotSupported) else ""
            self._problem(name, node.op_type, reason, remedy)
            return [MISSING] * len(node.output)
        except ValueError as error:
            raise _at(node, name, str(error), inputs) from None
        except InvalidModelError as error:
            if not error.where:
                error = _at(node, name, error.what, inputs, error.why, error.remedy)
            raise error from None
        except (TensmithError, MemoryError, RecursionError):
            raise
        except Exception as error:
            raise _broken(node, name, inputs, error) from error
        finally:
            self.emitter.name = outer
        for output, result in zip(node.output, results, strict=False):
            if isinstance(result, Value) and result.producer and result.name in ("", name):
                result.name = output
        return list(results)

    def _lower(
        self, node: onnx.NodeProto, inputs: list[Content | None], scope: NameScope
    ) -> Sequence[Content | None]:
        domain = domain_of(node.domain)
        narrow = widening.narrow_type(domain, node.op_type, inputs)
        if narrow is not None:
            wide = widening.widened(self.emitter, inputs)
            results = self._lower(node, wide, scope)
            return widening.narrowed(self.emitter, results, inputs, narrow, node.op_type)
        attributes = _attributes(node, scope)
        function = self.functions.get(key_of(node))
        if function is not None:
            return self.inline(function, inputs, attributes, scope.opsets)
        opset = scope.opsets.get(domain, 1)
        lowering = find(domain, node.op_type)
        if lowering is None:
            types = [value.type if isinstance(value, Value) else None for value in inputs]
            body = body_of(_resolved(node, attributes), domain, opset, types)
            if body is None:
                raise NotSupported(_NO_LOWERING, _EXPORT)
            return self.inline(body, inputs, attributes, scope.opsets)
        check_unread(domain, node.op_type, attributes)

        def lower(entries: Sequence[Content | None]) -> Sequence[Content | None]:
            result = lowering(Site(node, entries, opset, self, attributes, scope))
            return result if isinstance(result, Sequence) else [result]

        name = ".".join(filter(None, (domain, node.op_type)))
        if any(isinstance(v, Text) for v in inputs):
            if name in text_moves.MOVES:
                return text_moves.moved(self.emitter, inputs, lower)
            if name in text_moves.SHAPES:
                return lower(text_moves.stand_ins(inputs))
        if any(isinstance(v, (ValueList, Growing, Maps, Maybe, Text)) for v in inputs) and (
            name not in TAKE_CONTAINERS and not is_refused(domain, node.op_type)
        ):
            raise NotSupported(
                "it gets a sequence, an optional, a map or strings", "give it tensors"
            )
        return lower(inputs)

    def inline(
        self,
        function: onnx.FunctionProto,
        inputs: Sequence[Content | None],
        attributes: dict[str, onnx.AttributeProto],
        opsets: Mapping[str, int] | None = None,
    ) -> list[Content | None]:
        """Lower the body of a function on the given inputs; its outputs, None where unsupported."""
        found = {domain_of(item.domain): item.version for item in function.opset_import}
        scope = NameScope(None, {**(opsets or {}), **found})
        scope.attributes = {item.name: item for item in function.attribute_proto} | attributes
        for name, value in zip(function.input, inputs, strict=False):
            if value is not None:
                scope.values[name] = value
        self.nodes(function.node, scope)
        results = [scope.find(name) for name in function.output]
        return [None if isinstance(entry, Missing) else entry for entry in results]

    def region(
        self, proto: onnx.GraphProto, outer: NameScope, inputs: Mapping[str, Content]
    ) -> list[Value]:
        """Lower a subgraph in place (its nodes go to the innermost region); its outputs.

        Raises NotSupported when a node in it is not supported, or an output is no tensor.
        """
        found = self.region_entries(proto, outer, inputs)
        values = [entry for entry in found if isinstance(entry, Value)]
        if len(values) < len(found):
            raise NotSupported("its subgraph gives a sequence or an optional")
        return values

    def region_entries(
        self, proto: onnx.GraphProto, outer: NameScope, inputs: Mapping[str, Content]
    ) -> list[Content]:
        """The same for a subgraph whose outputs may be sequences and optionals."""
        scope = NameScope(outer, outer.opsets)
        scope.attributes = outer.attributes
        scope.values.update(initial_values(proto, {}, self.folder, self.emitter.unpacked))
        scope.values.update(inputs)
        self.nodes(proto.node, scope)
        found = []
        for info in proto.output:
            entry = scope.find(info.name)
            if isinstance(entry, Missing):
                self._blame([entry])
                raise NotSupported("its subgraph holds nodes that are not supported")
            found.append(entry if entry is not None else self.value(scope, info.name))
        return found

    def _problem(self, name: str, op: str, reason: str, remedy: str = "") -> None:
        self.problems[name, op, reason] = Unsupported(name[:120], op, reason, remedy)


def _attributes(node: onnx.NodeProto, scope: NameScope) -> dict[str, onnx.AttributeProto]:
    """The node's attributes, those that refer to the enclosing function's being replaced."""
    found = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in scope.attributes:
                found[attribute.name] = scope.attributes[attribute.ref_attr_name]
        else:
            found[attribute.name] = attribute
    return found


def _resolved(
    node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]
) -> onnx.NodeProto:
    """The node with its own values in place of references to a function's attributes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for name, attribute in attributes.items():
        copy.attribute.add().CopyFrom(attribute)
        copy.attribute[-1].name = name
    return copy


def _at(
    node: onnx.NodeProto,
    name: str,
    what: str,
    inputs: Sequence[Content | None],
    why: str = "",
    remedy: str = "",
) -> InvalidModelError:
    return InvalidModelError(
        f"node '{name[:120]}' ({node.op_type}) is invalid: {what}",
        where=_typed(node, inputs),
        why=why,
        remedy=remedy or "correct the model, or pin its input shapes if they do not fit together",
    )


def _broken(
    node: onnx.NodeProto, name: str, inputs: Sequence[Content | None], error: Exception
) -> InternalError:
    return InternalError(
        f"the import of node '{name[:120]}' ({node.op_type}) failed",
        where=_typed(node, inputs),
        why=f"{type(error).__name__}: {error}",
        remedy=REPORT,
    )


def _typed(node: onnx.NodeProto, inputs: Sequence[Content | None]) -> str:
    types = ", ".join(str(v.type) if isinstance(v, Value) else "-" for v in inputs[:6])
    return f"{node.op_type}({types})"
