"""Strings matched with regular expressions: a table that is walked byte by byte."""

from __future__ import annotations

import numpy as np

from .....compiler.ir import DType, Graph, TensorType, Value, constant
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.byte_automaton import Automaton, NotRegular, automaton
from ..shared.byte_rows import strings_of


@lowers("RegexFullMatch")
def regex_full_match(s: Site) -> Value:
    """Whether each string as a whole is what an expression describes."""
    strings, pattern = strings_of(s), s.text("pattern", "")
    try:
        found = automaton(pattern)
    except NotRegular as error:
        raise NotSupported(
            f"the pattern {pattern[:60]!r} is no automaton: {error}",
            "write it with classes, repeats and alternatives, or match outside of the model",
        ) from None
    state = _walked(s, found, strings.data)
    flags = s.emit("gather", [constant(found.accepted), state], axis=0)
    return s.reshape(flags, strings.shape)


def _walked(s: Site, found: Automaton, rows: Value) -> Value:
    """The states, i32 [rows], after all bytes of rows [rows, width]."""
    count, width = rows.shape
    kinds = s.emit("gather", [constant(found.classes), s.cast(rows, DType.I32)], axis=0)
    classes = found.following.shape[1]
    table = constant(np.ascontiguousarray(found.following.reshape(-1)))
    start = s.expand(s.scalar(0, DType.I32), (count,))
    state, kind = (Value(TensorType(DType.I32, (count,))) for _ in range(2))
    s.emitter.enter()
    place = s.op_("add", s.op_("mul", state, classes), kind)
    place = s.op_("max", s.op_("min", place, found.following.size - 1), 0)
    after = s.emitter.real(s.emit("gather", [table, place], axis=0))
    nodes, _ = s.emitter.leave()
    region = Graph([state, kind], [after], nodes, "byte_step")
    attributes = {"num_state": 1, "reverse_in": (False,), "reverse_out": (), "trip": width}
    scanned = [start, s.transpose(kinds, (1, 0))]
    state = s.emitter.emit_node("scan", scanned, attributes, regions=[region])[0]
    return s.op_("max", s.op_("min", state, len(found.following) - 1), 0)
