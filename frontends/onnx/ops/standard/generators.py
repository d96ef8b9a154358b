"""Operators that make tensors from nothing or from indices."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from .....compiler.ir import Dim, DType, Graph, Value, ceildiv, constant
from .....compiler.ir.dims import dmax
from ...containers import Content, Text
from ...reading.tensors import to_bytes
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.run_time import TOO_MUCH
from .strings import encoded

RUN_TIME_STEPS = 1 << 18
FOLDED_STEPS = 1 << 20
SUMMED = (DType.F16, DType.F32, DType.F64)  # types in which numpy adds up


@lowers("Constant")
def constant_(s: Site) -> Content:
    if s.has("value_string") or s.has("value_strings"):
        strings = s.texts("value_strings") if s.has("value_strings") else [s.text("value_string")]
        table = encoded(strings)
        return Text(constant(table if s.has("value_strings") else table[0]))
    if s.has("value") and s.is_string_tensor("value"):
        return Text(constant(to_bytes(s.attributes["value"].t)))
    if s.has("value"):
        return s.tensor("value")
    if s.has("sparse_value"):
        return constant(s.sparse_array("sparse_value"))
    if s.has("value_float"):
        return constant(np.float32(s.real("value_float")))
    if s.has("value_int"):
        return constant(np.int64(s.integer("value_int")))
    if s.has("value_floats"):
        return constant(np.array(s.floats("value_floats"), np.float32))
    if s.has("value_ints"):
        return constant(np.array(s.ints("value_ints"), np.int64))
    raise NotSupported(f"constants given as {sorted(s.attributes)} are not supported")


@lowers("ConstantOfShape")
def constant_of_shape(s: Site) -> Value:
    fill = constant(s.array("value").reshape(())) if s.has("value") else s.scalar(0, DType.F32)
    dims = s.dims(s.counted(s.input(0), s.declared_rank()))
    if any(isinstance(dim, int) and dim < 0 for dim in dims):
        raise ValueError(f"the shape {list(map(str, dims))} has negative dimensions")
    return s.expand(fill, dims)


@lowers("Range")
def range_(s: Site) -> Value:
    return span(s, s.input(0), s.input(1), s.input(2))


def span(s: Site, *bounds: Value) -> Value:
    """start, start + delta, ... below limit: three values of one element each."""
    start, limit, delta = (s.reshape(value, ()) for value in bounds)
    dtype = start.dtype
    known = [s.known(value) for value in (start, limit, delta)]
    count: Dim | None = None
    if dtype.is_integer and all(item is not None for item in known):
        first, last, step = (item.item() for item in known if item is not None)
        count = _count(s, first, last, step)
    if count is None:
        count = _computed_count(s, start, limit, delta)
    if dtype.is_float and not _sums_are_exact(start, delta, count):
        return _sums(s, start, delta, count)
    steps = s.iota((count,), 0, dtype)
    if start.data is not None and not start.data and delta.data is not None and delta.data == 1:
        return steps
    return s.op_("add", s.op_("mul", steps, delta), start)


def _sums_are_exact(start: Value, delta: Value, count: Dim) -> bool:
    """Whether adding up float steps rounds nothing, so that products give the same.

    Integers and counts that only a run knows are taken to be at most RUN_TIME_STEPS.
    """
    first, step = _fraction(start), _fraction(delta)
    if first is None or step is None:
        return False
    last = first[0] + step[0] * (count if isinstance(count, int) else RUN_TIME_STEPS)
    digits = int(ml_dtypes.finfo(delta.dtype.numpy).nmant) + 1
    return bool(last * max(first[1], step[1]) <= 2**digits)


def _fraction(value: Value) -> tuple[float, int] | None:
    """Of what size a scalar is at most, and a power of 2 times which it is an integer."""
    if value.data is not None:
        number = float(value.data)
        return (abs(number), number.as_integer_ratio()[1]) if math.isfinite(number) else None
    source = value.producer
    whole = source is not None and source.op == "cast" and source.inputs[0].dtype.is_integer
    return (RUN_TIME_STEPS, 1) if whole else None


def _sums(s: Site, start: Value, delta: Value, count: Dim) -> Value:
    """start, start + delta, start + delta + delta, ..., every sum rounded, as the standard says."""
    known = start.data is not None and delta.data is not None
    if known and isinstance(count, int) and count <= FOLDED_STEPS and start.dtype in SUMMED:
        steps = np.full(max(count, 1), delta.data)
        steps[0] = start.data
        return constant(np.add.accumulate(steps, dtype=steps.dtype)[:count])
    state = Value(start.type)
    s.emitter.enter()
    after = s.emitter.real(s.op_("add", state, delta))
    nodes, _ = s.emitter.leave()
    region = Graph([state], [after, state], nodes, "range_step")
    attributes = {"num_state": 1, "reverse_in": (), "reverse_out": (False,), "trip": count}
    return s.emitter.emit_node("scan", [start], attributes, regions=[region])[1]


def _count(s: Site, start: Dim, limit: Dim, delta: Dim) -> Dim | None:
    if not isinstance(delta, int):
        return None
    if delta == 0:
        raise ValueError("the step is 0")
    span = limit - start if delta > 0 else start - limit
    count = ceildiv(span, abs(delta))
    return count if s.emitter.is_size(span) else dmax(count, 0)


def _computed_count(s: Site, start: Value, limit: Value, delta: Value) -> Dim:
    """max(ceil((limit - start) / delta), 0), as the standard says: floats in f64."""
    nonzero = delta if delta.dtype.is_integer else s.op_("ne", delta, 0.0)
    s.require_nonzero(nonzero, "the step is 0")
    if delta.dtype.is_integer:
        first, last, step = (s.cast(value, DType.I64) for value in (start, limit, delta))
        up = s.op_("gt", step, 0)
        span = s.op_("where", up, s.op_("sub", last, first), s.op_("sub", first, last))
        steps = s.op_("add", s.op_("div", s.op_("sub", span, 1), s.op_("abs", step)), 1)
        whole = s.op_("where", s.op_("gt", span, 0), steps, 0)
    else:
        wide = [s.cast(value, DType.F64) for value in (start, limit, delta)]
        real = s.op_("ceil", s.op_("div", s.op_("sub", wide[1], wide[0]), wide[2]))
        # what is no number of elements, or too many, is refused where it becomes a dim
        fits = s.op_("and", s.op_("ge", real, 0.0), s.op_("lt", real, float(TOO_MUCH)))
        lost = s.op_("where", s.op_("lt", real, 0.0), 0, s.scalar(TOO_MUCH, DType.I64))
        whole = s.op_("where", fits, s.cast(s.op_("where", fits, real, 0.0), DType.I64), lost)
    return s.dims(s.reshape(whole, (1,)))[0]


@lowers("EyeLike")
def eye_like(s: Site) -> Value:
    x = s.input(0)
    if x.type.rank != 2:
        raise ValueError(f"{x.type} is no matrix")
    dtype = s.dtype("dtype") if s.has("dtype") else x.dtype
    rows = s.op_("add", s.iota((x.shape[0], 1), 0, DType.I64), s.integer("k", 0))
    hit = s.op_("eq", rows, s.iota((1, x.shape[1]), 1, DType.I64))
    return s.cast(hit, dtype)


@lowers("OneHot")
def one_hot(s: Site) -> Value:
    indices, depth, values = s.input(0), s.input(1), s.input(2)
    rank = indices.type.rank
    axis = s.axis(s.integer("axis", -1), rank + 1)
    whole = s.cast(depth, DType.I64)
    (size,) = s.dims(s.reshape(whole, (1,)))
    if isinstance(size, int) and size < 0:
        raise ValueError(f"the depth {size} is negative")
    places = s.cast(indices, DType.I64)
    places = s.op_(
        "where", s.op_("lt", places, 0), s.op_("add", places, s.reshape(whole, ())), places
    )
    spread = s.reshape(places, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    line = [size if a == axis else 1 for a in range(rank + 1)]
    hit = s.op_("eq", s.iota(line, axis, DType.I64), spread)
    off, on = s.take(values, 0, 0), s.take(values, 0, 1)
    return s.op_("where", hit, on, off)
