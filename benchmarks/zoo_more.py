"""Further architectures for the zoo, which no figure of the project was tuned on.

    python -m benchmarks.zoo --more

Those of `transformers` come from its configurations; the others are written out here, in the sizes
of their papers, or smaller where the paper's network would say nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers as tf
from torch import Tensor, nn

from .zoo import ZooModel, pictures, resnet, vision
from .zoo_parts import CLASSES, EAGER, conv_norm, hidden, plain, spec_of, tokens
from .zoo_savings import SAVINGS


def head(channels: int) -> list[nn.Module]:
    """Global average and logits."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]


class Joined(nn.Module):
    """Parts side by side, their channels joined."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], 1)


def vgg13() -> ZooModel:
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 128, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return plain(nn.Sequential(*layers, *head(512)), pictures(1, 224))


def densenet121() -> ZooModel:
    layers: list[nn.Module] = [*conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for block, count in enumerate((6, 12, 24, 16)):
        for _ in range(count):
            grown = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(), *conv_norm(channels, 128, 1), nn.ReLU(),
                nn.Conv2d(128, 32, 3, padding=1, bias=False),
            )  # fmt: skip
            layers.append(Joined(nn.Identity(), grown))
            channels += 32
        if block < 3:
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    layers += [nn.BatchNorm2d(channels), nn.ReLU()]
    return plain(nn.Sequential(*layers, *head(channels)), pictures(1, 224))


def squeezenet() -> ZooModel:
    def fire(i: int, squeezed: int, wide: int) -> nn.Module:
        one = nn.Sequential(nn.Conv2d(squeezed, wide, 1), nn.ReLU())
        three = nn.Sequential(nn.Conv2d(squeezed, wide, 3, padding=1), nn.ReLU())
        return nn.Sequential(nn.Conv2d(i, squeezed, 1), nn.ReLU(), Joined(one, three))

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = [
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, fire(64, 16, 64), fire(128, 16, 64), pool,
        fire(128, 32, 128), fire(256, 32, 128), pool, fire(256, 48, 192), fire(384, 48, 192),
        fire(384, 64, 256), fire(512, 64, 256), *head(512),
    ]  # fmt: skip
    return plain(nn.Sequential(*layers), pictures(1, 224))


class Shuffled(nn.Module):
    """A unit of ShuffleNet V2."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        half, self.stride = o // 2, stride
        into = i if stride == 2 else half
        self.long = nn.Sequential(
            *conv_norm(into, half, 1), nn.ReLU(), *conv_norm(half, half, 3, stride, half),
            *conv_norm(half, half, 1), nn.ReLU(),
        )  # fmt: skip
        self.short = nn.Sequential(*conv_norm(i, i, 3, 2, i), *conv_norm(i, half, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = (self.short(x), x) if self.stride == 2 else x.chunk(2, 1)
        y = torch.cat([kept, self.long(changed)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> ZooModel:
    layers: list[nn.Module] = [*conv_norm(3, 24, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for width, count in ((116, 4), (232, 8), (464, 4)):
        for number in range(count):
            layers.append(Shuffled(channels, width, 1 if number else 2))
            channels = width
    layers += [*conv_norm(464, 1024, 1), nn.ReLU(), *head(1024)]
    return plain(nn.Sequential(*layers), pictures(1, 224))


class UNet(nn.Module):
    """Four levels, from 32 channels."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()

        def two(i: int, o: int) -> nn.Module:
            first, second = nn.Conv2d(i, o, 3, padding=1), nn.Conv2d(o, o, 3, padding=1)
            return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(two(i, o) for i, o in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in pairs[:0:-1])
        self.join = nn.ModuleList(two(o, i) for i, o in pairs[:0:-1])
        self.last = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, part in enumerate(self.down):
            x = part(nn.functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, join, other in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), other], 1))
        return self.last(x)


def tcn() -> ZooModel:
    """Dilated convolutions over 400 frames of 80 features."""
    layers: list[nn.Module] = [nn.Conv1d(80, 256, 5, padding=2), nn.ReLU()]
    for step in (1, 2, 4, 8):
        layers += [nn.Conv1d(256, 256, 3, padding=step, dilation=step), nn.ReLU()]
    return plain(nn.Sequential(*layers, nn.Conv1d(256, 40, 1)), torch.randn(1, 80, 400))


class Vocoder(nn.Module):
    """HiFi-GAN's generator with two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(80, 256, 7, padding=3), nn.Conv1d(64, 1, 7, padding=3)
        self.up = nn.ModuleList(nn.ConvTranspose1d(2 * c, c, 16, 8, 4) for c in (128, 64))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                nn.Conv1d(c, c, size, padding=d * (size - 1) // 2, dilation=d)
                for size in (3, 7)
                for d in (1, 3)
            )
            for c in (128, 64)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for up, block in zip(self.up, self.blocks, strict=True):
            x = up(nn.functional.leaky_relu(x, 0.1))
            for conv in block:  # type: ignore[union-attr]
                x = x + conv(nn.functional.leaky_relu(x, 0.1))
        return torch.tanh(self.last(nn.functional.leaky_relu(x, 0.1)))


class Tagger(nn.Module):
    """Two layers of LSTM in both directions over 50 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30000, 256)
        self.lstm = nn.LSTM(256, 256, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(512, 50)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.embedding(x))[0])


def regnet(layer: str, widths: list[int], depths: list[int], group: int) -> ZooModel:
    config = tf.RegNetConfig(
        hidden_sizes=widths, depths=depths, groups_width=group, layer_type=layer, **CLASSES
    )
    return vision(tf.RegNetForImageClassification(config))


def bert(tokens_: int, **config: Any) -> ZooModel:
    return hidden(tf.BertModel(tf.BertConfig(**EAGER, **config)), "input_ids", tokens(tokens_))


def whisper_encoder() -> ZooModel:
    """Of whisper-tiny: 30 seconds of sound, 1500 positions."""
    sizes = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6}
    config = tf.WhisperConfig(encoder_ffn_dim=1536, decoder_layers=1, **sizes, **EAGER)
    return hidden(tf.WhisperModel(config).encoder, "input_features", torch.randn(1, 80, 3000))


def llama_prefill(length: int) -> ZooModel:
    config = tf.LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, use_cache=False, **EAGER,
    )  # fmt: skip
    return hidden(tf.LlamaModel(config), "input_ids", tokens(length))


MORE: dict[str, Callable[[], ZooModel]] = {
    "resnet34": lambda: resnet([64, 128, 256, 512], [3, 4, 6, 3], "basic"),
    "vgg13": vgg13,
    "densenet121": densenet121,
    "squeezenet": squeezenet,
    "shufflenet_v2": shufflenet,
    "regnet_y": lambda: regnet("y", [48, 104, 208, 440], [1, 3, 6, 6], 8),
    "regnet_x": lambda: regnet("x", [64, 160, 288, 672], [2, 5, 8, 2], 16),
    "mobilenet_v1": lambda: vision(
        tf.MobileNetV1ForImageClassification(tf.MobileNetV1Config(**CLASSES))
    ),
    "convnext_tiny": lambda: vision(
        tf.ConvNextForImageClassification(tf.ConvNextConfig(**CLASSES))
    ),
    "unet": lambda: plain(UNet(), pictures(1, 256)),
    "swin_tiny": lambda: vision(tf.SwinForImageClassification(tf.SwinConfig(**CLASSES))),
    "mobilevit": lambda: vision(
        tf.MobileViTForImageClassification(tf.MobileViTConfig(image_size=256, **CLASSES)), 256
    ),
    "segformer_b0": lambda: vision(
        tf.SegformerForSemanticSegmentation(tf.SegformerConfig(num_labels=19))
    ),
    "bert-mini": lambda: bert(
        384, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "bert-tiny": lambda: bert(
        32, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "distilbert": lambda: hidden(
        tf.DistilBertModel(tf.DistilBertConfig(**EAGER)), "input_ids", tokens(64)
    ),
    "llama-prefill": lambda: llama_prefill(64),
    "llama-prefill-2048": lambda: llama_prefill(2048),
    **SAVINGS,
    "whisper-encoder": whisper_encoder,
    "tcn": tcn,
    "vocoder": lambda: plain(Vocoder(), torch.randn(1, 80, 32)),
    "lstm": lambda: spec_of(Tagger(), tokens(50)),
}
