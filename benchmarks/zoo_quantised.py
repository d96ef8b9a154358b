"""Models of the zoo in 8 bits, as ONNX Runtime's quantiser writes them.

    python -m benchmarks.zoo_quantised resnet18 bert-base   # zoo/resnet18-qdq, zoo/bert-base-qdq
    python -m benchmarks.zoo_quantised --inputs resnet18    # zoo/resnet18-qdq-inputs

QuantizeLinear and DequantizeLinear around every operator that it knows, or in front of products and
convolutions alone, as other quantisers place them; u8 data by one scale for a tensor, s8 weights by
one for each output channel, ranges those of the model's own inputs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .cases import ZOO

PRODUCTS = ["Conv", "Gemm", "MatMul"]  # of which the inputs alone may be quantised


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    """The input sets of a model, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.left: Iterator[Path] = iter(sorted(folder.glob("inputs*.npz")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next set by input name, None behind the last."""
        path = next(self.left, None)
        return None if path is None else dict(np.load(path))


def quantise(source: Path, output: Path, inputs_only: bool = False) -> None:
    """Write a folder of the zoo with the quantised model of another, and its inputs.

    inputs_only: of products and convolutions, and nothing else.
    """
    only = {"OpTypesToExcludeOutputQuantization": PRODUCTS} if inputs_only else {}
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source / "model.onnx"), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(output / "model.onnx"),
            _Inputs(source),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=PRODUCTS if inputs_only else None,
            extra_options=only,
        )
    for path in source.glob("inputs*.npz"):
        shutil.copy(path, output)


def main() -> None:
    """Quantise the named models of the zoo."""
    parser = argparse.ArgumentParser(description="Quantise models of the benchmark zoo.")
    parser.add_argument("models", nargs="+", metavar="NAME", help="models that were exported")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="folder of the zoo")
    parser.add_argument("--inputs", action="store_true", help="of products and convolutions alone")
    given = parser.parse_args()
    for name in given.models:
        output = given.zoo / f"{name}-qdq{'-inputs' if given.inputs else ''}"
        quantise(given.zoo / name, output, given.inputs)
        print(f"{output}: {(output / 'model.onnx').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
