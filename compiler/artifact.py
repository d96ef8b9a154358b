"""What a compiled model is before it is linked: machine code, weights, interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST_VERSION = 1
SIDE_FILE_THRESHOLD = 3 << 29  # bytes (1.5 GiB): larger weights go to a file beside the artifact
APPENDED_THRESHOLD = 1 << 26  # bytes: larger weights are put behind a binary that is linked already
WEIGHT_ALIGNMENT = 4096  # bytes: weights start on a page, so that the file can be mapped and shared


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    dtype: name as in `ir.types.DType` ("f32", "i64", "bool", ...).
    dims: ints, or strings: for an input a symbol's name; for an output any dimension expression,
    or "?" where only the run can tell.
    strings, classes, stages, key_type: see `ir.Meaning`; stages, key_type: None where there are
    none.
    default: shape of the value that an input has where a run leaves it out; None: it must be given.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    strings: bool = False
    classes: tuple[int | str, ...] = ()
    default: tuple[int, ...] | None = None
    stages: int | None = None
    key_type: str | None = None


@dataclass(frozen=True)
class DeviceCode:
    """Code for a device beside the host, and what the runtime needs of it.

    services: the C name of a `ts_device_services`; "": the plan calls functions of the table, and
    nothing else. sources: of the runtime, that define it. table: C text that defines `device_code`,
    a `struct ts_device_code`, of the images at `images`, where there are services. symbol: the C
    name of the images. stand_ins: sources of the runtime that take the place of the device's driver
    in programs for an emulator.
    """

    services: str
    sources: tuple[str, ...]
    table: str
    images: bytes
    symbol: str
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    """Relocatable machine code for one target.

    objects: (file stem, ELF bytes) in link order.
    plan_symbol: the entry `int32_t plan(ts_frame *)` of `runtime/plan_abi.h`.
    triple: LLVM triple. features: names of CPU features that the code uses ("avx512f", "fma",
    "neon", ...), checked when the model is loaded.
    texts, archives: forms to look at by emit kind ("llvm", "ptx", ...; "cubin"), present when they
    were asked for. device: what runs elsewhere, or None. cpu: the processor that it is for, by
    LLVM's name.
    """

    objects: tuple[tuple[str, bytes], ...]
    plan_symbol: str
    triple: str
    features: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    device: DeviceCode | None = None
    cpu: str = ""
    archives: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class CompiledModel:
    """Everything that the linker needs but the manifest, which tells of the whole compilation.

    name: a C identifier. symbols: names of the symbolic dimensions that the inputs bind, in the
    order of `ts_frame.symbols`. weights: file holding the constant data (may be empty). bounds: the
    least and the greatest value of those symbols that have limits. defaults: where in
    the weights the values of optional inputs begin, in bytes. scratch_bytes: of memory that a run
    with one thread takes; -1 where only the run can tell.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    symbols: tuple[str, ...]
    code: Code
    weights: Path
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    scratch_bytes: int = -1
