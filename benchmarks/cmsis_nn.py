"""Instructions of CMSIS-NN for the layers of three networks of MLPerf Tiny, counted in QEMU.

    python -m benchmarks.cmsis_nn CMSIS-NN

The argument is a checkout of github.com/ARM-software/CMSIS-NN. Needs arm-none-eabi-gcc with newlib
and qemu-system-arm. What Tensmith's code for the same networks takes is in docs/arm.md; these are
layers alone, without softmax and without what calls them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
STARTUP = HERE.parent / "examples" / "cortex_m" / "startup.c"
FLAGS = ("-mthumb", "-mfloat-abi=hard", "-Ofast", "-ffunction-sections", "-fdata-sections")
LINK = ("-nostartfiles", "--specs=nosys.specs", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments")
SCRIPT = """MEMORY {{
  VECTORS (rx) : ORIGIN = 0, LENGTH = 1K
  CODE (rwx) : ORIGIN = {code}, LENGTH = 1M
  DATA (rwx) : ORIGIN = {data}, LENGTH = 2M
}}
ENTRY(reset)
SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > VECTORS
  .text : {{ *(.text*) *(.rodata*) }} > CODE
  .data : {{ *(.data*) }} > DATA
  .bss (NOLOAD) : ALIGN(16) {{
    bss_start = .; *(.bss*) *(COMMON) . = ALIGN(16); bss_end = .;
    end = .; . += 16K; . += 64K; stack_top = .;
  }} > DATA
  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) }}
}}
"""


@dataclass(frozen=True)
class CountingBoard:
    """A machine of QEMU. options: of the compiler. tick: hundredths of a nanosecond of SysTick."""

    machine: str
    options: tuple[str, ...]
    code: str
    data: str
    tick: int


BOARDS = {
    "cortex-m4": CountingBoard("mps2-an386", ("-mfpu=fpv4-sp-d16",), "0x400", "0x21000000", 4000),
    "cortex-m55": CountingBoard("mps3-an547", (), "0x01000000", "0x21000000", 3125),
}


def sources(checkout: Path) -> list[str]:
    """CMSIS-NN's C for integers."""
    found = sorted((checkout / "Source").rglob("*.c"))
    return [str(path) for path in found if not path.stem.endswith(("_f16", "_f32"))]


def counted(core: str, board: CountingBoard, checkout: Path, folder: Path) -> str:
    """What the program says of a core: a line for every layer, and one for every network."""
    script, program = folder / "board.ld", folder / "program.elf"
    script.write_text(SCRIPT.format(code=board.code, data=board.data))
    command = [
        "arm-none-eabi-gcc", f"-mcpu={core}", *board.options, *FLAGS, *LINK,
        f"-DTICK_HUNDREDTHS={board.tick}", f"-I{checkout / 'Include'}", "-T", str(script),
        str(HERE / "cmsis_nn.c"), str(STARTUP), *sources(checkout), "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    run = [
        "qemu-system-arm", "-M", board.machine, "-display", "none", "-serial", "null",
        "-monitor", "none", "-icount", "shift=0", "-semihosting-config",
        "enable=on,target=native", "-kernel", str(program),
    ]  # fmt: skip
    told = subprocess.run(run, check=True, capture_output=True, text=True)
    return told.stdout + told.stderr


def main() -> None:
    """Print a table for each core."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("checkout", type=Path, help="folder of CMSIS-NN")
    checkout = parser.parse_args().checkout.resolve()
    for core, board in BOARDS.items():
        with tempfile.TemporaryDirectory() as folder:
            told = counted(core, board, checkout, Path(folder))
        print(core)
        for line in told.splitlines():
            name, *numbers = line.split()
            if len(numbers) == 1:
                print(f"  {name:<12}{int(numbers[0]):>27,} instructions in all")
            else:
                products, count = int(numbers[0]), int(numbers[1])
                each = f"{count / products:.2f}" if products else ""
                failed = " ".join(numbers[2:])
                print(f"  {name:<12}{products:>12,} MACs {count:>11,} {each:>6} {failed}")


if __name__ == "__main__":
    main()
