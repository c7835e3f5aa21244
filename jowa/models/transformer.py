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
    """Keys and values of every layer: per layer (N, 2, heads, S, D / heads), S numbered slots, the same for all N.

    What a slot means is the caller's business: a query sees exactly the slots its bias leaves open.
    """

    def __init__(self, config: TrunkConfig, batch: int, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (batch, 2, config.heads, slots, config.width // config.heads)
        # Zeros, since a closed slot counts 0 times its value, which may be anything but infinite or NaN.
        self.layers = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]

    @property
    def slots(self) -> int:
        return self.layers[0].shape[3]

    @property
    def batch(self) -> int:
        return self.layers[0].shape[0]

    @property
    def device(self) -> torch.device:
        return self.layers[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].dtype

    def first(self, batch: int) -> KeyValueCache:
        """The first `batch` rows of this cache, in the same memory."""
        part = KeyValueCache.__new__(KeyValueCache)
        part.layers = [layer[:batch] for layer in self.layers]
        return part

    def write(self, layer: int, slots: Tensor, keys_values: Tensor) -> None:
        """Put keys and values (N, 2, heads, T, D / heads) into `slots` (T,) of a layer."""
        self.layers[layer].index_copy_(3, slots, keys_values)

    def read(self, layer: int, slots: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer's first `slots` slots, (N, heads, slots, D / heads) each."""
        keys, values = self.layers[layer][:, :, :, :slots].unbind(1)
        return keys, values

    def gather(self, first: int, slots: Tensor) -> None:
        """Copy each row's `slots` (N, T) to the slots first … first + T − 1; sources may overlap with these."""
        for layer in self.layers:
            index = slots[:, None, None, :, None].expand(-1, 2, layer.shape[2], -1, layer.shape[4])
            layer[:, :, :, first : first + slots.shape[1]] = layer.gather(3, index)


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
        self, x: Tensor, index: int, cache: KeyValueCache | None, slots: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        n, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(n, t, 3, self.heads, d // self.heads).permute(0, 2, 3, 1, 4)
        q, k, v = qkv.unbind(1)
        if cache is not None:
            assert slots is not None, "a cache needs slots"
            cache.write(index, slots, qkv[:, 1:].to(cache.dtype))
        if cache is None or bias is None:
            dropout = self.attention_dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            k, v = cache.read(index, bias.shape[-1])
            attended = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=bias)
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
        bias: Tensor | None = None,
    ) -> Tensor:
        """Embedded tokens x (N, T, D) → hidden states (N, T, D).

        Without a bias the T tokens are a causal sequence. With a cache, their keys and values are written into `slots`
        (T,) int64. With a bias (N, 1, T, S) of the cache's dtype, query (n, t) attends to the first S slots instead,
        its own included, where the bias is 0, and not where it is -inf.
        """
        x = self.dropout(x)
        for index, layer in enumerate(self.layers):
            x = layer(x, index, cache, slots, bias)
        out: Tensor = self.norm(x)
        return out
