"""Inner loops of products on AArch64, counted, and by llvm-mca's models of the cores."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import I8, I32, U8, CaseBuilder

from tensmith.compiler.ir import DType, Graph

MCA = "llvm-mca-19"
# core -> the data's bytes, the mnemonic, and how many of those it begins in a cycle
CORES = {
    "cortex-a76": (I8, "sdot", 2),
    "neoverse-n1": (I8, "sdot", 2),
    "neoverse-v2": (U8, "sudot", 4),
}
SHARE = 0.85  # of what the core could begin


def product(kind: DType) -> Graph:
    """Four rows of bytes times constant ones."""
    c = CaseBuilder("product")
    x = c.input(4, 256, dtype=kind, low=0, high=100, name="x")
    c.output(c.op("matmul", x, c.weight(256, 96, dtype=I8, low=-99, high=99), accumulate=I32))
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


@pytest.mark.parametrize("core", CORES)
def test_the_inner_loop_of_a_product_of_bytes(core: str, tmp_path: Path) -> None:
    kind, mnemonic, width = CORES[core]
    setting = Setting(f"aarch64:{core}", 2, emulated=True)
    model = compile_graph(product(kind), setting, tmp_path, texts=frozenset({"asm"}))
    body = inner_loop(model.code.texts["asm"], mnemonic)
    products = _count(body, mnemonic)
    assert products >= 32
    assert np.mean([line.split()[0] == mnemonic for line in body]) > 0.75
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
