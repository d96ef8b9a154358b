"""Mutation testing: small mistakes made in a file, one at a time, and whether its tests see them.

`python -m mutants` (in tests/) draws mistakes and runs for each, in a process of its own, the tests
that mirror the file; the files themselves stay as they are. As a plugin of pytest the module puts
the mistake that $MUTANT describes into what is imported.
"""

from __future__ import annotations

import argparse
import ast
import importlib.machinery
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WHOLE = "tests/compiler/kernel/test_plan_memory.py"  # graphs from the passes to their results
SECONDS = 300  # of the tests of one mistake; those that take longer have seen it
_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)


@dataclass(frozen=True)
class Mutant:
    """One mistake: the number of a place in a file among all places, in the order of the tree."""

    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}#{self.number}"


class _Places(ast.NodeTransformer):
    """Makes the mistake with a number (-1: none) and lists all of them as (line, what)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.found: list[tuple[int, str]] = []

    def _here(self, node: ast.expr, what: str) -> bool:
        self.found.append((node.lineno, what))
        return len(self.found) - 1 == self.number

    def visit(self, node: ast.AST) -> Any:
        # what is said, typed or never wrong by itself
        if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments | ast.Import):
            return node
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)
            return node
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):  # not how it is decorated
            node.body = [self.visit(statement) for statement in node.body]
            return node
        return super().visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        flipped = _FLIPPED[type(node.ops[0])]
        if self._here(node, f"{type(node.ops[0]).__name__} is {flipped.__name__}"):
            node.ops[0] = flipped()
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is bool:
            if self._here(node, f"{node.value} is {not node.value}"):
                node.value = not node.value
        elif type(node.value) is int and self._here(node, f"{node.value} is {node.value + 1}"):
            node.value += 1
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Not) and self._here(node, "not is dropped"):
            return self.generic_visit(ast.copy_location(node.operand, node))
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        if self._here(node, f"{type(node.op).__name__} is {other.__name__}"):
            node.op = other()
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, _ORDERED) and self._here(node, "operands are swapped"):
            node.left, node.right = node.right, node.left
        other = _ARITHMETIC.get(type(node.op))
        if other and self._here(node, f"{type(node.op).__name__} is {other.__name__}"):
            node.op = other()
        return self.generic_visit(node)


def mutate(source: str, number: int = -1) -> tuple[ast.Module, list[tuple[int, str]]]:
    """The tree of a source with a mistake, and (line, what) of all that could be made."""
    places = _Places(number)
    tree = places.visit(ast.parse(source))
    return ast.fix_missing_locations(tree), places.found


# in the process of the tests ------------------------------------------------------------------


class Loader(importlib.machinery.SourceFileLoader):
    number = -1

    def get_code(self, fullname: str) -> CodeType:
        tree, _ = mutate(Path(self.path).read_text(encoding="utf-8"), self.number)
        return compile(tree, self.path, "exec")


class Finder:
    """Finds the module of a mistake's file, with the mistake."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = "tensmith." + mutant.path.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != self.name:
            return None
        loader = Loader(name, str(ROOT / self.mutant.path))
        loader.number = self.mutant.number
        return importlib.machinery.ModuleSpec(name, loader, origin=loader.path)


if "MUTANT" in os.environ:
    _path, _number = os.environ["MUTANT"].split("#")
    sys.meta_path.insert(0, Finder(Mutant(_path, int(_number))))


# the driver -----------------------------------------------------------------------------------


def draw(count: int, seed: int, under: list[str]) -> list[Mutant]:
    """Mistakes in files of the folders, every file as likely as it has places."""
    files = sorted(path for folder in under for path in (ROOT / folder).rglob("*.py"))
    places = [
        Mutant(path.relative_to(ROOT).as_posix(), number)
        for path in files
        for number in range(len(mutate(path.read_text(encoding="utf-8"))[1]))
    ]
    return random.Random(seed).sample(places, min(count, len(places)))


def mirrors_of(path: str) -> tuple[list[str], list[str]]:
    """Tests that name a file's module and whole graphs; the folder that mirrors its own or above.

    The second are run where the first see nothing.
    """
    module = Path(path).with_suffix("")
    folder = HERE / module.parent
    while not folder.is_dir():
        folder = folder.parent
    named = (".".join(module.parts), f"{'.'.join(module.parent.parts)} import {module.name}")
    found = [
        test.relative_to(ROOT).as_posix()
        for test in sorted(folder.rglob("test_*.py"))
        if module.name in test.stem or any(name in test.read_text() for name in named)
    ]
    return list(dict.fromkeys((*found, WHOLE))), [folder.relative_to(ROOT).as_posix()]


def seen(mutant: Mutant, tests: list[str]) -> str:
    """How the tests end with a mistake: "failed", "too slow", or "" when they pass."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "MUTANT": str(mutant)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "mutants", *tests]
    command += ["-p", "no:cacheprovider", "-k", "not test_mistakes"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "too slow"
    return "failed" if done.returncode else ""


def _described(mutant: Mutant) -> Iterator[str]:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    line, what = mutate(source)[1][mutant.number]
    yield f"{mutant.path}:{line}: {what}"
    yield f"    {source.splitlines()[line - 1].strip()}"


def main() -> None:
    """Print every mistake that no test sees, and their share."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("under", nargs="*", default=["compiler", "passes"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="run the first tests only")
    parser.add_argument("--only", help="one mistake, as FILE#NUMBER")
    given = parser.parse_args()
    drawn = draw(given.count, given.seed, given.under)
    if given.only:
        path, number = given.only.split("#")
        drawn = [Mutant(path, int(number))]
    survived = 0
    for mutant in drawn:
        quick, thorough = mirrors_of(mutant.path)
        end = seen(mutant, quick) or ("" if given.quick else seen(mutant, thorough))
        survived += not end
        print(f"{end or 'SURVIVED'}: {mutant}", *_described(mutant), sep="\n  ", flush=True)
    print(f"{survived} of {len(drawn)} survived")


if __name__ == "__main__":
    main()
