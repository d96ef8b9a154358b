"""Mutation testing: which mistakes are made, and that tests run with them."""

from __future__ import annotations

import ast
import sys
from importlib.util import module_from_spec
from pathlib import Path

from mutants import Finder, Mutant, draw, mirrors_of, mutate

from tensmith.compiler.kernel.plan import arena
from tensmith.compiler.kernel.plan.plan import ArenaBuffer

SOURCE = """
def f(a: int, b: int = 1) -> int:
    if not a < 2 and a - b:
        raise ValueError(f"{a + 1}")
    return a
"""


def test_mistakes() -> None:
    _, places = mutate(SOURCE)
    assert [what for _, what in places] == [
        "And is Or", "not is dropped", "Lt is LtE", "2 is 3", "operands are swapped", "Sub is Add",
    ]  # fmt: skip
    made = [ast.unparse(mutate(SOURCE, number)[0].body[0]) for number in range(len(places))]
    tests = [text.splitlines()[1].strip() for text in made]
    assert tests == [
        "if not a < 2 or a - b:", "if a < 2 and a - b:", "if not a <= 2 and a - b:",
        "if not a < 3 and a - b:", "if not a < 2 and b - a:", "if not a < 2 and a + b:",
    ]  # fmt: skip


def test_draws_are_repeatable() -> None:
    drawn = draw(5, 7, ["passes/simplify"])
    assert drawn == draw(5, 7, ["passes/simplify"])
    assert len(set(drawn)) == 5
    assert all(Path(mutant.path).is_relative_to("passes/simplify") for mutant in drawn)


def test_modules_are_imported_with_the_mistake() -> None:
    path = "compiler/kernel/plan/arena.py"
    places = mutate((Path(__file__).parents[1] / path).read_text())[1]
    ends = set()
    for number, (_, what) in enumerate(places):
        if what == "LtE is Lt":
            spec = Finder(Mutant(path, number)).find_spec(arena.__name__, None)
            changed = module_from_spec(spec)
            sys.modules[arena.__name__] = changed
            try:
                spec.loader.exec_module(changed)
            finally:
                sys.modules[arena.__name__] = arena
            touching = ArenaBuffer(64, 0, 1), ArenaBuffer(64, 1, 2)
            assert arena._overlap(*touching)
            ends.add(changed._overlap(*touching))
    assert ends == {True, False}


def test_mirrors() -> None:
    quick, thorough = mirrors_of("compiler/kernel/plan/arena.py")
    assert "tests/compiler/kernel/test_arena.py" in quick
    assert thorough == ["tests/compiler/kernel"]
