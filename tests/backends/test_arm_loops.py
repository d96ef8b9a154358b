"""Inner loops of products on AArch64, counted, and by llvm-mca's models of the cores."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import BF16, F32, I8, I32, U8, CaseBuilder

from tensmith.compiler.ir import DType, Graph

MCA = "llvm-mca-19"
# (core, the data's elements) -> the mnemonic, and how many of those it begins in a cycle
CORES = {
    ("cortex-a76", I8): ("sdot", 2),
    ("neoverse-n1", I8): ("sdot", 2),
    ("neoverse-v1", I8): ("smmla", 4),
    ("neoverse-v1", U8): ("usmmla", 4),
    ("neoverse-v1", BF16): ("bfmmla", 4),
    ("neoverse-v2", I8): ("smmla", 4),
    ("neoverse-v2", U8): ("usmmla", 4),
    ("neoverse-v2", BF16): ("bfmmla", 4),
}
ROWS = 4, 60  # of a product: one tile, and many
SHARE = 0.85  # of what the core could begin


def product(kind: DType, rows: int) -> Graph:
    """Rows times constant columns, added up in 32 bits."""
    c = CaseBuilder("product")
    floats = kind is BF16
    x = c.input(rows, 256, dtype=kind, name="x", **({} if floats else {"low": 0, "high": 100}))
    weights = c.weight(256, 96, dtype=BF16 if floats else I8, low=-99, high=99)
    c.output(c.op("matmul", x, weights, accumulate=F32 if floats else I32))
    return c.graph()


def inner_loop(assembly: str, mnemonic: str) -> list[str]:
    """The instructions of the loop without another in it that has most of a mnemonic."""
    lines, labels, best = assembly.splitlines(), dict[str, int](), list[str]()
    for number, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = number
        back = re.match(r"\s+(?:b\.\w+|cbn?z|tbn?z)\s+(?:\S+,\s*)*(\.LBB\w+)", line)
        if back is None or back[1] not in labels:
            continue
        body = lines[labels[back[1]] + 1 : number + 1]
        if any(part.startswith(".LBB") for part in body):
            continue
        plain = [part for part in body if part.startswith("\t") and not part.startswith("\t.")]
        if _count(plain, mnemonic) > _count(best, mnemonic):
            best = plain
    return best


def _count(body: list[str], mnemonic: str) -> int:
    return sum(line.split()[0] == mnemonic for line in body)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("core", "kind"), list(CORES))
def test_the_inner_loop_of_a_product(core: str, kind: DType, rows: int, tmp_path: Path) -> None:
    mnemonic, width = CORES[core, kind]
    setting = Setting(f"aarch64:{core}", 2, emulated=True)
    model = compile_graph(product(kind, rows), setting, tmp_path, texts=frozenset({"asm"}))
    body = inner_loop(model.code.texts["asm"], mnemonic)
    products = _count(body, mnemonic)
    assert products >= 32
    assert np.mean([line.split()[0] == mnemonic for line in body]) > 0.6
    assert not _count(body, "ld1r")  # a lane for all comes with the instruction
    if shutil.which(MCA) is None:
        pytest.skip(f"{MCA} is not installed")
    command = [MCA, "-mtriple=aarch64", f"-mcpu={core}", "-iterations=100"]
    told = subprocess.run(
        command, input="\n".join(body), capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"Total Cycles:\s+(\d+)", told)
    assert found is not None
    assert products / width >= SHARE * int(found[1]) / 100
