"""Reduction of a model that fails to a small one that fails in the same way.

Greedy and in stages: edits of one kind (drop outputs, remove nodes, bypass them, ...) are tried in
blocks, halved as in delta debugging (Zeller and Hildebrandt, Simplifying and isolating
failure-inducing input), until no stage makes the model smaller or the time is over.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ..compiler.errors import RunError, UsageError
from ..compiler.knobs import WORK_DIR, child_environment
from ..compiler.scratch import called
from ..frontends.onnx import reduction
from .request import CompileRequest
from .trial import COMPILE, DEPTHS, FINE, HANG, PEER, REFERENCE, ModelTrial, Outcome

IN_MEMORY = 1 << 24  # elements of weights that no longer lie beside the model
LEAST_SECONDS = 10.0  # of a trial; else several times as long as the first one took
SLACK = 4.0
DEFAULT = CompileRequest()


@dataclass(frozen=True)
class ReducedModel:
    """What came out. before, after: numbers of nodes and of elements of weights.

    anonymous: whether weights and names are made up: asked for, and the failure is still there.
    """

    failure: Outcome
    before: tuple[int, int]
    after: tuple[int, int]
    trials: int
    seconds: float
    anonymous: bool

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class Trials:
    """The process that tries models, and the folder where they lie; use it in a `with`."""

    def __init__(self, task: ModelTrial) -> None:
        self.task = task
        self.count = 0
        self._home = tempfile.TemporaryDirectory(prefix="tensmith-reduce-")
        self.folder = Path(self._home.name)
        self._known: dict[bytes, Outcome] = {}
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Trials:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tensmith.driver.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr").open("w"),
            text=True,
            env=_environment(self.folder),
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
        self._home.cleanup()

    def outcome(self, model: Any) -> Outcome:
        """What becomes of a model (an onnx.ModelProto whose large weights lie in `folder`)."""
        path = self.folder / "candidate.onnx"
        reduction.write(model, path)
        data = path.read_bytes()
        if data not in self._known:
            self._known[data] = self._ask(replace(self.task, path=str(path)))
        return self._known[data]

    def _ask(self, task: ModelTrial) -> Outcome:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self.count += 1
        self._server.stdin.write(json.dumps(task.to_json()) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        for left in self.folder.glob("tensmith-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not answer:
            raise RunError(
                "the process that tries models died",
                where=(self.folder / "stderr").read_text(errors="replace")[-500:],
            )
        return Outcome(**json.loads(answer))


def _environment(folder: Path) -> dict[str, str]:
    """The child finds the same modules, and leaves its files in `folder`."""
    path = os.pathsep.join(filter(None, sys.path))
    place = {"TMPDIR": str(folder), WORK_DIR.variable: str(folder)}
    return child_environment(PYTHONPATH=path, **place)


@dataclass
class _Reducer:
    trials: Trials
    failure: Outcome
    model: Any
    deadline: float
    note: Callable[[str], None]
    types: dict[str, Any] = field(default_factory=dict)

    def fails(self, candidate: Any) -> bool:
        return candidate is not None and self.trials.outcome(candidate).same(self.failure)

    def over(self) -> bool:
        return time.monotonic() > self.deadline

    def learn_types(self) -> None:
        path = self.trials.folder / "current.onnx"
        reduction.write(self.model, path)
        self.types = reduction.types_of(self.model, path)

    def cut(self) -> None:
        """Find a node such that the model up to it fails, an early one."""
        cuts = reduction.cuts(self.model)
        low, high = 0, len(cuts)  # the model up to `high` is known to fail; the whole one does
        while low < high and not self.over():
            middle = (low + high) // 2
            candidate = reduction.edited(self.model, [cuts[middle]], self.types)
            if self.fails(candidate):
                high = middle
            else:
                low = middle + 1
        if high < len(cuts):
            self.model = reduction.edited(self.model, [cuts[high]], self.types)

    def stage(self, edits: Sequence[reduction.Edit]) -> bool:
        """Apply as many of the edits as the failure survives; whether there were any."""
        done: list[reduction.Edit] = []
        size, left = len(edits), list(edits)
        while size and not self.over():
            kept: list[reduction.Edit] = []
            for start in range(0, len(left), size):
                block = left[start : start + size]
                candidate = None
                if not self.over():
                    candidate = reduction.edited(self.model, [*done, *block], self.types)
                if self.fails(candidate):
                    done += block
                else:
                    kept += block
            left, size = kept, size // 2
        if done:
            self.model = reduction.edited(self.model, done, self.types)
        return bool(done)

    def run(self) -> None:
        self.learn_types()
        self.cut()
        changed = True
        while changed and not self.over():
            changed = False
            for name, stage in reduction.STAGES:
                nodes, elements = reduction.size(self.model)
                self.note(f"{name}: {nodes} nodes after {self.trials.count} trials")
                if elements <= IN_MEMORY:
                    reduction.unstow(self.model, self.trials.folder)
                self.learn_types()
                changed |= self.stage(list(stage(self.model, self.types)))


def reduce_model(
    path: Path,
    output: Path,
    request: CompileRequest = DEFAULT,
    *,
    inputs: Path | None = None,
    seconds: float = 600.0,
    trial_seconds: float = 120.0,
    anonymous: bool = False,
) -> ReducedModel:
    """Write a small model that fails as the one at `path` does.

    The failure is found out: the compiler's refusal, error, crash or hang, then a difference from
    the reference, then one from ONNX Runtime where that is installed. inputs: a .npz with which the
    model fails; drawn at random where it has none. seconds: about how long it
    may take. trial_seconds: what counts as a hang. anonymous: with made-up weights and names.

    Raises UsageError when the model does not fail, and what reading it raises.
    """
    begin = time.monotonic()
    depth = PEER if find_spec(PEER) else REFERENCE
    model = reduction.read(path)
    before = reduction.size(model)
    reduction.pin(model, request.shapes)
    file = str(inputs.resolve()) if inputs else ""
    task = ModelTrial("", file, replace(request, shapes={}), depth, trial_seconds)
    progress = request.progress or _silent
    with Trials(task) as trials:
        progress("trying the model")
        reduction.stow(model, trials.folder)
        start = time.monotonic()
        failure = trials.outcome(model)
        if failure.kind == FINE:
            raise _sound(path, depth)
        took = time.monotonic() - start
        limit = trial_seconds if failure.kind == HANG else max(LEAST_SECONDS, SLACK * took)
        stage = failure.stage if failure.stage in DEPTHS else COMPILE
        trials.task = replace(task, depth=stage, seconds=min(trial_seconds, limit))
        reducer = _Reducer(trials, failure, model, begin + seconds, progress)
        hidden = anonymous and _hide_weights(reducer)
        reducer.run()
        hidden = hidden and _hide_names(reducer)
        final = trials.outcome(reducer.model)
        reduction.unstow(reducer.model, trials.folder)
        reduction.write(reducer.model, output)
        found = final if final.same(failure) else failure
        return ReducedModel(
            found,
            before,
            reduction.size(reducer.model),
            trials.count,
            time.monotonic() - begin,
            hidden,
        )


def _silent(text: str) -> None:
    del text


def _sound(path: Path, depth: str) -> UsageError:
    agrees = " and ".join(DEPTHS[1 : DEPTHS.index(depth) + 1])
    return UsageError(
        f"{called(path)} does not fail",
        why=f"it compiles, runs, and agrees with {agrees}",
        remedy="give the options with which it failed: --target, -O, --shape, --inputs",
    )


def _hide_weights(reducer: _Reducer) -> bool:
    candidate = reduction.random_weights(reducer.model)
    reduction.stow(candidate, reducer.trials.folder)
    if not reducer.fails(candidate):
        return False
    reducer.model = candidate
    return True


def _hide_names(reducer: _Reducer) -> bool:
    candidate = reduction.anonymous(reducer.model)
    if not reducer.fails(candidate):
        return False
    reducer.model = candidate
    return True
