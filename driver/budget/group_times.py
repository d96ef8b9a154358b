"""Groups of products that share a scale, and what each of them saves in integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import networkx as nx
import numpy as np

from ...compiler.backend import resolve_target
from ...compiler.ir.dims import Dim, evaluate, symbols_of
from ..calibrated_recipe import Calibrated
from ..request import CompileRequest
from .product_times import ProductTimes

Times = tuple[float, float]


def groups_of(calibrated: Calibrated) -> list[list[str]]:
    """Keys of the products that can be integer, those that read one tensor together."""
    readers: dict[str, list[str]] = {}
    together = nx.Graph()
    for product in calibrated.source.products:
        if product.key in calibrated.recipe.integer:
            together.add_node(product.key)
            for name in product.operands:
                readers.setdefault(name, []).append(product.key)
    for keys in readers.values():
        nx.add_path(together, keys)
    place = {key: n for n, key in enumerate(together)}
    return [sorted(keys, key=place.__getitem__) for keys in nx.connected_components(together)]


class GroupTimes:
    """Times the groups of what calibration found, for a request.

    sizes: of the symbols of inputs. folder: for what is made on the way; it is made. fault: is told
    where times cannot be kept.
    """

    def __init__(
        self,
        calibrated: Calibrated,
        groups: Sequence[Sequence[str]],
        request: CompileRequest,
        sizes: Mapping[str, int],
        folder: Path,
        fault: Callable[[str], None],
    ) -> None:
        self.source, self.recipe = calibrated.source, calibrated.recipe
        self.groups, self.request, self.sizes = groups, request, sizes
        self.folder, self.fault = folder, fault

    def times(self) -> list[Times | None]:
        """Seconds of a run in floats and in integers of every group; None where not timed."""
        request = self.request
        backend, target = resolve_target(request.target)
        if backend.runs_here(target):
            return [None] * len(self.groups)
        self.folder.mkdir(parents=True, exist_ok=True)
        timed = ProductTimes(
            self.source, self.recipe, self.folder, request.target, request.threads,
            request.progress or (lambda text: None), request.timer, request.fresh, self.fault,
        )  # fmt: skip
        operands = {p.key: p.operands for p in self.source.products}
        shapes = self._shapes([name for keys in self.groups for k in keys for name in operands[k]])
        found: list[Times | None] = []
        for keys in self.groups:
            tensors = list(dict.fromkeys(name for key in keys for name in operands[key]))
            if any(size is None for name in tensors for size in shapes[name]):
                found.append(None)
                continue
            sizes = {name: [size or 0 for size in shapes[name]] for name in tensors}
            pairs = [timed.of(key, [sizes[name] for name in operands[key]]) for key in keys]
            made = tensors if set(keys) - self.recipe.dynamic else []
            kept = [name for name in made if self.source.read_as_floats(name, set(keys))]
            extra = sum(timed.of_bytes(sizes[name]) for name in kept)
            found.append((sum(a for a, _ in pairs), sum(b for _, b in pairs) + extra))
        return found

    def saved(self, times: Sequence[Times | None]) -> list[float]:
        """Seconds that integers save; of groups that were not timed, by their multiplications."""
        data = {p.key: p.data for p in self.source.products}
        results = [key for keys in self.groups for key in keys]
        shapes = self._shapes([*results, *(data[key] for key in results)])
        terms = {p.key: p.terms or shapes[p.data][-1] or 1 for p in self.source.products
                 if p.data in shapes}  # fmt: skip
        work = [
            sum(terms[k] * float(np.prod([size or 1 for size in shapes[k]])) for k in keys)
            for keys in self.groups
        ]
        timed = [(t[0] - t[1], w) for t, w in zip(times, work, strict=True) if t is not None]
        rate = sum(max(s, 0.0) for s, _ in timed) / sum(w for _, w in timed) if timed else 1.0
        return [
            t[0] - t[1] if t is not None else w * (rate or 1e-12)
            for t, w in zip(times, work, strict=True)
        ]

    def _shapes(self, names: Sequence[str]) -> dict[str, list[int | None]]:
        """Of tensors; None for a size that only a run knows."""
        graph = self.source.floats(list(dict.fromkeys(names)))
        return {v.name: [_size(dim, self.sizes) for dim in v.shape] for v in graph.outputs}


def _size(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    return evaluate(dim, sizes) if symbols_of(dim) <= set(sizes) else None
