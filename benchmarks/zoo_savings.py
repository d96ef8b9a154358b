"""Networks of the zoo that compute more than their results need, as their papers write them.

Classifiers that read one token, heads that resize before they mix channels, decoders that
convolve what they have just enlarged, long masked sequences, learned queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import transformers as tf
from torch import Tensor, nn
from torch.nn import functional as F

from .zoo import ZooModel, pictures, vision
from .zoo_parts import CLASSES, EAGER, conv_norm, draw, hidden, plain, spec_of, tokens


class TokenClassifier(nn.Module):
    """Token ids i64[batch,sequence] to the logits of a sequence f32[batch,classes]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(input_ids=x).logits


def token_classifier(model: nn.Module, length: int) -> ZooModel:
    draw(model)
    return spec_of(TokenClassifier(model), tokens(length))


def bert_classifier() -> ZooModel:
    return token_classifier(
        tf.BertForSequenceClassification(tf.BertConfig(num_labels=3, **EAGER)), 128
    )


def distilbert_classifier() -> ZooModel:
    config = tf.DistilBertConfig(num_labels=3, **EAGER)
    return token_classifier(tf.DistilBertForSequenceClassification(config), 128)


def deit_small() -> ZooModel:
    config = tf.DeiTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, **CLASSES, **EAGER
    )
    return vision(tf.DeiTForImageClassification(config))


def segformer_512() -> ZooModel:
    config = tf.SegformerConfig(num_labels=19, **EAGER)
    return vision(tf.SegformerForSemanticSegmentation(config), 512)


class Depth(nn.Module):
    """Pictures f32[batch,3,h,w] to depths f32[batch,h,w]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).predicted_depth


def depth_head() -> ZooModel:
    """DPT with a small encoder, at 384×384."""
    config = tf.DPTConfig(
        image_size=384, hidden_size=384, num_hidden_layers=4, num_attention_heads=6,
        intermediate_size=1536, backbone_out_indices=[0, 1, 2, 3], fusion_hidden_size=64,
        neck_hidden_sizes=[48, 96, 192, 384], is_hybrid=False, **EAGER,
    )  # fmt: skip
    model = tf.DPTForDepthEstimation(config)
    draw(model)
    return spec_of(Depth(model), pictures(1, 384))


def silu_block(i: int, o: int, size: int = 3, stride: int = 1) -> nn.Module:
    return nn.Sequential(*conv_norm(i, o, size, stride), nn.SiLU())


class YoloNeck(nn.Module):
    """A small backbone, a path-aggregation neck with nearest upsampling, and heads, at 640."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(silu_block(3, 16, 3, 2), silu_block(16, 32, 3, 2))
        self.third, self.fourth = silu_block(32, 64, 3, 2), silu_block(64, 128, 3, 2)
        self.fifth = silu_block(128, 256, 3, 2)
        self.up_four, self.up_three = silu_block(256, 128), silu_block(128, 64)
        self.join_four = nn.Sequential(silu_block(256, 128, 1), silu_block(128, 128))
        self.join_three = nn.Sequential(silu_block(128, 64, 1), silu_block(64, 64))
        self.down_three, self.down_four = silu_block(64, 64, 3, 2), silu_block(128, 128, 3, 2)
        self.out_four, self.out_five = silu_block(192, 128), silu_block(384, 256)
        self.heads = nn.ModuleList(nn.Conv2d(c, classes + 5, 1) for c in (64, 128, 256))

    def forward(self, x: Tensor) -> Tensor:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        four = torch.cat([self.up_four(F.interpolate(fifth, scale_factor=2.0)), fourth], 1)
        four = self.join_four(four)
        three = torch.cat([self.up_three(F.interpolate(four, scale_factor=2.0)), third], 1)
        three = self.join_three(three)
        four = self.out_four(torch.cat([self.down_three(three), four], 1))
        five = self.out_five(torch.cat([self.down_four(four), fifth], 1))
        found = zip(self.heads, (three, four, five), strict=True)
        return torch.cat([head(level).flatten(2) for head, level in found], 2)


class NearestUNet(nn.Module):
    """Four levels; the way up enlarges by repeated pixels and convolves."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(
            nn.Sequential(silu_block(i, o), silu_block(o, o)) for i, o in pairs
        )
        self.up = nn.ModuleList(silu_block(o, i) for i, o in pairs[:0:-1])
        self.join = nn.ModuleList(silu_block(2 * i, i) for i, _ in pairs[:0:-1])
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, part in enumerate(self.down):
            x = part(F.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, join, other in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(F.interpolate(x, scale_factor=2.0)), other], 1))
        return self.last(x)


class Residual(nn.Module):
    """Two convolutions behind group norms, and a shortcut."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(16, i), nn.SiLU(), nn.Conv2d(i, o, 3, padding=1))
        self.second = nn.Sequential(nn.GroupNorm(16, o), nn.SiLU(), nn.Conv2d(o, o, 3, padding=1))
        self.shortcut = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class VaeDecoder(nn.Module):
    """Latents f32[1,4,64,64] to a picture f32[1,3,512,512], a quarter of the usual width."""

    def __init__(self, widths: Sequence[int] = (128, 128, 64, 32)) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, widths[0], 3, padding=1)
        pairs = list(zip((widths[0], *widths), widths, strict=False))
        self.blocks = nn.ModuleList(Residual(i, o) for i, o in pairs)
        self.up = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in widths[:-1])
        last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.last = nn.Sequential(nn.GroupNorm(16, widths[-1]), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number < len(self.up):
                x = self.up[number](F.interpolate(x, scale_factor=2.0))
        return self.last(x)


class QueryDecoder(nn.Module):
    """DETR's decoder: learned queries over the features of a picture f32[1,positions,256]."""

    def __init__(self, queries: int = 100, width: int = 256, layers: int = 6) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(queries, width))
        layer = nn.TransformerDecoderLayer(width, 8, 2048, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.classes, self.boxes = nn.Linear(width, 92), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.decoder(self.queries.unsqueeze(0), x)
        return torch.cat([self.classes(found), self.boxes(found).sigmoid()], -1)


def query_decoder() -> ZooModel:
    model = QueryDecoder()
    draw(model)
    nn.init.normal_(model.queries, std=0.5)
    for layer in model.decoder.layers:
        for attention in (layer.self_attn, layer.multihead_attn):
            nn.init.normal_(attention.in_proj_weight, std=256**-0.5)
    return spec_of(model, torch.randn(1, 400, 256))


def gpt2_long() -> ZooModel:
    config = tf.GPT2Config(**EAGER, use_cache=False)
    return hidden(tf.GPT2Model(config), "input_ids", tokens(1024))


SAVINGS: dict[str, Callable[[], ZooModel]] = {
    "bert-classifier": bert_classifier,
    "distilbert-classifier": distilbert_classifier,
    "deit-small": deit_small,
    "segformer-512": segformer_512,
    "depth-head": depth_head,
    "yolo-neck": lambda: plain(YoloNeck(), pictures(1, 640)),
    "unet-nearest": lambda: plain(NearestUNet(), pictures(1, 256)),
    "vae-decoder": lambda: plain(VaeDecoder(), torch.randn(1, 4, 64, 64)),
    "query-decoder": query_decoder,
    "gpt2-1024": gpt2_long,
}
