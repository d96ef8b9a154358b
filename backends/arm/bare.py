"""Models for Cortex-M as files: a library with its header, C and assembly, a program for QEMU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...compiler.artifact import CompiledModel
from ...compiler.errors import InternalError, UsageError
from ...compiler.scratch import new_files, place
from ..common.c_names import is_among
from ..common.toolchain import RUNTIME, CTarget, compile_c, runtime_objects
from ..common.zig import run_zig
from .bare_c import (
    Interface,
    data_array,
    firmware_table,
    header_of,
    table,
    weights_array,
    weights_symbol,
)
from .cortex_m import BOARDS, EmulatedBoard

EMITS = ("lib", "elf", "c")
_SOURCES = (
    "bare/bare.c",
    "bounds.c",
    "cumulative.c",
    "detect.c",
    "elements.c",
    "forest.c",
    "numbers.c",
    "ordering.c",
    "sort.c",
)
_OPERATORS = _SOURCES[1:]
_PROGRAM = (*_SOURCES, "bare/startup.c", "bare/firmware.c")
_INCLUDE = re.compile(r'^ *# *include "(.+)"', re.MULTILINE)
_GCC = "arm-none-eabi-gcc"
_STACK_BYTES = 256 << 10
# zig's names of processors, with floating point and vectors of the targets: vectors of integers
# alone, as LLVM's comparisons of vectors of floats with a scalar (MVE) take NaN for a number
PROCESSORS = {
    "cortex-m4": "cortex_m4+vfp4d16sp",
    "cortex-m7": "cortex_m7-fp64-fp_armv8d16+fp_armv8d16sp",
    "cortex-m33": "cortex_m33+fp_armv8d16sp",
    "cortex-m55": "cortex_m55+fp_armv8d16+mve",
    "cortex-m85": "cortex_m85+fp_armv8d16+mve",
}


def cpu_of(model: CompiledModel) -> str:
    """The Cortex-M that a model was compiled for."""
    return model.code.cpu


def link_bare(
    model: CompiledModel, emit: str, output: Path, manifest: Mapping[str, Any]
) -> list[Path]:
    """Write `model` in a form of EMITS; returns the files written, `output` first.

    elf: a program for QEMU (runtime/bare/firmware.c). lib: an archive, a header beside it. c: what
    the model's own C is, and beside it header, constants, the machine code as assembly for GNU's
    or LLVM's assembler, and the sources of the runtime.
    Raises UsageError for another form, or for a program that needs a C library that is not here.
    """
    if emit not in EMITS:
        raise UsageError(
            f"cannot write '{emit}' for {cpu_of(model)}",
            why="there is no operating system that loads libraries or programs",
            remedy=f"choose one of {', '.join(EMITS)} (or llvm, asm)",
            where=str(output),
        )
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with new_files(output) as folder:
        make = {"elf": _program, "lib": _library, "c": _sources}[emit]
        files = make(model, manifest, folder, output.name)
        for path in files:
            place(path, output.parent / path.name)
    return [output.parent / path.name for path in files]


def _program(
    model: CompiledModel, manifest: Mapping[str, Any], folder: Path, name: str
) -> list[Path]:
    output = folder / name
    link_firmware([model], folder, output, [manifest])
    return [output]


def link_firmware(
    models: Sequence[CompiledModel],
    folder: Path,
    output: Path,
    manifests: Sequence[Mapping[str, Any]],
) -> None:
    """One program for QEMU that runs any of the models, which are for one target."""
    cpu = cpu_of(models[0])
    target = c_target(cpu)
    parts = folder / "parts"
    parts.mkdir()
    sources = [path for model in models for path in _model_sources(model, parts)]
    sources.append(parts / "firmware_models.c")
    sources[-1].write_text(firmware_table(models, json.dumps(list(manifests))), encoding="utf-8")
    objects = [*sources, *(path for model in models for path in _machine_code(model, parts))]
    more = dict.fromkeys(
        source for model in models for source in (*_runtime(model), *_stand_ins(model))
    )
    objects += runtime_objects((*_PROGRAM, *more), target, parts)
    script = parts / "board.ld"
    script.write_text(linker_script(BOARDS[cpu]), encoding="utf-8")
    names = [str(path.relative_to(parts)) for path in objects]
    libraries = _libraries(cpu)
    flags = ["-nostdlib" if libraries else "-nostartfiles", "-Wl,--gc-sections", "-Wl,-e,reset"]
    command = ["cc", "-target", target.zig_name, *target.flags, *flags, f"-Wl,-T,{script.name}"]
    try:
        run_zig([*command, "-o", "linked", *names, *libraries], parts)
    except InternalError as error:
        if "undefined symbol" not in error.why or libraries:
            raise
        raise UsageError(
            "the program needs functions of the C library",
            why=error.why,
            remedy=f"install {_GCC} with newlib, whose libraries are taken, or use --emit lib",
        ) from None
    os.replace(parts / "linked", output)


def c_target(cpu: str) -> CTarget:
    """What C is compiled for beside a model for a Cortex-M."""
    return CTarget("thumb", static=True, processor=PROCESSORS[cpu])


def _libraries(cpu: str) -> list[str]:
    """The C library, its mathematics and the compiler's own of the GNU toolchain, where that is
    installed."""
    if not shutil.which(_GCC):
        return []
    known = {"cortex-m85": "cortex-m55"}.get(cpu, cpu)  # to GCC before 13
    options = [f"-mcpu={known}", "-mthumb", "-mfloat-abi=hard"]
    found = [
        subprocess.run(
            [_GCC, *options, f"-print-file-name={name}"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()
        for name in ("libm.a", "libc.a", "libgcc.a")
    ]  # fmt: skip
    return found if all(Path(path).is_absolute() for path in found) else []


def _model_sources(
    model: CompiledModel, parts: Path, interface: Interface | None = None
) -> list[Path]:
    """What belongs to the machine code of a model: its constants as assembly, and C, with the
    function of its interface if wanted."""
    _write_parts(model, parts, interface)
    files = [parts / f"{model.name}_model.c"]
    if model.weights.stat().st_size:
        data = f"{model.name}_weights.bin"
        shutil.copyfile(model.weights, parts / data)
        files.append(parts / f"{model.name}_weights.s")
        files[-1].write_text(_data_assembly(weights_symbol(model.name), data), encoding="utf-8")
    if device := model.code.device:
        data = f"{model.name}_device.bin"
        (parts / data).write_bytes(device.images)
        files.append(parts / f"{model.name}_device.s")
        files[-1].write_text(_data_assembly(device.symbol, data), encoding="utf-8")
    return files


def _runtime(model: CompiledModel) -> tuple[str, ...]:
    """The sources of the runtime that a model of its own needs besides the usual ones."""
    return model.code.device.sources if model.code.device else ()


def _stand_ins(model: CompiledModel) -> tuple[str, ...]:
    """The sources that take the place of a device's driver in an emulator."""
    return model.code.device.stand_ins if model.code.device else ()


def _machine_code(model: CompiledModel, parts: Path) -> list[Path]:
    files = []
    for stem, data in model.code.objects:
        files.append(parts / f"{stem}_code.o")
        files[-1].write_bytes(data)
    return files


def _write_parts(model: CompiledModel, folder: Path, interface: Interface | None) -> None:
    """The C of a model, and the header that it reads."""
    text = table(model)
    if interface:
        text += interface.entry()
        header = interface.header(cpu_of(model))
        (folder / header_of(model)).write_text(header, encoding="utf-8")
    (folder / f"{model.name}_model.c").write_text(text, encoding="utf-8")


def portable_assembly(text: str) -> str:
    """Assembly whose processor is what the assembler is told, as some know the names of few."""
    named = ("\t.cpu\t", "\t.fpu\t", "\t.arch\t", "\t.arch_extension\t")
    return "".join(line for line in text.splitlines(True) if not line.startswith(named))


def _data_assembly(symbol: str, data: str) -> str:
    return (
        f'\t.section .rodata.{symbol},"a",%progbits\n\t.balign 64\n\t.globl {symbol}\n'
        f"\t.hidden {symbol}\n\t.type {symbol}, %object\n{symbol}:\n"
        f'\t.incbin "{data}"\n\t.size {symbol}, . - {symbol}\n'
    )


def linker_script(board: EmulatedBoard) -> str:
    """Where a program lies in the memory of a machine, in the linker's language."""
    vectors, code, data = board.vectors, board.code, board.data
    return f"""MEMORY {{
  VECTORS (rx) : ORIGIN = {vectors.origin:#x}, LENGTH = {vectors.length:#x}
  CODE (rwx) : ORIGIN = {code.origin:#x}, LENGTH = {code.length:#x}
  DATA (rwx) : ORIGIN = {data.origin:#x}, LENGTH = {data.length:#x}
}}
SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > VECTORS
  .text : {{ *(.text*) }} > CODE
  .weights : ALIGN(64) {{ *(.rodata.ts_weights*) }} > DATA
  .rodata : ALIGN(16) {{ *(.rodata*) }} > DATA
  .data : ALIGN(16) {{ *(.data*) }} > DATA
  .bss (NOLOAD) : ALIGN(16) {{
    __bss_start = .; *(.bss*) *(COMMON) . = ALIGN(16); __bss_end = .;
    __stack_start = .; . = . + {_STACK_BYTES:#x}; __stack_top = .;
    __memory_start = .;
  }} > DATA
  __memory_end = ORIGIN(DATA) + LENGTH(DATA);
  /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) }}
}}
"""


def _library(
    model: CompiledModel, manifest: Mapping[str, Any], folder: Path, name: str
) -> list[Path]:
    target = c_target(cpu_of(model))
    parts = folder / "parts"
    parts.mkdir()
    objects = compile_c(_model_sources(model, parts, Interface(model)), target, parts)
    objects += [
        *_machine_code(model, parts),
        *runtime_objects((*_SOURCES, *_runtime(model)), target, parts),
    ]
    run_zig(["ar", "rcsD", "linked", *(str(path.relative_to(parts)) for path in objects)], parts)
    os.replace(parts / "linked", folder / name)
    header = folder / header_of(model)
    os.replace(parts / header.name, header)
    return [folder / name, header]


def _sources(
    model: CompiledModel, manifest: Mapping[str, Any], folder: Path, name: str
) -> list[Path]:
    own = folder / "own"
    own.mkdir()
    _write_parts(model, own, Interface(model))
    text = (own / f"{model.name}_model.c").read_text(encoding="utf-8")
    if device := model.code.device:
        text += data_array(device.symbol, device.images)
    (folder / name).write_text(text + weights_array(model), encoding="utf-8")
    files = [folder / name, folder / header_of(model), folder / f"{model.name}_code.s"]
    os.replace(own / files[1].name, files[1])
    files[2].write_text(portable_assembly(model.code.texts["asm"]), encoding="utf-8")
    needed = _OPERATORS if "ts_op_" in model.code.texts["asm"] else ()
    beside = _with_headers(("bare/bare.c", *needed, *_runtime(model)))
    if is_among(name, (Path(source).name for source in beside)):
        raise UsageError(
            f"'{name}' is the name of a source of the runtime, which lies beside it",
            remedy="name another file to write",
        )
    if is_among(name, (path.name for path in files[1:])):
        raise UsageError(
            f"'{name}' is the name of the model's header or machine code, which lie beside it",
            remedy="name another file to write",
        )
    for source in beside:
        files.append(folder / Path(source).name)
        shutil.copyfile(RUNTIME / source, files[-1])
    return files


def _with_headers(sources: Sequence[str]) -> list[str]:
    """Sources of the runtime and the headers that they include, whether directly or not."""
    found = dict.fromkeys(sources)
    waiting = list(sources)
    while waiting:
        source = waiting.pop()
        for name in _INCLUDE.findall((RUNTIME / source).read_text(encoding="utf-8")):
            beside = (Path(source).parent / name).as_posix()
            header = beside if (RUNTIME / beside).is_file() else name
            if header not in found:
                found[header] = None
                waiting.append(header)
    return list(found)
