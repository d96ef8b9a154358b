"""What becomes of a model: `python -m tensmith.driver.trial`, driven by `reduce.py`.

Every model gets a process of its own, forked off one that has loaded everything, so that a crash or
a hang is an outcome like any other. Requests and answers are lines of JSON on stdin and stdout.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..compiler.errors import InternalError, TensmithError, UnsupportedError
from .request import CompileRequest

FINE, REFUSED, INTERNAL, EXCEPTION = "fine", "refused", "internal error", "exception"
CRASH, HANG, FAILS, DIFFERS, WRONG = "crash", "hang", "fails", "differs", "wrong"
COMPILE, REFERENCE, PEER = "compile", "reference", "onnxruntime"
DEPTHS = (COMPILE, REFERENCE, PEER)  # how far a trial goes
SIZES = 4  # sizes of symbolic dims that are tried
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ModelTrial:
    """A model to try, and how far: "compile", run against the "reference", then "onnxruntime".

    inputs: a .npz; what it has of the model's inputs is not drawn at random.
    """

    path: str
    inputs: str = ""
    request: CompileRequest = field(default_factory=CompileRequest)
    depth: str = COMPILE
    seconds: float = 60.0

    def to_json(self) -> dict[str, Any]:
        """For the server."""
        return {**vars(self), "request": self.request.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelTrial:
        """The task that `to_json` wrote."""
        return cls(**{**data, "request": CompileRequest.from_json(data["request"])})


@dataclass(frozen=True)
class Outcome:
    """What became of it. kind: one of the words above. key: what tells failures of a kind apart.
    stage: how far it came, one of DEPTHS. text: for people."""

    kind: str
    key: str = ""
    stage: str = COMPILE
    text: str = ""

    def same(self, other: Outcome) -> bool:
        """Whether both are one failure, as far as that can be told."""
        return (self.kind, self.key, self.stage) == (other.kind, other.key, other.stage)


def attempt(task: ModelTrial, reached: Callable[[str], None]) -> Outcome:
    """Compile and compare in this process; `reached` is told every stage that begins."""
    from . import api

    reached(COMPILE)
    try:
        artifact = api.compile_request(task.path, task.request)
    except InternalError as error:
        text = str(InternalError(error.what, where=error.where, why=error.why))
        return Outcome(INTERNAL, _key(error.what), COMPILE, text)
    except TensmithError as error:
        return Outcome(REFUSED, f"{type(error).__name__}: {_refusal(error)}", COMPILE, str(error))
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return Outcome(EXCEPTION, type(error).__name__, COMPILE, text)
    for depth in DEPTHS[1 : DEPTHS.index(task.depth) + 1]:
        reached(depth)
        outcome = _compared(artifact, task, depth)
        if outcome.kind != FINE:
            return outcome
    return Outcome(FINE, stage=task.depth)


def _compared(artifact: Any, task: ModelTrial, kind: str) -> Outcome:
    """On the inputs given, or on such as the reference takes, at two sizes of symbolic dims."""
    from .compare import compare_outputs
    from .engines import EngineSpec, open_engine

    ours, path = open_engine(artifact.subject()), Path(task.path)
    reference = open_engine(EngineSpec(REFERENCE, path))
    truth = reference if kind == REFERENCE else open_engine(EngineSpec(kind, path))
    if task.inputs:
        chosen = _given(artifact, Path(task.inputs))
    else:
        chosen = _accepted(_drawn(artifact.sampler), reference)
    for inputs in chosen:
        try:
            expected = truth(inputs)
        except Exception:
            continue  # what one refuses says nothing of the other
        try:
            actual = ours(inputs)
        except Exception as error:
            key = _key(str(error).partition(" needs ")[0])  # of a check: which node's
            return Outcome(FAILS, key, kind, f"the compiled model fails: {error}")
        found = compare_outputs(actual, expected, artifact.tolerance().of(kind))
        wrong = [f"output '{d.name}': {d.message}" for d in found if not d.agrees]
        if wrong:
            word = DIFFERS if kind == REFERENCE else WRONG
            return Outcome(word, "", kind, f"against {kind}: {'; '.join(wrong)}")
    return Outcome(FINE, stage=kind)


def _drawn(sampler: Any) -> Iterator[Mapping[str, Any]]:
    for seed, sizes in enumerate(islice(sampler.candidate_sizes(), SIZES)):
        yield sampler.draw(sizes, seed)


def _given(artifact: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    """The inputs of a file; what the model takes besides is drawn, at the sizes that they have."""
    from .tensor_files import read_file

    arrays = read_file(path)
    sizes = dict.fromkeys(artifact.sampler.symbols, 2)
    for spec in artifact.inputs:
        shape = arrays[spec.name].shape if spec.name in arrays else ()
        known = {dim: size for dim, size in zip(spec.dims, shape, strict=False) if dim in sizes}
        sizes |= known
    inputs = artifact.sampler.draw(sizes, 0)
    for name, array in inputs.items():
        if name in arrays and arrays[name].shape == array.shape:
            inputs[name] = arrays[name]
    yield inputs


def _accepted(
    drawn: Iterator[Mapping[str, Any]], reference: Callable[..., Any]
) -> Iterator[Mapping[str, Any]]:
    taken = 0
    for inputs in drawn:
        try:
            reference(inputs)
        except Exception:
            continue  # sizes that do not fit together
        yield inputs
        taken += 1
        if taken == 2:
            return


def _key(text: str) -> str:
    """A message without the names in it, those of passes and stages apart."""
    if text.startswith(("pass ", "the stage ")):
        return text
    return re.sub(r"'[^']*'|\d+", "_", text)


def _refusal(error: TensmithError) -> str:
    if isinstance(error, UnsupportedError):
        return f"{error.items[0].op}: {_key(error.items[0].reason)}"
    return _key(error.what)


# the server ---------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until stdin ends."""
    sink = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to stderr
    _preload()
    for line in sys.stdin:
        answer = isolated(ModelTrial.from_json(json.loads(line)))
        sink.write(json.dumps(asdict(answer)) + "\n")
        sink.flush()


def _preload() -> None:
    """What every trial would have to import."""
    from ..compiler.backend import backends
    from ..frontends import onnx  # noqa: F401
    from . import api, compare, engines  # noqa: F401

    tuple(backends().values())  # each is loaded
    with suppress(ImportError):
        __import__(PEER)


def isolated(task: ModelTrial) -> Outcome:
    """The outcome of a trial in a process forked off this one."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        os.close(source)
        with os.fdopen(sink, "w", encoding="utf-8") as pipe:
            _answer(task, pipe)
        os._exit(0)
    os.close(sink)
    try:
        return _await(child, source, time.monotonic() + task.seconds)
    finally:
        os.close(source)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what the trial itself has started


def _answer(task: ModelTrial, pipe: Any) -> None:
    def reached(stage: str) -> None:
        pipe.write(json.dumps({"stage": stage}) + "\n")
        pipe.flush()

    try:
        outcome = attempt(task, reached)
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        outcome = Outcome(EXCEPTION, type(error).__name__, "", text)
    pipe.write(json.dumps(asdict(outcome)) + "\n")


def _await(child: int, source: int, deadline: float) -> Outcome:
    data, stage = b"", COMPILE
    while True:
        ready = select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]
        chunk = os.read(source, _CHUNK) if ready else b""
        data += chunk
        *lines, data = data.split(b"\n")
        for line in map(json.loads, lines):
            if "kind" in line:
                os.waitpid(child, 0)
                return Outcome(**line)
            stage = line["stage"]
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome(HANG, "", stage, f"not done in time, in the stage '{stage}'")
        if not chunk:
            status = os.waitpid(child, 0)[1]
            cause = os.waitstatus_to_exitcode(status)
            name = signal.Signals(-cause).name if cause < 0 else f"exit status {cause}"
            return Outcome(CRASH, name, stage, f"the process died ({name}) in the stage '{stage}'")


if __name__ == "__main__":
    serve()
