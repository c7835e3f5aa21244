"""The tokenizer: a vector-quantised autoencoder that turns a screen into K codes (paper, section 4.1 and appendix)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jowa.errors import UserError
from jowa.models.autoencoder import Decoder, Encoder, initialise

SCREEN = 84


@dataclass(frozen=True)
class TokenizerConfig:
    """The defaults are the published network. Three levels: at 84, at 12 (encoder) or 42 (decoder), and at 6.

    factors: how much the encoder shrinks between its levels, which the decoder takes back in the same order; what is
    left of the 84×84 pixels is the grid of codes, 6×6 for 7 and 2.
    widths: channels of each level; encoder_blocks, decoder_blocks: its residual blocks, none leaves the width as it is.
    squared_weight: weight of the squared error beside the absolute one, which the paper has not. Without LPIPS the
    absolute error is long content with the background; the squared one makes large moving things appear earlier.
    """

    widths: tuple[int, ...] = (64, 64, 64)
    encoder_blocks: tuple[int, ...] = (2, 2, 2)
    decoder_blocks: tuple[int, ...] = (3, 3, 3)
    factors: tuple[int, int] = (7, 2)
    embedding_width: int = 512
    vocabulary: int = 2048
    squared_weight: float = 0.0
    perceptual: str = "none"
    perceptual_weights: str | None = None


def check_tokenizer(config: TokenizerConfig) -> None:
    """Raises UserError for sizes that can't be built."""
    if len(config.widths) != 3 or any(width < 2 or width % 2 for width in config.widths):
        raise UserError(f"tokenizer.widths must be three even numbers, not {list(config.widths)}.")
    for key in ("encoder_blocks", "decoder_blocks"):
        blocks = getattr(config, key)
        if len(blocks) != 3 or min(blocks) < 0:
            raise UserError(f"tokenizer.{key} must be three numbers of at least 0, not {list(blocks)}.")
    if len(config.factors) != 2 or min(config.factors) < 1 or SCREEN % math.prod(config.factors):
        raise UserError(
            f"tokenizer.factors must be two numbers of at least 1 whose product divides {SCREEN}, not "
            f"{list(config.factors)}: [7,2] gives 36 codes a frame, [7,4] 9, [7,3] 16, [4,3] 49, [7,1] 144."
        )
    if config.embedding_width < 1:
        raise UserError(f"tokenizer.embedding_width must be at least 1, not {config.embedding_width}.")
    if not 2 <= config.vocabulary <= 65536:
        raise UserError(f"tokenizer.vocabulary must lie in 2 … 65536, not {config.vocabulary}.")
    if config.squared_weight < 0:
        raise UserError(f"tokenizer.squared_weight must not be negative, but is {config.squared_weight}.")
    if config.perceptual not in ("lpips", "none"):
        raise UserError(f"tokenizer.perceptual must be 'lpips' or 'none', not '{config.perceptual}'.")


class Quantised(NamedTuple):
    latents: Tensor
    """(N, C, G, G) before quantisation."""
    nearest: Tensor
    """(N, C, G, G) the chosen code vectors; gradients reach the codebook."""
    codes: Tensor
    """(N, K) int64, row by row."""


class Tokenizer(nn.Module):
    """Frames ↔ codes. Screens are uint8, or floats in [0, 1]; a frame has K = G² codes (`tokens_per_frame`)."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        check_tokenizer(config)
        self.config = config
        self.grid = SCREEN // math.prod(config.factors)
        self.tokens_per_frame = self.grid**2
        width = config.embedding_width
        self.encoder = Encoder(config.widths, config.encoder_blocks, width, config.factors)
        self.pre_quant_conv = nn.Conv2d(width, width, 1)
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.post_quant_conv = nn.Conv2d(width, width, 1)
        self.decoder = Decoder(config.widths, config.decoder_blocks, width, config.factors)
        initialise(self)
        nn.init.uniform_(self.embedding.weight, -1.0 / config.vocabulary, 1.0 / config.vocabulary)
        # Twice as fast on a CPU, and what tensor cores want on a GPU; values are the same.
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Quantised]:
        """(N, 1, 84, 84) → the screens and their reconstructions, both in [−1, 1], and what lay between them."""
        x = to_signed(frames)
        quantised = self.quantise(x)
        straight_through = quantised.latents + (quantised.nearest - quantised.latents).detach()
        return x, self.decoder(self.post_quant_conv(straight_through)), quantised

    def quantise(self, x: Tensor) -> Quantised:
        """x (N, 1, 84, 84) in [−1, 1]. The nearest code is chosen in float32: lower precision flips near ties."""
        latents = self.pre_quant_conv(self.encoder(x))
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            flat = latents.detach().flatten(2).transpose(1, 2).reshape(-1, latents.shape[1])
            codes = nearest_code(flat, self.embedding.weight.detach().float()).view(-1, self.tokens_per_frame)
            return Quantised(latents, self._vectors(codes), codes)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (N, 1, 84, 84) uint8 or floats in [0, 1] → codes (N, K) int64, always in float32."""
        with torch.autocast(frames.device.type, enabled=False):
            return self.quantise(to_signed(frames)).codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, K) → screens (N, 1, 84, 84), floats clamped to [0, 1]."""
        x = self.decoder(self.post_quant_conv(self._vectors(codes)))
        return ((x.float() + 1) / 2).clamp(0, 1)

    def _vectors(self, codes: Tensor) -> Tensor:
        vectors = F.embedding(codes, self.embedding.weight).transpose(1, 2)
        return vectors.reshape(codes.shape[0], -1, self.grid, self.grid)


def to_signed(frames: Tensor) -> Tensor:
    """uint8 in 0 … 255, or floats in [0, 1] → float32 in [−1, 1]."""
    scaled = frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()
    return scaled * 2 - 1


def nearest_code(vectors: Tensor, codebook: Tensor, chunk: int = 65536) -> Tensor:
    """(M, C), (V, C) → (M,) int64: the code at the least squared distance, as the argmax of v·e − ½‖e‖²."""
    offset = codebook.square().sum(1).div(2)
    parts = [(part @ codebook.T - offset).argmax(1) for part in vectors.split(chunk)]
    return torch.cat(parts)
