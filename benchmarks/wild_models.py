"""Architectures of `transformers` in small sizes.

Weights are random (seeded), sizes are small: what is tested is which graphs the exporters write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from .wild_export import Architecture, Inputs, configured

Sizes = Sequence[tuple[int, int]]  # the pairs of `Architecture.sizes`
VOCABULARY = 128
TEXT_SIZES = ((2, 9), (1, 5))
TEXT_AXES = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LLAMA = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
NO_CACHE = {"use_cache": False}


def text(batch: int, length: int) -> Inputs:
    ids = torch.randint(3, VOCABULARY, (batch, length))
    mask = torch.ones_like(ids)
    mask[0, length - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def ids(batch: int, length: int) -> Inputs:
    return {"input_ids": torch.randint(3, VOCABULARY, (batch, length))}


def pair(batch: int, length: int) -> Inputs:
    decoder = torch.randint(3, VOCABULARY, (batch, length - 2))
    return {**text(batch, length), "decoder_input_ids": decoder}


def pictures(batch: int, size: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 3, size, size)}


def wave(batch: int, length: int) -> Inputs:
    return {"input_values": torch.randn(batch, length)}


def encoder(name: str, config: str, sizes: Sizes = TEXT_SIZES, **options: Any) -> Architecture:
    """A text encoder with a mask."""
    make = partial(configured, config, {**SMALL, **options})
    return Architecture(name, make, text, sizes, TEXT_AXES)


def decoder(
    name: str, config: str, base: Mapping[str, Any] = LLAMA, **options: Any
) -> Architecture:
    """A causal language model without cache."""
    make = partial(configured, config, {**base, **options})
    return Architecture(name, make, text, TEXT_SIZES, TEXT_AXES, calls=NO_CACHE)


def translator(
    name: str, config: str, sizes: Sizes = ((2, 9), (1, 6)), **options: Any
) -> Architecture:
    """An encoder and a decoder."""
    axes = {**TEXT_AXES, "decoder_input_ids": {0: "batch", 1: "target"}}
    make = partial(configured, config, options)
    return Architecture(name, make, pair, sizes, axes, calls=NO_CACHE)


def vision(
    name: str, config: str, size: int = 32, *, fixed: bool = True, **options: Any
) -> Architecture:
    """A network on square pictures; `fixed`: of one size, so that only the batch is dynamic."""
    axes = {0: "batch"} if fixed else {0: "batch", 2: "height", 3: "width"}
    other = size if fixed else size + 32
    make, sizes = partial(configured, config, options), ((2, size), (1, other))
    return Architecture(name, make, pictures, sizes, {"pixel_values": axes})


def audio(name: str, config: str, **options: Any) -> Architecture:
    """A network on raw sound."""
    make = partial(configured, config, {**SMALL, **_WAVE, **options})
    axes = {"input_values": {0: "batch", 1: "samples"}}
    return Architecture(name, make, wave, ((1, 2000), (2, 3100)), axes)


_WAVE = {
    "conv_dim": (16, 16, 16), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0, "apply_spec_augment": False,
}  # fmt: skip
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64}  # fmt: skip
STAGES = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 2, 1]}
BART = {"vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
         "decoder_ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
       "num_heads": 4, "pad_token_id": 0, "decoder_start_token_id": 0}  # fmt: skip

ARCHITECTURES: tuple[Architecture, ...] = (
    *(encoder(name, config) for name, config in (
        ("bert", "BertConfig"), ("roberta", "RobertaConfig"), ("electra", "ElectraConfig"),
        ("xlm-roberta", "XLMRobertaConfig"), ("camembert", "CamembertConfig"),
        ("mpnet", "MPNetConfig"), ("ernie", "ErnieConfig"), ("layoutlm", "LayoutLMConfig"),
        ("megatron-bert", "MegatronBertConfig"), ("roformer", "RoFormerConfig"),
        ("data2vec-text", "Data2VecTextConfig"), ("convbert", "ConvBertConfig"))),
    encoder("distilbert", "DistilBertConfig", dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    encoder("albert", "AlbertConfig", embedding_size=16),
    encoder("deberta-v2", "DebertaV2Config", relative_attention=True, pos_att_type=["p2c", "c2p"],
            position_buckets=8),
    encoder("squeezebert", "SqueezeBertConfig", embedding_size=32),
    encoder("mobilebert", "MobileBertConfig", embedding_size=16, intra_bottleneck_size=16,
            true_hidden_size=16, num_feedforward_networks=2),
    encoder("modernbert", "ModernBertConfig", pad_token_id=0, local_attention=4,
            attn_implementation="eager", reference_compile=False),
    encoder("rembert", "RemBertConfig", input_embedding_size=16, output_embedding_size=16),
    *(decoder(name, config) for name, config in (
        ("llama", "LlamaConfig"), ("mistral", "MistralConfig"), ("qwen2", "Qwen2Config"),
        ("qwen3", "Qwen3Config"), ("phi", "PhiConfig"), ("phi3", "Phi3Config"),
        ("gemma", "GemmaConfig"), ("gemma2", "Gemma2Config"), ("stablelm", "StableLmConfig"),
        ("olmo", "OlmoConfig"), ("olmo2", "Olmo2Config"), ("granite", "GraniteConfig"),
        ("starcoder2", "Starcoder2Config"), ("cohere", "CohereConfig"))),
    decoder("gpt2", "GPT2Config", GPT2),
    decoder("gptj", "GPTJConfig", GPT2, rotary_dim=4),
    decoder("codegen", "CodeGenConfig", GPT2, rotary_dim=4),
    decoder("gpt-neo", "GPTNeoConfig", SMALL, num_layers=2, num_heads=4,
            attention_types=[[["global", "local"], 1]], window_size=4),
    decoder("gpt-neox", "GPTNeoXConfig", SMALL),
    decoder("opt", "OPTConfig", SMALL, ffn_dim=64, word_embed_proj_dim=32),
    decoder("bloom", "BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2,
                                     "n_head": 4}),
    decoder("falcon", "FalconConfig", SMALL, alibi=False),
    translator("bart", "BartConfig", **BART),
    translator("pegasus", "PegasusConfig", **BART),
    translator("marian", "MarianConfig", **BART, decoder_start_token_id=0),
    translator("m2m-100", "M2M100Config", **BART),
    translator("t5", "T5Config", **T5),
    translator("mt5", "MT5Config", **T5),
    vision("vit", "ViTConfig", **VIT),
    vision("deit", "DeiTConfig", **VIT),
    vision("beit", "BeitConfig", **VIT, use_relative_position_bias=True),
    vision("dinov2", "Dinov2Config", **VIT),
    vision("yolos", "YolosConfig", **{**VIT, "image_size": [32, 32]}, num_detection_tokens=5),
    vision("siglip", "SiglipVisionConfig", **VIT),
    vision("clip-vision", "CLIPVisionConfig", **VIT, projection_dim=16),
    vision("swin", "SwinConfig", 64, fixed=False, image_size=64, patch_size=4, embed_dim=16,
           depths=[2, 2], num_heads=[2, 4], window_size=4),
    vision("swinv2", "Swinv2Config", 64, image_size=64, patch_size=4, embed_dim=16,
           depths=[2, 2], num_heads=[2, 4], window_size=4),
    vision("resnet", "ResNetConfig", 64, fixed=False, embedding_size=16, **STAGES),
    vision("regnet", "RegNetConfig", 64, fixed=False, embedding_size=16, groups_width=8, **STAGES),
    vision("convnext", "ConvNextConfig", 64, fixed=False, **STAGES),
    vision("convnextv2", "ConvNextV2Config", 64, fixed=False, **STAGES),
    vision("mobilenet-v1", "MobileNetV1Config", 64, fixed=False, depth_multiplier=0.25),
    vision("mobilenet-v2", "MobileNetV2Config", 64, fixed=False, depth_multiplier=0.35),
    vision("efficientnet", "EfficientNetConfig", 64, width_coefficient=0.3, depth_coefficient=0.3,
           image_size=64, hidden_dim=384),
    vision("mobilevit", "MobileViTConfig", 64, hidden_sizes=[16, 24, 32], image_size=64,
           neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 40], num_attention_heads=2),
    vision("mobilevitv2", "MobileViTV2Config", 64, width_multiplier=0.25, image_size=64),
    vision("segformer", "SegformerConfig", 64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 2, 2, 4], image_size=64),
    vision("pvt-v2", "PvtV2Config", 64, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1],
           num_attention_heads=[1, 2, 2, 4], image_size=64),
    vision("poolformer", "PoolFormerConfig", 64, fixed=False, hidden_sizes=[8, 16, 16, 32],
           depths=[1, 1, 1, 1]),
    vision("focalnet", "FocalNetConfig", 64, image_size=64, embed_dim=16, depths=[1, 1, 1, 1]),
    vision("bit", "BitConfig", 64, fixed=False, embedding_size=16, num_groups=4,
           hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1]),
    vision("levit", "LevitConfig", 64, image_size=64, hidden_sizes=[16, 24, 32],
           num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    audio("wav2vec2", "Wav2Vec2Config"),
    audio("hubert", "HubertConfig"),
    audio("wavlm", "WavLMConfig"),
    audio("sew", "SEWConfig", squeeze_factor=2),
    audio("unispeech", "UniSpeechConfig"),
)  # fmt: skip
