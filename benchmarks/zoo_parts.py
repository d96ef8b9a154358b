"""What the further networks of the zoo are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .zoo import ZooModel, calibrate_batch_norm, pictures, randomise

CLASSES = {"num_labels": 1000}
EAGER = {"attn_implementation": "eager"}


class Hidden(nn.Module):
    """One tensor to a model's last hidden state."""

    def __init__(self, model: nn.Module, argument: str) -> None:
        super().__init__()
        self.model, self.argument = model, argument

    def forward(self, x: Tensor) -> Tensor:
        return self.model(**{self.argument: x}).last_hidden_state


class Plain(nn.Module):
    """One tensor to one tensor, the argument called `x`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def spec_of(module: nn.Module, x: Tensor) -> ZooModel:
    """One input, one output."""
    return ZooModel(module.eval(), {"x": x}, [{"x": x}], ["x"], ["y"])


def hidden(model: nn.Module, argument: str, x: Tensor) -> ZooModel:
    """A model of `transformers` that has no head."""
    draw(model)
    return spec_of(Hidden(model, argument), x)


def plain(model: nn.Module, x: Tensor) -> ZooModel:
    """A model written out here."""
    draw(model)
    calibrate_batch_norm(model, pictures(8, x.shape[-1]) if x.shape[1] == 3 else x)
    return spec_of(Plain(model), x)


def draw(model: nn.Module) -> None:
    """Draw all parameters, those of one-dimensional convolutions too."""
    randomise(model)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=float(module.weight[0].numel()) ** -0.5)


def tokens(count: int) -> Tensor:
    """i64[1,count]"""
    return torch.randint(0, 30000, (1, count))


def conv_norm(i: int, o: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution that keeps the extent (or divides it), and batch normalisation."""
    conv = nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(o)]
