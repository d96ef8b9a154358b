"""What a GPU is measured with, made on any machine: libraries, inputs, outputs, torch programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tensmith

SEED = 7
MODELS = ("resnet50", "mobilenet_v2", "vit-small", "bert-base", "gpt2", "llama-decode")
BATCHES = (1, 8, 32)
PRECISIONS = ("fp32", "tf32", "fp16")
GEMMS = ((4096, 4096, 4096), (128, 3072, 768), (512, 768, 3072), (1, 4096, 4096))
CONVS = ((1, 256, 14, 256, 3), (32, 256, 14, 256, 3), (32, 64, 56, 64, 3), (32, 256, 56, 64, 1))
ATTENTIONS = ((1, 12, 128, 64), (16, 12, 512, 64), (4, 32, 2048, 128))
INDEX = "builds.json"


@dataclass(frozen=True)
class GpuBuild:
    """One library and what it is compared with; paths are relative to the folder of builds.

    kind: "model", or "gemm" (m, n, k), "conv" (batch, channels, size, outputs, taps), "attention"
    (batch, heads, length, depth), with those sizes. program: what `torch.export` saved, for peers.
    flops: of a run, 0 where nobody counted.
    """

    name: str
    kind: str
    precision: str
    batch: int
    library: str
    inputs: str
    outputs: str
    program: str = ""
    sizes: tuple[int, ...] = ()
    flops: int = 0


def read_builds(folder: Path) -> list[GpuBuild]:
    """The builds of a folder. Raises FileNotFoundError where none were made."""
    index = folder / INDEX
    if not index.exists():
        raise FileNotFoundError(f"{index} is not there: make it by --build")
    found = json.loads(index.read_text())
    return [GpuBuild(**{**entry, "sizes": tuple(entry["sizes"])}) for entry in found]


def add_build(folder: Path, build: GpuBuild) -> None:
    """Note a build that is complete."""
    index = folder / INDEX
    known = [b for b in (read_builds(folder) if index.exists() else []) if b.name != build.name]
    text = json.dumps([asdict(b) for b in (*known, build)], indent=1)
    index.write_text(text + "\n")


def make_builds(
    folder: Path, models: Sequence[str], batches: Sequence[int], precisions: Sequence[str]
) -> Iterator[str]:
    """Make what is not there yet, and tell of each; torch and transformers export models."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {build.name for build in read_builds(folder)} if (folder / INDEX).exists() else set()
    for name in models:
        for batch in batches:
            names = {p: f"{name}-b{batch}-{p}" for p in precisions}
            if set(names.values()) <= made:
                continue
            stem = f"{name}-b{batch}"
            source, inputs, program = _exported(folder, name, batch, stem)
            for precision, full in names.items():
                if full not in made:
                    build = GpuBuild(full, "model", precision, batch, "", inputs, "", program)
                    add_build(folder, compiled(folder, build, folder / source))
                    yield full
            (folder / source).unlink()
    for model, build in sweeps():
        if build.name not in made:
            path = folder / f"{build.name}.onnx"
            onnx.save(model, path)
            add_build(folder, compiled(folder, build, path))
            path.unlink()
            yield build.name


def compiled(folder: Path, build: GpuBuild, source: Path, target: str = "cuda") -> GpuBuild:
    """The build with its library, inputs and what outputs have to be: those of a processor."""
    wanted = {"fp16": {"precision": "fp16"}, "tf32": {"precision": "tf32"}}
    of_sweep = build.kind != "model"  # their files have the elements that they are measured with
    options: dict[str, Any] = {} if of_sweep else dict(wanted.get(build.precision, {}))
    if options:
        options["force_precision"] = True
    artifact = tensmith.compile(source, target=target, **options)
    artifact.save(folder / f"{build.name}.so")
    inputs = build.inputs or f"{build.name}.inputs.npz"
    if not build.inputs:
        np.savez(folder / inputs, **drawn(source))
    with np.load(folder / inputs) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    outputs = f"{build.name}.outputs.npz"
    np.savez(folder / outputs, **tensmith.compile(source).load()(feed))
    return replace(build, library=f"{build.name}.so", inputs=inputs, outputs=outputs)


def drawn(source: Path) -> dict[str, Any]:
    """Seeded inputs of a file."""
    generator = np.random.default_rng(SEED)
    found = {}
    for value in onnx.load(source).graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = generator.standard_normal(shape).astype(dtype)
    return found


def _exported(folder: Path, name: str, batch: int, stem: str) -> tuple[str, str, str]:
    """The names of the files of a model of the zoo with a batch: ONNX, inputs, torch program."""
    import torch

    from .zoo import build, flatten, write_model

    spec = build(name)

    def many(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.repeat(batch, *[1] * (value.dim() - 1))
        if isinstance(value, dict):
            return {key: many(item) for key, item in value.items()}
        return type(value)(many(item) for item in value)

    spec = replace(spec, example=many(spec.example), dynamic=None)
    write_model(spec, folder / f"{stem}.onnx")
    tensors = zip(spec.names, flatten(spec.example), strict=True)
    np.savez(folder / f"{stem}.npz", **{key: tensor.numpy() for key, tensor in tensors})
    with torch.no_grad():
        program = torch.export.export(spec.module, (), kwargs=spec.example)
    torch.export.save(program, folder / f"{stem}.pt2")
    return f"{stem}.onnx", f"{stem}.npz", f"{stem}.pt2"


# single operators -------------------------------------------------------------------------------


def sweeps() -> Iterator[tuple[onnx.ModelProto, GpuBuild]]:
    """Products, convolutions and attention in halves, each a model."""
    for m, n, k in GEMMS:
        yield gemm(m, n, k)
    for sizes in CONVS:
        yield conv(*sizes)
    for sizes in ATTENTIONS:
        yield attention(*sizes)


def _build(kind: str, sizes: tuple[int, ...], flops: int) -> GpuBuild:
    name = f"{kind}-{'x'.join(map(str, sizes))}"
    return GpuBuild(name, kind, "fp16", 1, "", "", "", sizes=sizes, flops=flops)


def _model(
    nodes: list[Any], inputs: dict[str, tuple[int, ...]], constants: dict[str, Any]
) -> onnx.ModelProto:
    kind = TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes, "operator",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(held, "f2"), name) for name, held in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def gemm(m: int, n: int, k: int) -> tuple[onnx.ModelProto, GpuBuild]:
    """[m, k] by a constant [k, n]."""
    weights = np.random.default_rng(SEED).standard_normal((k, n)) / k**0.5
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (m, k)}, {"w": weights})
    return model, _build("gemm", (m, n, k), 2 * m * n * k)


def conv(
    batch: int, channels: int, size: int, outputs: int, taps: int
) -> tuple[onnx.ModelProto, GpuBuild]:
    """A convolution that keeps the size of its pictures."""
    shape = outputs, channels, taps, taps
    weights = np.random.default_rng(SEED).standard_normal(shape) / (channels * taps * taps) ** 0.5
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[taps // 2] * 4)]
    model = _model(nodes, {"x": (batch, channels, size, size)}, {"w": weights})
    flops = 2 * batch * size * size * int(np.prod(shape))
    return model, _build("conv", (batch, channels, size, outputs, taps), flops)


def attention(batch: int, heads: int, length: int, depth: int) -> tuple[onnx.ModelProto, GpuBuild]:
    """Scores, their softmax, and what they weigh."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=3),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    shape = batch, heads, length, depth
    model = _model(nodes, dict.fromkeys("qkv", shape), {"scale": np.array(depth**-0.5)})
    return model, _build("attention", shape, 4 * batch * heads * length * length * depth)
