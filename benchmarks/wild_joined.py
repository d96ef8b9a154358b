"""Architectures of `transformers` that join pictures, pages or sound with text, and late ones."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .wild_export import Architecture, Inputs
from .wild_models import (
    BART,
    LLAMA,
    SMALL,
    TEXT_AXES,
    TEXT_SIZES,
    VIT,
    VOCABULARY,
    decoder,
    ids,
    text,
    translator,
)
from .wild_more import DETR, LONG_TEXT, RESNET, detector, other

_PICTURE = 5  # the token that stands for a piece of a picture
_TEXT = {**SMALL, "eos_token_id": 2, "pad_token_id": 0}
_TWO = {"text_config": _TEXT, "vision_config": VIT}
_JOINED = {**TEXT_AXES, "pixel_values": {0: "batch"}}
_APART = {
    "input_ids": {0: "texts", 1: "sequence"},
    "attention_mask": {0: "texts", 1: "sequence"},
    "pixel_values": {0: "pictures"},
}


def _both(batch: int, length: int) -> Inputs:
    return {**text(batch, length), "pixel_values": torch.randn(batch, 3, 32, 32)}


def _page(batch: int, length: int) -> Inputs:
    corner, size = torch.randint(0, 400, (batch, length, 2)), torch.randint(1, 90, (2,))
    return {**_both(batch, length), "bbox": torch.cat([corner, corner + size], 2)}


def _prompt(pieces: int) -> Callable[[int, int], Inputs]:
    """Tokens, those of a picture among them."""

    def made(batch: int, length: int) -> Inputs:
        found = torch.randint(10, VOCABULARY, (batch, length + pieces))
        found[:, 1 : 1 + pieces] = _PICTURE
        pictures = torch.randn(batch, 3, 32, 32)
        mask = torch.ones_like(found)
        return {"input_ids": found, "attention_mask": mask, "pixel_values": pictures}

    return made


def _series(batch: int, length: int) -> Inputs:
    return {
        "past_values": torch.randn(batch, length),
        "past_values_padding": torch.zeros(batch, length, dtype=torch.long),
        "freq": torch.zeros(batch, 1, dtype=torch.long),
    }


ARCHITECTURES: tuple[Architecture, ...] = (
    decoder("gemma3n", "Gemma3nTextConfig", {**LLAMA, "vocab_size_per_layer_input": VOCABULARY},
            hidden_size_per_layer_input=8, layer_types=["sliding_attention", "full_attention"],
            num_kv_shared_layers=0, sliding_window=4, laurel_rank=4, altup_num_inputs=2,
            activation_sparsity_pattern=[0.5, 0.0]),
    other("xlstm", "xLSTMConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_heads": 4,
          "embedding_dim": 32, "num_hidden_layers": 2, "num_blocks": 2, "chunk_size": 4,
          "mode": "train"}, ids, ((2, 8), (1, 12)), {"input_ids": {0: "batch", 1: "sequence"}},
          use_cache=False),
    translator("pegasus-x", "PegasusXConfig", LONG_TEXT, **BART, num_global_tokens=4,
               block_size=8),
    translator("nllb-moe", "NllbMoeConfig", **BART, num_experts=4, expert_capacity=8,
               encoder_sparse_step=2, decoder_sparse_step=2),
    detector("table-transformer", "TableTransformerConfig", "TableTransformerForObjectDetection",
             **DETR, backbone_config=RESNET, use_timm_backbone=False),
    detector("dab-detr", "DabDetrConfig", "DabDetrForObjectDetection", hidden_size=32,
             encoder_layers=1, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
             encoder_attention_heads=4, decoder_attention_heads=4, num_queries=10, num_labels=5,
             backbone_config=RESNET),
    *(other(name, f"{config}Config", {**_TWO, "projection_dim": 16, **more}, _both,
            ((2, 9), (1, 6)), _APART, everything=True)
      for name, config, more in (
          ("altclip", "AltCLIP", {"text_config": {**_TEXT, "project_dim": 16}}),
          ("clipseg", "CLIPSeg", {"reduce_dim": 8, "extract_layers": [0, 1],
                                  "decoder_num_attention_heads": 4,
                                  "decoder_intermediate_size": 16}))),
    other("git", "GitConfig", {**SMALL, "vision_config": VIT}, _both, ((2, 9), (1, 6)), _JOINED,
          use_cache=False),
    other("layoutlmv3", "LayoutLMv3Config", {**SMALL, "coordinate_size": 4, "shape_size": 8,
          "input_size": 32, "patch_size": 8, "max_2d_position_embeddings": 1024}, _page,
          TEXT_SIZES, {**_JOINED, "bbox": {0: "batch", 1: "sequence"}}),
    *(other(name, f"{config}Config", {"text_config": (f"{words}Config", LLAMA), "vision_config":
            (f"{sight}Config", VIT), "image_token_index": _PICTURE, "image_token_id": _PICTURE,
            **more}, _prompt(pieces), ((2, 6), (1, 9)), _JOINED,
            f"{config}ForConditionalGeneration", use_cache=False)
      for name, config, words, sight, pieces, more in (
          ("paligemma", "PaliGemma", "Gemma", "SiglipVision", 16, {"projection_dim": 32}),
          ("gemma3-vision", "Gemma3", "Gemma3Text", "SiglipVision", 4,
           {"mm_tokens_per_image": 4, "boi_token_index": 6, "eoi_token_index": 7}))),
    other("vits", "VitsConfig", {**SMALL, "flow_size": 16, "spectrogram_bins": 9,
          "duration_predictor_filter_channels": 16, "upsample_initial_channel": 16,
          "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "resblock_kernel_sizes": [3],
          "resblock_dilation_sizes": [[1, 3]], "ffn_dim": 32, "prior_encoder_num_flows": 2,
          "prior_encoder_num_wavenet_layers": 2, "posterior_encoder_num_wavenet_layers": 2,
          "wavenet_dilation_rate": 1, "duration_predictor_flow_bins": 4,
          "duration_predictor_num_flows": 2, "depth_separable_num_layers": 2, "noise_scale": 0.0,
          "noise_scale_duration": 0.0}, text, ((1, 9), (1, 6)),
          {name: {1: "sequence"} for name in TEXT_AXES}, "VitsModel"),
    other("timesfm", "TimesFmConfig", {"patch_length": 8, "context_length": 32,
          "horizon_length": 8, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8,
          "num_attention_heads": 4, "num_hidden_layers": 2}, _series, ((2, 32), (1, 32)),
          {name: {0: "batch"} for name in ("past_values", "past_values_padding", "freq")}),
)  # fmt: skip
