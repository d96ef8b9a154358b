"""Export the benchmark zoo: architectures of `transformers` with seeded random weights, as ONNX.

    python -m benchmarks.zoo                    # every model
    python -m benchmarks.zoo resnet18 gpt2      # some
    python -m benchmarks.zoo --more             # further architectures, of zoo_more.py
    python -m benchmarks.zoo --batch resnet50   # with a symbolic batch, into zoo/batch/
    python -m benchmarks.zoo --list

Every model gets a folder in `benchmarks/zoo/`: `model.onnx` (weights inside, opset 18),
`inputs.npz` (arrays by input name), for models with symbolic dimensions `inputs_1.npz`, ...
(other shapes), and `meta.json`. Nothing is downloaded. Engines are compared on their outputs, so
the weights keep activations near unit variance through the depth: projections are drawn with
variance 1/fan_in, and BatchNorm statistics are those of a forward pass over seeded pictures.

The graphs come from torch's `dynamo` exporter: it folds BatchNorm into convolutions and padding
into `Conv`, and its shapes are exact. The TorchScript exporter writes ten times the nodes for the
same network (mobilenet_v2: 1093 against 100), most of them shape arithmetic.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .zoo_modules import Classifier, DecodeStep, Encoder, LanguageModel

ZOO = Path(__file__).resolve().parent / "zoo"
OPSET = 18
SEED = 20240501
SEQUENCE = 128  # tokens, bert-base and gpt2
PAST = 256  # cached tokens, decode step
TOLERANCE = 1e-4  # of the peak: ONNX Runtime against torch
BATCHES = (1, 8, 32)  # of the samples of models with a symbolic batch


@dataclass(frozen=True)
class ZooModel:
    """A network and what it is exported with.

    example: inputs by argument name, for tracing; a list stands for several model inputs.
    samples: the input sets that are stored, each shaped as `example` is, up to dynamic dimensions.
    names: model input names, outputs: model output names, both flattened.
    dynamic: per argument, `{axis: symbol}` (or a list of them), None: all shapes are fixed.
    """

    module: nn.Module
    example: dict[str, Any]
    samples: list[dict[str, Any]]
    names: list[str]
    outputs: list[str]
    dynamic: dict[str, Any] | None = None


def randomise(model: nn.Module) -> None:
    """Draw all parameters: projections N(0, 1/fan_in), embeddings N(0, 1/width), scales near 1."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=float(module.weight[0].numel()) ** -0.5)
        elif isinstance(module, Conv1D):
            nn.init.normal_(module.weight, std=module.nx**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
        elif getattr(module, "weight", None) is not None:  # normalisations
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "position_embeddings")):
            nn.init.normal_(parameter, std=0.5)


def calibrate_batch_norm(model: nn.Module, pictures: Tensor) -> None:
    """Set running means and variances to those of one forward pass over `pictures`."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(pictures)
    model.eval()


def pictures(batch: int, size: int) -> Tensor:
    """Seeded pictures f32[batch,3,size,size] of about unit variance with structure at all scales,
    as photographs have: white noise alone would average out in a global pool."""
    total = torch.zeros(batch, 3, size, size)
    for cells in (4, 14, 56):
        noise = torch.randn(batch, 3, cells, cells)
        total += nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
    return total + 0.3 * torch.randn(total.shape)


def vision(model: nn.Module, size: int = 224) -> ZooModel:
    randomise(model)
    classifier = Classifier(model).eval()
    calibrate_batch_norm(classifier, pictures(16, size))
    inputs = {"pixel_values": pictures(1, size)}
    return ZooModel(classifier, inputs, [inputs], ["pixel_values"], ["logits"])


def resnet(hidden: list[int], depths: list[int], layer: str) -> ZooModel:
    config = tf.ResNetConfig(hidden_sizes=hidden, depths=depths, layer_type=layer, num_labels=1000)
    return vision(tf.ResNetForImageClassification(config))


def efficientnet_b0() -> ZooModel:
    config = tf.EfficientNetConfig(
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=224,
        hidden_dim=1280,
        dropout_rate=0.2,
        num_labels=1000,
    )
    return vision(tf.EfficientNetForImageClassification(config))


def vit_small() -> ZooModel:
    config = tf.ViTConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        num_labels=1000,
        attn_implementation="eager",
    )
    return vision(tf.ViTForImageClassification(config))


def token_batch(batch: int, sequence: int, vocabulary: int) -> dict[str, Tensor]:
    """Token ids, a mask whose last eighth is padding, and two segments: i64[batch,sequence]."""
    mask = torch.ones(batch, sequence, dtype=torch.int64)
    mask[:, sequence - sequence // 8 :] = 0
    types = torch.zeros_like(mask)
    types[:, sequence // 2 :] = 1
    ids = torch.randint(0, vocabulary, (batch, sequence))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def bert_base(dynamic: bool) -> ZooModel:
    config = tf.BertConfig(attn_implementation="eager")
    model = tf.BertModel(config)
    randomise(model)
    samples = [token_batch(1, SEQUENCE, config.vocab_size)]
    axes = None
    if dynamic:
        samples += [token_batch(b, s, config.vocab_size) for b, s in ((3, 77), (2, 17))]
        axes = {name: {0: "batch", 1: "sequence"} for name in samples[0]}
    names = list(samples[0])
    outputs = ["last_hidden_state", "pooler_output"]
    return ZooModel(Encoder(model).eval(), samples[-1], samples, names, outputs, axes)


def gpt2() -> ZooModel:
    config = tf.GPT2Config(attn_implementation="eager")
    model = tf.GPT2LMHeadModel(config)
    randomise(model)
    inputs = {"input_ids": torch.randint(0, config.vocab_size, (1, SEQUENCE))}
    return ZooModel(LanguageModel(model).eval(), inputs, [inputs], ["input_ids"], ["logits"])


def llama_decode(dynamic: bool) -> ZooModel:
    """The shape of SmolLM-135M."""
    config = tf.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    model = tf.LlamaForCausalLM(config)
    randomise(model)

    def step(batch: int, past: int) -> dict[str, Any]:
        shape = (batch, config.num_key_value_heads, past, config.head_dim)
        return {
            "input_ids": torch.randint(0, config.vocab_size, (batch, 1)),
            "position_ids": torch.full((batch, 1), past),
            "past": [torch.randn(shape) for _ in range(2 * config.num_hidden_layers)],
        }

    samples = [step(1, PAST)]
    axes: dict[str, Any] | None = None
    if dynamic:
        samples += [step(3, 100), step(2, 31)]
        axes = {"input_ids": {0: "batch"}, "position_ids": {0: "batch"}}
        axes["past"] = [{0: "batch", 2: "past"}] * (2 * config.num_hidden_layers)
    slots = [f"{i}.{kind}" for i in range(config.num_hidden_layers) for kind in ("key", "value")]
    names = ["input_ids", "position_ids", *(f"past_key_values.{slot}" for slot in slots)]
    outputs = ["logits", *(f"present.{slot}" for slot in slots)]
    return ZooModel(DecodeStep(model).eval(), samples[-1], samples, names, outputs, axes)


MODELS: dict[str, Callable[[], ZooModel]] = {
    "resnet18": lambda: resnet([64, 128, 256, 512], [2, 2, 2, 2], "basic"),
    "mobilenet_v2": lambda: vision(
        tf.MobileNetV2ForImageClassification(tf.MobileNetV2Config(num_labels=1000))
    ),
    "bert-base": lambda: bert_base(dynamic=False),
    "resnet50": lambda: resnet([256, 512, 1024, 2048], [3, 4, 6, 3], "bottleneck"),
    "efficientnet_b0": efficientnet_b0,
    "vit-small": vit_small,
    "gpt2": gpt2,
    "llama-decode": lambda: llama_decode(dynamic=False),
    "bert-base-dyn": lambda: bert_base(dynamic=True),
    "llama-decode-dyn": lambda: llama_decode(dynamic=True),
}


class UnbatchedError(ValueError):
    """A model has no variant with a symbolic batch; the text says why."""


def batched(spec: ZooModel) -> ZooModel:
    """The model with a symbolic batch as axis 0 of every input, where `spec` has a batch of one.

    Samples are the example shifted along its last axis, once for each place of the batch. Raises
    UnbatchedError for other models.
    """
    if spec.dynamic is not None:
        raise UnbatchedError("its dimensions are symbolic already: export it without --batch")
    for name, x in spec.example.items():
        if not isinstance(x, Tensor):
            raise UnbatchedError(f"'{name}' is a list of inputs, --batch is for single ones")
        if x.shape[:1] != (1,):
            raise UnbatchedError(f"axis 0 of '{name}' is no batch of one")

    def sample(count: int) -> dict[str, Any]:
        return {
            name: torch.cat([x.roll(5 * i, -1) for i in range(count)])
            for name, x in spec.example.items()
        }

    axes = {name: {0: "batch"} for name in spec.example}
    samples = [sample(count) for count in BATCHES]
    return ZooModel(spec.module, sample(2), samples, spec.names, spec.outputs, axes)


def flatten(value: Any) -> Iterator[Tensor]:
    """Tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from flatten(item)


def write_model(spec: ZooModel, path: Path) -> None:
    """Export `spec` to `path` as one file, with the names of the spec."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            spec.module,
            kwargs=spec.example,
            dynamo=True,
            opset_version=OPSET,
            input_names=spec.names,
            output_names=spec.outputs,
            dynamic_shapes=spec.dynamic,
            verbose=False,
        )
    for node in program.model.graph.all_nodes():  # source lines and paths of this machine
        node.metadata_props.clear()
    program.save(path, external_data=False)


def check(spec: ZooModel, folder: Path) -> float:
    """Compare ONNX Runtime with torch on all samples; the largest difference relative to the peak.

    Raises RuntimeError when they differ, or when an output says nothing (not finite, constant).
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for sample in spec.samples:
        feed = {n: t.numpy() for n, t in zip(spec.names, flatten(sample), strict=True)}
        with torch.no_grad():
            expected = [t.numpy() for t in flatten(spec.module(**sample))]
        for name, a, b in zip(spec.outputs, session.run(None, feed), expected, strict=True):
            peak = float(np.abs(b).max())
            spread = float(b.std())
            if not np.isfinite(b).all() or not 1e-3 < spread < 1e3:
                raise RuntimeError(f"{folder.name}: output {name} has standard deviation {spread}")
            worst = max(worst, float(np.abs(a - b).max()) / peak)
    if worst > TOLERANCE:
        raise RuntimeError(f"{folder.name}: ONNX Runtime differs from torch by {worst:.2g} of peak")
    return worst


def known() -> dict[str, Callable[[], ZooModel]]:
    """All models by name, the further ones too."""
    from .zoo_more import MORE  # it uses this module

    return {**MODELS, **MORE}


def build(name: str) -> ZooModel:
    """The network `name` of `known()` with its weights and inputs: the same in every process."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        return known()[name]()


def export(name: str, root: Path = ZOO, batch: bool = False) -> Path:
    """Export one model of `known()` into `root/name`, check it, return its folder.

    batch: with a symbolic batch, into `root/batch/name`. Raises UnbatchedError for a model without
    such a variant.
    """
    started = time.perf_counter()
    spec = build(name)
    if batch:
        root, spec = root / "batch", batched(spec)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "partial.onnx"
    write_model(spec, partial)
    os.replace(partial, folder / "model.onnx")
    for index, sample in enumerate(spec.samples):
        arrays = {n: t.numpy() for n, t in zip(spec.names, flatten(sample), strict=True)}
        np.savez(folder / (f"inputs_{index}.npz" if index else "inputs.npz"), **arrays)
    difference = check(spec, folder)
    meta = {
        "name": name,
        "seed": SEED,
        "opset": OPSET,
        "parameters": sum(p.numel() for p in spec.module.parameters()),
        "torch": torch.__version__,
        "transformers": tf.__version__,
        "onnxruntime_vs_torch": difference,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    size = (folder / "model.onnx").stat().st_size
    seconds = time.perf_counter() - started
    print(f"{name}: {size / 1e6:.1f} MB, differs by {difference:.1e}, {seconds:.0f} s")
    return folder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export the benchmark zoo to ONNX.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all of the zoo)")
    parser.add_argument("--more", action="store_true", help="the further architectures")
    parser.add_argument("--batch", action="store_true", help="with a symbolic batch")
    parser.add_argument("--list", action="store_true", help="print the names of the models")
    parser.add_argument("--output", type=Path, default=ZOO, help="folder of the zoo")
    options = parser.parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # quiet about torchvision's absence
    if options.list:
        print("\n".join(known()))
        return 0
    unknown = [name for name in options.names if name not in known()]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known())}")
    default = [name for name in known() if (name in MODELS) != options.more]
    refused = False
    for name in options.names or default:
        try:
            export(name, options.output, options.batch)
        except UnbatchedError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            refused |= name in options.names
        gc.collect()
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
