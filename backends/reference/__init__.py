"""The reference backend: runs graphs in numpy, operator by operator. It is the truth of tests."""

from __future__ import annotations

from typing import NoReturn

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
    raise UsageError(
        "the reference backend runs graphs in numpy and emits no binaries",
        where=f"model '{options.name}'",
        remedy="compile for another target, such as 'native'",
    )


def _available() -> str | None:
    return None


BACKEND = Backend(
    name="reference",
    targets=("reference",),
    parse_target=_parse_target,
    supports=_supports,
    compile=_compile,
    available=_available,
)
