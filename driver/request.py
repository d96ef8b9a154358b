"""What a model is compiled for, and how: one value, which every command makes of its options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from ..compiler.backend import AnyBackend, resolve_target
from ..compiler.compilation import CompileOptions
from ..compiler.errors import UsageError
from ..compiler.ir import Graph
from ..compiler.kernel.schedule.choices import Choices, read_choices
from ..compiler.knobs import SANITIZE
from ..compiler.target import Target
from .argument_checks import c_identifier, check_choice, threads_of
from .budget.drops import Limit
from .budget.metrics import UserMetric, metric_of
from .calibration import CalibrationData
from .shapes import ShapeSpecs
from .timing import Timer

FP32, INT8 = "fp32", "int8"
TF32, TF32_INSTRUCTION = "tf32", "mma.tf32"
AUTO = "auto"
WEIGHT_BITS = {"int8-weights": 8, "int4-weights": 4}  # of weights alone
PRECISIONS = (FP32, TF32, "bf16", "fp16", INT8, *WEIGHT_BITS, AUTO)
BLOCKS = (32, 64, 128)
OPT_LEVELS = (0, 1, 2, 3)
USUAL_DROP = "1%"  # that `--precision auto` allows
TEXTS = ("llvm", "asm", "ptx", "cubin", "triton")
SHIPPED = "shipped"  # in place of a records file: those of the backend

Progress = Callable[[str], None]


class LowerPrecision(TypedDict, total=False):
    """What `api.compile` takes besides where a lower precision is asked for.

    calibration: inputs that show ranges: a path, a dict of arrays or an iterable of dicts; without
    them int8 finds those of matrix products in every run. force_precision: keep it even where its
    binary is no faster than that of fp32; else both run here in turns, and the model is compiled in
    fp32 where that is as fast.

    max_accuracy_drop: a budget: "0.5%", a number in the metric's own unit, or "30dB" of the metric
    snr. eval: data that it is measured on, in the forms of calibration data; labels are the array
    `labels`, or the only one that is no input. Without them, calibration samples. metric: a name of
    `budget/metrics.py`, or a function of (dict of outputs, labels), of which `metric_direction`,
    "higher" or "lower", is better. fresh: what an earlier search has found is not taken over.

    block: of int8-weights and int4-weights, so many steps of a sum have a scale: 32, 64 or 128;
    None: 32 with 4 bits, a whole column with 8.
    """

    block: int | None
    calibration: CalibrationData | None
    max_accuracy_drop: str | float | None
    eval: CalibrationData | None
    metric: str | UserMetric | None
    metric_direction: str
    fresh: bool
    force_precision: bool


class FurtherOptions(LowerPrecision, total=False):
    """What `api.compile` takes besides its own arguments.

    records: of tuning (docs/tuning.md): a file, or "shipped", those that come with the backend;
    what of them holds here is used. machine: the class of machine whose verdicts are used; default:
    this one's. no_stale: a verdict that does not hold any more is an error, no note.
    allow_reordering: choices too that change the order of sums.
    """

    records: str | Path | None
    machine: str
    no_stale: bool
    allow_reordering: bool


class Compiling(LowerPrecision, total=False):
    """What else `api.compile` and `tuning/interface.py` take, with the same meaning."""

    target: str
    precision: str
    opt_level: int
    threads: int
    choices: Path | None
    name: str
    folder: Path | None
    work_dir: Path | None
    timer: Timer | None


class Prober(Protocol):
    """Looks into a compilation: at the graph as it was imported, and at that whose nodes become
    kernels (`CompileOptions.probe`)."""

    def imported(self, graph: Graph) -> None:
        """Before any pass; may change names of what is no input and no output."""
        ...

    def __call__(self, graph: Graph) -> None:
        """Behind all passes."""
        ...


@dataclass(frozen=True, kw_only=True)
class CompileRequest:
    """All that a compilation is told besides the model; the fields are those of `api.compile`.

    Raises UsageError where it is made with a value that does not exist. The target is looked up
    when it is needed (`resolve`): a model that is compiled already has its own. timer: what times
    binaries; None: the clock of this machine. records, machine, no_stale, allow_reordering: as in
    `FurtherOptions`.
    """

    target: str = "native"
    precision: str = "fp32"
    opt_level: int = 2
    calibration: CalibrationData | None = None
    max_accuracy_drop: str | float | None = None
    eval: CalibrationData | None = None
    metric: str | UserMetric | None = None
    metric_direction: str = "higher"
    fresh: bool = False
    block: int | None = None
    threads: int = 1
    shapes: ShapeSpecs = field(default_factory=dict)
    choices: Path | None = None
    name: str = ""
    texts: frozenset[str] = frozenset()
    folder: Path | None = None
    work_dir: Path | None = None
    dump_after: Callable[[str, Graph], None] | None = None
    probe: Prober | None = None
    progress: Progress | None = None
    force_precision: bool = False
    timer: Timer | None = None
    records: str | Path | None = None
    machine: str = ""
    no_stale: bool = False
    allow_reordering: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.target, str):
            raise UsageError(f"the target is {self.target!r}", remedy="give one such as 'native'")
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("opt_level", self.opt_level, OPT_LEVELS)
        object.__setattr__(self, "threads", threads_of(self.threads))
        calibrated = (INT8, AUTO, *WEIGHT_BITS)
        is_asked = self.precision in calibrated
        if self.name and self.name != c_identifier(self.name):
            raise UsageError(
                f"'{self.name}' cannot name the C function of a model",
                remedy=f"choose letters, digits and _, as {c_identifier(self.name)}",
            )
        if self.calibration is not None and not is_asked and not self._is_for_integers():
            raise UsageError(
                f"calibration data change nothing at the precision {self.precision}",
                remedy=f"ask for --precision {', '.join(calibrated)}",
            )
        self._check_block()
        self._check_budget()
        if (self.no_stale or self.machine) and self.records is None:
            raise UsageError(
                "there are no records whose machine or state could matter",
                remedy="give --records FILE",
            )
        for text in sorted(self.texts):
            check_choice("texts", text, TEXTS)

    @property
    def has_budget(self) -> bool:
        """Whether the accuracy of what is compiled has to be within a budget."""
        return self.max_accuracy_drop is not None or self.precision == AUTO

    @property
    def accuracy_drop(self) -> str | float:
        """The accuracy budget: the one that is given, 0 included, or the usual one."""
        return USUAL_DROP if self.max_accuracy_drop is None else self.max_accuracy_drop

    def _is_for_integers(self) -> bool:
        """Whether the target computes in integers, whatever the precision is."""
        return resolve_target(self.target)[0].integers is not None

    def _check_block(self) -> None:
        if self.block is None:
            return
        check_choice("block", self.block, BLOCKS)
        if self.precision not in WEIGHT_BITS:
            raise UsageError(
                f"blocks of weights change nothing at the precision {self.precision}",
                remedy=f"ask for --precision {' or '.join(WEIGHT_BITS)}",
            )

    def _check_budget(self) -> None:
        if self.max_accuracy_drop is not None:
            Limit.of(self.max_accuracy_drop)
        metric_of(self.metric, self.metric_direction)
        integers = self.max_accuracy_drop is not None and self._is_for_integers()
        if self.precision == FP32 and self.max_accuracy_drop is not None and not integers:
            raise UsageError(
                "fp32 loses nothing, whatever the budget", remedy="ask for --precision int8 or auto"
            )
        if not self.has_budget and (self.eval is not None or self.metric is not None):
            raise UsageError(
                "evaluation data and a metric change nothing without a budget",
                remedy="give --max-accuracy-drop, such as 0.5%, or ask for --precision auto",
            )
        if self.precision in WEIGHT_BITS and self.has_budget:
            raise UsageError(
                f"{self.precision} stores all weights so, whatever that loses",
                remedy="leave the budget out, or ask for --precision int8 or auto",
            )
        no_ranges = self.calibration is None and not integers  # a QDQ model has its own
        if self.precision == INT8 and self.has_budget and no_ranges:
            raise UsageError(
                "int8 within an accuracy budget needs calibration data",
                remedy="give --calibration: a few dozen inputs as the model gets them",
            )
        if self.has_budget and self.eval is None and self.calibration is None:
            raise UsageError(
                "an accuracy budget needs data to measure with",
                remedy="give --eval: inputs as the model gets them, with labels if you have them",
            )

    def resolve(self) -> tuple[AnyBackend, Target]:
        """The target, and who compiles for it. Raises UsageError for one that nobody knows, or that
        cannot multiply in the precision, or has no such form of code."""
        backend, target = resolve_target(self.target)
        if self.precision == TF32 and TF32_INSTRUCTION not in target.instructions:
            raise UsageError(
                f"the precision {TF32} is not there for '{target.name}'",
                why="it has no instruction that multiplies such numbers",
                remedy="leave --precision out, or compile for an NVIDIA GPU (--target cuda)",
            )
        for text in sorted(self.texts.difference(backend.texts)):
            raise UsageError(
                f"--emit {text} is not there for '{target.name}'",
                remedy=f"choose from {', '.join((*backend.emits(target), *backend.texts))}",
            )
        return backend, target

    def options(self, model: Path, work_dir: Path, target: Target) -> CompileOptions:
        """What a backend is told, of a model file. Raises UsageError for choices that cannot be
        read, or are for another target or number of threads."""
        given = read_choices(self.choices, target.name, self.threads) if self.choices else Choices()
        return CompileOptions(
            name=self.name or c_identifier(model.stem),
            work_dir=work_dir,
            opt_level=self.opt_level,
            precision=self.precision,
            threads=self.threads,
            texts=self.texts,
            dump_after=self.dump_after,
            sanitize=bool(SANITIZE.value),
            choices=given,
            probe=self.probe,
        )

    def to_json(self) -> dict[str, Any]:
        """What a compilation in another process is told: all that decides the machine code."""
        return {
            "target": self.target,
            "precision": self.precision,
            "calibration": self._calibration_file(),
            "block": self.block,
            "opt_level": self.opt_level,
            "threads": self.threads,
            "shapes": {name: list(dims) for name, dims in self.shapes.items()},
            "choices": str(self.choices) if self.choices else None,
            "force_precision": self.force_precision,
            "records": str(self.records) if self.records else None,
            "machine": self.machine,
            "no_stale": self.no_stale,
            "allow_reordering": self.allow_reordering,
        }

    def _calibration_file(self) -> str | None:
        if self.calibration is None or isinstance(self.calibration, str | os.PathLike):
            return None if self.calibration is None else str(self.calibration)
        raise UsageError(
            "calibration data in memory cannot be given to another process",
            remedy="store them in a .npz file or a folder of such files",
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CompileRequest:
        """The request that `to_json` wrote."""
        shapes = {name: tuple(dims) for name, dims in data["shapes"].items()}
        files = {n: Path(data[n]) if data[n] else None for n in ("choices", "records")}
        return cls(**{**data, "shapes": shapes, **files})


def reference_precision(precision: str) -> str:
    """That of the reference of what was compiled in a precision.

    What int8 makes of a model is a model itself, with all its roundings, and taken as it is; so is
    one of weights of few bits.
    """
    return "fp32" if precision in (INT8, *WEIGHT_BITS) else precision
