"""Nodes that compute a part of their result: what they need for it, and how they are made.

A rule (`narrow_rules.py`) gets a node and the part of its result that is wanted, and says what it
computes: that part, or more where it cannot be less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Builder
from .parts import Part

Make = Callable[[Builder, Sequence[Value | None]], Value]


@dataclass(frozen=True)
class Narrowed:
    """A node that computes a part of its result.

    computed: that part. needs: of each operand, None for one that it does not need at all. make:
    appends it, given these parts.
    """

    computed: Part
    needs: tuple[Part | None, ...]
    make: Make


Rule = Callable[[Node, Part], Narrowed | None]


def same(node: Node, **attrs: object) -> Make:
    """The operator again, with other attributes where given."""

    def make(b: Builder, inputs: Sequence[Value | None]) -> Value:
        return b.emit(node.op, [v for v in inputs if v is not None], {**node.attrs, **attrs})

    return make


def aligned(part: Part, value: Value, rank: int) -> Part:
    """The part of an operand that broadcasts to a result of `rank` axes whose `part` is wanted."""
    offset = rank - value.type.rank
    return tuple(None if dim == 1 else part[offset + axis] for axis, dim in enumerate(value.shape))


def without(part: Part, axes: Sequence[int]) -> Part:
    """The part with all places along some axes."""
    return tuple(None if axis in axes else places for axis, places in enumerate(part))
