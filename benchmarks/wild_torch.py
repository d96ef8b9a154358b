"""Networks of `timm` and torchvision, as far as they can be made small."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from .wild_export import Architecture, Inputs


def _pictures(batch: int, size: int) -> Inputs:
    return {"x": torch.randn(batch, 3, size, size)}


def rectangles(batch: int, size: int) -> Inputs:
    return {"x": torch.randn(batch, 3, size, size + 32)}


class Named(nn.Module):
    """A network whose input is called x."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class Detector(nn.Module):
    """A detector of torchvision on one picture."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model([x])


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    return Named(timm.create_model(name, pretrained=False, num_classes=10, **options))


def classifier(name: str, size: int, *, fixed: bool = True, **options: Any) -> Architecture:
    """A network of timm on square pictures; `fixed`: of one size."""
    axes = {0: "batch"} if fixed else {0: "batch", 2: "height", 3: "width"}
    inputs, other = (_pictures, size) if fixed else (rectangles, size + 64)
    make = partial(_timm, name, options)
    return Architecture(name, make, inputs, ((2, size), (1, other)), {"x": axes})


def _found(name: str, options: dict[str, Any]) -> nn.Module:
    """A detector whose layers keep pictures apart.

    With the statistics that untrained normalisations have all boxes get one score up to rounding,
    which would decide what is suppressed.
    """
    maker = getattr(torchvision.models.detection, name)
    made = maker(weights=None, weights_backbone=None, **options)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # what it sees counts alone
    with torch.no_grad():
        made.train().backbone(torch.rand(4, 3, 128, 128))
    return Detector(made)


def _picture(batch: int, size: int) -> Inputs:
    return {"x": torch.rand(3, size, size)}


def detector(name: str, size: int, **options: Any) -> Architecture:
    """A detector of torchvision, with its loops over boxes; pictures of any size."""
    return Architecture(name, partial(_found, name, options), _picture, ((1, size), (1, size + 32)),
                        {"x": {1: "height", 2: "width"}}, everything=True)  # fmt: skip


def _segmenter(name: str) -> nn.Module:
    maker = getattr(torchvision.models.segmentation, name)
    return Named(maker(weights=None, weights_backbone=None, num_classes=5))


def _flow(batch: int, size: int) -> Inputs:
    return {name: torch.randn(batch, 3, size, size) for name in ("image1", "image2")}


def _raft() -> nn.Module:
    model: nn.Module = torchvision.models.optical_flow.raft_small(weights=None)
    return model


_BOXES = {"num_classes": 4, "min_size": 64, "max_size": 96}
_SWIN = {"img_size": 64, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4}

ARCHITECTURES: tuple[Architecture, ...] = (
    *(classifier(name, 64, fixed=False) for name in (
        "convnext_atto", "regnetx_002", "regnety_002", "ghostnet_050", "repghostnet_050",
        "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mobileone_s0", "lcnet_035",
        "efficientvit_b0", "edgenext_xx_small", "resnest14d", "skresnet18", "seresnet18",
        "ese_vovnet19b_slim_dw", "inception_next_atto", "starnet_s050", "mambaout_femto",
        "poolformerv2_s12", "dla46_c", "repvit_m0_9", "nf_regnet_b0", "fastvit_t8",
        "lambda_resnet26t", "semnasnet_050", "resnetblur18", "efficientnet_b0")),
    classifier("densenet121", 64, fixed=False, block_config=(2, 2, 2, 2), growth_rate=8),
    classifier("res2net50_26w_4s", 64, fixed=False, layers=(1, 1, 1, 1)),
    classifier("swin_tiny_patch4_window7_224", 64, **_SWIN),
    classifier("swinv2_tiny_window8_256", 64, **_SWIN),
    classifier("maxvit_rmlp_pico_rw_256", 64, img_size=64, depths=(1, 1, 1, 1)),
    classifier("coatnet_pico_rw_224", 64, img_size=64, depths=(1, 1, 1, 1)),
    classifier("levit_128s", 224),
    classifier("mobilevit_xxs", 64, fixed=False),
    classifier("mobilevitv2_050", 64, fixed=False),
    classifier("efficientvit_m0", 224),
    classifier("mixer_s32_224", 64, img_size=64, num_blocks=2, embed_dim=64),
    classifier("gmlp_ti16_224", 64, img_size=64, num_blocks=2),
    classifier("coat_lite_tiny", 64, img_size=64, serial_depths=(1, 1, 1, 1)),
    classifier("beitv2_base_patch16_224", 64, img_size=64, embed_dim=32, depth=2, num_heads=4),
    classifier("eva02_tiny_patch14_224", 56, img_size=56, depth=2),
    classifier("hiera_tiny_224", 64, img_size=64, embed_dim=16, stages=(1, 1, 1, 1)),
    classifier("xcit_nano_12_p16_224", 64, img_size=64, depth=2),
    classifier("crossvit_tiny_240", 240, depth=((1, 1, 0),)),
    classifier("convit_tiny", 64, img_size=64, depth=3),
    classifier("cait_xxs24_224", 64, img_size=64, depth=2),
    classifier("pit_ti_224", 64, img_size=64),
    classifier("twins_svt_small", 64, img_size=64, depths=(1, 1, 1, 1)),
    classifier("twins_pcpvt_small", 64, img_size=64, depths=(1, 1, 1, 1)),
    classifier("gcvit_xxtiny", 64, img_size=64),
    classifier("davit_tiny", 64, embed_dims=(16, 32, 64, 128), depths=(1, 1, 1, 1),
               num_heads=(1, 2, 4, 8), window_size=4, fixed=False),
    classifier("mvitv2_tiny", 64, img_size=64),
    classifier("tiny_vit_5m_224", 64, fixed=False),
    classifier("efficientformerv2_s0", 224),
    classifier("nest_tiny_jx", 64, img_size=64, embed_dims=(16, 32, 64), num_heads=(1, 2, 4),
               depths=(1, 1, 1)),
    classifier("sequencer2d_s", 64, img_size=64, embed_dims=(16, 16, 32, 32),
               hidden_sizes=(8, 8, 8, 8), layers=(1, 1, 1, 1)),
    classifier("halonet26t", 256),
    classifier("botnet26t_256", 256),
    classifier("vit_relpos_small_patch16_224", 64, img_size=64, depth=2, embed_dim=32,
               num_heads=4),
    classifier("efficientvim_m1", 224),
    detector("fasterrcnn_mobilenet_v3_large_320_fpn", 80, **_BOXES),
    detector("maskrcnn_resnet50_fpn", 80, **_BOXES),
    detector("keypointrcnn_resnet50_fpn", 80, **{**_BOXES, "num_classes": 2}, num_keypoints=3),
    detector("retinanet_resnet50_fpn", 80, **_BOXES),
    detector("fcos_resnet50_fpn", 80, **_BOXES),
    detector("ssdlite320_mobilenet_v3_large", 320, num_classes=4),
    *(Architecture(name, partial(_segmenter, name), rectangles, ((2, 64), (1, 96)),
                   {"x": {0: "batch", 2: "height", 3: "width"}})
      for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")),
    Architecture("raft_small", _raft, _flow, ((1, 128), (2, 128)),
                 {name: {0: "batch"} for name in ("image1", "image2")}, {"num_flow_updates": 2}),
)  # fmt: skip
