"""Networks of `transformers` with tensors in and tensors out, as the exporter wants them."""

from __future__ import annotations

from typing import Any

import transformers as tf
from torch import Tensor, nn


class Classifier(nn.Module):
    """Pictures f32[batch,3,h,w] to logits f32[batch,classes]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values).logits


class Encoder(nn.Module):
    """Token ids, mask and types i64[batch,sequence] to hidden states and the pooled state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        return out.last_hidden_state, out.pooler_output


class LanguageModel(nn.Module):
    """Token ids i64[batch,sequence] to logits f32[batch,sequence,vocabulary]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, use_cache=False).logits


class DecodeStep(nn.Module):
    """One token i64[batch,1], its position, and per layer key and value f32[batch,heads,past,d]
    to logits f32[batch,1,vocabulary] and the caches with one position more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor, past: list[Tensor]) -> Any:
        cache = tf.DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(
            input_ids=input_ids, position_ids=position_ids, past_key_values=cache, use_cache=True
        )
        present = [t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)]
        return (out.logits, *present)
