"""The C of a model for a machine without an operating system: its table, entry and header."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...compiler.artifact import CompiledModel, TensorSpec
from ...compiler.ir.types import DType
from ..common.c_names import header_name, identifier
from ..common.toolchain import RUNTIME

WEIGHTS_ALIGNMENT = 64  # bytes
SECTION = ".tensmith"  # of a program: what its models are, as JSON; not loaded
_C_TYPES = {
    "f64": "double", "f32": "float", "bool": "uint8_t", "i64": "int64_t", "i32": "int32_t",
    "i16": "int16_t", "i8": "int8_t", "u64": "uint64_t", "u32": "uint32_t", "u16": "uint16_t",
    "u8": "uint8_t", "f16": "uint16_t", "bf16": "uint16_t",
}  # fmt: skip


def weights_symbol(name: str) -> str:
    """C name of a model's constants."""
    return f"ts_weights_{name}"


def table_symbol(name: str) -> str:
    """C name of the description of a model."""
    return f"ts_table_{name}"


def header_of(model: CompiledModel) -> str:
    """Name of a model's header."""
    return header_name(model.name, [path.name for path in RUNTIME.glob("**/*.h")])


def table(model: CompiledModel) -> str:
    """C that defines `ts_table_<name>`, the model as `ts_bare_run_model` takes it."""
    ranks = ", ".join(str(len(spec.dims)) for spec in model.outputs)
    sizes = ", ".join(str(DType(spec.dtype).bytes) for spec in model.outputs)
    embedded = bool(model.weights.stat().st_size)
    symbol = weights_symbol(model.name)
    defaults = [model.defaults.get(spec.name, -1) for spec in model.inputs]
    lines = [
        '#include "bare.h"',
        *([model.code.device.table] if model.code.device else []),
        f"extern TS_LOCAL int32_t {model.code.plan_symbol}(ts_frame *frame);",
        *([f"extern TS_LOCAL const uint8_t {symbol}[];"] if embedded else []),
        *(
            [f"static const int32_t defaults[] = {{{', '.join(map(str, defaults))}}};"]
            * bool(model.defaults)
        ),
        f"static const int32_t ranks[] = {{{ranks or 0}}}, item_bytes[] = {{{sizes or 0}}};",
        f"TS_LOCAL extern const ts_bare_model {table_symbol(model.name)};",
        f"const ts_bare_model {table_symbol(model.name)} = {{",
        f'  .name = "{model.name}", .plan = {model.code.plan_symbol},',
        f"  .weights = {symbol if embedded else 'NULL'},",
        f"  .input_count = {len(model.inputs)}, .output_count = {len(model.outputs)},",
        f"  .symbol_count = {len(model.symbols)},",
        "  .output_ranks = ranks, .output_item_bytes = item_bytes,",
        *(["  .input_defaults = defaults,"] if model.defaults else []),
        "};",
    ]
    return "\n".join(lines) + "\n"


def weights_array(model: CompiledModel) -> str:
    """C that defines the constants of a model."""
    data = model.weights.read_bytes()
    return data_array(weights_symbol(model.name), data) if data else ""


def data_array(symbol: str, data: bytes) -> str:
    """C that defines read-only data."""
    rows = (", ".join(map(str, data[start : start + 20])) for start in range(0, len(data), 20))
    return (
        f"__attribute__((aligned({WEIGHTS_ALIGNMENT})))\n"
        f"const uint8_t {symbol}[] = {{\n" + ",\n".join(rows) + "};\n"
    )


def firmware_table(models: Sequence[CompiledModel], description: str) -> str:
    """C that defines `ts_firmware_models`, and the section that describes them."""
    names = [f"{table_symbol(model.name)}" for model in models]
    listed = ", ".join(f"&{name}" for name in names)
    lines = [
        '#include "bare.h"',
        *(f"TS_LOCAL extern const ts_bare_model {name};" for name in names),
        f"const ts_bare_model *const ts_firmware_models[] = {{{listed}}};",
        f'__asm__(".pushsection {SECTION},\\"\\",%progbits\\n"',
        f'  {json.dumps(f".ascii {json.dumps(description)}")} "\\n.popsection\\n");',
    ]
    return "\n".join(lines) + "\n"


class _Names:
    """C identifiers for what a struct and macros of sizes call by names, all different.

    A tensor whose sizes only a run knows has members for its bytes and shape as well, another one a
    macro in capitals.
    """

    def __init__(self) -> None:
        self._members, self._macros = {"message"}, {"ARENA", "WEIGHTS"}

    def take(self, text: str, spec: TensorSpec | None = None) -> str:
        """One that resembles a text. spec: of the tensor that it is for; None: for a size."""
        base, number = identifier(text), 1
        while True:
            name = base if number == 1 else f"{base}_{number}"
            members, macros = {name}, set[str]()
            if spec is not None and _is_known(spec):
                macros = {name.upper()}
            elif spec is not None:
                members |= {f"{name}_bytes", f"{name}_shape"}
            if not (members & self._members or macros & self._macros):
                break
            number += 1
        self._members |= members
        self._macros |= macros
        return name


def _is_known(spec: TensorSpec) -> bool:
    return all(isinstance(dim, int) for dim in spec.dims)


def _bytes(spec: TensorSpec) -> int:
    size = DType(spec.dtype).bytes
    for dim in spec.dims:
        assert isinstance(dim, int)
        size *= dim
    return size


class Interface:
    """What callers in C know of a model: a struct of its tensors, and a function."""

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        names = _Names()
        self.symbols = [names.take(symbol) for symbol in model.symbols]
        self.inputs = [names.take(spec.name, spec) for spec in model.inputs]
        self.outputs = [names.take(spec.name, spec) for spec in model.outputs]

    def _fields(self) -> list[str]:
        lines = [f"  int64_t {name};" for name in self.symbols]
        for name, spec in zip(self.inputs, self.model.inputs, strict=True):
            lines.append(f"  const {_C_TYPES[spec.dtype]} *{name}; /* {_dims(spec)} */")
        for name, spec in zip(self.outputs, self.model.outputs, strict=True):
            lines.append(f"  {_C_TYPES[spec.dtype]} *{name}; /* {_dims(spec)} */")
            if not _is_known(spec):
                lines.append(
                    f"  size_t {name}_bytes; /* of that memory; after a run: of the output */"
                )
                lines.append(f"  int64_t {name}_shape[{max(1, len(spec.dims))}];")
        return lines

    def _sizes(self) -> list[str]:
        prefix, model = self.model.name.upper(), self.model
        lines = [f"#define {prefix}_WEIGHTS_BYTES {model.weights.stat().st_size}u"]
        if model.scratch_bytes >= 0:
            lines.insert(0, f"#define {prefix}_ARENA_BYTES {model.scratch_bytes}u")
        pairs = zip((*self.inputs, *self.outputs), (*model.inputs, *model.outputs), strict=True)
        return lines + [
            f"#define {prefix}_{name.upper()}_BYTES {_bytes(spec)}u"
            for name, spec in pairs
            if _is_known(spec)
        ]

    def _other_model(self, macros: Sequence[str]) -> list[str]:
        """Lines that refuse a program with another model's macros of the same names."""
        defined = " || \\\n    ".join(f"defined {line.split()[1]}" for line in macros)
        why = (
            f"another model has macros of the names that those of '{self.model.name}' have, as"
            " names that differ in case alone lead to: compile one of them with another --name"
        )
        return [f"#if {defined}", f'#error "{why}"', "#endif"]

    def header(self, cpu: str) -> str:
        """The header of the model."""
        model = self.model
        name, guard = model.name, f"TENSMITH_{model.name}_H_"
        macros = [*self._sizes(), f"#define {name.upper()}_ARENA_ALIGNMENT 64u"]
        lines = [
            f"/* Model '{name}', compiled by Tensmith for {cpu}: no operating system, no heap.",
            " * Needs memcpy, memmove, memset, the compiler's own library; some models need libm.",
            " */",
            f"#ifndef {guard}",
            f"#define {guard}",
            *self._other_model(macros),
            "#include <stddef.h>",
            "#include <stdint.h>",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* The arena is scratch memory; constants lie in read-only data. */",
            *macros,
            "",
            f"typedef struct {name}_io {{",
            *self._fields(),
            "  const char *message; /* after a run: what is wrong, or NULL */",
            f"}} {name}_io;",
            "",
            "/* Runs the model. Returns 0; 2: inputs do not fit each other; 3: an output's memory",
            " * is too small; 5: the arena is too small or not aligned; 7: the model fails. */",
            f"int32_t {name}_run({name}_io *io, void *arena, size_t arena_bytes);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "#endif",
        ]
        return "\n".join(lines) + "\n"

    def entry(self) -> str:
        """C that defines the function of the header, behind `table`."""
        name, model = self.model.name, self.model
        symbols = ", ".join(f"io->{field}" for field in self.symbols) or "0"
        inputs = ", ".join(f"io->{field}" for field in self.inputs) or "NULL"
        outputs, after = [], []
        for number, (field, spec) in enumerate(zip(self.outputs, model.outputs, strict=True)):
            if _is_known(spec):
                outputs.append(f"{{io->{field}, {_bytes(spec)}u, NULL}}")
                continue
            outputs.append(f"{{io->{field}, io->{field}_bytes, io->{field}_shape}}")
            after.append(f"  io->{field} = outputs[{number}].data;")
            after.append(f"  io->{field}_bytes = outputs[{number}].bytes;")
        lines = [
            f'#include "{header_of(model)}"',
            f"int32_t {name}_run({name}_io *io, void *arena, size_t arena_bytes) {{",
            f"  const void *inputs[] = {{{inputs}}};",
            f"  const int64_t symbols[] = {{{symbols}}};",
            f"  ts_bare_output outputs[] = {{{', '.join(outputs) or '{NULL, 0, NULL}'}}};",
            "  ts_bare_run run = {inputs, symbols, outputs, arena, arena_bytes, 0, NULL};",
            f"  const int32_t status = ts_bare_run_model(&{table_symbol(name)}, &run);",
            *after,
            "  io->message = run.message;",
            "  return status;",
            "}",
        ]
        return "\n".join(lines) + "\n"


def _dims(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.dims))}]".replace("*/", "* /")
