"""Variants as programs and libraries, each made once and found again by the next run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.errors import TensmithError
from ...runtime.loader import Module
from .. import api
from ..artifacts import Artifact, load
from ..choosing import is_lower
from ..journal import Journal
from ..manifest import sha256_of
from ..request import FP32, CompileRequest
from .variants import Pruned, Variant

Compile = Callable[[Path, CompileRequest], Artifact]


@dataclass(frozen=True)
class Build:
    """A variant that was compiled. program, library: files. sha256: of the library.

    bytes: of the library. arena_bytes: of memory for what a run computes; None: the run tells.
    """

    variant: Variant
    program: Path
    library: Path
    sha256: str
    bytes: int
    arena_bytes: int | None

    def load(self) -> Module:
        """The library, ready to run."""
        return load(self.library, self.variant.threads)


class Builds:
    """Compiles variants into a folder. Of each the journal knows the digests: files that are not
    what they were are made again. compile: what makes an artifact."""

    def __init__(
        self, folder: Path, journal: Journal, compile: Compile = api.compile_request
    ) -> None:
        self.folder, self.journal, self.compile = folder, journal, compile
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, variant: Variant) -> bool:
        """Whether `get` needs to compile nothing."""
        kept = self.journal.get("build", variant.name)
        return kept is not None and ("reason" in kept or self._whole(variant, kept))

    def get(self, variant: Variant, request: CompileRequest) -> Build | Pruned:
        """The binary, or why there is none."""
        kept = self.journal.get("build", variant.name)
        if kept is not None and "reason" in kept:
            return Pruned(variant.name, kept["reason"])
        if kept is not None and self._whole(variant, kept):
            return self._build(variant, kept)
        try:
            artifact = self.compile(variant.path, request)
        except TensmithError as error:
            if error.exit_code not in (2, 3):
                raise
            return self._failed(variant, error.what)
        if variant.precision != FP32 and not is_lower(artifact):
            return self._failed(variant, f"{variant.precision} changes no product")
        program, library = self._files(variant)
        artifact.save(program, "exe")
        artifact.save(library, "so")
        told = {
            "program": sha256_of(program), "library": sha256_of(library),
            "bytes": library.stat().st_size,
            "arena": artifact.manifest["memory"]["arena_bytes"],
        }  # fmt: skip
        self.journal.put(told, "build", variant.name)
        return self._build(variant, told)

    def _failed(self, variant: Variant, reason: str) -> Pruned:
        self.journal.put({"reason": reason}, "build", variant.name)
        return Pruned(variant.name, reason)

    def _files(self, variant: Variant) -> tuple[Path, Path]:
        return self.folder / variant.name, self.folder / f"{variant.name}.so"

    def _whole(self, variant: Variant, kept: dict[str, Any]) -> bool:
        program, library = self._files(variant)
        files = ((program, kept["program"]), (library, kept["library"]))
        return all(path.is_file() and sha256_of(path) == digest for path, digest in files)

    def _build(self, variant: Variant, kept: dict[str, Any]) -> Build:
        program, library = self._files(variant)
        return Build(variant, program, library, kept["library"], kept["bytes"], kept["arena"])
