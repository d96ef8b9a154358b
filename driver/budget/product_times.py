"""How long products take in floats and in integers, each measured by itself and kept.

What is timed is a product without what is fused with it, of data that are bytes already where it is
integer. Making bytes of data is free where what makes the data does so as it stores them; where
others read the floats too, bytes are written besides, which is timed as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from ...compiler.backend import resolve_target
from ...compiler.host import processor_name
from ...compiler.ir import Graph
from ...frontends.onnx.quantising.quantisable import Quantisable
from ...frontends.onnx.quantising.recipe import Recipe
from ..graph_run import compiled_module
from ..journal import Journal, journal_of
from ..timing import Timer, clock_of, timer_of

_SECONDS = 0.2  # of the rounds of a product
FLOATS, INTEGERS, BYTES = "fp32", "int8", "bytes"


@dataclass(frozen=True)
class ProductTimes:
    """Times products for a target that runs here.

    timer: that of a test, whose times are not kept; None: the clock. fresh: what was measured
    before is measured again, once. fault: is told where times cannot be kept.
    """

    source: Quantisable
    recipe: Recipe
    folder: Path
    target: str
    threads: int
    note: Callable[[str], None]
    timer: Timer | None = None
    fresh: bool = False
    fault: Callable[[str], None] = lambda text: None
    _kept: dict[str, Journal] = field(default_factory=dict)
    _anew: set[str] = field(default_factory=set)

    def of(self, key: str, shapes: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Seconds of a run in floats, and in integers, of a product of data of such shapes."""
        described = " ".join([self.source.described(key), *(str(list(shape)) for shape in shapes)])

        def measure() -> list[float]:
            graphs = self.source.product_alone(key, shapes, self.recipe)
            return self._timed(dict(zip((FLOATS, INTEGERS), graphs, strict=True)))

        found = self._kept_or(described, measure)
        return found[0], found[1]

    def of_bytes(self, shape: Sequence[int]) -> float:
        """Seconds that making bytes of a tensor takes."""
        found = self._kept_or(
            f"bytes {list(shape)}", lambda: self._timed({BYTES: self.source.bytes_alone(shape)})
        )
        return found[0]

    def _kept_or(self, described: str, measure: Callable[[], list[float]]) -> list[float]:
        kept = self._journal()
        found: list[float] | None = kept.get("seconds", described) if kept else None
        if found is None or (self.fresh and described not in self._anew):
            self.note(f"timing {described}")
            found = measure()
            self._anew.add(described)
            if kept:
                kept.put(found, "seconds", described)
        return found

    def _journal(self) -> Journal | None:
        """One for all models: times by what is timed, of this processor and these features, by
        the clock that counts."""
        if self.timer is not None:
            return None
        if "" not in self._kept:
            _, target = resolve_target(self.target)
            parts = ["times", processor_name(), json.dumps(target.names), " ".join(target.features)]
            parts += [str(self.threads), clock_of(target, self.threads == 1).__name__]
            self._kept[""] = journal_of(*parts, fresh=False, note=self.fault)
        return self._kept[""]

    def _timed(self, graphs: Mapping[str, Graph]) -> list[float]:
        """Seconds of runs of graphs, in their order."""
        runs = {}
        for name, graph in graphs.items():
            inputs, own = _drawn(graph), f"part{sum(1 for _ in self.folder.glob('part*'))}"
            module = compiled_module(graph, self.folder, own, self.threads, self.target)
            runs[name] = partial(module, inputs)
        _, target = resolve_target(self.target)
        times = (self.timer or timer_of(target, self.threads == 1, _SECONDS))(runs)
        return [median(times[name]) for name in runs]


def _drawn(graph: Graph) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for value in graph.inputs:
        drawn = rng.random(value.type.static_shape) * (1 if value.dtype.is_float else 255)
        found[value.name] = drawn.astype(value.dtype.numpy)
    return found
