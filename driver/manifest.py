"""The manifest inside every artifact: what it is, what it needs, where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._version import __version__
from ..compiler.artifact import MANIFEST_VERSION, TensorSpec
from ..compiler.compilation import Compilation, CompileOptions
from ..compiler.decisions import Decision, with_compiled
from ..compiler.ir.dims import Dim
from ..compiler.target import Target


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _interface(spec: TensorSpec) -> dict[str, Any]:
    """An input or output, with its default if it has one."""
    return {key: value for key, value in asdict(spec).items() if value is not None}


def build_manifest(
    compilation: Compilation,
    target: Target,
    options: CompileOptions,
    *,
    source_sha256: str,
    flops: Dim | None,
    decisions: Sequence[Decision] = (),
) -> dict[str, Any]:
    """The manifest, a JSON object of schema `manifest_version`. Holds no time, path or host name.

    memory.peak_bytes: arena and weights together; null, as arena_bytes, where the sizes of symbolic
    dims decide. flops: of one run of the source graph: a number, an expression of the symbols as
    text, or null where only the run can tell. contractions: what has become of each (decisions:
    what was decided before code generation), and why not more. inputs[].default, of an input that a
    run may leave out: the shape of the value that it has then. inputs[].key_type, of one that is
    maps, one per row: "string" or "int64"; classes: the keys of its columns, or none where these
    are a map's values in the order of its keys. made_by: what made code beside LLVM, and in which
    version.
    """
    model, arena = compilation.model, compilation.arena_bytes
    contractions = with_compiled(decisions, compilation.decisions)
    return {
        "manifest_version": MANIFEST_VERSION,
        "tensmith": __version__,
        "name": model.name,
        "inputs": [_interface(spec) for spec in model.inputs],
        "outputs": [_interface(spec) for spec in model.outputs],
        "symbols": list(model.symbols),
        "bounds": {name: list(limits) for name, limits in model.bounds.items()},
        "target": {
            **target.names,
            "triple": model.code.triple,
            "features": sorted(model.code.features),
        },
        "made_by": dict(compilation.made_by),
        "precision": options.precision,
        "contractions": [asdict(told) for told in contractions],
        "opt_level": options.opt_level,
        "threads": options.threads,
        "kernels": [asdict(kernel) for kernel in compilation.kernels],
        "memory": {
            "arena_bytes": arena if arena >= 0 else None,
            "weight_bytes": compilation.weight_bytes,
            "peak_bytes": arena + compilation.weight_bytes if arena >= 0 else None,
        },
        "flops": flops if flops is None or isinstance(flops, int) else str(flops),
        "source_sha256": source_sha256,
        "tuning_records_sha256": None,
        **(compilation.npu.to_json() if compilation.npu else {}),
    }
