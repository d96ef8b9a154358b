"""What a GPU is measured with, made on any machine: libraries, inputs, outputs of a processor.

Large weights are one pattern of numbers over and over, so that libraries are small when they are
compressed, and soon copied to the machine with the GPU. The pattern's length is a prime number, so
every row of a matrix begins at another of its places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import tensmith

from .gpu_index import INDEX, GpuBuild, add_build, arrays_of, pack, read_builds, sample

SEED = 7
MODELS = ("resnet50", "mobilenet_v2", "vit-small", "bert-base", "gpt2", "llama-decode")
BATCHES = (1, 8, 32)
PRECISIONS = ("fp16", "tf32", "fp32")
GEMMS = ((4096, 4096, 4096), (128, 3072, 768), (512, 768, 3072), (1, 4096, 4096))
CONVS = ((1, 256, 14, 256, 3), (32, 256, 14, 256, 3), (32, 64, 56, 64, 3), (32, 256, 56, 64, 1))
ATTENTIONS = ((1, 12, 128, 64), (16, 12, 512, 64), (4, 32, 2048, 128))
CHAINS = (1, 65)
PATTERN = 4093  # elements: every layout of a matrix shows it anew, so files grow with it
WIDTH = 64  # of the products of a chain


def make_builds(
    folder: Path,
    models: Sequence[str],
    batches: Sequence[int],
    precisions: Sequence[str],
    target: str = "cuda",
) -> Iterator[str]:
    """Make what is not there yet, and tell of each: single operators, then models, of which torch
    and transformers export the graphs, small batches first."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {build.name for build in read_builds(folder)} if (folder / INDEX).exists() else set()
    for model, build in sweeps():
        if build.name not in made:
            path = folder / f"{build.name}.onnx"
            onnx.save(model, path)
            add_build(folder, compiled(folder, build, path, target))
            path.unlink()
            yield build.name
    for batch in batches:
        for name in models:
            names = {p: f"{name}-b{batch}-{p}" for p in precisions}
            if set(names.values()) <= made:
                continue
            source, inputs = _exported(folder, name, batch, f"{name}-b{batch}")
            for precision, full in names.items():
                if full not in made:
                    build = GpuBuild(full, "model", precision, batch, "", inputs, "", name)
                    add_build(folder, compiled(folder, build, folder / source, target))
                    yield full
            (folder / source).unlink()


def compiled(folder: Path, build: GpuBuild, source: Path, target: str = "cuda") -> GpuBuild:
    """The build with its library, inputs and what outputs have to be: those of a processor."""
    wanted = {"fp16": {"precision": "fp16"}, "tf32": {"precision": "tf32"}}
    of_sweep = build.kind != "model"  # their files have the elements that they are measured with
    options: dict[str, Any] = {} if of_sweep else dict(wanted.get(build.precision, {}))
    if options:
        options["force_precision"] = True
    artifact = tensmith.compile(source, target=target, **options)
    library = folder / f"{build.name}.so"
    artifact.save(library)
    pack(library)
    inputs = build.inputs or f"{build.name}.inputs.npz"
    if not build.inputs:
        _save(folder / inputs, drawn(source))
    outputs = f"{build.name}.outputs.npz"
    found = tensmith.compile(source).load()(arrays_of(folder, inputs))
    _save(folder / outputs, {name: sample(array) for name, array in found.items()})
    (folder / inputs).unlink(missing_ok=True)  # packed, they are still there
    return replace(build, library=library.name, inputs=inputs, outputs=outputs)


def patterned(shape: Sequence[int], spread: float, seed: int = SEED) -> Any:
    """Floats of one pattern over and over. spread: their standard deviation."""
    pattern = np.random.default_rng(seed).standard_normal(PATTERN) * spread
    return np.resize(pattern, shape).astype(np.float32)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)
    pack(path)


def drawn(source: Path) -> dict[str, Any]:
    """Seeded inputs of a file."""
    found = {}
    for number, value in enumerate(onnx.load(source).graph.input):
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        found[value.name] = patterned(shape, 1.0, SEED + number).astype(dtype)
    return found


def _exported(folder: Path, name: str, batch: int, stem: str) -> tuple[str, str]:
    """The names of the files of a model of the zoo with a batch: ONNX, inputs."""
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
    _repeat_patterns(folder / f"{stem}.onnx")
    tensors = zip(spec.names, flatten(spec.example), strict=True)
    _save(folder / f"{stem}.npz", {key: tensor.numpy() for key, tensor in tensors})
    return f"{stem}.onnx", f"{stem}.npz"


def _repeat_patterns(path: Path) -> None:
    """Give the large matrices of a file weights of one pattern, as widely spread as theirs."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > PATTERN:
            spread = float(numpy_helper.to_array(tensor).std())
            new = numpy_helper.from_array(patterned(tuple(tensor.dims), spread), tensor.name)
            tensor.CopyFrom(new)
    onnx.save(model, path)


# single operators -------------------------------------------------------------------------------


def sweeps() -> Iterator[tuple[onnx.ModelProto, GpuBuild]]:
    """Products, convolutions, attention and chains of launches in halves, each a model."""
    for sizes in GEMMS:
        yield gemm(*sizes)
    for shape in ATTENTIONS:
        yield attention(*shape)
    for launches in CHAINS:
        yield chain(launches)
    for dims in CONVS:
        yield conv(*dims)


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
    weights = patterned((k, n), k**-0.5)
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (m, k)}, {"w": weights})
    return model, _build("gemm", (m, n, k), 2 * m * n * k)


def conv(
    batch: int, channels: int, size: int, outputs: int, taps: int
) -> tuple[onnx.ModelProto, GpuBuild]:
    """A convolution that keeps the size of its pictures."""
    shape = outputs, channels, taps, taps
    weights = patterned(shape, (channels * taps * taps) ** -0.5)
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


def chain(launches: int) -> tuple[onnx.ModelProto, GpuBuild]:
    """Small products, each of the one before: one launch each, which takes next to no time."""
    weights = patterned((WIDTH, WIDTH), WIDTH**-0.5)
    names = ["x", *(f"h{n}" for n in range(1, launches)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, "w"], [after]) for before, after in pairwise(names)
    ]
    model = _model(nodes, {"x": (16, WIDTH)}, {"w": weights})
    return model, _build("chain", (launches,), 0)
