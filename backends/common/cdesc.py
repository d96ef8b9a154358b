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


def _tensor_tables(role: str, specs: Sequence[TensorSpec]) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(specs):
        code, bits = _DTYPES[spec.dtype]
        dims, names = "0", "0"
        if spec.dims:
            sizes = ", ".join(str(d) if isinstance(d, int) else "-1" for d in spec.dims)
            texts = ", ".join("0" if isinstance(d, int) else c_string(d) for d in spec.dims)
            dims, names = f"{role}_dims_{i}", f"{role}_names_{i}"
            lines.append(f"static const int64_t {dims}[] = {{{sizes}}};")
            lines.append(f"static const char *const {names}[] = {{{texts}}};")
        dtype = f"{{{code}, {bits}, 1}}"
        rows.append(f"  {{{c_string(spec.name)}, {dtype}, {len(spec.dims)}, {dims}, {names}}},")
    lines.append(f"static const ts_tensor_info {role}s[] = {{")
    lines += rows or ["  {0}"]
    return [*lines, "};"]


def _symbol_tables(model: CompiledModel) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(model.inputs):
        if not spec.dims:
            rows.append("0")
            continue
        indices = [-1 if isinstance(d, int) else model.symbols.index(d) for d in spec.dims]
        lines.append(f"static const int32_t symbols_{i}[] = {{{', '.join(map(str, indices))}}};")
        rows.append(f"symbols_{i}")
    table = ", ".join(rows) or "0"
    limits = (model.bounds.get(name, (0, (1 << 63) - 1)) for name in model.symbols)
    bounds = ", ".join(f"{{{low}, {high}}}" for low, high in limits) or "{0}"
    return [
        *lines,
        f"static const int32_t *const input_symbols[] = {{{table}}};",
        f"static const ts_bounds symbol_bounds[] = {{{bounds}}};",
    ]


def _default_tables(model: CompiledModel) -> list[str]:
    lines, rows = [], []
    for i, spec in enumerate(model.inputs):
        if spec.default is None:
            rows.append("{0}")
            continue
        sizes = ", ".join(map(str, spec.default)) or "0"
        lines.append(f"static const int64_t default_{i}[] = {{{sizes}}};")
        rows.append(f"{{1, default_{i}, {model.defaults[spec.name]}u}}")
    table = ", ".join(rows) or "{0}"
    return [*lines, f"static const ts_default input_defaults[] = {{{table}}};"]


def _stage_fields(model: CompiledModel) -> list[str]:
    """Which output says which stage of a cascade has answered a row."""
    for number, spec in enumerate(model.outputs):
        if spec.stages is not None:
            return [f"  .stages = {spec.stages},", f"  .stage_output = {number},"]
    return []


def describe(
    model: CompiledModel,
    manifest: Mapping[str, Any],
    *,
    exports_get: bool,
    side_file: str | None,
    tag: bytes,
) -> str:
    """C source that defines the model's table and its `ts_model_<name>()`.

    manifest: a JSON object. exports_get: also define `ts_model_get()`. side_file: name of
    the file with the weights, "" when they are behind the binary, None when they are linked in;
    tag: digest of its data (32 bytes).
    """
    features = ", ".join(map(c_string, model.code.features)) or "0"
    text = json.dumps(dict(manifest), separators=(",", ":"), allow_nan=False)
    size = model.weights.stat().st_size
    embedded = bool(size) and side_file is None
    device = model.code.device
    lines = [
        '#include "internal.h"',
        *([device.table] if device else []),
        f"extern TS_LOCAL int32_t {model.code.plan_symbol}(ts_frame *frame);",
        *([f"extern TS_LOCAL const uint8_t {WEIGHTS_SYMBOL}[];"] if embedded else []),
        *_tensor_tables("input", model.inputs),
        *_tensor_tables("output", model.outputs),
        *_symbol_tables(model),
        *_default_tables(model),
        f"static const char *const features[] = {{{features}}};",
        f"static const uint8_t tag[WEIGHTS_TAG_BYTES] = {{{', '.join(map(str, tag)) or '0'}}};",
        f"static const char manifest[] = {c_string(text)};",
        "static const ts_model model = {",
        "  .abi_version = TS_ABI_VERSION,",
        f"  .input_count = {len(model.inputs)},",
        f"  .output_count = {len(model.outputs)},",
        f"  .symbol_count = {len(model.symbols)},",
        f"  .feature_count = {len(model.code.features)},",
        f"  .name = {c_string(model.name)},",
        "  .manifest = manifest,",
        "  .inputs = inputs,",
        "  .outputs = outputs,",
        "  .input_symbols = input_symbols,",
        "  .symbol_bounds = symbol_bounds,",
        "  .input_defaults = input_defaults,",
        "  .features = features,",
        f"  .plan = {model.code.plan_symbol},",
        f"  .weights = {WEIGHTS_SYMBOL if embedded else '0'},",
        f"  .weights_file = {'0' if side_file is None else c_string(side_file)},",
        f"  .weights_bytes = {size}u,",
        "  .weights_tag = tag,",
        *_stage_fields(model),
        *([f"  .device = &{device.services},"] if device and device.services else []),
        *(["  .device_code = &device_code,"] if device and device.services else []),
        "};",
        f"TS_API const ts_model *ts_model_{model.name}(void);",
        f"TS_API const ts_model *ts_model_{model.name}(void) {{ return &model; }}",
    ]
    if exports_get:
        lines.append("TS_API const ts_model *ts_model_get(void) { return &model; }")
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
    guard = f"TENSMITH_MODEL_{model.name.upper()}_H_"
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
