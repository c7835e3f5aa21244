"""The world model's losses: next codes, reward sign, termination (paper, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def observation_targets(codes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """codes (B, L, K), valid (B, L) → labels and mask (B, L, K) for the places that predict.

    Place k < K−1 of a frame predicts its code k+1; the last place, the action, predicts the next frame's first code.
    A label counts when its own frame is valid; the last action has no label.
    """
    following = F.pad(codes[:, 1:, :1], (0, 0, 0, 1))
    labels = torch.cat([codes[:, :, 1:], following], dim=2)
    next_valid = F.pad(valid[:, 1:], (0, 1), value=False)
    mask = torch.cat([valid[:, :, None].expand(-1, -1, codes.shape[2] - 1), next_valid[:, :, None]], dim=2)
    return labels, mask


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """logits (B, ..., C), labels and mask (B, ...) → (B,): each sequence's sum of −log p(label) where mask is True."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction="none")
    return (losses.view(mask.shape) * mask).flatten(1).sum(1)


def reward_classes(rewards: Tensor) -> Tensor:
    """Raw rewards → classes 0, 1, 2 for the signs −1, 0, 1."""
    return rewards.sign().long() + 1


def world_losses(
    observation: Tensor, reward: Tensor, end: Tensor, codes: Tensor, rewards: Tensor, ends: Tensor, valid: Tensor
) -> dict[str, Tensor]:
    """Each sequence's sums over valid places of the three cross-entropies, (B,); divide by `world_counts`.

    observation (B, L, K, V), reward (B, L, 3), end (B, L, 2) logits; codes (B, L, K); rewards, ends, valid (B, L).
    """
    labels, mask = observation_targets(codes, valid)
    return {
        "observation": masked_cross_entropy(observation, labels, mask),
        "reward": masked_cross_entropy(reward, reward_classes(rewards), valid),
        "end": masked_cross_entropy(end, ends.long(), valid),
    }


def world_counts(valid: Tensor, tokens_per_frame: int) -> dict[str, Tensor]:
    """How many labels each of `world_losses` sums over, (B,); valid (B, L)."""
    steps = valid.sum(1)
    first_codes = valid[:, 1:].sum(1)
    return {"observation": steps * (tokens_per_frame - 1) + first_codes, "reward": steps, "end": steps}
