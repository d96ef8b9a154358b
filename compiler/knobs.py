"""Every setting that comes from the environment, in one table; only this module reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import UsageError

KnobValue = bool | int | float | str


@dataclass(frozen=True)
class Knob:
    """One setting. Its type is that of the default; it is read from `TENSMITH_<NAME>`."""

    name: str
    default: KnobValue
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"TENSMITH_{self.name.upper()}"

    @property
    def type(self) -> str:
        """Name of the type: "bool", "int", "float" or "str"."""
        return type(self.default).__name__

    @property
    def value(self) -> KnobValue:
        """The value in force. Raises UsageError when the variable does not hold the type."""
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        try:
            return _parse(text.strip(), self.default)
        except ValueError:
            raise UsageError(
                f"{self.variable}={text!r} is not of type {self.type}",
                remedy="`tensmith knobs` lists every setting",
            ) from None


_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


def _parse(text: str, default: KnobValue) -> KnobValue:
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(text)
        return text.lower() in _TRUE
    return type(default)(text)


def child_environment(**changes: str) -> dict[str, str]:
    """The environment for a child process: this one's, with changes."""
    return {**os.environ, **changes}


TRACEBACK = Knob("traceback", False, "show the Python traceback of an unexpected error")
KEEP_WORK = Knob("keep_work", False, "keep the folders of intermediate files, and say where")
WORK_DIR = Knob("work_dir", "", "where the folders of intermediate files are made (else: system)")
CACHE_DIR = Knob("cache_dir", "", "where the compiled runtime is kept (else: the user's cache)")
SANITIZE = Knob("sanitize", False, "generated code checks that every access stays in its tensor")
VERIFY_TIME = Knob("verify_time", 60.0, "seconds that verification may take by default")
HOST = Knob("host", "", "machine whose caches and features `native` takes (else: this one's)")
TIME_PRECISION = Knob(
    "time_precision",
    True,
    "time binaries of lower precision against fp32, and keep what is faster (off: keep them)",
)
RECORDS = Knob("records", "", "the records file of tuning (else: the user's own)")
GPU_CANDIDATES = Knob(
    "gpu_candidates",
    1,
    "codes of a hot contraction in a file for GPUs; its first run takes the fastest: 1 to 4",
)
GPU_CHOICES = Knob(
    "gpu_choices",
    "",
    "read by files for GPUs: where they keep which code is the fastest (off: the first)",
)
SECOND_OPINION = Knob(
    "second_opinion",
    "auto",
    "who checks the reference of verify: onnxruntime, onnx, off, or auto (what is installed)",
)
DEFAULTS = Knob(
    "defaults",
    "auto",
    "initialisers that are inputs too: `constant`, `input` (callers may replace them), or `auto`, "
    "which is input from IR version 4 on unless the model lists its weights so",
)

KNOBS = (
    TRACEBACK,
    SANITIZE,
    KEEP_WORK,
    WORK_DIR,
    CACHE_DIR,
    VERIFY_TIME,
    HOST,
    TIME_PRECISION,
    RECORDS,
    GPU_CANDIDATES,
    GPU_CHOICES,
    SECOND_OPINION,
    DEFAULTS,
)


def set_for_libraries(**variables: str) -> None:
    """Set variables that libraries of this process read when they are first imported."""
    os.environ.update(variables)
