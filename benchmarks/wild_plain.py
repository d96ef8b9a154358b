"""Networks in plain PyTorch, as people write them: recurrent, diffusion, graphs, ranking."""

from __future__ import annotations

import math
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .wild_export import Architecture, Inputs

_WIDTH = 16  # channels of most layers


class Packed(nn.Module):
    """A bidirectional recurrent net over packed sequences."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(50, _WIDTH)
        self.layers = kind(_WIDTH, _WIDTH, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * _WIDTH, 5)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        packed = pack_padded_sequence(self.words(tokens), lengths, batch_first=True)
        rows, state = self.layers(packed)
        padded, _ = pad_packed_sequence(rows, batch_first=True)
        return self.head(padded), state


class Spotter(nn.Module):
    """Convolutions, then a recurrent net over columns: reads lines of text (CRNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, _WIDTH, 3, padding=1), nn.BatchNorm2d(_WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.layers = nn.LSTM(_WIDTH, _WIDTH, bidirectional=True)
        self.head = nn.Linear(2 * _WIDTH, 11)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.features(x).mean(2).permute(2, 0, 1)
        return functional.log_softmax(self.head(self.layers(columns)[0]), 2)


class Stepped(nn.Module):
    """A streaming recurrent net: its states are inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.gates = nn.LSTM(8, _WIDTH, 2), nn.GRU(_WIDTH, 8)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, g: Tensor) -> Any:
        found, (h, c) = self.layers(x, (h, c))
        out, g = self.gates(found, g)
        return out, h, c, g


class TimedBlock(nn.Module):
    """A block of a diffusion model: two convolutions, and what the time adds."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, wide), nn.SiLU(), nn.Conv2d(wide, out, 3, 1, 1))
        self.time = nn.Linear(32, out)
        self.second = nn.Sequential(nn.GroupNorm(4, out), nn.SiLU(), nn.Conv2d(out, out, 3, 1, 1))
        self.skip = nn.Conv2d(wide, out, 1) if wide != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        found = self.first(x) + self.time(time)[:, :, None, None]
        return self.second(found) + self.skip(x)


class Heads(nn.Module):
    """Attention of rows to others of another width."""

    def __init__(self, wide: int, other: int) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(wide, wide, False), nn.Linear(wide, wide)
        self.key, self.value = nn.Linear(other, wide, False), nn.Linear(other, wide, False)

    def forward(self, rows: Tensor, others: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (4, -1)).transpose(1, 2)
            for layer, x in ((self.query, rows), (self.key, others), (self.value, others))
        )
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).flatten(2))


class Crossing(nn.Module):
    """Attention of the pixels to themselves and to the words of a prompt."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, wide)
        self.itself, self.words = Heads(wide, wide), Heads(wide, 24)
        self.spread = nn.Linear(wide, wide * 8)
        self.back = nn.Linear(wide * 4, wide)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        batch, wide, height, width = x.shape
        rows = self.norm(x).flatten(2).transpose(1, 2)
        rows = rows + self.itself(rows, rows)
        rows = rows + self.words(rows, words)
        left, gate = self.spread(rows).chunk(2, -1)
        rows = rows + self.back(left * functional.gelu(gate))
        return x + rows.transpose(1, 2).reshape(batch, wide, height, width)


class Denoiser(nn.Module):
    """A U-Net of latent diffusion in small."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(_WIDTH, 32), nn.SiLU(), nn.Linear(32, 32))
        self.enter = nn.Conv2d(4, _WIDTH, 3, padding=1)
        self.down = nn.ModuleList([TimedBlock(16, 16), TimedBlock(16, 32)])
        self.shrink = nn.ModuleList([nn.Conv2d(n, n, 3, 2, 1) for n in (16, 32)])
        self.middle, self.cross = TimedBlock(32, 32), Crossing(32)
        self.up = nn.ModuleList([TimedBlock(64, 32), TimedBlock(48, 16)])
        self.leave = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 4, 3, 1, 1))

    def forward(self, sample: Tensor, timestep: Tensor, words: Tensor) -> Tensor:
        steps = torch.exp(torch.arange(_WIDTH // 2) * (-math.log(10000) / (_WIDTH // 2)))
        angles = timestep[:, None].float() * steps[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], -1))
        x, kept = self.enter(sample), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x, time)
            kept.append(x)
            x = shrink(x)
        x = self.cross(self.middle(x, time), words)
        for block in self.up:
            other = kept.pop()
            x = functional.interpolate(x, size=other.shape[-2:], mode="nearest")
            x = block(torch.cat([x, other], 1), time)
        out: Tensor = self.leave(x)
        return out


class Points(nn.Module):
    """A cloud of points: features of the nearest neighbours (EdgeConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Sequential(nn.Conv2d(6, _WIDTH, 1), nn.BatchNorm2d(_WIDTH), nn.LeakyReLU())
        self.head = nn.Linear(2 * _WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        near = torch.cdist(rows, rows).topk(4, largest=False).indices
        batch, count, k = near.shape
        index = near.reshape(batch, count * k, 1).expand(-1, -1, 3)
        others = rows.gather(1, index).reshape(batch, count, k, 3)
        pairs = torch.cat([others - rows[:, :, None], rows[:, :, None].expand_as(others)], -1)
        found = self.edges(pairs.permute(0, 3, 1, 2)).amax(3)
        return self.head(torch.cat([found.amax(2), found.mean(2)], 1))


class Messages(nn.Module):
    """A graph network: twice, each node adds the mean of the nodes whose edges lead to it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, _WIDTH), nn.Linear(_WIDTH, _WIDTH)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        x = self.first(nodes)
        for _ in range(2):
            sums = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
            degree = torch.zeros(x.shape[0]).index_add(0, edges[1], torch.ones(edges.shape[1]))
            x = functional.relu(self.second(x + sums / degree.clamp(min=1)[:, None]))
        return x


class Ranker(nn.Module):
    """Click prediction: bags of categories, numbers, and their pairwise products (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(40, 8) for _ in range(4)])
        self.below = nn.Sequential(nn.Linear(6, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 8))
        self.above = nn.Sequential(nn.Linear(18, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        dense = self.below(numbers)
        rows = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        stacked = torch.stack([dense, *rows], 1)
        products = stacked @ stacked.transpose(1, 2)
        left, right = torch.tril_indices(5, 5, -1)
        found = torch.cat([dense, products[:, left, right]], 1)
        return torch.sigmoid(self.above(found))


class Grid(nn.Module):
    """A detector with anchors of a grid and suppression behind it, on one picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, _WIDTH, 3, 2, 1), nn.SiLU(),
                                  nn.Conv2d(_WIDTH, _WIDTH, 3, 4, 1), nn.SiLU())  # fmt: skip
        self.head = nn.Conv2d(_WIDTH, 3 * 7, 1)

    def forward(self, x: Tensor) -> Any:
        found = self.head(self.body(x))
        batch, _, height, width = found.shape
        found = found.view(batch, 3, 7, height, width).permute(0, 1, 3, 4, 2)
        ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = (found[..., :2].sigmoid() + torch.stack([xs, ys], -1)) * 8
        sizes = found[..., 2:4].exp() * 16
        boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], -1).reshape(-1, 4)
        scores, labels = found[..., 4:].sigmoid().reshape(-1, 3).max(1)
        keep = scores > 0.5
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        chosen = torchvision.ops.batched_nms(boxes, scores, labels, 0.4)[:20]
        return boxes[chosen], scores[chosen], labels[chosen]


class Signal(nn.Module):
    """Amplitudes of the spectra of a signal, masked by a recurrent net (separation of speech)."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.GRU(33, 33, batch_first=True)
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.stft(x, 64, 16, window=self.window, return_complex=True, center=True)
        size = torch.view_as_real(found).pow(2).sum(-1).sqrt()
        mask, _ = self.mask(torch.log1p(size).transpose(1, 2))
        return size * torch.sigmoid(mask).transpose(1, 2)


def _tokens(batch: int, length: int) -> Inputs:
    lengths = torch.tensor([length, length - 2, 1][:batch])
    return {"tokens": torch.randint(0, 50, (batch, length)), "lengths": lengths}


def _states(batch: int, length: int) -> Inputs:
    return {"x": torch.randn(length, batch, 8), "h": torch.randn(2, batch, _WIDTH),
            "c": torch.randn(2, batch, _WIDTH), "g": torch.randn(1, batch, 8)}  # fmt: skip


def _noise(batch: int, size: int) -> Inputs:
    return {"sample": torch.randn(batch, 4, size, size), "timestep": torch.full((batch,), 500),
            "words": torch.randn(batch, 7, 24)}  # fmt: skip


def _graph(batch: int, count: int) -> Inputs:
    return {"nodes": torch.randn(count, 8), "edges": torch.randint(0, count, (2, 3 * count))}


def _clicks(batch: int, size: int) -> Inputs:
    return {"numbers": torch.randn(batch, 6), "categories": torch.randint(0, 40, (batch, 4))}


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(_WIDTH, 4, 32, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


_BATCH = {0: "batch"}
_PACKED = {"tokens": {0: "batch", 1: "length"}, "lengths": _BATCH}

ARCHITECTURES: tuple[Architecture, ...] = (
    *(Architecture(f"packed-{kind.__name__.lower()}", lambda kind=kind: Packed(kind), _tokens,
                   ((3, 9), (2, 5)), _PACKED, everything=True)
      for kind in (nn.LSTM, nn.GRU, nn.RNN)),
    Architecture("crnn", Spotter, lambda b, n: {"x": torch.randn(b, 1, 16, n)}, ((2, 40), (1, 64)),
                 {"x": {0: "batch", 3: "width"}}),
    Architecture("streaming-lstm", Stepped, _states, ((2, 7), (1, 1)),
                 {"x": {0: "steps", 1: "batch"}, "h": {1: "batch"}, "c": {1: "batch"},
                  "g": {1: "batch"}}, everything=True),
    Architecture("unet-diffusion", Denoiser, _noise, ((2, 16), (1, 24)),
                 {"sample": {0: "batch", 2: "height", 3: "width"}, "timestep": _BATCH,
                  "words": {0: "batch", 1: "words"}}),
    Architecture("edgeconv", Points, lambda b, n: {"x": torch.randn(b, 3, n)}, ((2, 20), (1, 33)),
                 {"x": {0: "batch", 2: "points"}}),
    Architecture("graph-network", Messages, _graph, ((1, 12), (1, 30)),
                 {"nodes": {0: "nodes"}, "edges": {1: "edges"}}),
    Architecture("dlrm", Ranker, _clicks, ((2, 0), (33, 0)),
                 {"numbers": _BATCH, "categories": _BATCH}),
    Architecture("grid-detector", Grid, lambda b, n: {"x": torch.randn(1, 3, n, n)},
                 ((1, 64), (1, 96)), {"x": {2: "height", 3: "width"}}, everything=True),
    Architecture("stft-mask", Signal, lambda b, n: {"x": torch.randn(b, n)}, ((2, 640), (1, 1000)),
                 {"x": {0: "batch", 1: "samples"}}),
    Architecture("torch-encoder", _encoder, lambda b, n: {"src": torch.randn(b, n, _WIDTH)},
                 ((2, 9), (1, 5)), {"src": {0: "batch", 1: "sequence"}}),
)  # fmt: skip
