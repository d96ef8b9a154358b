"""The reference backend: runs graphs in numpy, operator by operator. It is the truth of tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ...compiler.artifact import CompiledModel
from ...compiler.backend import Backend
from ...compiler.compilation import CompileOptions, Stages
from ...compiler.errors import UsageError
from ...compiler.ir.graph import Graph, Node
from ...compiler.target import Target
from .interpreter import run_graph

__all__ = ["BACKEND", "run_graph"]

_TARGET = Target("reference", "reference")  # numpy decides what it runs on


def _parse_target(text: str) -> Target | None:
    return _TARGET if text == "reference" else None


def _supports(node: Node, target: Target) -> str | None:
    return None


def _compile(graph: Graph, target: Target, options: CompileOptions, stages: Stages) -> NoReturn:
    raise _no_binaries(options.name)


def _link(model: CompiledModel, emit: str, output: Path, manifest: Mapping[str, Any]) -> NoReturn:
    raise _no_binaries(model.name)


def _no_binaries(name: str) -> UsageError:
    return UsageError(
        "the reference backend runs graphs in numpy and emits no binaries",
        where=f"model '{name}'",
        remedy="compile for another target, such as 'native'",
    )


BACKEND = Backend(
    name="reference",
    targets=("reference",),
    parse_target=_parse_target,
    supports=_supports,
    compile=_compile,
    link=_link,
    available=lambda: None,
    runs_here=lambda target: None,
    emulator=lambda target: None,
    evaluate=run_graph,
)
