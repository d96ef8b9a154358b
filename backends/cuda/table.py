"""The C text by which the runtime knows the functions of a model and their images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ...compiler.artifact import DeviceCode
from ...compiler.kernel.plan.devices import host_inputs
from ...compiler.kernel.plan.plan import Plan
from ...compiler.target import GpuTarget
from .compiling import Image
from .emit.function import Function

SOURCES = ("cuda/alternatives.c", "cuda/batch.c", "cuda/cuda.c", "cuda/tensors.c")
USUAL_SHARED = 48 << 10  # bytes of shared memory that any function may ask for
_ALIGNMENT = 64  # bytes, of each image


def device_code(
    functions: Sequence[Function],
    images: Mapping[str, Sequence[Image]],
    target: GpuTarget,
    plan: Plan,
    name: str,
) -> DeviceCode:
    """All images one behind the other, and the table of what they are.

    images: of every function, by its symbol. name: of the model, a C identifier.
    """
    blob = bytearray()
    symbol = f"ts_images_{name}"
    lines = ['#include "cuda/cuda.h"', f"extern TS_LOCAL const uint8_t {symbol}[];"]
    rows = []
    parts = {name: n for n, name in enumerate(dict.fromkeys(f.part for f in functions))}
    for number, function in enumerate(functions):
        entries = []
        for image in images[function.symbol]:
            blob += bytes(-len(blob) % _ALIGNMENT)
            entries.append(
                f"{{{image.architecture}, {int(image.ptx)}, {len(blob)}u,"
                f" {image.threads}u, {image.shared}u, {int(image.waits)}}}"
            )
            blob += image.data + b"\0"  # text ends so
        lines.append(f"static const ts_image images_{number}[] = {{{', '.join(entries)}}};")
        places = len(function.params) + (function.workspace > 0)
        rows.append(
            f'  {{"{function.symbol}", {places}, {len(function.symbols)},'
            f" {len(entries)}, images_{number}, {parts[function.part]}, {function.alternative},"
            f" {int(function.scratch > 0)}}},"
        )
    read = host_inputs(plan)
    flags = ", ".join(str(int(number in read)) for number in range(len(plan.inputs))) or "0"
    known = ", ".join(f"sm_{number}" for number in target.architectures)
    lines += [
        "static const ts_function device_functions[] = {",
        *(rows or ["  {0}"]),
        "};",
        f"static const uint8_t host_reads[] = {{{flags}}};",
        "static const struct ts_device_code device_code = {",
        f"  .images = {symbol},",
        "  .functions = device_functions,",
        f"  .function_count = {len(rows)},",
        "  .host_reads = host_reads,",
        f'  .architectures = "{known}",',
        f'  .target = "{target.name}",',
    ]
    digest = hashlib.sha256(blob + "\n".join(lines).encode()).hexdigest()
    lines += [f'  .digest = "{digest}",', "};"]
    return DeviceCode("ts_cuda", SOURCES, "\n".join(lines), bytes(blob) or b"\0", symbol)
