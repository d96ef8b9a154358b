"""The C text of a linked model: its description table, and the header for C programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...compiler.artifact import CompiledModel, TensorSpec

_DTYPES = {
    "f64": ("kDLFloat", 64),
    "f32": ("kDLFloat", 32),
    "f16": ("kDLFloat", 16),
    "bf16": ("kDLBfloat", 16),
    "i64": ("kDLInt", 64),
    "i32": ("kDLInt", 32),
    "i16": ("kDLInt", 16),
    "i8": ("kDLInt", 8),
    "u64": ("kDLUInt", 64),
    "u32": ("kDLUInt", 32),
    "u16": ("kDLUInt", 16),
    "u8": ("kDLUInt", 8),
    "bool": ("kDLBool", 8),
    "f8e4m3fn": ("kDLFloat8_e4m3fn", 8),
    "f8e4m3fnuz": ("kDLFloat8_e4m3fnuz", 8),
    "f8e5m2": ("kDLFloat8_e5m2", 8),
    "f8e5m2fnuz": ("kDLFloat8_e5m2fnuz", 8),
    "f8e8m0fnu": ("kDLFloat8_e8m0fnu", 8),
    "f4e2m1fn": ("kDLFloat4_e2m1fn", 4),
    "i4": ("kDLInt", 4),
    "u4": ("kDLUInt", 4),
    "i2": ("kDLInt", 2),
    "u2": ("kDLUInt", 2),
}
WEIGHTS_SYMBOL = "ts_weights"
_SPECIAL = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
_PLAIN = {byte: chr(byte) for byte in range(32, 127)} | _SPECIAL
_IN_C = tuple(_PLAIN.get(byte, f"\\{byte:03o}") for byte in range(256))


def c_string(text: str) -> str:
    """A C string literal of the UTF-8 bytes of `text`."""
    inside = "".join(_IN_C[byte] for byte in text.encode(errors="surrogateescape"))
    return f'"{inside}"'


def _tensor_tables(own: str, role: str, specs: Sequence[TensorSpec]) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(specs):
        code, bits = _DTYPES[spec.dtype]
        dims, names = "0", "0"
        if spec.dims:
            sizes = ", ".join(str(d) if isinstance(d, int) else "-1" for d in spec.dims)
            texts = ", ".join("0" if isinstance(d, int) else c_string(d) for d in spec.dims)
            dims, names = f"{role}_dims_{i}_{own}", f"{role}_names_{i}_{own}"
            lines.append(f"static const int64_t {dims}[] = {{{sizes}}};")
            lines.append(f"static const char *const {names}[] = {{{texts}}};")
        dtype = f"{{{code}, {bits}, 1}}"
        rows.append(f"  {{{c_string(spec.name)}, {dtype}, {len(spec.dims)}, {dims}, {names}}},")
    lines.append(f"static const ts_tensor_info {role}s_{own}[] = {{")
    lines += rows or ["  {0}"]
    return [*lines, "};"]


def _symbol_tables(own: str, model: CompiledModel) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(model.inputs):
        if not spec.dims:
            rows.append("0")
            continue
        indices = [-1 if isinstance(d, int) else model.symbols.index(d) for d in spec.dims]
        name = f"symbols_{i}_{own}"
        lines.append(f"static const int32_t {name}[] = {{{', '.join(map(str, indices))}}};")
        rows.append(name)
    table = ", ".join(rows) or "0"
    limits = (model.bounds.get(name, (0, (1 << 63) - 1)) for name in model.symbols)
    bounds = ", ".join(f"{{{low}, {high}}}" for low, high in limits) or "{0}"
    return [
        *lines,
        f"static const int32_t *const input_symbols_{own}[] = {{{table}}};",
        f"static const ts_bounds symbol_bounds_{own}[] = {{{bounds}}};",
    ]


def _default_tables(own: str, model: CompiledModel) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(model.inputs):
        if spec.default is None:
            rows.append("{0}")
            continue
        sizes = ", ".join(map(str, spec.default)) or "0"
        lines.append(f"static const int64_t default_{i}_{own}[] = {{{sizes}}};")
        rows.append(f"{{1, default_{i}_{own}, {model.defaults[spec.name]}u}}")
    table = ", ".join(rows) or "{0}"
    return [*lines, f"static const ts_default input_defaults_{own}[] = {{{table}}};"]


def _stage_fields(model: CompiledModel) -> list[str]:
    """Which output says which stage of a cascade has answered a row."""
    for number, spec in enumerate(model.outputs):
        if spec.stages is not None:
            return [f"  .stages = {spec.stages},", f"  .stage_output = {number},"]
    return []


def _device_fields(model: CompiledModel) -> list[str]:
    device = model.code.device
    if device is None or not device.services:
        return []
    return [f"  .device = &{device.services},", "  .device_code = &device_code,"]


def _compact(manifest: Mapping[str, Any]) -> str:
    return json.dumps(dict(manifest), separators=(",", ":"), allow_nan=False)


def describe(
    model: CompiledModel,
    manifest: Mapping[str, Any],
    *,
    exports_get: bool,
    side_file: str | None,
    tag: bytes,
) -> str:
    """C source that defines the model's table and its `ts_model_<name>()`.

    What it defines has the model's name in its own, so that one file may describe several models.
    manifest: a JSON object. exports_get: also define `ts_model_get()`. side_file: name of
    the file with the weights, "" when they are behind the binary, None when they are linked in;
    tag: digest of its data (32 bytes).
    """
    features = ", ".join(map(c_string, model.code.features)) or "0"
    size = model.weights.stat().st_size
    digest = ", ".join(map(str, tag)) or "0"
    embedded = bool(size) and side_file is None
    device, own = model.code.device, model.name
    lines = [
        '#include "internal.h"',
        *([device.table] if device else []),
        f"extern TS_LOCAL int32_t {model.code.plan_symbol}(ts_frame *frame);",
        *([f"extern TS_LOCAL const uint8_t {WEIGHTS_SYMBOL}[];"] if embedded else []),
        *_tensor_tables(own, "input", model.inputs),
        *_tensor_tables(own, "output", model.outputs),
        *_symbol_tables(own, model),
        *_default_tables(own, model),
        f"static const char *const features_{own}[] = {{{features}}};",
        f"static const uint8_t tag_{own}[WEIGHTS_TAG_BYTES] = {{{digest}}};",
        f"static const char manifest_{own}[] = {c_string(_compact(manifest))};",
        f"static const ts_model model_{own} = {{",
        "  .abi_version = TS_ABI_VERSION,",
        f"  .input_count = {len(model.inputs)},",
        f"  .output_count = {len(model.outputs)},",
        f"  .symbol_count = {len(model.symbols)},",
        f"  .feature_count = {len(model.code.features)},",
        f"  .name = {c_string(model.name)},",
        f"  .manifest = manifest_{own},",
        f"  .inputs = inputs_{own},",
        f"  .outputs = outputs_{own},",
        f"  .input_symbols = input_symbols_{own},",
        f"  .symbol_bounds = symbol_bounds_{own},",
        f"  .input_defaults = input_defaults_{own},",
        f"  .features = features_{own},",
        f"  .plan = {model.code.plan_symbol},",
        f"  .weights = {WEIGHTS_SYMBOL if embedded else '0'},",
        f"  .weights_file = {'0' if side_file is None else c_string(side_file)},",
        f"  .weights_bytes = {size}u,",
        f"  .weights_tag = tag_{own},",
        *_stage_fields(model),
        *_device_fields(model),
        "};",
        f"TS_API const ts_model *ts_model_{model.name}(void);",
        f"TS_API const ts_model *ts_model_{model.name}(void) {{ return &model_{own}; }}",
    ]
    if exports_get:
        lines.append(f"TS_API const ts_model *ts_model_get(void) {{ return &model_{own}; }}")
    return "\n".join(lines) + "\n"


def _signature(role: str, specs: Sequence[TensorSpec]) -> list[str]:
    return [
        f" *   {role} {i}: {spec.name.replace('*/', '* /')} {spec.dtype}"
        f"[{', '.join(map(str, spec.dims))}]".replace("*/", "* /")
        + " (has a default)" * (spec.default is not None)
        for i, spec in enumerate(specs)
    ]


def header(model: CompiledModel) -> str:
    """The C header of a statically linked model."""
    guard = f"TENSMITH_MODEL_{model.name}_H_"
    lines = [
        f"/* Model '{model.name}', compiled by Tensmith for {model.code.triple}.",
        *_signature("input", model.inputs),
        *_signature("output", model.outputs),
        " * Link with -lm -ldl. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        '#include "tensmith.h"',
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"const ts_model *ts_model_{model.name}(void);",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "#endif",
    ]
    return "\n".join(lines) + "\n"
