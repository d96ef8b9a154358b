"""Further architectures of `transformers`: experts, state spaces, caches, detectors, speech."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

from .wild_export import Architecture, Inputs, configured
from .wild_models import (
    BART,
    GPT2,
    LLAMA,
    SMALL,
    STAGES,
    T5,
    TEXT_AXES,
    TEXT_SIZES,
    VIT,
    VOCABULARY,
    decoder,
    encoder,
    ids,
    pictures,
    text,
    translator,
    vision,
    wave,
)

_LAYERS, _HEADS, _WIDTH = 2, 2, 8  # of the cached decoders: layers, key heads, numbers in a head


class Step(nn.Module):
    """A step of generation: keys and values of earlier tokens come in, those of all go out."""

    def __init__(self, config: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = configured(config, options, "AutoModelForCausalLM")

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> Any:
        pairs = [(past[f"past_{n}_key"], past[f"past_{n}_value"]) for n in range(_LAYERS)]
        cache = tf.DynamicCache(pairs)
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return found.logits, [(layer.keys, layer.values) for layer in cache.layers]


def _step_inputs(heads: int, batch: int, length: int) -> Inputs:
    """One new token behind `length` earlier ones; behind none three, as a first call has."""
    new = 1 if length else 3
    found = {
        "input_ids": torch.randint(3, VOCABULARY, (batch, new)),
        "attention_mask": torch.ones((batch, length + new), dtype=torch.int64),
    }
    for layer in range(_LAYERS):
        for part in ("key", "value"):
            found[f"past_{layer}_{part}"] = torch.randn(batch, heads, length, _WIDTH)
    return found


def step(
    name: str, config: str, base: Mapping[str, Any] = LLAMA, heads: int = _HEADS, **options: Any
) -> Architecture:
    """A decoder with its cache as inputs and outputs; compared with some, and with no past."""
    axes: dict[str, dict[int, str]] = {
        "input_ids": {0: "batch", 1: "new"},
        "attention_mask": {0: "batch", 1: "total"},
    }
    for layer in range(_LAYERS):
        for part in ("key", "value"):
            axes[f"past_{layer}_{part}"] = {0: "batch", 2: "past"}
    make = partial(Step, config, {**base, **options})
    inputs, sizes = partial(_step_inputs, heads), ((2, 5), (1, 0))
    return Architecture(name, make, inputs, sizes, axes, everything=True)


def other(
    name: str,
    config: str,
    options: Mapping[str, Any],
    inputs: Callable[[int, int], Inputs],
    sizes: Sequence[tuple[int, int]],
    dynamic: Mapping[str, Mapping[int, str]],
    head: str = "AutoModel",
    everything: bool = False,
    **calls: Any,
) -> Architecture:
    """Any network; calls: further arguments of a call."""
    make = partial(configured, config, options, head)
    return Architecture(name, make, inputs, sizes, dynamic, calls, everything)


def detector(name: str, config: str, head: str, size: int = 64, **options: Any) -> Architecture:
    """A network that gives boxes or masks of square pictures; the batch is dynamic."""
    return other(name, config, options, pictures, ((2, size), (1, size)),
                 {"pixel_values": {0: "batch"}}, head, everything=True)  # fmt: skip


def _features(batch: int, length: int) -> Inputs:
    return {
        "input_features": torch.randn(batch, 16, length),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (batch, 4)),
    }


def _frames(batch: int, length: int) -> Inputs:
    return {"input_features": torch.randn(batch, length, 16)}


def _sound(batch: int, length: int) -> Inputs:
    return {"input_values": torch.randn(batch, 1, length)}


def _spectrum(batch: int, length: int) -> Inputs:
    return {"input_values": torch.randn(batch, length, 16)}


def _prompts(batch: int, count: int) -> Inputs:
    points = torch.rand(batch, 1, count, 2) * 64
    labels = torch.ones((batch, 1, count), dtype=torch.int64)
    return {**pictures(batch, 64), "input_points": points, "input_labels": labels}


def _video(batch: int, size: int) -> Inputs:
    return {"pixel_values": torch.randn(batch, 4, 3, size, size)}


def _series(batch: int, length: int) -> Inputs:
    return {"past_values": torch.randn(batch, length, 3)}


def _both(batch: int, length: int) -> Inputs:
    found = text(batch, length)
    return {"input_ids": found["input_ids"], **pictures(batch, 32),
            "attention_mask": found["attention_mask"]}  # fmt: skip


_EXPERTS = {**LLAMA, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
RESNET = ("ResNetConfig", {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40],
                            "depths": [1, 1, 1, 1], "out_features": ["stage4"]})  # fmt: skip
_PYRAMID = ("RTDetrResNetConfig", {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48],
                                   "depths": [1, 1, 1, 1], "layer_type": "basic",
                                   "out_features": ["stage2", "stage3", "stage4"]})  # fmt: skip
DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64,
         "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
         "num_queries": 10, "num_labels": 5}  # fmt: skip
_RTDETR = {**DETR, "encoder_hidden_dim": 32, "encoder_in_channels": [24, 32, 48],
           "decoder_in_channels": [32, 32, 32], "num_denoising": 0,
           "backbone_config": _PYRAMID}  # fmt: skip
_AUDIO_AXES = {"input_values": {0: "batch", 2: "samples"}}
LONG_TEXT = ((2, 24), (1, 40))  # longer than windows and blocks

ARCHITECTURES: tuple[Architecture, ...] = (
    encoder("deberta", "DebertaConfig", relative_attention=True, pos_att_type=["c2p", "p2c"],
            max_relative_positions=16),
    encoder("longformer", "LongformerConfig", LONG_TEXT, attention_window=[4, 4]),
    encoder("ibert", "IBertConfig"),
    encoder("roc-bert", "RoCBertConfig", pronunciation_vocab_size=20, shape_vocab_size=20,
            pronunciation_embed_dim=8, shape_embed_dim=8),
    encoder("esm", "EsmConfig", pad_token_id=1, mask_token_id=2, position_embedding_type="rotary"),
    encoder("nystromformer", "NystromformerConfig", num_landmarks=4, segment_means_seq_len=8,
            conv_kernel_size=5),
    encoder("fnet", "FNetConfig"),
    encoder("eurobert", "EuroBertConfig", num_key_value_heads=4, head_dim=8),
    encoder("nomic-bert", "NomicBertConfig"),
    encoder("canine", "CanineConfig", local_transformer_stride=8, num_hash_buckets=64,
            max_position_embeddings=256),
    encoder("xlm", "XLMConfig", emb_dim=32, n_layers=2, n_heads=4, n_langs=1),
    encoder("flaubert", "FlaubertConfig", emb_dim=32, n_layers=2, n_heads=4, n_langs=1),
    other("xlnet", "XLNetConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2,
          "n_head": 4, "d_inner": 64}, text, TEXT_SIZES,
          TEXT_AXES),
    other("funnel", "FunnelConfig", {"vocab_size": VOCABULARY, "block_sizes": [1, 1],
          "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64}, text, ((2, 9), (1, 6)),
          TEXT_AXES),
    other("big-bird", "BigBirdConfig", {**SMALL, "block_size": 4, "num_random_blocks": 1},
          text, ((1, 40), (2, 40)), {n: {0: "batch"} for n in ("input_ids", "attention_mask")}),
    decoder("mixtral", "MixtralConfig", _EXPERTS, num_local_experts=4),
    decoder("qwen2-moe", "Qwen2MoeConfig", _EXPERTS, num_experts=4,
            shared_expert_intermediate_size=32),
    decoder("qwen3-moe", "Qwen3MoeConfig", _EXPERTS, num_experts=4),
    decoder("gpt-oss", "GptOssConfig", _EXPERTS, num_local_experts=4, sliding_window=4),
    decoder("deepseek-v3", "DeepseekV3Config",
            {**{k: v for k, v in LLAMA.items() if k != "head_dim"}, "num_key_value_heads": 4},
            moe_intermediate_size=32, n_routed_experts=8, kv_lora_rank=8, q_lora_rank=16,
            qk_rope_head_dim=4, v_head_dim=8, qk_nope_head_dim=8, n_group=2, topk_group=1,
            num_experts_per_tok=2, first_k_dense_replace=1),
    decoder("gemma3", "Gemma3TextConfig", sliding_window=4,
            layer_types=["sliding_attention", "full_attention"]),
    decoder("cohere2", "Cohere2Config", sliding_window=4),
    decoder("mistral-window", "MistralConfig", sliding_window=4),
    decoder("glm4", "Glm4Config"),
    decoder("nemotron", "NemotronConfig"),
    decoder("persimmon", "PersimmonConfig", SMALL),
    decoder("diffllama", "DiffLlamaConfig"),
    decoder("lfm2", "Lfm2Config", layer_types=["conv", "full_attention"]),
    decoder("mpt", "MptConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4,
                                 "n_layers": 2, "max_seq_len": 64}),
    decoder("xglm", "XGLMConfig", {"vocab_size": VOCABULARY, "d_model": 32, "ffn_dim": 64,
                                   "num_layers": 2, "attention_heads": 4,
                                   "max_position_embeddings": 64}),
    decoder("ctrl", "CTRLConfig", {**GPT2, "dff": 64}),
    decoder("recurrent-gemma", "RecurrentGemmaConfig", SMALL, block_types=["recurrent",
            "attention"], attention_window_size=4, lru_width=32),
    other("mamba", "MambaConfig", {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4,
          "num_hidden_layers": 2}, ids, ((2, 7), (1, 4)),
          {"input_ids": {0: "batch", 1: "sequence"}}, use_cache=False),
    other("mamba2", "Mamba2Config", {"vocab_size": VOCABULARY, "hidden_size": 16, "state_size": 4,
          "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
          ids, ((2, 7), (1, 12)), {"input_ids": {0: "batch", 1: "sequence"}}, use_cache=False),
    other("rwkv", "RwkvConfig", {"vocab_size": VOCABULARY, "hidden_size": 16,
          "attention_hidden_size": 16, "num_hidden_layers": 2, "context_length": 32}, ids,
          ((2, 7), (1, 4)), {"input_ids": {0: "batch", 1: "sequence"}}, use_cache=False),
    step("llama-step", "LlamaConfig"),
    step("gpt2-step", "GPT2Config", GPT2, 4),
    step("qwen3-step", "Qwen3Config"),
    step("gemma2-step", "Gemma2Config", sliding_window=4),
    step("phi3-step", "Phi3Config"),
    step("falcon-step", "FalconConfig", SMALL, 1, alibi=False),
    step("bloom-step", "BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2,
                                       "n_head": 4}, 4),
    translator("mbart", "MBartConfig", **BART),
    translator("blenderbot", "BlenderbotConfig", **BART),
    translator("plbart", "PLBartConfig", **BART),
    translator("led", "LEDConfig", LONG_TEXT, **BART, attention_window=[4, 4],
               max_encoder_position_embeddings=64, max_decoder_position_embeddings=64),
    translator("umt5", "UMT5Config", **T5),
    translator("longt5", "LongT5Config", LONG_TEXT, **T5, local_radius=4),
    translator("switch", "SwitchTransformersConfig", **T5, num_experts=4),
    translator("prophetnet", "ProphetNetConfig", vocab_size=VOCABULARY, hidden_size=32,
               encoder_ffn_dim=64, num_encoder_layers=2, num_encoder_attention_heads=4,
               decoder_ffn_dim=64, num_decoder_layers=2, num_decoder_attention_heads=4,
               max_position_embeddings=64),
    other("whisper", "WhisperConfig", {**BART, "num_mel_bins": 16, "max_source_positions": 20,
          "max_target_positions": 16, "decoder_start_token_id": 1, "bos_token_id": 1,
          "eos_token_id": 2}, _features, ((2, 40), (1, 40)),
          {"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
          use_cache=False),
    other("wav2vec2-bert", "Wav2Vec2BertConfig", {**SMALL, "feature_projection_input_dim": 16,
          "conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 8,
          "right_max_position_embeddings": 4, "apply_spec_augment": False}, _frames,
          ((2, 20), (1, 13)), {"input_features": {0: "batch", 1: "frames"}}),
    other("ast", "ASTConfig", {**VIT, "num_mel_bins": 16, "max_length": 32, "patch_size": 4,
          "frequency_stride": 4, "time_stride": 4}, _spectrum, ((2, 32), (1, 32)),
          {"input_values": {0: "batch"}}),
    other("encodec", "EncodecConfig", {"hidden_size": 16, "num_filters": 4, "codebook_size": 16,
          "upsampling_ratios": [4, 2], "target_bandwidths": [1.5]}, _sound,
          ((1, 800), (2, 640)), _AUDIO_AXES, everything=True),
    other("dac", "DacConfig", {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4],
          "decoder_hidden_size": 32, "upsampling_ratios": [4, 2], "n_codebooks": 2,
          "codebook_size": 16, "codebook_dim": 4}, _sound, ((1, 400), (2, 240)), _AUDIO_AXES),
    other("wav2vec2-conformer", "Wav2Vec2ConformerConfig", {**SMALL, "conv_dim": (16, 16),
          "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
          "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
          "conv_depthwise_kernel_size": 5, "apply_spec_augment": False,
          "position_embeddings_type": "relative"}, wave, ((1, 800), (2, 600)),
          {"input_values": {0: "batch", 1: "samples"}}),
    detector("detr", "DetrConfig", "DetrForObjectDetection", **DETR, backbone_config=RESNET),
    detector("conditional-detr", "ConditionalDetrConfig", "ConditionalDetrForObjectDetection",
             **DETR, backbone_config=RESNET),
    detector("deformable-detr", "DeformableDetrConfig", "DeformableDetrForObjectDetection",
             **DETR, num_feature_levels=3, backbone_config=(
                 "ResNetConfig", {**RESNET[1], "out_features": ["stage2", "stage3", "stage4"]})),
    detector("rt-detr", "RTDetrConfig", "RTDetrForObjectDetection", **_RTDETR),
    detector("rt-detr-v2", "RTDetrV2Config", "RTDetrV2ForObjectDetection", **_RTDETR),
    detector("d-fine", "DFineConfig", "DFineForObjectDetection", **_RTDETR),
    detector("dpt", "DPTConfig", "DPTForDepthEstimation", 32, **VIT, neck_hidden_sizes=[8, 8, 16,
             16], fusion_hidden_size=8, backbone_out_indices=[0, 0, 1, 1], is_hybrid=False),
    detector("depth-anything", "DepthAnythingConfig", "DepthAnythingForDepthEstimation", 32,
             backbone_config=("Dinov2Config", {**VIT, "num_hidden_layers": 4, "out_indices":
                              [1, 2, 3, 4], "reshape_hidden_states": False}),
             patch_size=8, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
             fusion_hidden_size=8, head_hidden_size=8),
    detector("segformer-seg", "SegformerConfig", "SegformerForSemanticSegmentation",
             hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4],
             decoder_hidden_size=16, image_size=64),
    detector("upernet", "UperNetConfig", "UperNetForSemanticSegmentation", hidden_size=16,
             backbone_config=("ConvNextConfig", {**STAGES, "out_features": [
                 "stage1", "stage2", "stage3", "stage4"]}), auxiliary_in_channels=32,
             auxiliary_channels=8),
    detector("mask2former", "Mask2FormerConfig", "Mask2FormerForUniversalSegmentation",
             feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64,
             encoder_layers=2, decoder_layers=2, num_attention_heads=4, dim_feedforward=64,
             num_queries=10, backbone_config=("SwinConfig", {"image_size": 64, "patch_size": 4,
             "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 4, 4], "window_size": 4,
             "out_features": ["stage1", "stage2", "stage3", "stage4"]})),
    detector("vitpose", "VitPoseConfig", "VitPoseForPoseEstimation", 32, num_labels=5,
             backbone_config=("VitPoseBackboneConfig", {**VIT, "image_size": [32, 32],
                              "patch_size": [8, 8], "out_indices": [2]})),
    detector("superpoint", "SuperPointConfig", "SuperPointForKeypointDetection",
             encoder_hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
             descriptor_decoder_dim=16),
    vision("swin2sr", "Swin2SRConfig", 32, fixed=False, image_size=32, embed_dim=16, depths=[1, 1],
           num_heads=[2, 2], window_size=4),
    vision("hiera", "HieraConfig", 64, image_size=[64, 64], embed_dim=16, depths=[1, 1, 1],
           num_heads=[1, 2, 4], num_query_pool=2, masked_unit_size=[4, 4],
           masked_unit_attention=[True, True, False]),
    vision("cvt", "CvtConfig", 64, fixed=False, embed_dim=[16, 24, 32], num_heads=[1, 2, 4],
           depth=[1, 1, 1]),
    vision("pvt", "PvtConfig", 64, image_size=64, hidden_sizes=[8, 16, 16, 32],
           depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4]),
    vision("swiftformer", "SwiftFormerConfig", 64, depths=[1, 1, 1, 1],
           embed_dims=[16, 16, 32, 32]),
    vision("vit-msn", "ViTMSNConfig", **VIT),
    vision("dinov3", "DINOv3ViTConfig", 32, fixed=False, **VIT),
    other("videomae", "VideoMAEConfig", {**VIT, "num_frames": 4}, _video, ((2, 32), (1, 32)),
          {"pixel_values": {0: "batch"}}),
    other("timesformer", "TimesformerConfig", {**VIT, "num_frames": 4}, _video,
          ((2, 32), (1, 32)), {"pixel_values": {0: "batch"}}),
    other("sam", "SamConfig", {
        "vision_config": {**VIT, "image_size": 64, "output_channels": 32, "window_size": 3,
                          "global_attn_indexes": [1], "num_pos_feats": 16, "mlp_dim": 64},
        "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 8,
                                  "mask_input_channels": 8},
        "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4,
                                "iou_head_hidden_dim": 32}},
          _prompts, ((1, 2), (2, 3)),
          {"pixel_values": {0: "batch"}, "input_points": {0: "batch", 2: "points"},
           "input_labels": {0: "batch", 2: "points"}}, "SamModel", everything=True),
    other("clip", "CLIPConfig", {
        "text_config": {**SMALL, "eos_token_id": 2, "pad_token_id": 0}, "vision_config": VIT,
        "projection_dim": 16}, _both, ((2, 9), (1, 6)),
          {"input_ids": {0: "texts", 1: "sequence"}, "attention_mask": {0: "texts", 1: "sequence"},
           "pixel_values": {0: "pictures"}}, everything=True),
    other("patchtst", "PatchTSTConfig", {"num_input_channels": 3, "context_length": 32,
          "patch_length": 8, "patch_stride": 4, "num_hidden_layers": 2, "d_model": 32,
          "num_attention_heads": 4, "ffn_dim": 64, "prediction_length": 8, "distribution_output":
          None, "loss": "mse"}, _series, ((2, 32), (1, 32)), {"past_values": {0: "batch"}},
          "PatchTSTForPrediction"),
    other("patchtsmixer", "PatchTSMixerConfig", {"num_input_channels": 3, "context_length": 32,
          "patch_length": 8, "patch_stride": 8, "num_layers": 2, "d_model": 16,
          "prediction_length": 8}, _series, ((2, 32), (1, 32)), {"past_values": {0: "batch"}},
          "PatchTSMixerForPrediction"),
)  # fmt: skip
