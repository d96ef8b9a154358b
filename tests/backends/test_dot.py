"""Products of bytes: which instructions compute them, and the same bits from all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Library, Setting, compile_graph, run_all
from suites.case import I8, I32, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.kernel.schedule.choices import Choices

# target -> the instruction that its code has for products of bytes
EXPECTED = {
    "x86-64-v3": ("maddw", "vpmaddwd"),
    "x86-64-v4": ("maddw", "vpmaddwd"),
    "znver4": ("vnni", "vpdpbusd"),
    "znver5": ("vnni", "vpdpbusd"),
    "sapphirerapids": ("amx", "tdpbusd"),
}

SETTINGS = (
    *(Setting("native", level) for level in (0, 2)),
    Setting("x86-64-v3", 2),
    Setting("aarch64", 2, emulated=True),
)


def products(depth: int = 64, rows: int = 9, lines: int = 7) -> Graph:
    """A product of bytes with constant ones, and a convolution padded with a number."""
    c = CaseBuilder("products")
    x = c.input(rows, depth, dtype=U8, low=0, high=256, name="x")
    w = c.weight(depth, 48, dtype=I8, low=-128, high=128)
    c.output(c.op("matmul", x, w, accumulate=I32))
    images = c.input(1, 8, lines, lines, dtype=U8, low=0, high=256, name="images")
    filters = c.weight(24, 8, 3, 3, dtype=I8, low=-128, high=128)
    window = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "pad_value": 9}
    c.output(c.op("conv", images, filters, accumulate=I32, **window))
    return c.graph()


@pytest.mark.parametrize("name", EXPECTED)
def test_products_of_bytes_are_one_instruction(name: str, tmp_path: Path) -> None:
    """Of a picture that is too small for tiles, whose transforms multiply as well."""
    instruction, mnemonic = EXPECTED[name]
    graph = products(lines=3)
    model = compile_graph(graph, Setting(name, 2), tmp_path, texts=frozenset({"asm"}))
    lines = [line.split()[0] for line in model.code.texts["asm"].splitlines() if line.split()]
    assert lines.count(mnemonic) >= (2 if instruction == "amx" else 16), instruction
    assert not {"vpmulld", "vpmullw"} & set(lines)


def attention(queries: int, keys: int, depth: int) -> Graph:
    """Bytes of queries and keys, scores as bytes, and what they weigh, by way of the passes."""
    c = CaseBuilder("attention")

    def bytes_(value: Value, zero: int, scale: float = 1 / 32) -> Value:
        point = constant(np.uint8(zero))
        stored = c.op("quantize", value, c.scalar(scale), point)
        return c.op("dequantize", stored, c.scalar(scale), point)

    q = bytes_(c.input(1, queries, 3, depth, name="q"), 120)
    k = bytes_(c.input(1, keys, 3, depth, name="k"), 131)
    v = bytes_(c.input(1, keys, 3, depth, name="v"), 128)
    q, v = (c.op("transpose", value, perm=(0, 2, 1, 3)) for value in (q, v))
    scores = bytes_(c.op("matmul", q, c.op("transpose", k, perm=(0, 2, 3, 1))), 100, 1 / 4)
    weights = bytes_(c.op("softmax", scores, axis=3), 0, 1 / 255)
    c.output(c.op("matmul", weights, v))
    return c.graph()


@pytest.mark.parametrize(("queries", "keys", "depth"), [(64, 64, 32), (49, 51, 32), (40, 33, 18)])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_products_of_data_give_what_the_reference_gives(
    queries: int, keys: int, depth: int, setting: Setting, tmp_path: Path
) -> None:
    """On all targets, with whole groups and without."""
    if missing := setting.missing():
        pytest.skip(missing)
    rng = np.random.default_rng(7)
    sizes = {"q": queries, "k": keys, "v": keys}
    inputs = {
        name: rng.uniform(-3, 3, (1, rows, 3, depth)).astype(np.float32)
        for name, rows in sizes.items()
    }
    graph = attention(queries, keys, depth)
    want = run_graph(graph, inputs)["y0"]
    got = run_all({"m": Job(graph, inputs)}, setting, tmp_path)["m"]
    assert not isinstance(got, Exception), got
    steps = np.abs(got["y0"] - want) * (32 * 255)
    assert steps.max() < 3 * 255  # a weight may round to the byte beside
    assert (steps > 0.5).mean() < 0.02


def test_products_of_data_are_of_groups(tmp_path: Path) -> None:
    graph = attention(64, 64, 32)
    model = compile_graph(graph, Setting("znver4", 2), tmp_path, texts=frozenset({"asm"}))
    lines = [line.split()[0] for line in model.code.texts["asm"].splitlines() if line.split()]
    assert lines.count("vpdpbusd") >= 24
    assert not [line for line in lines if line.startswith("vpgather")]


def _instructions(name: str, folder: Path, graph: Graph) -> dict[str, str]:
    """The groups of a graph that take an instruction, as choices name them, and which they take."""
    backend, target = resolve_target(name)
    folder.mkdir()
    options = CompileOptions("keys", folder, opt_level=2)
    found = backend.compile(graph, target, options, Stages())
    return {
        key: kernel.choice["instruction"]
        for kernel in found.kernels
        for key in kernel.keys
        if kernel.choice["instruction"]
    }


FEW = {"rows": 3, "lines": 2}  # stay bytes where more are multiplied as words


@pytest.mark.parametrize("name", ["x86-64-v3", "native"])
@pytest.mark.parametrize("instruction", ["", "bytes", "madd", "vnni", "amx"])
def test_all_instructions_give_the_same_bits(name: str, instruction: str, tmp_path: Path) -> None:
    setting = Setting(name, 2)
    if missing := setting.missing():
        pytest.skip(missing)
    if instruction not in ("", "bytes", *resolve_target(name)[1].instructions):
        pytest.skip(f"{name} has no {instruction}")
    keys, sizes = _instructions(name, tmp_path / "keys", products()), {}
    if "maddw" in keys.values():
        keys, sizes = _instructions(name, tmp_path / "few", products(**FEW)), FEW
    assert len(keys) == 2
    assert "maddw" not in keys.values()
    choices = Choices({key: {"instruction": instruction} for key in keys})
    _same_bits(setting, tmp_path, choices, **sizes)


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("instruction", ["", "maddw"])
@pytest.mark.parametrize("depth", [64, 6, 15])
def test_words_give_the_same_bits(name: str, instruction: str, depth: int, tmp_path: Path) -> None:
    setting = Setting(name, 2)
    if missing := setting.missing():
        pytest.skip(missing)
    keys = _instructions(name, tmp_path / "keys", products(depth))
    assert "maddw" in keys.values()
    choices = Choices({key: {"instruction": instruction} for key in keys})
    _same_bits(setting, tmp_path, choices, depth=depth)


def _same_bits(setting: Setting, folder: Path, choices: Choices, **sizes: int) -> None:
    """Compiled products are what the reference gives."""
    graph, rng = products(**sizes), np.random.default_rng(5)
    inputs = {
        value.name: rng.integers(0, 256, value.type.static_shape, np.uint8)
        for value in graph.inputs
    }
    got = run_all({"m": Job(products(**sizes), inputs, choices)}, setting, folder)["m"]
    assert not isinstance(got, Exception), got
    for name, want in run_graph(graph, inputs).items():
        np.testing.assert_array_equal(got[name], want, name)


def test_an_instruction_that_the_target_lacks_is_refused(tmp_path: Path) -> None:
    keys = _instructions("x86-64-v3", tmp_path / "keys", products())
    choices = Choices({key: {"instruction": "vnni"} for key in keys})
    library = Library({"m": products()}, Setting("x86-64-v3", 2), tmp_path, {"m": choices})
    assert isinstance(library.errors["m"], ScheduleError)
    assert "vnni" in str(library.errors["m"])


def _tall() -> Graph:
    c = CaseBuilder("tall")
    x = c.input(64, 64, dtype=U8, low=0, high=256, name="x")
    c.output(c.op("matmul", x, c.weight(64, 128, dtype=I8, low=-99, high=99), accumulate=I32))
    return c.graph()


@pytest.mark.parametrize("changed", [{"rows": 31}, {"vectors": 4, "rows": 32}, {"lanes": 8}])
def test_tiles_that_are_no_matrices_are_refused(changed: dict[str, int], tmp_path: Path) -> None:
    backend, target = resolve_target("sapphirerapids")
    (tmp_path / "keys").mkdir()
    options = CompileOptions("keys", tmp_path / "keys", opt_level=2)
    [kernel] = backend.compile(_tall(), target, options, Stages()).kernels
    stage = {**kernel.choice["stages"][0], **changed}
    given = Choices({kernel.keys[0]: {"instruction": "amx", "stages": [stage]}})
    library = Library({"m": _tall()}, Setting("sapphirerapids", 2), tmp_path, {"m": given})
    assert isinstance(library.errors["m"], ScheduleError)
    assert "matrices" in str(library.errors["m"])


def _ends() -> Graph:
    c = CaseBuilder("ends")
    x = c.input(3, 128, dtype=U8, name="x")
    w = np.where(np.arange(32) % 2, 127, -128) * np.ones((128, 1))
    c.output(c.op("matmul", x, constant(w.astype(np.int8)), accumulate=I32))
    return c.graph()


@pytest.mark.parametrize("name", ["x86-64-v3", "native"])
def test_largest_bytes_add_up_exactly(name: str, tmp_path: Path) -> None:
    """No pair of products saturates on the way."""
    setting = Setting(name, 2)
    if missing := setting.missing():
        pytest.skip(missing)
    inputs = {"x": np.full((3, 128), 255, np.uint8)}
    got = run_all({"m": Job(_ends(), inputs)}, setting, tmp_path)["m"]
    assert not isinstance(got, Exception), got
    np.testing.assert_array_equal(got["y0"][0, :2], [-128 * 255 * 128, 127 * 255 * 128])
