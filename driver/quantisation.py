"""Post-training quantisation: a model of floats becomes one whose products are of 8 bits.

Data of products are u8 by one scale for a tensor, weights s8 by one for each output channel; what
lies between products stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..compiler.backend import resolve_target
from ..compiler.decisions import Decision, not_in_floats
from ..compiler.errors import UsageError
from ..frontends.onnx.quantising.products import ModelProduct
from ..frontends.onnx.quantising.quantisable import Quantisable, check_quantisable
from ..frontends.onnx.quantising.recipe import Recipe
from .budget.group_times import GroupTimes, groups_of
from .budget.report import NO_FASTER, BudgetReport
from .budget.within import BudgetSearch
from .calibrated_recipe import Calibrated, calibrate
from .calibration import Samples, largest, specs_of_inputs
from .data_products import settle
from .request import CompileRequest
from .tensor_files import check_inputs
from .timing import Timer, timer_of, why_not_timed

STATIC, DYNAMIC, WEIGHTS = "static", "dynamic", "weights"
FLOAT, INT8, DYNAMIC_INT8, INT32 = "fp32", "int8", "dynamic int8", "int32"
INT8_WEIGHTS = "int8 weights"
_LISTED = 12
POOR = 12.0  # decibels of error below the outputs: a quarter of their size
_POOR = (
    "the error of quantising is only {:.1f} dB below the outputs: answers will differ; give more "
    "samples of every kind that occurs, --max-accuracy-drop 0.5%, which leaves in floats what "
    "loses most, or compile with --precision bf16"
)
_NO_DATA = "convolutions are quantised with calibration data only"
_NO_DATA_FOR_DATA = (
    "operands that are both made by the run are quantised with calibration data only"
)
_UNSEEN = "its operands are quantised, and the compiled model multiplies them as floats"
_ONE = (
    "there is one calibration sample: errors are measured on it, too; a few dozen tell more (where "
    "the model's first dimension is open, samples lie along a new leading axis)"
)


@dataclass(frozen=True)
class ProductDecision:
    """What became of a product: "int8", "dynamic int8", "int4 weights", "int8 weights" or "fp32",
    and why it is the last.

    low, high: the range of its data.
    """

    name: str
    op: str
    precision: str
    reason: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Quantisation:
    """A quantised model. path: its file. method: whether ranges are in the file or found by runs.

    samples, held_out: how many there were, and on how many of them the error was measured: data are
    judged sample by sample, each by what others show (a single one by itself), weights alone on
    samples that took no part. ranges: the rule that was kept. rotated: whether operands of matrix
    products are. decibels: how far the error of each scored tensor lies below it, on those samples;
    tried: the mean of that for everything that was tried. budget: what became of one, where there
    was one. faster: what write another that may take less time, to a file each, the most exact
    first; None where there is none.
    """

    path: Path
    method: str
    products: tuple[ProductDecision, ...]
    samples: int = 0
    held_out: int = 0
    ranges: str = ""
    rotated: bool = False
    decibels: Mapping[str, float] = field(default_factory=dict)
    tried: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    budget: BudgetReport | None = None
    faster: tuple[Callable[[Path], Quantisation | None], ...] = ()

    @property
    def worst(self) -> float:
        """Of the decibels, the least; 0 where there are none."""
        return min(self.decibels.values(), default=0.0)

    def to_json(self, compiled: Sequence[Decision] | None = None) -> dict[str, Any]:
        """Entries of a manifest; they say nothing of files.

        compiled: what the backend has made of the products, if it was asked. One that was quantised
        and that it does not multiply as bytes is listed as what it is, with the backend's reason;
        so is one that the model itself has quantised.
        """
        return {
            "quantisation": {
                "method": self.method,
                "samples": self.samples,
                "held_out": self.held_out,
                "ranges": self.ranges,
                "rotated": self.rotated,
                "decibels": dict(self.decibels),
                "tried": dict(self.tried),
            },
            "contractions": [asdict(_as_compiled(row, compiled)) for row in self.products],
        }


def _as_compiled(row: ProductDecision, compiled: Sequence[Decision] | None) -> ProductDecision:
    if compiled is None:
        return row
    if row.precision == FLOAT:
        made = not_in_floats(row.name, compiled)
        return row if made is None else replace(row, precision=made.precision, reason="")
    found = [told for told in compiled if told.name == row.name]
    wanted = INT8 if row.precision == DYNAMIC_INT8 else row.precision
    refused = next((told for told in found if told.precision != wanted), None)
    if refused is not None and any(told.precision == wanted for told in found):
        return replace(row, reason=f"in part {refused.precision}: {refused.reason}")
    if refused is not None:
        return replace(row, precision=refused.precision, reason=refused.reason)
    return row if found else replace(row, precision=FLOAT, reason=_UNSEEN)


def summary_of(manifest: Mapping[str, Any]) -> list[str]:
    """Lines for people, of what a manifest says of quantisation; none where it says nothing."""
    told = manifest.get("quantisation")
    rows = [ProductDecision(**row) for row in manifest.get("contractions", ())]
    integer = [row for row in rows if row.precision not in (FLOAT, INT32)]
    if told is None:
        kinds = " and ".join(dict.fromkeys(row.precision for row in integer)) or INT8
        text = f"{len(integer)} of {len(rows)} products in {kinds}"
        return [text, *_unchanged(rows)] if rows else []
    worst = min(told["decibels"].values(), default=0.0)
    if told["method"] == WEIGHTS:
        kinds = " and ".join(dict.fromkeys(row.precision for row in integer))
        text = f"{len(integer)} of {len(rows)} products in {kinds}, scales of {told['ranges']}"
        text += f"; rounding is {worst:.1f} dB below weights, or more"
        tried = told["tried"]
        if tried:
            ways = ", ".join(f"{decibels:.1f} dB {way}" for way, decibels in tried.items())
            text += f"; on {told['held_out']} samples held out the error is below the outputs by "
            text += ways
        return [text, *_unchanged(rows)]
    text = f"{len(integer)} of {len(rows)} products in {told['method']} int8"
    if told["method"] == STATIC:
        count = f"{told['samples']} samples" if told["samples"] > 1 else "the sample"
        text += f", ranges by {told['ranges']} of {count}"
        text += ", rotated" if told["rotated"] else ""
    if told["decibels"]:
        judged = told["held_out"]
        where = f"{judged} of them, each judged by what others show," if judged > 1 else "itself"
        text += f"; on {where} the error is {worst:.1f} dB below the outputs"
    return [text, *_unchanged(rows)]


def _unchanged(rows: Sequence[ProductDecision]) -> list[str]:
    """Lines about the products that stay as they were, in floats mostly."""
    kinds = {FLOAT: "floats"}
    lines = [
        f"in {kinds.get(row.precision, row.precision)}: {row.op} '{row.name}': {row.reason}"
        for row in rows
        if row.reason
    ]
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*lines[:_LISTED], *more]


def quantise(model: Path, output: Path, request: CompileRequest, folder: Path) -> Quantisation:
    """Write the quantised model to `output`, as a request for int8 says.

    Without calibration data only matrix products are quantised, by ranges that every run finds.
    folder: for what is made on the way.

    Raises UsageError where nothing can be quantised, or the data do not fit.
    """
    note = request.progress or (lambda text: None)
    note("reading the model")
    source = _source(model, request)
    if request.calibration is None:
        return _dynamic(source, output)
    if request.max_accuracy_drop is not None:
        search = BudgetSearch(source, request, folder)
        recipe, reasons, report = search.run()
        found = _written(search.calibrated, recipe, reasons, output)
        notes = tuple(dict.fromkeys((*found.notes, *search.notes)))
        return replace(found, budget=report, notes=notes)
    timer = _timer(request)
    plain = calibrate(source, request.calibration, folder, request.threads, note, timer=timer)
    told = [own.to_json() for own in (plain, *plain.faster)]
    faster = [partial(_again, model, request, own) for own in told[1:]]
    timed = partial(_timed, model, request, told[-1], folder / "parts")
    found = _written(plain, plain.recipe, plain.reasons, output)
    return replace(found, faster=(*faster, timed))


def _source(model: Path, request: CompileRequest) -> Quantisable:
    source = Quantisable(model, request.shapes)
    settle(source)
    check_quantisable(source.products)
    return source


def _again(
    model: Path, request: CompileRequest, told: Mapping[str, Any], output: Path
) -> Quantisation:
    """Write what calibration found (its JSON: models are not held while others are compiled)."""
    found = Calibrated.from_json(_source(model, request), told)
    return _written(found, found.recipe, found.reasons, output)


def _timed(
    model: Path, request: CompileRequest, told: Mapping[str, Any], folder: Path, output: Path
) -> Quantisation | None:
    """As `_again`, with those products in integers alone that are faster so, each by itself; None
    where that are all, or none."""
    found = Calibrated.from_json(_source(model, request), told)
    notes: list[str] = []
    specs = specs_of_inputs(found.source.floats(found.source.outputs))
    samples = Samples(request.calibration or (), specs, folder / "samples")
    groups, sizes = groups_of(found), check_inputs(specs, largest(samples))
    timed = GroupTimes(found, groups, request, sizes, folder, notes.append)
    saved = timed.saved(timed.times())
    slow = [key for keys, own in zip(groups, saved, strict=True) for key in keys if own <= 0]
    integer = found.recipe.integer.difference(slow)
    if not slow or not integer:
        return None
    recipe = replace(found.recipe, integer=integer)
    reasons = dict(found.reasons) | dict.fromkeys(slow, NO_FASTER)
    written = _written(found, recipe, reasons, output)
    return replace(written, notes=(*written.notes, *notes))


def _timer(request: CompileRequest) -> Timer | None:
    """What times binaries for the request's target; None where nothing does."""
    backend, target = resolve_target(request.target)
    if why_not_timed(backend, target):
        return None
    return request.timer or timer_of(target, alone=request.threads == 1)


def _written(
    found: Calibrated, recipe: Recipe, reasons: Mapping[str, str], output: Path
) -> Quantisation:
    """Write what calibration found; recipe: that, or a part of it. reasons: for what is not."""
    source = found.source
    source.save(recipe, output)
    return Quantisation(
        output,
        STATIC,
        tuple(_decision(p, recipe, reasons) for p in source.products),
        rotated=found.rotated,
        samples=found.samples,
        held_out=len(found.judged),
        ranges=found.rule,
        decibels={name: round(value, 2) for name, value in found.decibels.items()},
        tried={name: round(value, 2) for name, value in found.tried.items()},
        notes=(*source.notes, *((_ONE,) if found.shared else ()), *found.notes, *_poor(found)),
    )


def _poor(found: Calibrated) -> tuple[str, ...]:
    """A note where the error is so large that answers will differ."""
    worst = min(found.decibels.values(), default=POOR)
    return (_POOR.format(worst),) if worst < POOR else ()


def _decision(product: ModelProduct, recipe: Recipe, reasons: Mapping[str, str]) -> ProductDecision:
    if product.key not in recipe.integer:
        reason = product.reason or reasons[product.key]
        return ProductDecision(product.name, product.op, FLOAT, reason)
    if product.key in recipe.dynamic:
        precision = INT8_WEIGHTS if product.weights_only else DYNAMIC_INT8
        return ProductDecision(product.name, product.op, precision)
    limits = recipe.ranges[product.data]
    return ProductDecision(product.name, product.op, INT8, "", limits.low, limits.high)


def _dynamic(source: Quantisable, output: Path) -> Quantisation:
    fit = [p for p in source.products if not (p.reason or p.other or p.op == "Conv")]
    if not fit:
        raise UsageError(
            "without calibration data only matrix products can be quantised, and there is none",
            remedy="give --calibration: a few dozen inputs as the model gets them",
        )
    keys = frozenset(product.key for product in fit)
    source.save(Recipe(integer=keys, dynamic=keys), output)
    rows = []
    for product in source.products:
        without = _NO_DATA_FOR_DATA if product.other else _NO_DATA
        reason = product.reason or ("" if product.key in keys else without)
        kept = INT8_WEIGHTS if product.weights_only else DYNAMIC_INT8
        precision = FLOAT if reason else kept
        rows.append(ProductDecision(product.name, product.op, precision, reason))
    note = (
        "no calibration data: every run finds the ranges of what matrix products take, and "
        "convolutions stay in floats; --calibration gives faster and better models"
    )
    return Quantisation(output, DYNAMIC, tuple(rows), notes=(*source.notes, note))
