"""Moves of elements that are transposed in registers: the same elements, whole tiles and rests.

What is compared is computed by numpy with the same roundings, or by the reference backend.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import Array, Library, Setting, needs_native
from suites.case import BOOL, F16, F32, F64, I8, I64, CaseBuilder, N, S

from tensmith.backends.common.link import link
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import Value
from tensmith.compiler.ir.dims import evaluate
from tensmith.compiler.ir.types import DType
from tensmith.compiler.knobs import SANITIZE
from tensmith.runtime.loader import Module, load

pytestmark = needs_native

PERMS = {
    "planes to channels": ((3, 37, 41), (1, 2, 0)),
    "two planes": ((2, 5, 33), (1, 2, 0)),
    "four planes": ((4, 6, 64), (1, 2, 0)),
    "five planes": ((5, 6, 64), (1, 2, 0)),
    "channels to planes": ((19, 23, 8), (2, 0, 1)),
    "keys": ((2, 61, 40), (0, 2, 1)),
    "last swap": ((16, 8), (1, 0)),
}


def build(c: CaseBuilder, target: str, folder: Path) -> tuple[Module, str]:
    """The compiled graph and its schedules."""
    backend, resolved = resolve_target(target)
    options = CompileOptions("m", folder)
    compilation = backend.compile(c.graph(), resolved, options, Stages())
    link(compilation.model, "so", folder / "m.so")
    schedules = " ".join(kernel.schedule for kernel in compilation.kernels)
    return load(folder / "m.so"), schedules


@pytest.mark.parametrize("name", PERMS)
@pytest.mark.parametrize(
    ("dtype", "target"),
    [
        (DType.F32, "native"),
        (DType.I64, "x86-64-v3"),
        (DType.U8, "x86-64-v3"),
        pytest.param(DType.F32, "x86-64-v3", marks=pytest.mark.slow),
        pytest.param(DType.I64, "native", marks=pytest.mark.slow),
        pytest.param(DType.U8, "native", marks=pytest.mark.slow),
    ],
)
def test_permutations(name: str, dtype: DType, target: str, tmp_path: Path) -> None:
    shape, perm = PERMS[name]
    c = CaseBuilder("moved")
    c.output(c.op("transpose", c.input(*shape, dtype=dtype), perm=perm))
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype.numpy)
    module, schedules = build(c, target, tmp_path)
    np.testing.assert_array_equal(next(iter(module(x).values())), x.transpose(perm))
    assert target == "native" or not schedules.startswith("1x"), "tiles have several rows"


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_sizes_that_a_run_tells(target: str, tmp_path: Path) -> None:
    c = CaseBuilder("moved")
    c.output(c.op("transpose", c.op("neg", c.input(N, S)), perm=(1, 0)))
    module, _ = build(c, target, tmp_path)
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (7, 9), (8, 16), (29, 50)]:
        x = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(next(iter(module(x).values())), -x.T)


def operand(c: CaseBuilder, dtype: DType) -> Value:
    """One operand lies the other way round."""
    return c.op("add", c.op("transpose", x(c, dtype), perm=(1, 0)), y(c, dtype))


def chosen(c: CaseBuilder, dtype: DType) -> Value:
    """Bools lie the other way round."""
    condition = c.op("transpose", c.input(S, N, dtype=BOOL, name="b"), perm=(1, 0))
    return c.op("where", condition, y(c, dtype), c.op("transpose", x(c, dtype), perm=(1, 0)))


def converted(c: CaseBuilder, dtype: DType) -> Value:
    """Elements of one size are turned round and become those of another."""
    small = c.op("transpose", c.input(S, N, dtype=I8, name="i"), perm=(1, 0))
    return c.op("add", c.op("cast", small, dtype=dtype), y(c, dtype))


def bordered(c: CaseBuilder, dtype: DType) -> Value:
    """What is turned round has a border that is not in memory."""
    turned = c.op("transpose", x(c, dtype), perm=(1, 0))
    return c.op("pad", turned, pads=(1, 2, 3, 1))


def planes(c: CaseBuilder, dtype: DType) -> Value:
    """Elements of few channels, with another tensor that lies like the result."""
    rows = c.op("transpose", c.input(5, N, S, dtype=dtype, name="x"), perm=(1, 2, 0))
    return c.op("sub", rows, c.input(N, S, 5, dtype=dtype, name="y"))


def outermost(c: CaseBuilder, dtype: DType) -> Value:
    """The first axis becomes the last one."""
    turned = c.op("transpose", c.input(S, 3, N, dtype=dtype, name="x"), perm=(2, 1, 0))
    return c.op("add", turned, c.input(N, 3, S, dtype=dtype, name="y"))


def two_results(c: CaseBuilder, dtype: DType) -> Value:
    """Two results, one of which lies as the operand does."""
    value = c.op("neg", x(c, dtype))
    c.output(value)
    return c.op("add", c.op("transpose", value, perm=(1, 0)), y(c, dtype))


def x(c: CaseBuilder, dtype: DType) -> Value:
    return c.input(S, N, dtype=dtype, name="x")


def y(c: CaseBuilder, dtype: DType) -> Value:
    return c.input(N, S, dtype=dtype, name="y")


FORMS = (chosen, converted, bordered, planes, outermost, two_results)
CASES = [
    *((operand, d) for d in (F32, F16, I8, I64, F64)),
    *((f, F32) for f in FORMS),
    (planes, I8),
]
SIZES = ((1, 1), (1, 40), (40, 1), (2, 3), (3, 65), (16, 15), (33, 70), (130, 66))
SETTINGS = (
    Setting("x86-64-v3", 2),
    Setting("x86-64-v4", 2),
    Setting("aarch64", 2, emulated=True),
)


Form = Callable[[CaseBuilder, DType], Value]


def expected(name: str, a: dict[str, Array], dtype: DType) -> Array:
    """The last result of a form."""
    if name == "operand":
        return a["x"].T + a["y"]
    if name == "chosen":
        return np.where(a["b"].T, a["y"], a["x"].T)
    if name == "converted":
        return a["i"].T.astype(dtype.numpy) + a["y"]
    if name == "bordered":
        return np.pad(a["x"].T, ((1, 3), (2, 1)))
    if name == "planes":
        return a["x"].transpose(1, 2, 0) - a["y"]
    if name == "outermost":
        return a["x"].transpose(2, 1, 0) + a["y"]
    return a["y"] - a["x"].T


def drawn(value: Value, sizes: dict[str, int], rng: np.random.Generator) -> Array:
    """Small whole numbers, whose sums every type holds."""
    shape = tuple(evaluate(dim, sizes) for dim in value.type.shape)
    low, high = (0, 2) if value.dtype is BOOL else (-9, 9)
    return rng.integers(low, high, shape).astype(value.dtype.numpy)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_operands_that_lie_another_way(setting: Setting, tmp_path: Path) -> None:
    check(CASES, SIZES[:: 4 if setting.emulated else 1], setting, tmp_path)


def test_no_access_is_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SANITIZE.variable, "1")
    cases = [(form, F32) for form in (operand, converted, planes, two_results)]
    check(cases, SIZES[1:], Setting("x86-64-v3", 2), tmp_path)


def check(
    cases: list[tuple[Form, DType]],
    sizes: tuple[tuple[int, int], ...],
    setting: Setting,
    folder: Path,
) -> None:
    """Every case at every size (s, n), shared by two threads."""
    if missing := setting.missing():
        pytest.skip(missing)
    graphs = {}
    for form, dtype in cases:
        c = CaseBuilder(f"{form.__name__} {dtype}")
        c.output(form(c, dtype))
        graphs[c.name] = c.graph()
    inputs = {name: graph.inputs for name, graph in graphs.items()}
    library = Library(graphs, setting, folder)
    rng = np.random.default_rng(0)
    for form, dtype in cases:
        name = f"{form.__name__} {dtype}"
        for s, n in sizes:
            arrays = {v.name: drawn(v, {"n": n, "s": s}, rng) for v in inputs[name]}
            found = library.run(name, arrays, threads=2)
            assert not isinstance(found, Exception), f"{name}, {s} x {n}: {found}"
            want = expected(form.__name__, arrays, dtype)
            np.testing.assert_array_equal(list(found.values())[-1], want, f"{name}, {s} x {n}")


@pytest.mark.parametrize("shape", [(16, 12), (65, 47)])
def test_pinned_sizes(shape: tuple[int, int], tmp_path: Path) -> None:
    """Rests whose sizes are known: lanes that are not there are neither read nor written."""
    rng = np.random.default_rng(0)
    for target in ("native", "x86-64-v3"):
        for dtype in (F32, I8):
            c = CaseBuilder("pinned")
            a, b = c.input(*shape, dtype=dtype), c.input(*shape[::-1], dtype=dtype)
            c.output(c.op("add", c.op("transpose", a, perm=(1, 0)), b))
            folder = tmp_path / f"{target} {dtype}"
            folder.mkdir()
            module, schedules = build(c, target, folder)
            first, second = (rng.integers(-9, 9, v.type.shape).astype(dtype.numpy) for v in (a, b))
            np.testing.assert_array_equal(
                next(iter(module(first, second).values())), first.T + second
            )
            assert not schedules.startswith("1x"), "tiles have several rows"
