"""A decoder of 1.1 B parameters in 4 bits, made here: how it compiles, and how fast it is.

    python -m benchmarks.decoder FOLDER                  # model.onnx and model.onnx.data, 690 MB
    python -m benchmarks.decoder FOLDER --bits 8 --layers 4 --threads 2 --json out.json

The shape is that of TinyLlama (22 layers, 2048 wide, 32 heads that share 4 keys and values, 5632
within, 32000 words): MatMulNBits with blocks of 32, GroupQueryAttention, weights at random. Told
are the file, the artifact, seconds and peak memory of the compilation (a process of its own), and
milliseconds of a step with a cache of `--past` and of a prompt, the engines in turns within one
process, after their logits have been compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from .provenance import machine, revision

MS = "com.microsoft"
BLOCK = 32
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of a decoder. bits: of a weight. accuracy: MatMulNBits' accuracy_level."""

    layers: int = 22
    width: int = 2048
    heads: int = 32
    groups: int = 4
    inner: int = 5632
    words: int = 32000
    most: int = 2048  # positions
    bits: int = 4
    accuracy: int = 0

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


@dataclass
class DecoderWriter:
    """Writes a model, and its weights one by one to the file beside it."""

    path: Path
    shape: DecoderSizes
    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.data = self.path.with_suffix(".onnx.data").open("wb")

    def constant(self, name: str, array: Array) -> str:
        """A tensor of the file beside the model."""
        self.data.write(b"\0" * (-self.data.tell() % 4096))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": f"{self.path.name}.data", "offset": self.data.tell()}
        for key, value in {**place, "length": array.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.data.write(array.tobytes())
        self.tensors.append(tensor)
        return name

    def node(self, op: str, inputs: str, outputs: str, domain: str = MS, **attrs: Any) -> str:
        """A node; names are apart by spaces, "-" is an input that is not given."""
        given = ["" if name == "-" else name for name in inputs.split()]
        made = ["" if name == "-" else name for name in outputs.split()]
        self.nodes.append(helper.make_node(op, given, made, name=made[0], domain=domain, **attrs))
        return made[0]

    def weights(self, name: str, columns: int, depth: int) -> tuple[str, str]:
        """Numbers at random and scales, such that products keep the size of the data."""
        bits, blocks = self.shape.bits, depth // BLOCK
        packed = self.rng.bytes(columns * depth * bits // 8)
        numbers = np.frombuffer(packed, np.uint8).reshape(columns, blocks, BLOCK * bits // 8)
        spread = (1 << bits) / np.sqrt(12)
        scales = self.rng.uniform(0.5, 1.4, (columns, blocks)) / (spread * np.sqrt(depth))
        return self.constant(f"{name}.w", numbers), self.constant(
            f"{name}.s", scales.astype(np.float32)
        )

    def linear(self, name: str, x: str, columns: int, depth: int) -> str:
        """x times weights [depth, columns]."""
        shape = self.shape
        operands = " ".join((x, *self.weights(name, columns, depth)))
        sizes = {"N": columns, "K": depth, "block_size": BLOCK, "bits": shape.bits}
        return self.node("MatMulNBits", operands, name, **sizes, accuracy_level=shape.accuracy)

    def ones(self, name: str) -> str:
        """The scale of a norm."""
        return self.constant(name, np.ones(self.shape.width, np.float32))

    def layer(self, number: int, x: str, normed: str) -> tuple[str, str]:
        """One layer; the sum so far and its norm, before and after it."""
        s, p = self.shape, f"l{number}"
        wide, narrow = s.width, s.groups * s.head
        q, k, v = (
            self.linear(f"{p}.{name}", normed, columns, wide)
            for name, columns in (("q", wide), ("k", narrow), ("v", narrow))
        )
        cache = f"past.{number}.key past.{number}.value"
        made = f"{p}.mixed present.{number}.key present.{number}.value"
        self.node(
            "GroupQueryAttention", f"{q} {k} {v} {cache} seqlens_k total cos sin", made,
            num_heads=s.heads, kv_num_heads=s.groups, do_rotary=1,
        )  # fmt: skip
        out = self.linear(f"{p}.o", f"{p}.mixed", wide, wide)
        norm = "SkipSimplifiedLayerNormalization"
        self.node(norm, f"{x} {out} {self.ones(f'{p}.n1')}", f"{p}.a - - {p}.x", epsilon=1e-5)
        gate = self.linear(f"{p}.gate", f"{p}.a", s.inner, wide)
        up = self.linear(f"{p}.up", f"{p}.a", s.inner, wide)
        self.node("Sigmoid", gate, f"{p}.sigmoid", domain="")
        self.node("Mul", f"{gate} {p}.sigmoid", f"{p}.silu", domain="")
        self.node("Mul", f"{p}.silu {up}", f"{p}.gated", domain="")
        down = self.linear(f"{p}.down", f"{p}.gated", wide, s.inner)
        self.node(
            norm, f"{p}.x {down} {self.ones(f'{p}.n2')}", f"{p}.normed - - {p}.sum", epsilon=1e-5
        )
        return f"{p}.sum", f"{p}.normed"


def write_decoder(folder: Path, shape: DecoderSizes) -> Path:
    """Write model.onnx and model.onnx.data; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    w = DecoderWriter(path, shape)
    angles = np.outer(np.arange(shape.most), 1e4 ** -np.linspace(0, 1, shape.head // 2, False))
    w.constant("cos", np.cos(angles).astype(np.float32))
    w.constant("sin", np.sin(angles).astype(np.float32))
    table, scales = w.weights("embed", shape.words, shape.width)
    flat = w.tensors[-2]
    flat.dims[:] = [shape.words, shape.width * shape.bits // 8]
    w.node(
        "GatherBlockQuantized", f"{table} input_ids {scales}", "embedded",
        bits=shape.bits, block_size=BLOCK, quantize_axis=1, gather_axis=0,
    )  # fmt: skip
    w.node("SimplifiedLayerNormalization", f"embedded {w.ones('n0')}", "normed",
           domain="", axis=-1, epsilon=1e-5)  # fmt: skip
    x, normed = "embedded", "normed"
    for number in range(shape.layers):
        x, normed = w.layer(number, x, normed)
    w.linear("logits", normed, shape.words, shape.width)
    w.data.close()
    inputs, outputs = _interface(shape)
    graph = helper.make_graph(w.nodes, "decoder", inputs, outputs, w.tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    return path


def _interface(shape: DecoderSizes) -> tuple[list[Any], list[Any]]:
    info = helper.make_tensor_value_info
    inputs = [info("input_ids", TensorProto.INT64, ["batch", "steps"])]
    inputs.append(info("seqlens_k", TensorProto.INT32, ["batch"]))
    inputs.append(info("total", TensorProto.INT32, []))
    outputs = [info("logits", TensorProto.FLOAT, ["batch", "steps", shape.words])]
    for number in range(shape.layers):
        for part in ("key", "value"):
            past = ["batch", shape.groups, "past", shape.head]
            present = ["batch", shape.groups, "present", shape.head]
            inputs.append(info(f"past.{number}.{part}", TensorProto.FLOAT, past))
            outputs.append(info(f"present.{number}.{part}", TensorProto.FLOAT, present))
    return inputs, outputs


def feeds_of(shape: DecoderSizes, steps: int, past: int) -> dict[str, Array]:
    """Inputs of a run of so many tokens behind a cache of `past`."""
    rng = np.random.default_rng(1)
    feeds: dict[str, Array] = {
        "input_ids": rng.integers(0, shape.words, (1, steps)),
        "seqlens_k": np.array([past + steps - 1], np.int32),
        "total": np.array(past + steps, np.int32),
    }
    for number in range(shape.layers):
        for part in ("key", "value"):
            cache = rng.standard_normal((1, shape.groups, past, shape.head))
            feeds[f"past.{number}.{part}"] = cache.astype(np.float32)
    return feeds


def compiled(model: Path, threads: int) -> dict[str, Any]:
    """Compile in a process of its own: seconds, peak of its memory, size of what it makes."""
    binary, begin = model.with_suffix(".so"), time.perf_counter()
    command = ["compile", str(model), "-o", str(binary), "--threads", str(threads)]
    subprocess.run([sys.executable, "-m", "tensmith", *command], check=True)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    source = model.stat().st_size + model.with_suffix(".onnx.data").stat().st_size
    side = sum(f.stat().st_size for f in model.parent.glob(f"{binary.name}*"))
    return {
        "file_bytes": source,
        "artifact_bytes": side,
        "artifact_per_file_byte": side / source,
        "compile_seconds": seconds,
        "peak_rss": peak,
        "peak_rss_per_file_byte": peak / source,
    }


Run = Callable[[dict[str, Array]], Array]


def engines(model: Path, threads: int) -> dict[str, Run]:
    """What computes the logits of a run, by name."""
    import onnxruntime as ort

    import tensmith

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(model), options)
    module = tensmith.load(model.with_suffix(".so"), threads=threads)
    return {
        "tensmith": lambda feeds: np.asarray(module(feeds)["logits"]),
        f"onnxruntime {ort.__version__}": lambda feeds: session.run(None, feeds)[0],
    }


def measured(runs: dict[str, Run], feeds: dict[str, Array], rounds: int) -> Iterator[Any]:
    """(engine, median milliseconds, greatest difference of logits as a share of their peak)."""
    answers = {name: run(feeds) for name, run in runs.items()}
    first = next(iter(answers.values()))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run(feeds)
            times[name].append(time.perf_counter() - begin)
    for name, answer in answers.items():
        apart = float(np.abs(answer - first).max() / np.abs(first).max())
        yield name, 1e3 * float(np.median(times[name])), apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=DecoderSizes.layers)
    parser.add_argument("--bits", type=int, default=4, choices=(4, 8))
    parser.add_argument("--accuracy-level", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--past", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = DecoderSizes(layers=given.layers, bits=given.bits, accuracy=given.accuracy_level)
    model = write_decoder(given.folder, shape)
    result: dict[str, Any] = {"machine": machine(), "revision": revision()}
    result |= compiled(model, given.threads)
    runs = engines(model, given.threads)
    rows = {"step": (1, given.past), "prompt": (given.prompt, 0)}
    for kind, (steps, past) in rows.items():
        rounds = given.rounds if kind == "step" else max(2, given.rounds // 4)
        found = measured(runs, feeds_of(shape, steps, past), rounds)
        result[kind] = [
            {"engine": name, "ms": ms, "tokens_per_s": 1e3 * steps / ms, "difference": apart}
            for name, ms, apart in found
        ]
    text = json.dumps(result, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
