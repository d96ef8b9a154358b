"""The recipe that calibration gives, of a model as it is or rotated, and all that is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.recipe import Limits, Recipe
from .calibrated_search import ENOUGH, GAIN, MINMAX, PRODUCTS_OF_DATA, Judged, Search
from .calibration import CalibrationData
from .timing import Timer

_ASIDE = "it is tried in the most exact choice only, which is no faster than fp32"
PROMISING = GAIN / 2  # decibels that rotation gains with plain ranges where it is looked into


@dataclass(frozen=True)
class Calibrated:
    """What calibration found. source: the model that the recipe is for; rotated: whether operands
    of its products are. samples: how many there were; judged: numbers of those that errors were
    measured on; shared: by what they themselves show.
    rule: of ranges. decibels, tried, reasons: see `Search`. notes: what the user should know of the
    data. by_rows: samples are the rows of a batch.

    faster: the same with less that takes time for the sake of accuracy, in the order of errors:
    with all products in integers, and without rotation. They are not part of `to_json`.
    """

    source: Quantisable
    recipe: Recipe
    rotated: bool
    samples: int
    judged: tuple[int, ...]
    shared: bool
    rule: str
    decibels: Mapping[str, float]
    tried: Mapping[str, float]
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()
    by_rows: bool = False
    faster: tuple[Calibrated, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All but the models."""
        recipe = self.recipe
        return {
            "ranges": {name: (r.low, r.high) for name, r in recipe.ranges.items()},
            "integer": sorted(recipe.integer),
            "dynamic": sorted(recipe.dynamic),
            "scales": {name: array.tolist() for name, array in recipe.scales.items()},
            "biases": {key: array.tolist() for key, array in recipe.biases.items()},
            "rotated": self.rotated,
            "samples": self.samples,
            "judged": list(self.judged),
            "shared": self.shared,
            "rule": self.rule,
            "decibels": dict(self.decibels),
            "tried": dict(self.tried),
            "reasons": dict(self.reasons),
            "notes": list(self.notes),
            "by_rows": self.by_rows,
        }

    @classmethod
    def from_json(cls, source: Quantisable, data: Mapping[str, Any]) -> Calibrated:
        """What `to_json` wrote, of the same model."""
        turned = source.rotated() if data["rotated"] else source
        assert turned is not None
        recipe = Recipe(
            {name: Limits(*limits) for name, limits in data["ranges"].items()},
            frozenset(data["integer"]),
            frozenset(data["dynamic"]),
            biases={key: np.array(array) for key, array in data["biases"].items()},
            scales={key: np.array(array, np.float32) for key, array in data["scales"].items()},
        )
        own = ("rotated", "samples", "shared", "rule", "decibels", "tried", "reasons")
        more: dict[str, Any] = {name: tuple(data[name]) for name in ("notes", "judged")}
        more["by_rows"] = data["by_rows"]
        return cls(turned, recipe, **{name: data[name] for name in own}, **more)


def calibrate(
    source: Quantisable,
    data: CalibrationData,
    folder: Path,
    threads: int,
    note: Callable[[str], None],
    *,
    spares: bool = True,
    timer: Timer | None = None,
) -> Calibrated:
    """Search, with rotated operands too where the error is large, and keep the better.

    That search ends where plain ranges gain too little by it.

    folder: for what is made on the way. spares, timer: see `Search`. Raises UsageError for data
    that do not fit.
    """
    search = Search(source, data, folder, threads, note, spares=spares, timer=timer)
    search.begin()
    recipe = search.finish()
    tried, notes, by_rows = dict(search.tried), tuple(search.notes()), search.by_rows
    faster = [(source, search.whole)]
    rotated = source.rotated() if search.mean < ENOUGH and search.decibels else None
    if rotated is not None:
        own = folder / "rotated"
        other = Search(rotated, search.samples, own, threads, note, spares=spares, timer=timer)
        other.begin()
        if other.mean >= search.tried[MINMAX] + PROMISING:
            turned = other.finish()
            if other.mean >= search.mean + GAIN:
                faster = [(rotated, other.whole), (source, search.judged(recipe)), *faster]
                source, search, recipe = rotated, other, turned
        tried |= {f"rotated, {name}": mean for name, mean in other.tried.items()}
    recipe = search.with_products_of_data(recipe)
    if PRODUCTS_OF_DATA in search.tried:
        tried[PRODUCTS_OF_DATA] = search.tried[PRODUCTS_OF_DATA]
    found = Calibrated(
        source,
        recipe,
        source is rotated,
        search.parts.count,
        tuple(number for number, _, _ in search.held),
        search.parts.is_shared,
        search.rule,
        search.decibels,
        tried,
        search.reasons,
        notes,
        by_rows,
    )
    others = ((turned, own) for turned, own in faster if own is not None)
    return replace(found, faster=tuple(_with(found, *own, rotated) for own in others))


def _with(
    found: Calibrated, source: Quantisable, other: Judged, rotated: Quantisable | None
) -> Calibrated:
    """What was found, by another recipe of its search."""
    aside = {product.key: _ASIDE for product in source.products if product.other}
    return replace(
        found,
        source=source,
        recipe=other.recipe,
        rotated=source is rotated,
        rule=other.rule,
        decibels=other.decibels,
        reasons=aside | dict(other.reasons),
    )
