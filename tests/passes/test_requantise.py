"""Quantising again: gone where every integer comes back, kept where one does not."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, count, rewritten

from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.simplify.canonicalize import Canonicalize
from tensmith.passes.simplify.dce import DeadCodeElimination

SIMPLIFY = Fixpoint((Canonicalize(), DeadCodeElimination()))
SCALE = 0.0123


def graph(
    kind: str,
    low: int,
    high: int,
    zeros: tuple[int, int],
    *,
    moved: str = "reshape(%d) {shape = (n, 6)}",
    between: str = "reshape(%m) {shape = (n, 6)}",
    scales: tuple[float, float] = (SCALE, SCALE),
) -> str:
    """Integers are made numbers, moved, changed, and quantised: all of f32[n, 6]."""
    numbers = {"z": zeros[0], "s": scales[0], "z2": zeros[1], "s2": scales[1], "low": low,
               "high": high, "zero": 0}  # fmt: skip
    constants = [f"const %{k}: f32[] = [{float(np.float32(v))!r}]" for k, v in numbers.items()]
    steps = {
        "f": "cast(%q) {dtype = !f32}", "c": "sub(%f, %z)", "d": "mul(%c, %s)", "m": moved,
        "e": between, "r": "div(%e, %s2)", "i": "round(%r)", "j": "add(%i, %z2)",
        "k": "max(%j, %low)", "l": "min(%k, %high)",
    }  # fmt: skip
    lines = [f"%{name}: f32[n, 6] = {step}" for name, step in steps.items()]
    lines.append(f"%y: {kind}[n, 6] = cast(%l) {{dtype = !{kind}}}")
    return body(f"%q: {kind}[n, 6]", lines, "\n".join(constants))


SMALL = [("i8", -128, 127), ("u8", 0, 255), ("i16", -32768, 32767), ("u16", 0, 65535)]


@pytest.mark.parametrize(("kind", "low", "high"), SMALL)
def test_what_gives_every_integer_back_goes(kind: str, low: int, high: int) -> None:
    after = rewritten(graph(kind, low, high, (3, 3)), SIMPLIFY)
    assert set(count(after)) <= {"reshape"}


def test_elements_still_move() -> None:
    reverse = "slice(%d) {starts = (0, 5), steps = (1, -1), stops = (n, -1)}"
    assert count(rewritten(graph("i8", -128, 127, (3, 3), moved=reverse), SIMPLIFY)) == {"slice": 1}


def test_a_bound_that_no_integer_reaches_goes_too() -> None:
    text = graph("u8", 0, 255, (0, 0), between="max(%m, %zero)")
    assert set(count(rewritten(text, SIMPLIFY))) <= {"reshape"}


@pytest.mark.parametrize(
    "changed",
    [
        {"zeros": (3, 4)},
        {"zeros": (3, 3), "scales": (SCALE, 1.01 * SCALE)},  # small integers come back
        {"zeros": (3, 3), "between": "max(%m, %zero)"},
        {"zeros": (3, 3), "between": "mul(%m, %m)"},
        {"zeros": (3, 3), "scales": (1e38, 1e38)},  # the large ones are infinite
    ],
)
def test_what_changes_an_integer_stays(changed: dict[str, object]) -> None:
    after = rewritten(graph("i8", -128, 127, **changed), SIMPLIFY)  # type: ignore[arg-type]
    assert count(after)["round"] == 1


def test_an_integer_of_another_type_stays() -> None:
    text = graph("i8", -128, 127, (3, 3)).replace("%q: i8", "%q: u8")
    assert count(rewritten(text, SIMPLIFY))["round"] == 1
