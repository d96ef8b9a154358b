"""Attributes of com.microsoft's operators are read by a lowering, or known to need no reading."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.errors import UnsupportedError
from tensmith.frontends.onnx import load_model
from tensmith.frontends.onnx.table import MICROSOFT, find, is_refused
from tensmith.frontends.onnx.unread import UNREAD

from .oracle import floats, model, node

OPS = "frontends.onnx.ops"
PASSED_ON = {"LinearAttention"}  # by functions of the standard, which get all attributes


def schemas() -> dict[str, Any]:
    """What ONNX Runtime declares of the operators that have a lowering."""
    state = pytest.importorskip(
        "onnxruntime.capi.onnxruntime_pybind11_state", reason="onnxruntime has the schemas"
    )
    return {
        schema.name: schema
        for schema in state.get_all_operator_schema()
        if schema.domain == MICROSOFT
        and find(MICROSOFT, schema.name)
        and not is_refused(MICROSOFT, schema.name)
    }


def texts(function: Callable[..., Any]) -> set[str]:
    """Strings in a lowering, in what it calls, and in the tables that these use."""
    found: set[str] = set()
    pending: list[Any] = [function]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found.add(item)
        elif id(item) not in seen:
            seen.add(id(item))
            pending += _parts(item)
    return found


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, types.FunctionType) and OPS in item.__module__:
        for code in _codes(item.__code__):
            yield from code.co_consts
            yield from (item.__globals__.get(name) for name in code.co_names)
    elif isinstance(item, type) and OPS in item.__module__:
        yield from vars(item).values()
    elif isinstance(item, dict):
        yield from (*item, *item.values())
    elif isinstance(item, (tuple, list, frozenset, set)):
        yield from item


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def is_read(name: str, strings: set[str]) -> bool:
    """Whether it is among the strings, as a whole or as one part beside a formatted one."""
    parts = [text for text in strings if len(text) > 4]
    return name in strings or any(
        (part.endswith("_") and name.startswith(part))
        or (part.startswith("_") and name.endswith(part))
        for part in parts
    )


def test_attributes_are_read_or_known_to_need_no_reading() -> None:
    declared = schemas()
    assert len(declared) > 50
    missed = []
    for operator, schema in declared.items():
        strings = texts(find(MICROSOFT, operator))  # type: ignore[arg-type]
        missed += [
            f"{operator}.{name}"
            for name in schema.attributes
            if operator not in PASSED_ON
            and (operator, name) not in UNREAD
            and not is_read(name, strings)
        ]
    assert not missed


def test_an_attribute_that_needs_a_lowering_is_refused() -> None:
    feed = {"q": floats(1, 1, 16), "k": floats(1, 1, 8), "v": floats(1, 1, 8),
            "l": np.array([0], np.int32), "t": np.array([1], np.int32)}  # fmt: skip
    for width in (0, 8):
        part = node("GroupQueryAttention", "q k v - - l t", domain=MICROSOFT, num_heads=2,
                    kv_num_heads=1, kv_cache_bit_width=width)  # fmt: skip
        proto = model([part], feed, ["y"], domains=[MICROSOFT])
        if not width:
            load_model(proto)
            continue
        with pytest.raises(UnsupportedError, match="export with kv_cache_bit_width 0"):
            load_model(proto)
