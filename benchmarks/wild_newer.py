"""Further networks of `timm` and torchvision: newer ones, and those of video."""

from __future__ import annotations

from functools import partial

import torch
import torchvision
from torch import nn

from .wild_export import Architecture, Inputs
from .wild_torch import Named, classifier, rectangles


def _clip(batch: int, size: int) -> Inputs:
    return {"x": torch.randn(batch, 3, 8, size, size)}


def _video(name: str) -> nn.Module:
    return Named(getattr(torchvision.models.video, name)(weights=None, num_classes=10))


def _googlenet() -> nn.Module:
    made = torchvision.models.googlenet(weights=None, num_classes=10, init_weights=False)
    return Named(made)


ARCHITECTURES: tuple[Architecture, ...] = (
    *(classifier(name, 64, fixed=False) for name in (
        "fasternet_t0", "pvt_v2_b0", "nextvit_small", "hrnet_w18_small", "caformer_s18")),
    classifier("visformer_tiny", 64, img_size=64),
    classifier("samvit_base_patch16_224", 64, img_size=64, depth=2, embed_dim=32, num_heads=2),
    Architecture("googlenet", _googlenet, rectangles, ((2, 96), (1, 128)),
                 {"x": {0: "batch", 2: "height", 3: "width"}}),
    *(Architecture(name, partial(_video, name), _clip, ((2, 64), (1, 96)),
                   {"x": {0: "batch", 3: "height", 4: "width"}})
      for name in ("r3d_18", "swin3d_t")),
)  # fmt: skip
