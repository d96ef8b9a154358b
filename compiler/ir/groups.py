"""Fused nodes: groups of operators, each of which becomes one kernel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .dims import Dim, Sym, Symbol
from .graph import Graph, Node, Value
from .text import print_attribute, print_data

KEY_DIGITS = 16  # of a group's key: hexadecimal


def fused_node(
    operands: Sequence[Value],
    results: Sequence[Value],
    region: Graph,
    *,
    form: str = "",
    name: str = "",
) -> Node:
    """A fused node around a region, which gives values that exist already.

    form: see `kernel/forms/form.py`.
    """
    return Node("fused", list(operands), list(results), {"form": form}, [region], name)


def group_key(operands: Sequence[Value], region: Graph) -> str:
    """What a fused node of these computes, as a short text: equal for equal operators and types.

    Names, storage layouts and the form do not count; which operands are constant does.
    """
    constants = [value.is_constant for value in operands]
    text = f"{constants}\n{_described(region)}"
    return _digest(text)


def _described(region: Graph) -> str:
    numbers: dict[Value, str] = {}
    lines = []

    def named(value: Value) -> str:
        if value not in numbers:
            if value.data is not None:
                return print_data(value.data, full=False)
            numbers[value] = f"%{len(numbers)}"
        return numbers[value]

    def typed(value: Value) -> str:
        dims = ", ".join(map(_dim_text, value.shape))
        return f"{named(value)}: {value.dtype}[{dims}]"

    lines.append(", ".join(map(typed, region.inputs)))
    for node in region.nodes:
        inputs = ", ".join(map(named, node.inputs))
        attrs = ", ".join(
            f"{key} = {_attribute_text(value)}"
            for key, value in sorted(node.attrs.items())
            if key != "form"
        )
        inner = "".join(f" [{_described(part)}]" for part in node.regions)
        results = ", ".join(map(typed, node.outputs))
        lines.append(f"{results} = {node.op}({inputs}) {{{attrs}}}{inner}")
    lines.append(f"return {', '.join(map(named, region.outputs))}")
    return "\n".join(lines)


def _attribute_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_attribute_text, value))})"
    return _dim_text(value) if isinstance(value, Sym) else print_attribute(value)


@lru_cache(maxsize=1 << 14)
def _dim_text(dim: Dim) -> str:
    """A dim, calls in it as digests: written out, what shares parts could fill memory."""
    if isinstance(dim, int):
        return str(dim)
    terms = []
    for mono, factor in dim.terms:
        atoms = [
            atom.name
            if isinstance(atom, Symbol)
            else _digest(f"{atom.fn}({_dim_text(atom.args[0])}, {_dim_text(atom.args[1])})")
            for atom in mono
        ]
        terms.append("*".join([str(factor), *atoms]))
    return " + ".join(terms)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]
