"""The trunk: a pre-norm causal transformer, one call for training, prefill and decoding (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TrunkConfig:
    layers: int
    heads: int
    width: int
    embedding_dropout: float = 0.1
    residual_dropout: float = 0.1
    attention_dropout: float = 0.1


class KeyValueCache:
    """Keys and values of every layer: per layer (N, heads, S, D / heads), S numbered slots shared in layout by all N.

    What a slot means is the caller's business: a query sees exactly the slots its mask names.
    """

    def __init__(self, config: TrunkConfig, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = (batch, config.heads, slots, config.width // config.heads)
        self.keys = [torch.zeros(self.shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(self.shape, device=device, dtype=dtype) for _ in range(config.layers)]

    @property
    def slots(self) -> int:
        return self.keys[0].shape[2]

    def grow(self, extra: int) -> None:
        """Append `extra` empty slots."""
        self.keys = [F.pad(keys, (0, 0, 0, extra)) for keys in self.keys]
        self.values = [F.pad(values, (0, 0, 0, extra)) for values in self.values]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (N, heads, T, D / heads) into `slots` (T,); return the whole layer's."""
        self.keys[layer].index_copy_(2, slots, keys.to(self.keys[layer].dtype))
        self.values[layer].index_copy_(2, slots, values.to(self.values[layer].dtype))
        return self.keys[layer], self.values[layer]


class Layer(nn.Module):
    """x += dropout(projection(attention(LN x))); x += MLP(LN x)."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        width = config.width
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.projection_dropout = nn.Dropout(config.residual_dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(config.residual_dropout)
        )

    def forward(
        self, x: Tensor, index: int, cache: KeyValueCache | None, slots: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        n, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.attention_dropout if self.training else 0.0
        if cache is None:
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            assert slots is not None and mask is not None, "a cache needs slots and a mask"
            k, v = cache.write(index, slots, k, v)
            attended = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask[:, None])
        x = x + self.projection_dropout(self.projection(attended.transpose(1, 2).reshape(n, t, d).to(x.dtype)))
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class Trunk(nn.Module):
    """Layers and the final LayerNorm."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache | None = None,
        slots: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Embedded tokens x (N, T, D) → hidden states (N, T, D).

        Without a cache the T tokens are a causal sequence. With one, their keys and values are written into `slots`
        (T,) int64 and query (n, t) attends to the slots where mask (N, T, S) is True, its own included.
        """
        x = self.dropout(x)
        for index, layer in enumerate(self.layers):
            x = layer(x, index, cache, slots, mask)
        out: Tensor = self.norm(x)
        return out
