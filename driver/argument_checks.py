"""Checks of what the user gave: files, numbers, choices. All raise UsageError."""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

from ..compiler.backend import AnyBackend, Measures
from ..compiler.errors import ModelWarning, Unsupported, UsageError, system_refusals
from ..compiler.ir import Graph
from ..compiler.knobs import KEEP_WORK
from ..compiler.scratch import check_output, forget, make_folder, unwritable
from ..compiler.target import Target

MOST_THREADS = 1024  # MAX_THREADS of runtime/internal.h
STANDING_IN = "kernels run in an interpreter, slowly, and not as the hardware's own code"


def c_identifier(text: str) -> str:
    """A C identifier that resembles the text."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII) or "model"
    return f"m_{name}" if name[0].isdigit() or name == "get" else name


def make_work_dir(near: Path | None = None) -> Path:
    """A new folder for intermediate files, in `near` where the system has no place for them.

    Raises UsageError when it cannot be made.
    """
    return make_folder("tensmith-", near=near)


def remove_work_dir(folder: Path) -> None:
    """Remove such a folder, unless the knob says that it is kept."""
    if KEEP_WORK.value:
        print(f"tensmith: kept {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    forget(folder)


def check_file(path: Path, what: str) -> Path:
    """The path, if it is a readable file. Raises UsageError otherwise."""
    with system_refusals(f"cannot read '{path}'"):
        is_folder = path.is_dir()
    if is_folder:
        from ..frontends.onnx import in_folder

        raise UsageError(f"'{path}' is a directory, not a {what}", remedy=in_folder(path))
    if not path.exists():
        raise UsageError(f"there is no file '{path}'")
    if not path.is_file():
        raise UsageError(
            f"'{path}' is not a regular file", remedy="give - for what comes by standard input"
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"cannot read '{path}'", why=error.strerror or str(error)) from None
    return path


def check_writable(path: Path, other_than: Path | None = None) -> None:
    """Raise UsageError when no file can be written there, or it is the model that was read."""
    if str(path) == "-":
        raise UsageError("cannot write to standard output", remedy="name a file")
    check_output(path)
    if other_than and path.exists() and other_than.exists() and path.samefile(other_than):
        raise UsageError(f"'{path}' is the model itself", remedy="name another file to write")
    with system_refusals(f"cannot write '{path}'"):
        folder = path.absolute().parent
    reason = unwritable(folder)
    if reason:
        remedy = "choose a folder with space that you may write in"
        if not folder.is_dir():
            remedy = f"make the folder '{folder}' first"
        raise UsageError(f"cannot write '{path}'", why=reason, remedy=remedy)


def check_runs_here(backend: AnyBackend, target: Target) -> None:
    """Raise UsageError for a target whose code does not run on this machine."""
    reason = backend.runs_here(target)
    if reason:
        raise UsageError("the model was compiled for another machine", why=reason)


def stands_in(backend: AnyBackend, target: Target) -> bool:
    """Whether something takes the place of the target's hardware in a process of this machine,
    which a ModelWarning says then."""
    reason = backend.runs_here(target)
    if reason is None or backend.stand_in is None or not target.has_system:
        return False
    warnings.warn(f"{STANDING_IN} ({reason})", ModelWarning, stacklevel=3)
    return True


def have_run_here(backend: AnyBackend, target: Target) -> None:
    """Have code for a target run in this process, if need be by what stands in for its hardware.

    Raises UsageError where it cannot.
    """
    if not stands_in(backend, target):
        check_runs_here(backend, target)
    elif backend.stand_in:
        backend.stand_in(target)


def threads_of(threads: SupportsIndex) -> int:
    """A number of threads. Raises UsageError for one below one, for more than a run may have, and
    for what is no whole number."""
    if not isinstance(threads, SupportsIndex) or isinstance(threads, bool):
        raise UsageError(f"threads {threads!r} is no whole number")
    if (number := index(threads)) < 1:
        raise UsageError(f"{number} threads: at least one is needed")
    if number > MOST_THREADS:
        raise UsageError(f"{number} threads: a run has {MOST_THREADS} at most")
    return number


def require_available(backend: AnyBackend) -> None:
    """Raise TensmithError when the backend cannot be used on this machine."""
    reason = backend.available()
    if reason:
        raise UsageError(f"the backend '{backend.name}' cannot be used here", why=reason)


def measures_of(backend: AnyBackend) -> Measures[Any]:
    """What a backend measures of this machine. Raises UsageError where it measures nothing."""
    if backend.measures is None:
        raise UsageError(
            f"kernels of the backend '{backend.name}' cannot be measured",
            remedy="choose a target that generates code for this machine, such as 'native'",
        )
    return backend.measures


def unsupported_nodes(graph: Graph, backend: AnyBackend, target: Target) -> list[Unsupported]:
    """Every node, regions included, that the backend refuses for the target, with its reason."""
    refused = ((node, backend.supports(node, target)) for node in graph.walk())
    return [Unsupported(node.name, node.op, reason) for node, reason in refused if reason]


def check_choice(what: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise UsageError for a value that is not among the choices."""
    if value not in choices:
        raise UsageError(
            f"{what} {value!r} is not supported",
            remedy=f"choose from {', '.join(map(str, choices))}",
        )
