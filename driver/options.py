"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .npu_options import MemoryMode, Optimise, SystemConfig, on_npu
from .standard_input import from_standard_input

if TYPE_CHECKING:
    from .request import CompileRequest

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file; - for standard input.",
        show_default=False,
        callback=from_standard_input,
    ),
]
Runnable = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file, or a compiled shared library; - for standard input.",
        show_default=False,
        callback=from_standard_input,
    ),
]
Target = Annotated[str, typer.Option("--target", help="See `tensmith targets`.")]
OptLevel = Annotated[
    int,
    typer.Option(
        "-O",
        min=0,
        max=3,
        metavar="0..3",
        help="0: naive kernels; 2: all that rounds as usual; 3: all.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="fp32, tf32 (products on GPUs), bf16, fp16, int8, int8-weights or int4-weights "
        "(weights alone are stored so), or auto: the fastest.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="DATA",
        help="Inputs to quantise by: a .npz of arrays by input name (one sample, or several along "
        "a new leading axis), a .npy for a single input, or a folder of such files.",
        show_default=False,
    ),
]
Block = Annotated[
    int | None,
    typer.Option(
        "--block",
        metavar="32|64|128",
        help="Steps of a sum that have a scale, of weights alone (default: 32 with 4 bits, a whole "
        "column with 8).",
        show_default=False,
    ),
]
ForcePrecision = Annotated[
    bool,
    typer.Option(
        "--force-precision",
        help="Keep a lower precision even where its binary is no faster than that of fp32.",
    ),
]
MaxAccuracyDrop = Annotated[
    str | None,
    typer.Option(
        "--max-accuracy-drop",
        metavar="DROP",
        help="Stay this close to fp32, by --metric on --eval: 0.5%, 0.005, or 30dB of snr. What "
        "costs more than it saves stays in floats; exit code 5 where nothing is within it.",
        show_default=False,
    ),
]
Evaluation = Annotated[
    Path | None,
    typer.Option(
        "--eval",
        metavar="DATA",
        help="Inputs to measure accuracy on, in the forms of --calibration; labels are the array "
        "`labels`, or the only one that is no input.",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="top1, f1 or mae (by labels); agreement, cosine or snr (with fp32). Default: by the "
        "labels and outputs.",
        show_default=False,
    ),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Do not go on with what an earlier, interrupted search found."),
]
AllowReordering = Annotated[
    bool,
    typer.Option(
        "--allow-reordering",
        help="Tuned choices too that change the order of sums, and so results in their last bits.",
    ),
]
MachineOption = Annotated[
    str,
    typer.Option(
        "--machine",
        metavar="CLASS",
        help="The class of machine to tune for, or whose records to take (default: this one's).",
        show_default=False,
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of one run.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME:DIMS",
        help="Dims of an input, as name:1x3x224x224 or name:[1,3,224,224]. In place of a number, "
        "a name makes a dim symbolic (equal names, equal sizes), ? one of its own, and 1..8 bounds "
        "one that is symbolic. name:none: an optional input holds nothing. Repeatable.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME=FILE",
        help="An input from a .npy or .npz file; a .npz may hold all of them. Repeatable.",
        show_default=False,
    ),
]
Rtol = Annotated[
    float | None,
    typer.Option(
        "--rtol", min=0.0, help="Relative tolerance (default: by type).", show_default=False
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(
        "--atol",
        min=0.0,
        help="Absolute tolerance (default: a share of the output's peak).",
        show_default=False,
    ),
]
VerifyTime = Annotated[
    float | None,
    typer.Option(
        "--verify-time",
        min=0.1,
        metavar="SECONDS",
        help="Time limit of verification (default: the knob verify_time).",
        show_default=False,
    ),
]
Cost = Annotated[
    Path | None,
    typer.Option(
        "--cost",
        metavar="CSV",
        help="Prices of machines (docs/plan.md): what a million calls cost on each, saturated.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Log every step on stderr.")]


# ---------------------------------------------------------------------- options of a compilation

REQUEST = "request"
USUAL = ("target", "opt_level", "threads", "shape")
NPU = ("system_config", "memory_mode", "optimise")  # with target
LOWER_PRECISION = (
    "precision", "calibration", "max_accuracy_drop", "eval", "metric", "fresh", "block",
    "force_precision",
)  # fmt: skip
_COMPILATION: dict[str, tuple[Any, Any]] = {
    "target": (Target, "native"),
    "system_config": (SystemConfig, ""),
    "memory_mode": (MemoryMode, ""),
    "optimise": (Optimise, ""),
    "opt_level": (OptLevel, 2),
    "threads": (Threads, 1),
    "shape": (Shapes, None),
    "precision": (Precision, "fp32"),
    "calibration": (Calibration, None),
    "max_accuracy_drop": (MaxAccuracyDrop, None),
    "eval": (Evaluation, None),
    "metric": (Metric, None),
    "fresh": (Fresh, False),
    "block": (Block, None),
    "force_precision": (ForcePrecision, False),
    "allow_reordering": (AllowReordering, False),
}


def _requested(options: dict[str, Any]) -> CompileRequest:
    """The request that options of a compilation make. Raises UsageError for what cannot be."""
    from .request import CompileRequest
    from .shapes import parse_shapes

    given = dict(options)
    if "shape" in given:
        given["shapes"] = parse_shapes(given.pop("shape") or [])
    memory = {name: given.pop(name) for name in NPU if name in given}
    if memory:
        given["target"] = on_npu(given["target"], **memory)
    return CompileRequest(**given)


def with_compilation(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command these options of a compilation, where it has the parameter `request`: the
    CompileRequest that they make. What else the request should hold the command adds.

    The command raises UsageError, too, for options that cannot be.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(**given: Any) -> Any:
            options = {name: given.pop(name) for name in names}
            return command(**given, **{REQUEST: _requested(options)})

        parameters: list[inspect.Parameter] = []
        for name, own in inspect.signature(command).parameters.items():
            if name == REQUEST:
                for option in names:
                    kind, default = _COMPILATION[option]
                    parameters.append(own.replace(name=option, annotation=kind, default=default))
            else:
                kind = eval(own.annotation, command.__globals__)
                parameters.append(own.replace(annotation=kind))
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {own.name: own.annotation for own in parameters}
        return wrapped

    return decorate
