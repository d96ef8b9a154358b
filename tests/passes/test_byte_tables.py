"""Functions of one byte become tables: the same bits, and only where looking up is less work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rewriting import body, count

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.kernel import byte_lookup
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.pipeline import optimization_passes
from tensmith.passes.precision.byte_tables import ByteTables
from tensmith.passes.simplify.dce import DeadCodeElimination

ZEN5 = resolve_target("znver5")[1]
CONSTANTS = (
    "const %s: f32[] = [0.05]\nconst %t: f32[] = [0.031]\nconst %z: {k}[] = [{z}]\n"
    "const %half: f32[] = [0.5]\nconst %three: f32[] = [3.0]\nconst %sixth: f32[] = [0.16666667]\n"
    "const %zero: f32[] = [0.0]\nconst %six: f32[] = [6.0]\nconst %many: f32[7] = "
    "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]"
)


def graph(steps: Sequence[str], kind: str = "u8", returns: str = "%y") -> Graph:
    """y = quantize(steps(dequantize(q))); steps read %x and the last makes %f."""
    lines = ["%x: f32[n, 7] = dequantize(%q, %s, %z)", *steps,
             f"%y: {kind}[n, 7] = quantize(%f, %t, %z)"]  # fmt: skip
    constants = CONSTANTS.format(k=kind, z=3 if kind == "i8" else 120)
    text = body(f"%q: {kind}[n, 7]", lines, constants)
    return parse_graph(text.replace("return %y", f"return {returns}"))


def every(kind: str) -> np.ndarray[Any, Any]:
    """All bytes, padded to rows of 7."""
    return np.resize(np.arange(256).astype(np.uint8), (37, 7)).view(kind)


CHAINS = {
    "sigmoid": ["%f: f32[n, 7] = sigmoid(%x)"],
    "tanh": ["%f: f32[n, 7] = tanh(%x)"],
    "silu": ["%g: f32[n, 7] = sigmoid(%x)", "%f: f32[n, 7] = mul(%x, %g)"],
    "hardswish": [
        "%a: f32[n, 7] = add(%x, %three)", "%b: f32[n, 7] = max(%a, %zero)",
        "%c: f32[n, 7] = min(%b, %six)", "%d: f32[n, 7] = mul(%c, %sixth)",
        "%f: f32[n, 7] = mul(%x, %d)",
    ],
    "gelu": [
        "%a: f32[n, 7] = mul(%x, %half)", "%b: f32[n, 7] = erf(%x)",
        "%c: f32[n, 7] = add(%b, %half)", "%f: f32[n, 7] = mul(%a, %c)",
    ],
    "leaky": [
        "%a: f32[n, 7] = mul(%x, %half)", "%b: bool[n, 7] = ge(%x, %zero)",
        "%f: f32[n, 7] = where(%b, %x, %a)",
    ],
    "quantised between": [
        "%g: f32[n, 7] = sigmoid(%x)", "%h: {k}[n, 7] = quantize(%g, %t, %z)",
        "%i: f32[n, 7] = dequantize(%h, %t, %z)", "%f: f32[n, 7] = mul(%x, %i)",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["u8", "i8"])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_become_one_table(name: str, kind: str) -> None:
    made = graph([step.replace("{k}", kind) for step in CHAINS[name]], kind)
    inputs = {"q": every("uint8" if kind == "u8" else "int8")}
    want = run_graph(made, inputs)["y"]
    run_passes(made, [Fixpoint((ByteTables(ZEN5), DeadCodeElimination()))])
    assert count(made) == {"byte_table": 1}
    np.testing.assert_array_equal(run_graph(made, inputs)["y"], want)


@pytest.mark.parametrize(
    ("steps", "returns"),
    [
        (["%f: f32[n, 7] = mul(%x, %many)"], "%y"),  # another number for each column
        (["%r: f32[n, 1] = reduce_max(%x) {axes = (1,), keepdims = true}",
          "%f: f32[n, 7] = sub(%x, %r)"], "%y"),  # no function of one byte
        (["%f: f32[n, 7] = sigmoid(%x)"], "%y, %f"),  # the float is wanted as well
    ],
)  # fmt: skip
def test_others_stay(steps: list[str], returns: str) -> None:
    made = graph(steps, returns=returns)
    assert not ByteTables(ZEN5).run(made)


def test_two_sources_of_bytes_stay() -> None:
    text = body(
        "%q: u8[n, 7], %p: u8[n, 7]",
        ["%x: f32[n, 7] = dequantize(%q, %s, %z)", "%w: f32[n, 7] = dequantize(%p, %s, %z)",
         "%f: f32[n, 7] = mul(%x, %w)", "%y: u8[n, 7] = quantize(%f, %t, %z)"],
        CONSTANTS.format(k="u8", z=120),
    )  # fmt: skip
    assert not ByteTables(ZEN5).run(parse_graph(text))


@pytest.mark.parametrize("target", ["znver5", "x86-64-v4", "x86-64-v3", "aarch64"])
def test_tables_stand_where_they_are_less_work(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loads of single bytes are more work than a sigmoid of a vector."""
    made = graph(CHAINS["sigmoid"])
    ByteTables(resolve_target(target)[1]).run(made)
    assert count(made).get("byte_table", 0) == 1
    monkeypatch.setattr(byte_lookup, "LOOKUPS", ())
    made = graph(CHAINS["sigmoid"])
    assert not ByteTables(ZEN5).run(made)
    times = 8
    names = ["x", *(f"g{n}" for n in range(times - 1)), "f"]
    long = [f"%{b}: f32[n, 7] = sigmoid(%{a})" for a, b in pairwise(names)]
    assert ByteTables(ZEN5).run(graph(long))


def test_without_a_target_there_are_none() -> None:
    made = graph(CHAINS["sigmoid"])
    run_passes(made, optimization_passes(2))
    assert "byte_table" not in count(made)
    made = graph(CHAINS["sigmoid"])
    run_passes(made, optimization_passes(2, target=ZEN5))
    assert count(made)["byte_table"] == 1
