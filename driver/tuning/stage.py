"""Whole binaries of a session: built, timed against the untuned one, written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ...compiler.compilation import Stages
from ...compiler.errors import ScheduleError
from ...compiler.tuning import events
from ...compiler.tuning.events import Event
from ...compiler.tuning.session import TuningSession
from ...compiler.tuning.statistics import spread
from ...compiler.tuning.whole_model import Alternative, Paired, choices_in, set_hash, step_hash
from ..artifacts import Artifact
from ..building import built
from ..request import CompileRequest
from .applying import code_version, machine_code
from .pairs import BinaryPair, NotComparedError


class StageWatch(Protocol):
    """Who is told, and may ask to stop."""

    def told(self, event: Event) -> None:
        """Something happened."""
        ...

    def stopped(self) -> bool:
        """Whether to end."""
        ...


class WholeModelStage:
    """Times sets of choices. new_folder: makes another folder, named like this."""

    def __init__(
        self,
        session: TuningSession,
        untuned: Artifact,
        request: CompileRequest,
        new_folder: Callable[[str], Path],
        watch: StageWatch,
    ) -> None:
        self.session, self.untuned, self.request = session, untuned, request
        self.new_folder, self.watch = new_folder, watch
        self._pairs: dict[str, BinaryPair] = {}
        self._binaries: dict[str, Artifact] = {}

    def time(
        self,
        chosen: Sequence[Alternative],
        *,
        exact: bool,
        over: Sequence[Alternative] | None = None,
    ) -> Paired | None:
        """Time the binary with these choices and write down what comes of it.

        over: the choices of the binary that it is timed against; None: the untuned one. exact: its
        results have to be those of that one. None: it was stopped.
        """
        begun = time.monotonic()
        graph = [own for own in chosen if own.in_graph]
        self._tell(state="timing", kernels=len(chosen) - len(graph), graph=len(graph))
        try:
            paired = self._timed(chosen, over or (), exact)
        except NotComparedError:
            return None
        noise = self.session.noise
        result = {
            **paired.to_json(), "records": step_hash(chosen, over or ()),
            "graph": [own.to_json() for own in graph], "code": code_version(), "exact": exact,
            "machine_code": machine_code(self.binary(chosen).code) if not paired.problem else "",
            "noise": spread(noise) if noise else None, "seconds": time.monotonic() - begun,
        }  # fmt: skip
        self.session.history.add_outcome([own.key for own in chosen], result)
        self._tell(state="timed", kernels=len(chosen), **paired.to_json())
        return paired

    def _timed(
        self, chosen: Sequence[Alternative], over: Sequence[Alternative], exact: bool
    ) -> Paired:
        name = set_hash(over)
        try:
            if name not in self._pairs:
                against = self.binary(over) if over else self.untuned
                folder = self.new_folder("pairs")
                self._pairs[name] = BinaryPair(against, self.request, folder, self._stopped)
            return self._pairs[name].time(self.binary(chosen), exact=exact)
        except ScheduleError as error:
            return Paired(problem=f"the choices do not go together: {error.what}")

    def _stopped(self) -> bool:
        return self.session.stops > 0 or self.watch.stopped()

    def binary(self, chosen: Sequence[Alternative]) -> Artifact:
        """The binary with these choices; what a manifest tells of the rest is the untuned one's."""
        name = set_hash(chosen)
        if name not in self._binaries:
            model = self.untuned.build
            assert model is not None
            folder = self.new_folder("tuned")
            request = replace(model.request, dump_after=None)
            stages = Stages(progress=self.request.progress)
            artifact = built(replace(model, request=request), folder, stages, choices_in(chosen))
            own = artifact.manifest
            artifact.manifest = {
                **self.untuned.manifest,
                **{key: own[key] for key in ("kernels", "memory", "npu", "cpu") if key in own},
            }
            artifact.choice, artifact.budget = self.untuned.choice, self.untuned.budget
            artifact.notes = self.untuned.notes
            self._binaries[name] = artifact
        return self._binaries[name]

    def _tell(self, **data: object) -> None:
        session = self.session
        self.watch.told(Event(events.MODEL, "", session.spent, session.trials, data))
