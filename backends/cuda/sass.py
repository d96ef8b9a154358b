"""What machine code of a GPU does: kinds of instructions, counted in the disassembly of a cubin.

Names are those of NVIDIA's "CUDA Binary Utilities", chapter "Instruction Set Reference".
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...compiler.errors import UsageError
from ...compiler.scratch import temporary_folder

_INSTRUCTION = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[\w.]+)?)", re.M
)
WGMMA = ("HGMMA", "IGMMA", "QGMMA")  # of 9.0: halves and tf32, bytes, 8-bit floats
MMA = ("HMMA", "IMMA", "QMMA")
TCGEN05 = ("UTCHMMA", "UTCIMMA", "UTCQMMA")  # of 10.0


@dataclass(frozen=True)
class SassFacts:
    """How often instructions appear, by name without and with what follows its first dot."""

    names: Counter[str]
    whole: Counter[str]

    @property
    def tensor_core(self) -> tuple[str, ...]:
        """The instructions that multiply matrices."""
        return tuple(n for n in (*WGMMA, *TCGEN05, *MMA) if self.names[n])

    @property
    def spills(self) -> int:
        """Loads and stores of a thread's own memory."""
        return self.names["LDL"] + self.names["STL"]

    @property
    def async_copies(self) -> int:
        """Copies into shared memory that threads do not wait for (`cp.async`, TMA)."""
        return self.names["LDGSTS"] + self.names["UTMALDG"] + self.names["UBLKCP"]

    def wide(self, name: str = "") -> int:
        """Accesses of global memory of 16 bytes each; name: of one instruction."""
        return sum(n for text, n in self.whole.items() if _access(text, name) and ".128" in text)

    def narrow(self, name: str = "") -> int:
        """Accesses of global memory of fewer bytes."""
        every = sum(n for text, n in self.whole.items() if _access(text, name))
        return every - self.wide(name)


def _access(text: str, name: str) -> bool:
    return text.split(".")[0] in ((name,) if name else ("LDG", "STG", "LDGSTS"))


@cache
def disassembler() -> Path | None:
    """What prints machine code, of Triton's package."""
    spec = importlib.util.find_spec("triton")  # imported, it could not interpret here any more
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.exists() else None


def sass_facts(cubin: bytes) -> SassFacts:
    """What the code of a cubin consists of. Raises UsageError where there is no disassembler."""
    tool = disassembler()
    if tool is None:
        raise UsageError(
            "machine code of GPUs cannot be looked at here",
            why="the installed version of Triton has no cuobjdump",
            remedy="pip install 'triton==3.9.*'",
        )
    with temporary_folder("tensmith-sass-") as folder:
        path = Path(folder, "code.cubin")
        path.write_bytes(cubin)
        told = subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True)
    whole = Counter(_INSTRUCTION.findall(told.stdout))
    names: Counter[str] = Counter()
    for text, count in whole.items():
        names[text.split(".")[0]] += count
    return SassFacts(names, whole)
