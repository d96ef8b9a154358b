"""The interface between the driver and a backend, and how backends are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .compilation import Compilation, CompileOptions, Stages
from .errors import UsageError
from .ir.graph import Graph, Node
from .target import Target

if TYPE_CHECKING:
    from .kernel.cost.machine import Machine, Peak
    from .kernel.cost.slow_kernels import SlowKernel
    from .profile import Profile, ProfileOptions

BUILTIN = {
    "x86": "tensmith.backends.x86:BACKEND",
    "arm": "tensmith.backends.arm:BACKEND",
    "reference": "tensmith.backends.reference:BACKEND",
}


T = TypeVar("T", bound=Target)


@dataclass(frozen=True)
class Measures(Generic[T]):
    """What a backend can measure of this machine.

    peak: (target, threads) -> what so many cores can do at most.
    machine: target -> what one core and its memory can do, for predictions.
    profile: (graph, target, options, stages, what to measure) -> times of every kernel; may change
    the graph.
    """

    peak: Callable[[T, int], Peak]
    machine: Callable[[T], Machine]
    profile: Callable[[Graph, T, CompileOptions, Stages, ProfileOptions], Profile]


@dataclass(frozen=True)
class Backend(Generic[T]):
    """A validated manifest of one backend, whose targets are of kind T.

    targets: target strings it accepts, for listing, the default first.
    parse_target: target string -> Target, or None when it is not this backend's.
    supports: (node, target) -> reason why the node cannot be compiled, or None.
    compile: (graph, target, options, stages) -> Compilation; may change the graph.
    available: reason why the backend cannot be used here, or None.
    measures: None where a backend measures nothing.
    slow_kernels: (graph, target, options, stages) -> the kernels that `KernelInfo.slow` is set for,
    without code being generated; may change the graph. None where a backend predicts nothing.
    """

    name: str
    targets: tuple[str, ...]
    parse_target: Callable[[str], T | None]
    supports: Callable[[Node, T], str | None]
    compile: Callable[[Graph, T, CompileOptions, Stages], Compilation]
    available: Callable[[], str | None]
    measures: Measures[T] | None = None
    slow_kernels: Callable[[Graph, T, CompileOptions, Stages], tuple[SlowKernel, ...]] | None = None


AnyBackend = Backend[Any]


@cache
def backends() -> dict[str, AnyBackend]:
    """Every backend, by name: the built-in ones and those of the `tensmith.backends` entry points.

    Raises UsageError when an entry point does not lead to a Backend.
    """
    found: dict[str, AnyBackend] = {}
    points = {
        name: metadata.EntryPoint(name, value, "tensmith.backends")
        for name, value in BUILTIN.items()
    }
    for point in metadata.entry_points(group="tensmith.backends"):
        points.setdefault(point.name, point)
    for name, point in points.items():
        backend = point.load()
        if not isinstance(backend, Backend):
            raise UsageError(f"entry point 'tensmith.backends:{name}' is not a Backend")
        found[name] = backend
    return found


def resolve_target(text: str) -> tuple[AnyBackend, Target]:
    """The backend and target for a target string such as "native" or "aarch64:cortex-a76".

    Raises UsageError for one that no backend knows.
    """
    for backend in backends().values():
        target = backend.parse_target(text)
        if target is not None:
            return backend, target
    known = ", ".join(name for backend in backends().values() for name in backend.targets)
    raise UsageError(f"unknown target '{text}'", remedy=f"known targets: {known}")
