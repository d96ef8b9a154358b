"""Rewrites of a model file that people make with ONNX Runtime's tools before they deploy it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

Inputs = list[dict[str, np.ndarray]]


class _Samples(CalibrationDataReader):
    """The inputs of the first size, once."""

    def __init__(self, inputs: Inputs) -> None:
        self._left: Iterator[dict[str, np.ndarray]] = iter(inputs[:1])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next set of inputs, None at the end."""
        return next(self._left, None)


def _optimised(source: Path, target: Path, inputs: Inputs) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _dynamic(source: Path, target: Path, inputs: Inputs) -> None:
    quantize_dynamic(source, target, weight_type=ort.quantization.QuantType.QInt8)


def _qdq(source: Path, target: Path, inputs: Inputs) -> None:
    quantize_static(source, target, _Samples(inputs), quant_format=QuantFormat.QDQ)


def _half(source: Path, target: Path, inputs: Inputs) -> None:
    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


REWRITES: dict[str, Callable[[Path, Path, Inputs], None]] = {
    "optimised": _optimised,
    "dynamic": _dynamic,
    "qdq": _qdq,
    "half": _half,
}


def rewrite(kind: str, source: Path, target: Path, inputs: Inputs) -> None:
    """Write a rewrite of a model; whatever the tool raises is the caller's."""
    logging.getLogger().setLevel(logging.ERROR)
    REWRITES[kind](source, target, inputs)
