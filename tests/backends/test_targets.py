"""Targets: code uses what the check at load covers, whatever processor it is tuned for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compiled import Library, Setting, compile_graph
from suites.case import BF16, F16, F32, I8, I32, Case, CaseBuilder

from tensmith.backends import arm, x86
from tensmith.backends.arm.aarch64 import FEATURES
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph

# psABI for x86-64, table 3.1, as LLVM names features
LEVEL_2 = {"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"}
LEVEL_3 = LEVEL_2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
LEVEL_4 = LEVEL_3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CHECKED = {"x86-64-v3": LEVEL_3, "x86-64-v4": LEVEL_4, "generic": {"neon"}}

# Mnemonics of VNNI, BF16, FP16, IFMA, VBMI2, VPOPCNTDQ, GFNI and AMX
BEYOND_LEVEL_4 = re.compile(
    r"^\s+(vpdp\w+|v\w*bf16\w*|v(?:add|sub|mul|div|min|max|sqrt|cmp|fn?m(?:add|sub)\d+)[sp]h"
    r"|vmovw|vcvt\w*(?:2phx|phx2\w+|2sh|sh2\w+)|vpmadd52\w+|vpcompress[bw]|vpexpand[bw]"
    r"|vpsh[lr]dv?[wdq]|vperm(?:[it]2)?b|vpopcnt\w+|v?gf2p8\w+|tdp\w+)\b",
    re.MULTILINE,
)
# features beside the levels, and the mnemonics of their instructions
MARKS = {
    "avx512vbmi": r"vperm",
    "avx512vnni": r"vpdp",
    "avxvnni": r"vpdp",
    "avx512bf16": r"v\w*bf16",
}
TARGETS = [name for backend in (x86, arm) for name in backend.BACKEND.targets if name != "native"]


def tempting() -> Graph:
    """What newer instructions do in one step: sums of halves, products of bytes, bf16 rounding."""
    c = CaseBuilder("tempting")
    a, b = c.input(4, 64, dtype=F16, name="a"), c.input(4, 64, dtype=F16, name="b")
    x, y = c.input(8, 64, dtype=I8, name="x"), c.input(64, 32, dtype=I8, name="y")
    wide = [c.op("cast", value, dtype=I32) for value in (x, y)]
    weights = c.weight(64, 32)
    chosen = c.op("eq", x, c.scalar(0, I8))
    halves = c.op("where", chosen, c.scalar(0.5), c.op("cast", x, dtype=F32))
    c.output(
        c.op("mul", c.op("add", a, b), b),
        c.op("matmul", *wide),
        c.op("cast", c.op("matmul", halves, weights), dtype=BF16),
    )
    return c.graph()


@pytest.mark.parametrize("name", [name for name in TARGETS if not resolve_target(name)[1].bare])
def test_check_at_load_covers_the_instruction_set(name: str) -> None:
    target = resolve_target(name)[1]
    assert set(target.features) >= CHECKED[target.cpu]


@pytest.mark.parametrize("name", TARGETS)
def test_functions_are_tuned_within_the_instruction_set(name: str, tmp_path: Path) -> None:
    target = resolve_target(name)[1]
    texts = frozenset({"llvm", "asm"})
    code = compile_graph(tempting(), Setting(name, 2), tmp_path, texts=texts).code
    assert code.features == target.features
    llvm = code.texts["llvm"]
    attributes = re.findall(r"^attributes #\d+ = .*nounwind.*\"target-cpu\".*$", llvm, re.MULTILINE)
    assert attributes
    for line in attributes:
        assert f'"target-cpu"="{target.cpu}"' in line
        assert f'"tune-cpu"="{target.tune}"' in line
    if target.backend == "x86":
        found = set(BEYOND_LEVEL_4.findall(code.texts["asm"]))
        allowed = {mark for feature, mark in MARKS.items() if feature in target.features}
        assert not {name for name in found if not any(re.match(mark, name) for mark in allowed)}


# of each feature: a processor that lacks it, and what it is called
LACKING = {
    "dotprod": ("cortex-a53", "dotprod"),
    "fp16": ("cortex-a53", "fullfp16"),
    "i8mm": ("cortex-a76", "i8mm"),
    "bf16": ("cortex-a76", "bf16"),
    "sve": ("cortex-a76", "sve"),
}


@pytest.mark.parametrize("feature", LACKING)
def test_code_is_refused_by_a_processor_that_lacks_a_feature(feature: str, tmp_path: Path) -> None:
    assert set(LACKING) == set(FEATURES)
    older, named = LACKING[feature]
    newer = Setting(f"aarch64+{feature}", 2, emulated=True)
    if missing := newer.missing():
        pytest.skip(missing)
    case = Case("halves", lambda c: c.output(c.op("neg", c.input(3, dtype=F16))))
    library = Library({"halves": case.graph()}, newer, tmp_path)
    assert isinstance(library.run("halves", case.inputs()), dict)
    library.processor = older
    refused = library.run("halves", case.inputs())
    assert isinstance(refused, RuntimeError)
    assert re.search(rf"\b{named}\b", str(refused))
