"""The tokenizer's convolutional encoder and decoder (paper, appendix on the VQ-VAE; tensor names as published).

By two factors, 7 and 2 unless set otherwise, an 84×84 screen goes down to a 6×6 grid and comes back up, ×7 first in
both directions: the decoder is not the mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalisation(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=2, num_channels=channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """norm, swish, conv, norm, swish, conv, plus the input (through a 1×1 convolution when the width changes)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = normalisation(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = normalisation(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.shortcut(x) + h
        return out


class AttentionBlock(nn.Module):
    """One head over the positions of a feature map: (N, C, H, W) → (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = normalisation(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2)[:, None] for f in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        out: Tensor = x + self.proj_out(attended.reshape(x.shape))
        return out


class Downsample(nn.Module):
    """Zero-pad right and bottom by one, then convolve with kernel factor+1 and stride factor."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, factor + 1, stride=factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, then a 3×3 convolution."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=float(self.factor), mode="nearest"))
        return out


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention where asked, then a change of resolution.

    Without blocks the width stays what comes in; `width` says what goes out.
    """

    def __init__(self, inputs: int, width: int, blocks: int, attention: bool, down: int = 0, up: int = 0) -> None:
        super().__init__()
        self.width = width if blocks else inputs
        self.block = nn.ModuleList(ResidualBlock(inputs if i == 0 else width, width) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(width) for _ in range(blocks if attention else 0))
        self.downsample = Downsample(self.width, down) if down else None
        self.upsample = Upsample(self.width, up) if up else None

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        if self.downsample is not None:
            x = self.downsample(x)
        if self.upsample is not None:
            x = self.upsample(x)
        return x


class Middle(nn.Module):
    """Residual, attention, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = AttentionBlock(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """(N, 1, 84, 84) in [−1, 1] → (N, embedding width, 6, 6). widths, blocks: of the levels at 84, 12 and 6."""

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], embedding_width: int, factors: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        width = widths[0]
        for i, factor in enumerate((*factors, 0)):
            level = Level(width, widths[i], blocks[i], attention=i > 0, down=factor)
            self.down.append(level)
            width = level.width
        self.mid = Middle(width)
        self.norm_out = normalisation(width)
        self.conv_out = nn.Conv2d(width, embedding_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return out


class Decoder(nn.Module):
    """(N, embedding width, 6, 6) → (N, 1, 84, 84) in about [−1, 1]; `up`, widths and blocks count from 84 to 6."""

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], embedding_width: int, factors: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(embedding_width, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        levels: list[Level] = []
        width = widths[-1]
        for i, factor in reversed(list(enumerate((0, *reversed(factors))))):
            levels.insert(0, Level(width, widths[i], blocks[i], attention=False, up=factor))
            width = levels[0].width
        self.up = nn.ModuleList(levels)
        self.norm_out = normalisation(width)
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Orthogonal convolutions with the gain of a rectifier, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.orthogonal_(part.weight, nn.init.calculate_gain("relu"))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
