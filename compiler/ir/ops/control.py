"""Control flow: `if`, `loop`, `scan`, `fused`. The reference backend runs them.

`bound` names the symbols that a node gives values to at run time, in the order in which the
inference of its outputs needs them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ..dims import Dim, Sym, Symbol, symbol, symbols_of
from ..graph import Graph, Value
from ..types import DType, TensorType
from .common import differ, unify
from .registry import REQUIRED, OpDef, Trait, register


def _no_regions(inputs: Sequence[Value], attrs: dict[str, Any]) -> NoReturn:
    raise ValueError("the types of control flow come from its regions: use infer_types")


def symbol_name(dim: Dim) -> str | None:
    """The name when `dim` is one plain symbol, else None."""
    if not isinstance(dim, Sym) or len(dim.terms) != 1:
        return None
    mono, coef = dim.terms[0]
    if coef == 1 and len(mono) == 1 and isinstance(mono[0], Symbol):
        return mono[0].name
    return None


def bound_symbols(graph: Graph) -> frozenset[str]:
    """Symbols that the nodes of `graph` itself bind: those of read_dims, `if` and `loop`."""
    names: set[str] = set()
    for node in graph.nodes:
        names.update(node.attrs.get("symbols", ()) if node.op == "read_dims" else ())
        names.update(node.attrs.get("bound", ()) if node.op in ("if", "loop") else ())
    return frozenset(names)


def _fresh(attrs: dict[str, Any]) -> Iterator[str]:
    return iter(attrs["bound"])


def _next_symbol(names: Iterator[str]) -> Dim:
    name = next(names, None)
    if name is None:
        raise ValueError("attribute 'bound' has too few names")
    return symbol(name)


def _finish(names: Iterator[str]) -> None:
    if next(names, None) is not None:
        raise ValueError("attribute 'bound' has too many names")


def _infer_if(
    inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph]
) -> list[TensorType]:
    cond = inputs[0]
    if cond.dtype is not DType.BOOL or cond.type.rank:
        raise ValueError(f"the condition is {cond.type}, not a bool scalar")
    one, other = regions
    if one.inputs or other.inputs:
        raise ValueError("the regions of 'if' take no inputs")
    if len(one.outputs) != len(other.outputs):
        raise ValueError(f"the branches have {len(one.outputs)} and {len(other.outputs)} outputs")
    local = bound_symbols(one) | bound_symbols(other)
    names, types = _fresh(attrs), []
    for a, b in zip(one.outputs, other.outputs, strict=True):
        if a.dtype is not b.dtype or a.type.rank != b.type.rank:
            raise ValueError(f"the branches give {a.type} and {b.type}")
        shape = tuple(
            x if x == y and not symbols_of(x) & local else _next_symbol(names)
            for x, y in zip(a.shape, b.shape, strict=True)
        )
        types.append(TensorType(a.dtype, shape))
    _finish(names)
    return types


def _same_type(a: Value, b: Value, what: str) -> None:
    if a.dtype is not b.dtype or a.type.rank != b.type.rank:
        raise ValueError(f"{what}: {a.type} is not {b.type}")
    for x, y in zip(a.shape, b.shape, strict=True):
        unify(x, y, what)


def _check_scan(inputs: Sequence[Value], attrs: dict[str, Any], body: Graph) -> None:
    states, trip = attrs["num_state"], attrs["trip"]
    if len(body.inputs) != len(inputs):
        raise ValueError(f"the region takes {len(body.inputs)} inputs, the node {len(inputs)}")
    if not 0 <= states <= min(len(inputs), len(body.outputs)):
        raise ValueError(f"num_state {states} exceeds the inputs or the region's outputs")
    for outer, inner, result in zip(inputs[:states], body.inputs, body.outputs, strict=False):
        _same_type(outer, inner, "state")
        _same_type(result, inner, "state after a step")
    for outer, inner in zip(inputs[states:], body.inputs[states:], strict=True):
        if outer.dtype is not inner.dtype or outer.type.rank != inner.type.rank + 1:
            raise ValueError(f"a slice of {outer.type} is not {inner.type}")
        unify(outer.shape[0], trip, "scanned axis and trip differ")
        for x, y in zip(outer.shape[1:], inner.shape, strict=True):
            unify(x, y, "scanned slice")
    for key, count in (
        ("reverse_in", len(inputs) - states),
        ("reverse_out", len(body.outputs) - states),
    ):
        if len(attrs[key]) != count:
            raise ValueError(f"{key} has {len(attrs[key])} entries, not {count}")


def _infer_scan(
    inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph]
) -> list[TensorType]:
    body, states, trip = regions[0], attrs["num_state"], attrs["trip"]
    _check_scan(inputs, attrs, body)
    types = [TensorType(value.dtype, value.shape) for value in inputs[:states]]
    local = bound_symbols(body)
    for value in body.outputs[states:]:
        if any(symbols_of(dim) & local for dim in value.shape):
            raise ValueError(f"the step result {value.type} may differ from step to step")
        types.append(TensorType(value.dtype, (trip, *value.shape)))
    return types


def loop_varying(inputs: Sequence[Value], body: Graph) -> list[list[int]]:
    """Per carried value of a `loop` the axes that may change from step to step.

    Along such an axis the region's input has a plain symbol, bound anew in every step.
    """
    varying = []
    for outer, inner, result in zip(inputs[2:], body.inputs[2:], body.outputs[1:], strict=False):
        axes = []
        for axis, dims in enumerate(zip(outer.shape, inner.shape, result.shape, strict=True)):
            if not dims[0] == dims[1] == dims[2]:
                axes.append(axis)
        varying.append(axes)
    return varying


def _check_loop(inputs: Sequence[Value], body: Graph) -> None:
    carried = len(inputs) - 2
    if len(body.inputs) != len(inputs) or len(body.outputs) < carried + 1:
        raise ValueError(
            f"the region takes {len(body.inputs)} inputs and gives {len(body.outputs)} outputs "
            f"for {carried} carried values"
        )
    for value, dtype in zip(
        (*inputs[:2], *body.inputs[:2]), (DType.I64, DType.BOOL) * 2, strict=True
    ):
        if value.dtype is not dtype or value.type.rank:
            raise ValueError(f"{value.type} is no {dtype.value} scalar")
    if body.outputs[0].dtype is not DType.BOOL or body.outputs[0].type.rank:
        raise ValueError(f"the region's condition is {body.outputs[0].type}, not a bool scalar")
    for outer, inner, result in zip(inputs[2:], body.inputs[2:], body.outputs[1:], strict=False):
        for value in (outer, result):
            if value.dtype is not inner.dtype or value.type.rank != inner.type.rank:
                raise ValueError(f"carried value: {value.type} is not {inner.type}")


def _infer_loop(
    inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph]
) -> list[TensorType]:
    body, carried = regions[0], len(inputs) - 2
    _check_loop(inputs, body)
    names, types, local = _fresh(attrs), [], set(bound_symbols(body))
    varying = loop_varying(inputs, body)
    for inner, axes in zip(body.inputs[2:], varying, strict=True):
        shape = list(inner.shape)
        for axis in axes:
            name = symbol_name(shape[axis])
            if name is None:
                raise ValueError(f"axis {axis} of {inner.type} varies: it must be a plain symbol")
            local.add(name)
            shape[axis] = _next_symbol(names)
        types.append(TensorType(inner.dtype, tuple(shape)))
    for value in body.outputs[1 + carried :]:
        leading = _next_symbol(names)
        rest = tuple(_next_symbol(names) if symbols_of(d) & local else d for d in value.shape)
        types.append(TensorType(value.dtype, (leading, *rest)))
    _finish(names)
    return types


def infer_fused(
    inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph]
) -> list[TensorType]:
    """The types of what a region of its own gives, whose inputs are the node's."""
    body = regions[0]
    if len(body.inputs) != len(inputs):
        raise ValueError(f"the region takes {len(body.inputs)} inputs, the node {len(inputs)}")
    for outer, inner in zip(inputs, body.inputs, strict=True):
        if outer.dtype is not inner.dtype or outer.type.rank != inner.type.rank:
            raise ValueError(f"input {outer.type} is not the region's {inner.type}")
        if any(map(differ, outer.shape, inner.shape)):
            raise ValueError(f"input {outer.type} is not the region's {inner.type}")
    return [value.type for value in body.outputs]


_KIND = Trait.CONTROL
register(
    OpDef(
        "if",
        _no_regions,
        None,
        _KIND,
        {"bound": ()},
        arity=(1, 1),
        regions=2,
        infer_regions=_infer_if,
    )
)
register(
    OpDef(
        "scan",
        _no_regions,
        None,
        _KIND,
        {"num_state": REQUIRED, "reverse_in": REQUIRED, "reverse_out": REQUIRED, "trip": REQUIRED},
        regions=1,
        infer_regions=_infer_scan,
    )
)
register(
    OpDef(
        "loop",
        _no_regions,
        None,
        _KIND,
        {"bound": ()},
        arity=(2, None),
        regions=1,
        infer_regions=_infer_loop,
    )
)
# form: which algorithm computes the group (`kernel/forms/form.py`); "": the loops of its operators
register(
    OpDef("fused", _no_regions, None, attrs={"form": ""}, regions=1, infer_regions=infer_fused)
)
