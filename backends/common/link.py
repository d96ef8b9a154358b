"""From a compiled model to the files that users get: shared library, program, archive, object."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from ...compiler.artifact import (
    APPENDED_THRESHOLD,
    SIDE_FILE_THRESHOLD,
    WEIGHT_ALIGNMENT,
    CompiledModel,
)
from ...compiler.errors import InternalError, UsageError
from ...compiler.scratch import new_files, place
from .c_names import header_name
from .cdesc import WEIGHTS_SYMBOL, describe, header
from .elf import localize_symbols, write_data_object
from .toolchain import (
    CORE_SOURCES,
    PROGRAM_SOURCES,
    RUNTIME,
    SHARED_SOURCES,
    CTarget,
    arch_of,
    compile_c,
    runtime_objects,
)
from .zig import run_zig

EMITS = ("so", "exe", "lib", "obj")
NO_MANIFEST: Mapping[str, Any] = MappingProxyType({})
STATIC_PROGRAMS = ("aarch64",)  # programs for these need no libraries of their machine
_MAGIC = b"TSWEIGHT"
_APPENDED_ALIGNMENT = 1 << 16  # bytes: the largest page of any target
_VERSION_SCRIPT = "{ global: ts_*; __tvm_ffi_*; local: *; };\n"
_LINK_FLAGS = (
    "-s",
    "-Wl,--build-id=none",
    "-Wl,--gc-sections",
    "-Wl,-z,noexecstack",
    "-Wl,-z,relro",
    "-Wl,-z,now",
)
IMAGE_ALIGNMENT = 64  # bytes: code for devices starts on a line of the cache
_INTERFACE = "tensmith.h"
_LINKED = "linked"  # what a tool makes, before it gets its name
_LIBRARIES = ("-lm", "-ldl")
_OF_PROGRAMS = (*_LIBRARIES, "-lpthread")  # which start threads to measure


def link(
    model: CompiledModel,
    emit: str,
    output: Path,
    manifest: Mapping[str, Any] = NO_MANIFEST,
    *,
    side_file_threshold: int = SIDE_FILE_THRESHOLD,
    appended_threshold: int = APPENDED_THRESHOLD,
) -> list[Path]:
    """Link `model` into `output`; returns the files written, `output` first.

    emit: "so" (shared library), "exe" (program with the command line of runtime/main.c), "lib"
    (archive with the runtime) or "obj" (one object with the runtime); the last two come with C
    headers beside them. manifest: a JSON object, which goes inside. Weights of more than
    `side_file_threshold` bytes go to `<output>.weights`; of more than `appended_threshold` behind a
    library or program, as a linker would hold all of them twice in memory. The same arguments give
    the same bytes; files appear only when complete.
    Raises UsageError for an unknown kind or a target without a runtime, InternalError if a tool
    fails and the system is not to blame.
    """
    _check(model, emit, output)
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with new_files(output) as folder:
        thresholds = side_file_threshold, appended_threshold
        files = _Linker(model, manifest, emit, output.name, folder, thresholds).run()
        for path in files:
            place(path, output.parent / path.name)
    return [output.parent / path.name for path in files]


def _check(model: CompiledModel, emit: str, output: Path) -> None:
    if emit not in EMITS:
        raise UsageError(
            f"cannot link '{emit}'", remedy="choose one of " + ", ".join(EMITS), where=str(output)
        )
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", model.name) or model.name == "get":
        raise UsageError(
            f"model name '{model.name}' cannot become the C function ts_model_{model.name}",
            remedy="choose a name of letters, digits and _, other than 'get'",
        )


class _Linker:
    """One link: every file is made in `work` under its final name."""

    def __init__(
        self,
        model: CompiledModel,
        manifest: Mapping[str, Any],
        emit: str,
        name: str,
        work: Path,
        thresholds: tuple[int, int],
    ) -> None:
        self.model, self.manifest = model, manifest
        self.emit, self.name, self.work = emit, name, work
        arch = arch_of(model.code.triple)
        self.target = CTarget(arch, static=emit == "exe" and arch in STATIC_PROGRAMS)
        size = model.weights.stat().st_size
        beside, behind = thresholds
        self.side_file = f"{name}.weights" if size > beside else ""
        self.appended = size > behind and not self.side_file and emit in ("so", "exe")
        self.embedded = bool(size) and not self.side_file and not self.appended
        self.parts = work / "parts"
        self.parts.mkdir()

    def run(self) -> list[Path]:
        """Returns the finished files, still in the work folder."""
        extra, tag = [], b""
        if self.side_file:
            side = self.work / self.side_file
            with side.open("wb") as target:
                tag = _write_weights(self.model.weights, target)
            extra.append(side)
        elif self.appended:
            tag = _digest(self.model.weights)
        objects = self._model_objects(tag)
        if self.emit in ("lib", "obj"):
            extra += self._headers()
        make = {
            "so": self._shared,
            "exe": self._program,
            "lib": self._archive,
            "obj": self._object,
        }[self.emit]
        output = self.work / self.name
        os.replace(make(objects), output)
        if self.appended:
            with output.open("ab") as target:
                target.write(b"\0" * (-target.tell() % _APPENDED_ALIGNMENT))
                _write_weights(self.model.weights, target)
        return [output, *extra]

    def _model_objects(self, tag: bytes) -> list[Path]:
        source = self.parts / "description.c"
        source.write_text(
            describe(
                self.model,
                self.manifest,
                exports_get=self.emit in ("so", "exe"),
                side_file="" if self.appended else self.side_file or None,
                tag=tag,
            ),
            encoding="utf-8",
        )
        objects = compile_c([source], self.target, self.parts)
        for i, (stem, data) in enumerate(self.model.code.objects):
            objects.append(self.parts / f"{i}-{stem}.o")
            objects[-1].write_bytes(data)
        if device := self.model.code.device:
            blob = self.parts / "images.bin"
            blob.write_bytes(device.images)
            objects.append(self.parts / "images.o")
            write_data_object(objects[-1], self.target.arch, device.symbol, blob, IMAGE_ALIGNMENT)
        if self.embedded:
            objects.append(self.parts / "weights.o")
            write_data_object(
                objects[-1], self.target.arch, WEIGHTS_SYMBOL, self.model.weights, WEIGHT_ALIGNMENT
            )
        return objects

    def _headers(self) -> list[Path]:
        stem = Path(self.name).stem.removeprefix("lib") or self.model.name
        own = self.work / header_name(stem, [_INTERFACE])
        own.write_text(header(self.model), encoding="utf-8")
        public = self.work / _INTERFACE
        shutil.copyfile(RUNTIME / public.name, public)
        return [own, public]

    def _zig(self, *arguments: str) -> Path:
        """Run zig on files of the folder of parts; returns its output there."""
        run_zig(arguments, self.parts)
        return self.parts / _LINKED

    def _cc(self, *arguments: str) -> Path:
        return self._zig("cc", "-target", self.target.zig_name, "-o", _LINKED, *arguments)

    def _runtime(self, sources: Sequence[str]) -> list[Path]:
        device = self.model.code.device
        more = device.sources if device else ()
        return runtime_objects((*sources, *more), self.target, self.parts)

    def _names(self, *paths: Path) -> list[str]:
        """What zig calls files: relative to the folder that it runs in."""
        return [str(path.relative_to(self.parts)) for path in paths]

    def _shared(self, objects: list[Path]) -> Path:
        script = self.parts / "exports.map"
        script.write_text(_VERSION_SCRIPT, encoding="utf-8")
        runtime = self._runtime(SHARED_SOURCES)
        return self._cc(
            "-shared",
            *_LINK_FLAGS,
            f"-Wl,--version-script={script.name}",
            *("-Xlinker", "-soname", "-Xlinker", self.name),
            *self._names(*objects, *runtime),
            *_LIBRARIES,
        )

    def _program(self, objects: list[Path]) -> Path:
        kind = ["-static"] if self.target.static else ["-pie"]
        libraries = [] if self.target.static else _OF_PROGRAMS
        runtime = self._runtime(PROGRAM_SOURCES)
        return self._cc(*kind, *_LINK_FLAGS, *self._names(*objects, *runtime), *libraries)

    def _merge(self, objects: Sequence[Path], weak: Sequence[str]) -> Path:
        merged = self._zig("ld.lld", "-r", "-o", _LINKED, *self._names(*objects))
        localize_symbols(merged, keep={f"ts_model_{self.model.name}"}, weak=weak)
        return merged

    def _archive(self, objects: list[Path]) -> Path:
        merged = self.parts / f"{self.model.name}.o"
        os.replace(self._merge(objects, ()), merged)
        runtime = []
        for path in self._runtime(CORE_SOURCES):
            runtime.append(self.parts / f"tensmith_{path.name}")
            os.replace(path, runtime[-1])
        return self._zig("ar", "rcsD", _LINKED, *self._names(merged, *runtime))

    def _object(self, objects: list[Path]) -> Path:
        return self._merge([*objects, *self._runtime(CORE_SOURCES)], _shared_interface())


def _shared_interface() -> list[str]:
    """Functions that several linked models may share: the C interface and the plan services."""
    names = [
        name
        for path in (_INTERFACE, "plan_abi.h")
        for name in re.findall(r"\b(ts_\w+)\(", (RUNTIME / path).read_text(encoding="utf-8"))
    ]
    if not names:
        raise InternalError("the headers of the runtime declare no functions")
    return names


def _digest(weights: Path) -> bytes:
    with weights.open("rb") as source:
        return hashlib.file_digest(source, "sha256").digest()


def _write_weights(weights: Path, target: BinaryIO) -> bytes:
    """Write weights and what marks them (layout: runtime/weights.c); the digest of their data."""
    digest = hashlib.sha256()
    with weights.open("rb") as source:
        while chunk := source.read(1 << 22):
            digest.update(chunk)
            target.write(chunk)
    target.write(_MAGIC + struct.pack("<Q", weights.stat().st_size) + digest.digest())
    return digest.digest()
