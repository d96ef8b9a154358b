"""How an operator is defined: once, with its inference, evaluation, traits and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

import numpy as np

from ...errors import InternalError
from ..dims import Sym, evaluate
from ..graph import Graph, Node, Value
from ..types import TensorType

Array = np.ndarray[Any, Any]
Infer = Callable[[Sequence[Value], dict[str, Any]], list[TensorType]]
InferRegions = Callable[[Sequence[Value], dict[str, Any], Sequence[Graph]], list[TensorType]]
Evaluate = Callable[[Sequence[Array], dict[str, Any]], list[Array]]


class Trait(Flag):
    """What passes may know of an operator without knowing its name."""

    NONE = 0
    POINTWISE = auto()  # each output element depends on the same (broadcast) element of the inputs
    COMMUTATIVE = auto()
    IDEMPOTENT = auto()  # f(f(x)) == f(x)
    INVOLUTION = auto()  # f(f(x)) == x
    NONNEGATIVE = auto()  # no element of the result is negative or -0
    VIEW = auto()  # moves no data: the elements stay in row-major order (reshape)
    INDEX_MAP = auto()  # each output element is one input element, by a static index map
    BROADCAST = auto()  # repeats its operand along axes, up to the attribute `shape`
    INDEXED = auto()  # operand 1 says at which places of operand 0, along an axis or as rows
    LOOKUP = auto()  # each output element is one of operand 0, at an index of operand 1
    REDUCTION = auto()
    PLACE = auto()  # gives places of elements along an axis instead of elements
    CUMULATIVE = auto()  # each output element depends on those before it along an axis
    NORMALISATION = auto()  # everything along the attribute `axis` (and behind it) by itself
    CONTRACTION = auto()
    POOLING = auto()
    COMPOSITE = auto()  # several kernel stages (softmax, norms, attention)
    CONTROL = auto()  # has regions that run conditionally or repeatedly
    EFFECT = auto()  # never dead, even without outputs
    QUANTISATION = auto()  # between floats and integers of few bits: algebra and folding stay off
    DISCRETE = auto()  # rounding of the operands may change the result by a whole step


@dataclass(frozen=True)
class OpDef:
    """One operator.

    infer: (input values, attrs) -> output types; raises ValueError with the reason when the
    inputs do not fit. evaluate: numpy semantics, the attributes having ints for dims (see
    `bind_attrs`); None for control flow, which the reference backend runs itself.
    attrs: name -> default; `REQUIRED` has none. arity: fewest and most inputs (None: no limit).
    regions: how many regions the node has. infer_regions: used instead of `infer` when there are
    regions.
    """

    name: str
    infer: Infer
    evaluate: Evaluate | None
    traits: Trait = Trait.NONE
    attrs: dict[str, Any] = field(default_factory=dict)
    arity: tuple[int, int | None] = (0, None)
    regions: int = 0
    infer_regions: InferRegions | None = None


REQUIRED = object()
# a discrete result hangs on how this one is rounded (see ir/exactness.py); the last of the passes
# before fusion knows
EXACT = {"exact": False}
_OPS: dict[str, OpDef] = {}


def register(definition: OpDef) -> OpDef:
    """Add an operator. Raises InternalError when its name is taken."""
    if definition.name in _OPS:
        raise InternalError(f"operator '{definition.name}' is defined twice")
    _OPS[definition.name] = definition
    return definition


def lookup(name: str) -> OpDef:
    """The operator called `name`. Raises InternalError when there is none."""
    found = _OPS.get(name)
    if found is None:
        raise InternalError(f"there is no operator '{name}'")
    return found


def all_ops() -> dict[str, OpDef]:
    """Every operator by name."""
    return dict(_OPS)


def has_trait(node: Node, trait: Trait) -> bool:
    """Whether the node's operator has any of the given traits."""
    return bool(lookup(node.op).traits._value_ & trait._value_)  # as flags it takes much longer


def infer_types(
    op: str, inputs: Sequence[Value], attrs: dict[str, Any], regions: Sequence[Graph] = ()
) -> list[TensorType]:
    """The output types of an operator; `attrs` is complete.

    Raises ValueError when the number or the types of the inputs, or the regions, do not fit.
    """
    definition = lookup(op)
    low, high = definition.arity
    if len(inputs) < low or (high is not None and len(inputs) > high):
        wanted = f"{low}" if low == high else f"{low} to {high}" if high else f"at least {low}"
        raise ValueError(f"'{op}' takes {wanted} inputs, not {len(inputs)}")
    if len(regions) != definition.regions:
        raise ValueError(f"'{op}' has {definition.regions} regions, not {len(regions)}")
    if definition.infer_regions is not None:
        return definition.infer_regions(inputs, attrs, regions)
    return definition.infer(inputs, attrs)


def bind_attrs(attrs: Mapping[str, Any], env: Mapping[str, int]) -> dict[str, Any]:
    """The attributes with every symbolic dim, also inside tuples, replaced by its number.

    Raises InternalError when a symbol has no value in `env`.
    """

    def bind(value: Any) -> Any:
        if isinstance(value, Sym):
            return evaluate(value, env)
        return tuple(bind(item) for item in value) if isinstance(value, tuple) else value

    return {key: bind(value) for key, value in attrs.items()}


def make_node(
    op: str,
    inputs: Sequence[Value],
    attrs: dict[str, Any] | None = None,
    *,
    regions: Sequence[Graph] = (),
    types: Sequence[TensorType] | None = None,
    name: str = "",
) -> Node:
    """A node with its outputs made; types are inferred unless given.

    Raises ValueError when the inputs do not fit, InternalError for unknown or missing attributes.
    """
    definition = lookup(op)
    full = dict(definition.attrs)
    for key, value in (attrs or {}).items():
        if key not in full:
            raise InternalError(f"operator '{op}' has no attribute '{key}'")
        full[key] = value
    missing = [key for key, value in full.items() if value is REQUIRED]
    if missing:
        raise InternalError(f"operator '{op}' needs the attribute(s) {missing}")
    result = list(types) if types is not None else infer_types(op, inputs, full, regions)
    outputs = [Value(type_, f"{name}" if name else "") for type_ in result]
    return Node(op, inputs, outputs, full, regions, name)


class Builder:
    """Appends nodes to a list and returns their outputs: `b.emit("add", [x, y])`."""

    def __init__(self, nodes: list[Node], name: str = "") -> None:
        self.nodes = nodes
        self.name = name

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> Value:
        """Append a node with one output and return that output."""
        return self.emit_node(op, inputs, attrs, **more).output

    def emit_node(
        self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None, **more: Any
    ) -> Node:
        """Append a node and return it."""
        node = make_node(op, inputs, attrs, name=self.name, **more)
        self.nodes.append(node)
        return node
