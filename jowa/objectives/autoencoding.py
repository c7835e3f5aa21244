"""The tokenizer's losses (paper, appendix on the VQ-VAE; van den Oord et al. 2017)."""

from __future__ import annotations

from torch import Tensor

COMMITMENT = 1.0


def autoencoding_losses(
    x: Tensor, reconstruction: Tensor, latents: Tensor, nearest: Tensor, weight: Tensor
) -> dict[str, Tensor]:
    """Each frame's means, (N,); divide their sums by the sum of `weight`.

    x, reconstruction (N, 1, 84, 84) in [−1, 1]; latents, nearest (N, C, G, G); weight (N,): 0 leaves a frame out.
    """

    def mean(values: Tensor) -> Tensor:
        return values.float().flatten(1).mean(1) * weight

    codebook = mean((latents.detach() - nearest).square())
    commitment = mean((latents - nearest.detach()).square())
    return {
        "reconstruction": mean((x - reconstruction).abs()),
        "squared_error": mean((x - reconstruction).square()),
        "quantisation": codebook + COMMITMENT * commitment,
    }
