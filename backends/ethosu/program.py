"""Command streams as what the runtime knows of them: C text, and one block of data."""

from __future__ import annotations

from collections.abc import Sequence

from ...compiler.artifact import DeviceCode
from .vela import ALIGNMENT, CommandStream, Extent

SOURCES = ("npu.c",)
STAND_INS = ("bare/npu_driver.c",)
REGIONS = 3  # that a command stream has at most: weights, arena, fast memory


def function_name(model: str, number: int) -> str:
    """The C function that runs a segment of a model."""
    return f"ts_npu_{model}_{number}"


def device_code(model: str, streams: Sequence[CommandStream]) -> DeviceCode:
    """The streams and weights one behind the other, and functions that run them."""
    blob = bytearray()
    symbol = f"ts_streams_{model}"
    lines = ['#include "npu.h"', f"extern TS_LOCAL const uint8_t {symbol}[];"]
    for number, stream in enumerate(streams):
        commands = _append(blob, stream.commands)
        weights = _append(blob, stream.weights)
        own = f"npu_segment_{number}"
        tensors = ", ".join(map(_tensor, (*stream.inputs, *stream.outputs))) or "{0}"
        name = function_name(model, number)
        lines += [
            f"static const ts_npu_tensor {own}_tensors[] = {{{tensors}}};",
            f"static const ts_npu_segment {own} = {{",
            f"  .commands = {symbol} + {commands}u, .command_bytes = {len(stream.commands)}u,",
            f"  .weights = {symbol} + {weights}u, .weight_bytes = {len(stream.weights)}u,",
            f"  .scratch_bytes = {stream.scratch_bytes}u, .fast_bytes = {stream.fast_bytes}u,",
            f"  .weights_region = {stream.weights_region},",
            f"  .scratch_region = {stream.scratch_region}, .fast_region = {stream.fast_region},",
            f"  .input_count = {len(stream.inputs)}, .output_count = {len(stream.outputs)},",
            f"  .tensors = {own}_tensors,",
            "};",
            f"TS_LOCAL int32_t {name}(ts_frame *frame, void *const *places, const int64_t *n);",
            f"int32_t {name}(ts_frame *frame, void *const *places, const int64_t *n) {{",
            f"  return (void)n, ts_npu_invoke(frame, &{own}, places);",
            "}",
        ]
    return DeviceCode("", SOURCES, "\n".join(lines), bytes(blob), symbol, STAND_INS)


def _append(blob: bytearray, data: bytes) -> int:
    blob += bytes(-len(blob) % ALIGNMENT)
    start = len(blob)
    blob += data
    return start


def _tensor(extent: Extent) -> str:
    return f"{{{extent.region}, {extent.offset}u, {extent.size}u}}"
