"""`verify --layers`: both checks of layers, which are never merged.

Whether the code is right: the compiled model against the reference of the same graph
(`layers.py`). And, of what was quantised, where it loses accuracy: that graph against the model of
floats (`layer_noise.py`), which nothing judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..compiler.errors import TensmithError
from ..compiler.knobs import VERIFY_TIME
from .api import compile_request
from .artifacts import Artifact
from .calibration import CalibrationData, Samples, repeatable, specs_of_inputs
from .compare import Tolerance
from .layer_noise import NoiseReport, layer_noise
from .layers import LayerReport, verify_layers
from .model_build import import_model
from .processes import DeadlineError
from .request import INT8, WEIGHT_BITS, CompileRequest, reference_precision
from .shapes import DimSpec, shape_of

Array = np.ndarray[Any, Any]
Draws = Sequence[tuple[Mapping[str, int], int]]


@dataclass
class LayerChecks:
    """code: of the compiled model. noise: of quantising, None where nothing was; why: nothing."""

    code: LayerReport
    noise: NoiseReport | None = None
    why: str = ""

    def summary(self) -> list[str]:
        """Lines for people."""
        lines = [self.code.summary()]
        if self.noise:
            lines.append(self.noise.summary())
        elif self.why:
            lines.append(f"where quantising loses accuracy is not known: {self.why}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "code": self.code.to_json(),
            "noise": self.noise.to_json() if self.noise else None,
            "noise_missing": self.why,
        }

    def error(self) -> TensmithError | None:
        """That of the code; accuracy is told, not judged."""
        return self.code.error()


def check_layers(
    model: Path,
    artifact: Artifact,
    request: CompileRequest,
    inputs: Mapping[str, Array] | None = None,
    *,
    draws: Draws = (),
    tolerance: Tolerance | None = None,
    time_limit: float | None = None,
    folder: Path,
) -> LayerChecks:
    """Both checks of an artifact that was compiled of a model file as a request says.

    inputs: by name; without them those of the first calibration sample, or random ones of the first
    of `draws` (sizes of symbolic dims, seed). time_limit: seconds for each check. folder: for what
    calibration data are kept in.
    """
    samples = _samples(model, request, folder) if inputs is None else [inputs]
    given = next(iter(samples)) if samples else artifact.sampler.draw(*_first(artifact, draws))
    precision = reference_precision(request.precision)
    given_limits = replace(tolerance or Tolerance(), quantised=artifact.sampler.quantised)
    limits = given_limits.of("reference", precision)
    code = verify_layers(artifact.compiled, request, given, limits, time_limit)
    if request.precision not in (INT8, *WEIGHT_BITS):
        return LayerChecks(code)
    note = request.progress or (lambda text: None)
    try:
        shapes = request.shapes
        noise = layer_noise(model, artifact.compiled, shapes, samples or [given], note, time_limit)
    except DeadlineError:
        return LayerChecks(code, why=f"the time limit of {time_limit:g} s passed")
    return LayerChecks(code, noise)


def _samples(
    model: Path, request: CompileRequest, folder: Path
) -> Iterable[Mapping[str, Array]] | None:
    """The calibration samples of a request; None where it has none."""
    if request.calibration is None:
        return None
    specs = specs_of_inputs(import_model(model, request.shapes))
    return Samples(request.calibration, specs, folder / "layer_samples")


def _first(artifact: Artifact, draws: Draws) -> tuple[Mapping[str, int], int]:
    return draws[0] if draws else (next(iter(artifact.sampler.candidate_sizes())), 0)


def layers(
    model: str | Path,
    inputs: Mapping[str, Array] | None = None,
    *,
    target: str = "native",
    precision: str = "fp32",
    calibration: CalibrationData | None = None,
    threads: int = 1,
    opt_level: int = 2,
    shapes: Mapping[str, Sequence[DimSpec] | str] | None = None,
    tolerance: Tolerance | None = None,
    time_limit: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> LayerChecks:
    """Compile an ONNX file and compare it layer by layer; the options are those of `compile`.

    inputs: arrays by name; by default a calibration sample, or random ones. tolerance: see
    `driver/compare.py`. time_limit: seconds for each check (default: the knob verify_time).
    Raises as `compile`; a difference is in the report.
    """
    from ..compiler.scratch import temporary_folder

    with temporary_folder("tensmith-samples-") as folder:
        request = CompileRequest(
            target=target,
            precision=precision,
            calibration=repeatable(calibration, Path(folder) / "calibration"),
            threads=threads,
            opt_level=opt_level,
            shapes={key: shape_of(key, dims) for key, dims in (shapes or {}).items()},
            progress=progress,
            force_precision=True,
        )
        artifact = compile_request(Path(model), request)
        limit = float(VERIFY_TIME.value) if time_limit is None else time_limit
        drawn = inputs is None
        draws = artifact.verify(time_limit=limit, tolerance=tolerance).draws if drawn else []
        return check_layers(
            Path(model),
            artifact,
            request,
            inputs,
            draws=draws,
            tolerance=tolerance,
            time_limit=limit,
            folder=Path(folder),
        )
