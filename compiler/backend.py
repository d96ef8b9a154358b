"""The interface between the driver and a backend, and how backends are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from .artifact import CompiledModel
from .compilation import Compilation, CompileOptions, HostKernel, NpuReport, Stages
from .errors import UsageError
from .ir.graph import Graph, Node, Value
from .target import Target

if TYPE_CHECKING:
    from .kernel.cost.machine import Machine, Peak
    from .kernel.cost.model_cost import RunEstimate
    from .kernel.cost.slow_kernels import SlowKernel
    from .profile import Profile, ProfileOptions
    from .tuning.task import MachineClass, Measurer, Tunable

Array = np.ndarray[Any, Any]

BUILTIN = {
    name: metadata.EntryPoint(name, f"tensmith.backends.{name}:BACKEND", "tensmith.backends")
    for name in ("x86", "arm", "cuda", "ethosu", "reference")
}
T = TypeVar("T", bound=Target)
T_contra = TypeVar("T_contra", bound=Target, contravariant=True)


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


class Open(Protocol[T_contra]):
    """How a graph is opened for tuning; see `Tuning`."""

    def __call__(
        self,
        graph: Graph,
        target: T_contra,
        options: CompileOptions,
        stages: Stages,
        *,
        machine: Machine | None = None,
    ) -> Tunable: ...


@dataclass(frozen=True)
class Tuning(Generic[T]):
    """How a backend's kernels are tuned.

    open: (graph, target, options, stages, machine) -> what is to be tuned, for `options.sizes`;
    rewrites the graph, whose constants have to stay. machine: of which times are predicted; a
    typical one where there is none.
    measurer: (target, worker) -> what measures: "local", or another that the backend knows. Raises
    UsageError where the target's code does not run there, or something else is missing.
    machine: target -> the class of this machine. Raises UsageError as `measurer` does.
    oracle: name of a class of machines -> what tells costs there without noise and without a run,
    so that nothing is left to be timed together; "": kernels are timed.
    """

    open: Open[T]
    measurer: Callable[[T, str], Measurer]
    machine: Callable[[T], MachineClass]
    oracle: Callable[[str], str] = lambda machine: ""


@dataclass(frozen=True)
class WeightDecision:
    """How many steps the weights of products have to either side of zero, which can be decided.

    nodes: names of the operators that it is about. values: what it can be, less than it is by
    itself; the most first.
    """

    name: str
    nodes: frozenset[str]
    values: tuple[int, ...]


@dataclass(frozen=True)
class IntegerForm(Generic[T]):
    """How graphs become ones of integers, for targets that have no floats.

    observed: (graph, target) -> values whose ranges matter; rewrites the graph.
    rewrite: (graph, target, ranges) makes integers of a graph that `observed` has rewritten, as far
    as ranges are known.
    decide: (graph, target, choices) carries out given choices by key, as far as these change
    results, in a graph of integers.
    weights: graph of integers -> what can be decided of its weights, and the key of such a choice.
    placed: (graph, target, options, stages) -> what of a graph would run where, without code of the
    host being generated; may change the graph.
    estimator: the version of what `placed` estimates cycles by.
    """

    observed: Callable[[Graph, T], Sequence[Value]]
    rewrite: Callable[[Graph, T, Mapping[Value, tuple[float, float]]], None]
    decide: Callable[[Graph, T, Mapping[str, Mapping[str, Any]]], None]
    weights: Callable[[Graph], tuple[str, Sequence[WeightDecision]]]
    placed: Callable[[Graph, T, CompileOptions, Stages], NpuReport]
    estimator: Callable[[], str]


Observe = Callable[[Node, Sequence[Array]], Sequence[Array] | None]


class Evaluate(Protocol):
    """What runs a graph without compiling it; see `Backend.evaluate`."""

    def __call__(
        self, graph: Graph, inputs: Mapping[str, Array], observe: Observe | None = None
    ) -> dict[str, Array]: ...


LINKED = ("so", "exe", "lib", "obj")


@dataclass(frozen=True)
class Emulator:
    """What runs programs of another machine here.

    command: words in front of the program's name. emit: the kind of program that it runs: "exe", or
    "elf", one that is told what to do by the files of `runtime/bare/firmware.c`.
    device: (command stream, memory by region) -> None; runs what such a program hands to a device
    that the emulator has not, and changes the memory. None: there is no device.
    """

    command: tuple[str, ...]
    emit: str = "exe"
    device: Callable[[bytes, dict[int, Array]], None] | None = None


@dataclass(frozen=True)
class Backend(Generic[T]):
    """A validated manifest of one backend, whose targets are of kind T.

    targets: target strings it accepts, for listing, the default first.
    parse_target: target string -> Target, or None when it is not this backend's.
    supports: (node, target) -> reason why the node cannot be compiled, or None.
    compile: (graph, target, options, stages) -> Compilation; may change the graph.
    link: (model, kind such as "so", output, manifest) -> the files written, `output` first.
    available: reason why the backend cannot be used here, or None.
    runs_here: reason why code for the target does not run on this machine, or None.
    emulator: what runs the target's programs here, None where they run by themselves; raises
    UsageError where nothing does.
    stand_in: loads what takes the place of the target's hardware into this process, so that
    libraries for it run, slowly, where there is none; may be called again; for targets whose hosts
    have an operating system. None: there is nothing.
    evaluate: (graph, inputs by name, observe) -> outputs by name, without compiling; observe, where
    it is given, is told each node's results, and may give others in their place. None where a
    backend only compiles.
    measures: of this machine; None where a backend measures nothing.
    tuning: of its kernels; None where they are not tuned.
    slow_kernels: (graph, target, options, stages) -> the kernels that `KernelInfo.slow` is set for,
    without code being generated; may change the graph. None where a backend predicts nothing.
    estimate: (graph, target, options, stages) -> what a run is predicted to need for
    `options.sizes` and `options.threads`, without code being generated; may change the graph. None
    where a backend predicts nothing.
    host_kernels: (graph, target, options, stages) -> what would run on the host beside the device,
    without code being generated; may change the graph. None where there is no device.
    emits: target -> the kinds that `link` makes, the usual one first.
    integers: how graphs become integers; None where a backend computes in floats, too.
    texts: the forms of code that `CompileOptions.texts` may ask for.
    """

    name: str
    targets: tuple[str, ...]
    parse_target: Callable[[str], T | None]
    supports: Callable[[Node, T], str | None]
    compile: Callable[[Graph, T, CompileOptions, Stages], Compilation]
    link: Callable[[CompiledModel, str, Path, Mapping[str, Any]], list[Path]]
    available: Callable[[], str | None]
    runs_here: Callable[[T], str | None]
    emulator: Callable[[T], Emulator | None]
    stand_in: Callable[[T], None] | None = None
    evaluate: Evaluate | None = None
    measures: Measures[T] | None = None
    tuning: Tuning[T] | None = None
    slow_kernels: Callable[[Graph, T, CompileOptions, Stages], tuple[SlowKernel, ...]] | None = None
    estimate: Callable[[Graph, T, CompileOptions, Stages], RunEstimate] | None = None
    host_kernels: Callable[[Graph, T, CompileOptions, Stages], tuple[HostKernel, ...]] | None = None
    emits: Callable[[T], tuple[str, ...]] = lambda target: LINKED
    integers: IntegerForm[T] | None = None
    texts: tuple[str, ...] = ("llvm", "asm")


AnyBackend = Backend[Any]


class _Backends(Mapping[str, AnyBackend]):
    """Loads each when it is looked at, and looks for entry points behind the built-in ones."""

    def __getitem__(self, name: str) -> AnyBackend:
        if name in BUILTIN or name in iter(self):
            return backend_of(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        yield from BUILTIN
        others = {point.name for point in metadata.entry_points(group="tensmith.backends")}
        yield from sorted(others - set(BUILTIN))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def backends() -> Mapping[str, AnyBackend]:
    """Every backend, by name: the built-in ones and those of the `tensmith.backends` entry points.

    Each is loaded when it is looked at, which raises UsageError when an entry point does not lead
    to a Backend.
    """
    return _Backends()


@cache
def backend_of(name: str) -> AnyBackend:
    """The backend of a name; no other is loaded.

    Raises UsageError when there is none, or its entry point does not lead to a Backend.
    """
    points = (
        (BUILTIN[name],)
        if name in BUILTIN
        else tuple(metadata.entry_points(group="tensmith.backends", name=name))
    )
    if not points:
        raise UsageError(f"there is no backend '{name}'")
    backend = points[0].load()
    if not isinstance(backend, Backend):
        raise UsageError(f"entry point 'tensmith.backends:{name}' is not a Backend")
    return backend


def resolve_target(text: str) -> tuple[AnyBackend, Target]:
    """The backend and target for a target string such as "native" or "aarch64:cortex-a76".

    Backends behind the one that knows it are not loaded. Raises UsageError for one that no backend
    knows.
    """
    for backend in backends().values():
        target = backend.parse_target(text)
        if target is not None:
            return backend, target
    known = [name for backend in backends().values() for name in backend.targets]
    alike = get_close_matches(text.lower().replace("_", "-"), known, 1)
    meant = f"write {alike[0]}, if that is meant; " if alike else ""
    raise UsageError(f"unknown target '{text}'", remedy=f"{meant}known targets: {', '.join(known)}")
