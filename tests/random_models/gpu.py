"""Random models planned for a GPU: kernels run in Triton's interpreter, the plan in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cuda_runs import GpuGraph

from tensmith.compiler.ir import Graph

from .builder import Array

Arrays = Mapping[str, Array]


class GpuModels:
    """Models with their plans for a GPU. errors: why others have none."""

    def __init__(self, graphs: dict[str, Graph], level: int) -> None:
        self.errors: dict[str, Exception] = {}
        self._planned: dict[str, GpuGraph] = {}
        for name, graph in graphs.items():
            try:
                self._planned[name] = GpuGraph(graph, level=level)
            except Exception as error:
                self.errors[name] = error

    @property
    def models(self) -> Iterable[str]:
        """Their names."""
        return self._planned

    def run(self, name: str, inputs: Arrays) -> Arrays | Exception:
        """The outputs of one, or how it failed."""
        try:
            return self._planned[name].run(inputs)
        except Exception as error:
            return error


def on_gpu(graphs: dict[str, Graph], level: int, folder: Path) -> GpuModels:
    """Plans of graphs; nothing is put into the folder."""
    return GpuModels(graphs, level)
