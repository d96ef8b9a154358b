"""The rules of docs/architecture.md on folders, imports and sizes, checked on the source text."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"runtime": 0, "compiler": 1, "passes": 2, "frontends": 2, "backends": 3, "driver": 4}
OUTSIDE_WHEEL = ("tests", "benchmarks", "examples", "docs", ".ci")
SHARED = ("llvm", "common")  # folders of backends/ that every backend may import
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Entries may be removed, never added: {"folder/file.py": lines} and {"folder/file.py:name": lines}.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

# Third-party modules and the only folders that may import them.
CONFINED = {
    "onnx": ("frontends/onnx",),
    "llvmlite": ("backends",),
    "triton": ("backends/cuda",),
    "ethosu": ("backends/ethosu",),
}
# ml_dtypes names numpy's bf16; the loader works without it.
RUNTIME_MODULES = {"numpy", "ml_dtypes", *sys.stdlib_module_names}


def _files(*folders: str, suffix: str = ".py") -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob(f"*{suffix}"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


PACKAGE_FILES = _files(*FLOORS)
PYTHON_FILES = [*ROOT.glob("*.py"), *PACKAGE_FILES, *_files("tests", "benchmarks", "examples")]


@dataclass(frozen=True)
class Facts:
    """What the rules ask of a Python file. imports: (line, module). functions: the longest of a
    name, in lines. classes: public ones. without_docstring: (line, name) of what is public."""

    imports: tuple[tuple[int, str], ...]
    functions: Mapping[str, int]
    classes: tuple[str, ...]
    has_docstring: bool
    without_docstring: tuple[tuple[int, str], ...]


@cache
def _facts(path: Path) -> Facts:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            functions[node.name] = max(size, functions.get(node.name, 0))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return Facts(
        tuple(_imports(path, tree)),
        functions,
        tuple(name for name in classes if not name.startswith("_")),
        bool(ast.get_docstring(tree)),
        tuple((node.lineno, node.name) for node in tree.body if _lacks_docstring(node)),
    )


def _lacks_docstring(node: ast.stmt) -> bool:
    """A decorated function is exempt: its decorator registers it and says what it is."""
    function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if not (function and not node.decorator_list) and not isinstance(node, ast.ClassDef):
        return False
    return not node.name.startswith("_") and not ast.get_docstring(node)


def _imports(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; one inside the package as `.folder.module`."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package) + 1, f"{path}:{node.lineno} leaves the package"
            base = package[: len(package) + 1 - node.level]
            module = (*base, *(node.module or "").split("."))
            prefix = "." + ".".join(filter(None, module))
            # `from .. import name` may import a module or a name: either way it names the folder.
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def _violation(path: Path, module: str) -> str | None:
    """Why the package file `path` may not import `module`, or None."""
    here = path.relative_to(ROOT).parts
    if not module.startswith("."):
        top = module.split(".")[0]
        if top == "tensmith":
            return "imports inside the package are relative"
        if here[0] == "runtime" and top not in RUNTIME_MODULES:
            return f"runtime/ may import the standard library, numpy and ml_dtypes, not {top}"
        homes = CONFINED.get(top, ("",))
        if not any(_name(path).startswith(home) for home in homes):
            return f"{top} belongs in {' or '.join(homes)}"
        return None
    there = module.strip(".").split(".")
    if there[0] not in FLOORS:
        return None if there[0] == "_version" else f"{there[0]} is not a folder of the package"
    if there[0] == here[0]:
        sibling = here[0] == "backends" and len(here) > 2 and there[1] not in (here[1], *SHARED)
        return f"backend {here[1]} imports its sibling {there[1]}" if sibling else None
    if here[0] == "driver" and there[0] == "backends":
        return "driver/ finds backends by their entry points"
    if FLOORS[there[0]] >= FLOORS[here[0]]:
        return f"{here[0]} (floor {FLOORS[here[0]]}) imports {there[0]} (floor {FLOORS[there[0]]})"
    return None


def test_imports_go_down() -> None:
    wrong = [
        f"{_name(path)}:{line}: {module}: {why}"
        for path in PACKAGE_FILES
        for line, module in _facts(path).imports
        if (why := _violation(path, module))
    ]
    assert not wrong, "\n".join(wrong)


def _modules(path: Path) -> Iterator[Path]:
    """The files of the package that a file imports, wherever in it and for whatever purpose."""
    for _, module in _facts(path).imports:
        parts = module.strip(".").split(".") if module.startswith(".") else []
        for found in (parts, parts[:-1]):  # the last part may be a name in the module
            place = ROOT.joinpath(*found)
            if found and place.with_suffix(".py").is_file():
                yield place.with_suffix(".py")
                break
            if found and (place / "__init__.py").is_file():
                yield place / "__init__.py"
                break


def test_no_files_import_each_other() -> None:
    """Imports inside functions and for type checkers count as well."""
    order = nx.DiGraph((path, other) for path in PACKAGE_FILES for other in _modules(path))
    order.remove_edges_from(list(nx.selfloop_edges(order)))
    assert order.number_of_edges() > 1000
    circles = [sorted(map(_name, part)) for part in nx.strongly_connected_components(order)]
    assert not [names for names in circles if len(names) > 1]


def test_no_headers_include_each_other() -> None:
    headers = _files("runtime", suffix=".h")
    included = re.compile(r'^#include "(.*)"', re.MULTILINE)
    order = nx.DiGraph(
        (path.name, name) for path in headers for name in included.findall(path.read_text())
    )
    assert nx.is_directed_acyclic_graph(order)


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("compiler/x.py", ".driver.api.compile"),
        ("passes/x.py", ".frontends.onnx"),
        ("passes/x.py", ".backends.llvm.emit"),
        ("backends/x86/x.py", ".backends.arm.targets"),
        ("runtime/x.py", ".compiler.errors.RunError"),
        ("runtime/x.py", "networkx"),
        ("compiler/ir/x.py", "onnx.helper"),
        ("frontends/x.py", "onnx"),
        ("passes/x.py", "llvmlite.ir"),
        ("driver/x.py", "tensmith.driver"),
        ("driver/commands/x.py", ".backends.common.link.link"),
        ("driver/x.py", ".tests.cases"),
    ],
)
def test_rule_catches(importer: str, module: str) -> None:
    assert _violation(ROOT / importer, module)


@pytest.mark.parametrize(
    ("importer", "module"),
    [
        ("driver/x.py", ".frontends.onnx.load"),
        ("backends/x86/x.py", ".backends.llvm.emit"),
        ("backends/llvm/x.py", "llvmlite.ir"),
        ("frontends/onnx/ops/x.py", "onnx.helper"),
        ("compiler/x.py", "._version.__version__"),
        ("compiler/x.py", ".runtime.abi"),
    ],
)
def test_rule_allows(importer: str, module: str) -> None:
    assert _violation(ROOT / importer, module) is None


def test_top_level_holds_only_known_folders() -> None:
    known = {*FLOORS, *OUTSIDE_WHEEL}
    packages = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert packages <= known, f"no floor for {sorted(packages - known)}"


def test_files_are_short() -> None:
    sources = [*PYTHON_FILES, *_files("runtime", suffix=".[ch]")]
    lengths = {_name(path): len(path.read_text().splitlines()) for path in sources}
    _check_ratchet(lengths, LONG_FILES, MAX_FILE_LINES)


def test_functions_are_short() -> None:
    lengths = {
        f"{_name(path)}:{name}": size
        for path in PYTHON_FILES
        for name, size in _facts(path).functions.items()
    }
    _check_ratchet(lengths, LONG_FUNCTIONS, MAX_FUNCTION_LINES)


def test_no_two_classes_have_one_name() -> None:
    """Those that other files may use; tests, which see one of them at a time, name as they like."""
    places: dict[str, list[str]] = {}
    for path in PYTHON_FILES:
        if path.relative_to(ROOT).parts[0] != "tests":
            for name in _facts(path).classes:
                places.setdefault(name, []).append(_name(path))
    assert not {name: files for name, files in places.items() if len(files) > 1}


# Folders with a file for each family of operators or each command, named as what it is about.
FAMILIES = ("compiler/ir/ops", "frontends/onnx/ops", "passes/simplify/rules", "driver/commands")


def test_no_two_files_of_a_floor_have_one_name() -> None:
    """What is in a family may be named as a file outside is; backends are alike as siblings."""
    places: dict[tuple[str, ...], list[str]] = {}
    for path in PACKAGE_FILES:
        parts = path.relative_to(ROOT).parts
        sibling = parts[1] if parts[0] == "backends" and parts[1] not in SHARED else ""
        if path.stem != "__init__" and not _name(path).startswith(FAMILIES):
            key = (str(FLOORS[parts[0]]), sibling, path.name)
            places.setdefault(key, []).append(_name(path))
    assert not [files for files in places.values() if len(files) > 1]


def _check_ratchet(lengths: dict[str, int], allowed: dict[str, int], limit: int) -> None:
    wrong = [f"{k}: {n} lines" for k, n in lengths.items() if n > allowed.get(k, limit)]
    assert not wrong, f"over {limit} lines:\n" + "\n".join(wrong)
    stale = [key for key in allowed if lengths.get(key, 0) < allowed[key]]
    assert not stale, f"lower or remove these entries of the allow list: {stale}"


def test_modules_have_docstrings() -> None:
    wrong = [
        _name(path)
        for path in PYTHON_FILES
        if not _facts(path).has_docstring
        and (path.name != "__init__.py" or path.stat().st_size > 1)
    ]
    assert not wrong, "no docstring:\n" + "\n".join(wrong)


def test_public_names_have_docstrings() -> None:
    missing = [
        f"{_name(path)}:{line}: {name}"
        for path in PACKAGE_FILES
        for line, name in _facts(path).without_docstring
    ]
    assert not missing, "no docstring:\n" + "\n".join(missing)


# Words that mark unfinished work, and paths that exist on one machine only.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATH = re.compile(r"""(?<![\w.$}/])/(home|work|Users|root|mnt|opt)/\w""")


def _texts() -> list[Path]:
    folders = (*FLOORS, *OUTSIDE_WHEEL)
    suffixes = ("py", "c", "h", "md", "toml", "sh")
    nested = [path for suffix in suffixes for path in _files(*folders, suffix=f".{suffix}")]
    scripts = [path for path in (ROOT / ".ci").iterdir() if path.is_file() and not path.suffix]
    return [*(path for suffix in suffixes for path in ROOT.glob(f"*.{suffix}")), *nested, *scripts]


def test_texts_are_finished_and_portable() -> None:
    texts = _texts()
    found = {path.relative_to(ROOT).parts[0] for path in texts}
    assert {*FLOORS, *OUTSIDE_WHEEL} <= found
    wrong = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line) or MACHINE_PATH.search(line)
    ]
    assert not wrong, "\n".join(wrong)
