"""What is measured: models on disk with their inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ZOO = Path(__file__).resolve().parent / "zoo"
SEED = 7


@dataclass(frozen=True)
class Case:
    """A model and its input sets: the first is timed, outputs are compared on all.

    per_step: for each set, the inputs that stack the steps of a sequence along their leading axis.
    """

    name: str
    model: Path
    inputs: tuple[Path, ...]
    per_step: tuple[tuple[str, ...], ...]


def find_cases(names: list[str], scratch: Path) -> list[Case]:
    """Cases for names of the exported zoo, folders that hold `model.onnx` (or hold such folders),
    and .onnx files. Where no inputs lie beside a model, seeded ones are written to `scratch`.

    Raises FileNotFoundError for what is none of these.
    """
    cases: list[Case] = []
    for name in names:
        path = ZOO / name if (ZOO / name / "model.onnx").exists() else Path(name)
        if path.is_file():
            models = [path]
        else:
            models = sorted(path.glob("model.onnx")) or sorted(path.rglob("model.onnx"))
        if not models:
            raise FileNotFoundError(
                f"{name}: neither a model nor one of the exported zoo "
                f"(export it: python -m benchmarks.zoo {name})"
            )
        cases += [_case(model, scratch) for model in models]
    return cases


def exported_zoo() -> list[str]:
    """Names of the models in the zoo folder."""
    return sorted(path.parent.name for path in ZOO.glob("*/model.onnx"))


def _case(model: Path, scratch: Path) -> Case:
    folder = model.parent
    name = folder.name if model.name == "model.onnx" else model.stem
    inputs: list[Path] = []
    if model.name == "model.onnx":
        first = folder / "inputs.npz"
        numbered = sorted(folder.glob("inputs_*.npz"), key=lambda p: int(p.stem.split("_")[1]))
        inputs = [*([first] if first.exists() else []), *numbered]
    if not inputs:
        return Case(name, model, (random_inputs(model, scratch / f"{name}.npz"),), ((),))
    sets: dict[str, list[str]] = {}
    meta = folder / "meta.json"
    if meta.exists():
        for entry in json.loads(meta.read_text()).get("sets", []):
            sets[entry["file"]] = entry.get("per_step_inputs", [])
    return Case(name, model, tuple(inputs), tuple(tuple(sets.get(p.name, [])) for p in inputs))


def random_inputs(model: Path, path: Path) -> Path:
    """Write seeded inputs for the declared shapes (a symbolic dimension is 1): floating point
    standard normal, integers and booleans 0 or 1."""
    import onnx

    generator = np.random.default_rng(SEED)
    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    arrays: dict[str, Any] = {}
    for value in graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else 1 for d in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.issubdtype(dtype, np.floating):
            arrays[value.name] = generator.standard_normal(shape).astype(dtype)
        else:
            arrays[value.name] = generator.integers(0, 2, shape).astype(dtype)
    np.savez(path, **arrays)
    return path
