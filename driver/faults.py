"""Faults of the compiler, said in terms of the user's model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..compiler.compilation import Stages
from ..compiler.errors import REPORT, InternalError, TensmithError
from ..compiler.faults import internal_error, name_at_fault
from ..compiler.scratch import is_copy


@contextmanager
def faults_explained(model: Path, stages: Stages) -> Iterator[None]:
    """What the block raises for a reason inside the compiler becomes an InternalError that names
    the stage, the node, and the model's operator that the node came from."""
    try:
        yield
    except InternalError as error:
        raise _explained(error, error, model) from error
    except (TensmithError, MemoryError, OSError):
        raise
    except Exception as error:
        found = internal_error(f"the stage '{stages.latest}' of the compiler failed", error)
        raise _explained(found, error, model) from error


def _explained(found: InternalError, error: Exception, model: Path) -> InternalError:
    name = name_at_fault(error)
    origin = _operator(model, name) if name else ""
    where = "\n".join(filter(None, (found.where, origin and f"    of the model: {origin}")))
    remedy = found.remedy or (REPORT if is_copy(model) else REPORT.replace("MODEL", str(model)))
    return InternalError(found.what, where=where, why=found.why, remedy=remedy)


def _operator(model: Path, name: str) -> str:
    from ..frontends.onnx import operator_of

    try:
        return operator_of(model, name)
    except TensmithError:
        return ""  # the file has gone: the fault is told without it
