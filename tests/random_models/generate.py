"""A model from a seed, and the inputs of its calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from . import (
    amounts,
    contrib,
    control,
    elements,
    indexing,
    loops,
    movement,
    newer,
    pictures,
    pointwise,
    products,
    quantised,
    recurrent,
    reductions,
    sequences,
)
from .builder import ALL, KINDS, Array, Builder, Features, Shape, Size, Value, info
from .coarse import coarse_outputs

FAMILIES = (
    pointwise, movement, reductions, products, indexing, recurrent, control, quantised, amounts,
    sequences, elements, pictures, loops, newer, contrib,
)  # fmt: skip
RULES = {rule: weight for family in FAMILIES for rule, weight in family.RULES.items()}
_LIST = tuple(rule for rule, weight in RULES.items() for _ in range(weight))
SYMBOLS = ("n", "s", "t")
OPSETS = (17, 17, 18, 20, 21, 23)
FORMS = ((2, 3, 8), (1, 4, 6, 6), (2, 5), (3, 2, 4), (1, 3, 8, 7), (6,), (4, 2, 6), (2, 4, 5, 3))


@dataclass(frozen=True)
class Sample:
    """A model and the inputs of its calls, each with other sizes of the symbolic dims.

    coarse: outputs that depend on floats of 16 bits. amounts: inputs that decide sizes.
    """

    seed: int
    model: onnx.ModelProto
    calls: tuple[dict[str, Array], ...]
    coarse: frozenset[str] = frozenset()
    amounts: frozenset[str] = frozenset()


def step(b: Builder) -> None:
    """One random rule; it may find no operand and do nothing."""
    _LIST[int(b.rng.integers(len(_LIST)))](b)


def sample(seed: int, features: Features = ALL) -> Sample:
    """The model of a seed: the same one on every machine."""
    b = Builder(np.random.default_rng([20, seed]), features)
    if features.newer:
        b.opset = b.choice(OPSETS)
    symbols = _symbols(b)
    for number in range(b.number(1, 3)):
        _input(b, f"x{number}", symbols)
    wanted = b.number(2, 9)
    for _ in range(4 * wanted):
        before = len(b.scopes[0].nodes)
        step(b)
        wanted -= len(b.scopes[0].nodes) > before
        if not wanted:
            break
    graph = helper.make_graph(
        b.scopes[0].nodes,
        f"random{seed}",
        [info(value) for value in b.inputs],
        [info(value, b.flip(0.3)) for value in _outputs(b)],
        b.initializers,
    )
    opsets = [helper.make_opsetid("", b.opset)]
    opsets += [helper.make_opsetid("com.microsoft", 1)] if b.contrib else []
    version = 8 if b.opset < 18 else 10
    model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
    calls = tuple(_draw(b, call) for call in range(b.calls))
    return Sample(seed, model, calls, coarse_outputs(model), frozenset(b.given))


def _symbols(b: Builder) -> list[Size]:
    if not b.features.symbols or b.flip(0.3):
        return []
    low = 0 if b.features.empty and b.flip() else 1 if b.features.ones else 2
    found = [
        Size(name, (b.number(low, 6), b.number(max(low, 1), 6)))
        for name in SYMBOLS[: b.number(1, 3)]
    ]
    if b.features.twins and b.flip(0.3):
        twin = b.choice(found)
        found.append(Size(f"{twin.text}2", twin.values))
    return found


def _input(b: Builder, name: str, symbols: list[Size]) -> None:
    form = b.choice(FORMS)
    shape: Shape = tuple(
        b.choice(symbols) if symbols and b.flip(0.45) else b.fixed(size) for size in form
    )
    kinds = ("f32", "f32", "f32", "f32", "i64", "bool")
    if b.features.kinds:
        kinds += ("i32", "u8", "i8", "f64", "f16")
    kind = "f32" if not b.inputs else b.choice(kinds)
    value = Value(name, kind, shape, 3.0 if kind in ("f16", "f32", "f64") else 7.0)
    b.inputs.append(value)
    b.scopes[0].pool.append(value)


def _outputs(b: Builder) -> list[Value]:
    """What nothing reads, and some of the rest."""
    inputs = {value.name for value in b.inputs}
    made = {output for node in b.scopes[0].nodes for output in node.output}
    read = set(_names_read(b.scopes[0].nodes))
    pool = [v for v in b.scopes[0].pool if v.name in made and v.name not in inputs]
    loose = [v for v in pool if v.name not in read]
    others = [v for v in pool if v.name in read and b.flip(0.15)]
    found = list(dict.fromkeys([*loose[-4:], *others[-2:], *b.last[-2:]]))
    if not found:
        value = b.scopes[0].pool[0]
        found = [b.same("Identity", value)]
    return found


def _names_read(nodes: list[onnx.NodeProto]) -> list[str]:
    found = []
    for node in nodes:
        found += node.input
        for attribute in node.attribute:
            found += _names_read(list(attribute.g.node))
            found += [output.name for output in attribute.g.output]
    return found


def _draw(b: Builder, call: int) -> dict[str, Array]:
    found = {}
    for value in b.inputs:
        shape = tuple(size.values[call] for size in value.shape)
        numbers = KINDS[value.kind][1]
        if value.name in b.given:
            found[value.name] = b.given[value.name][call]
        elif value.is_float:
            found[value.name] = b.rng.uniform(-3, 3, shape).astype(numbers)
        else:
            most = 2 if value.kind == "bool" else 7
            found[value.name] = b.rng.integers(0, most, shape).astype(numbers)
    return found
