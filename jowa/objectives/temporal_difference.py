"""Temporal-difference losses of the Q networks: C51 (Bellemare et al. 2017) and scalar (paper, section 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jowa.models.q_ensemble import ensemble_mean


def td_masks(ends: Tensor, valid: Tensor, taken: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """ends, valid (B, L) → steps with a valid successor, and terminal steps; a cut sequence's last step is neither.

    taken (B, L) bool: the steps at which something was done, all valid ones if None; others are neither.
    """
    next_valid = F.pad(valid[:, 1:], (0, 1), value=False)
    taken = valid if taken is None else taken
    return taken & next_valid & ~ends, taken & ends


def td_count(ends: Tensor, valid: Tensor, taken: Tensor | None = None) -> Tensor:
    """How many steps the TD losses sum over in each sequence, (B,)."""
    follows, terminal = td_masks(ends, valid, taken)
    return (follows | terminal).sum(1)


def c51_loss(
    logits: Tensor,
    target_logits: Tensor,
    actions: Tensor,
    rewards: Tensor,
    ends: Tensor,
    valid: Tensor,
    legal: Tensor,
    support: Tensor,
    gamma: float,
    weights: Tensor | None = None,
    taken: Tensor | None = None,
) -> Tensor:
    """Each sequence's sum over steps, (B,), of the cross-entropy to the projected target; divide by `td_count`.

    logits, target_logits (E, B, L, A, Z); actions, rewards (signs), ends, valid (B, L); legal (B, A) bool;
    support (Z,); weights (E,): one convex combination for the random ensemble mixture; taken as in `td_masks`.
    """
    follows, terminal = td_masks(ends, valid, taken)
    probabilities = ensemble_mean(logits.float().softmax(-1), weights)
    prediction = take_action(probabilities, actions)
    with torch.no_grad():
        target = ensemble_mean(target_logits.float().softmax(-1), weights)
        best = greedy_action(target @ support, legal)
        following = next_step(take_action(target, best))
        discount = gamma * follows.to(rewards.dtype)
        projected = project(following, rewards.sign(), discount, support)
    losses = -(projected * (prediction + 1e-8).log()).sum(-1)
    return (losses * (follows | terminal)).sum(1)


def mse_loss(
    values: Tensor,
    target_values: Tensor,
    actions: Tensor,
    rewards: Tensor,
    ends: Tensor,
    valid: Tensor,
    legal: Tensor,
    gamma: float,
    weights: Tensor | None = None,
    taken: Tensor | None = None,
) -> Tensor:
    """Each sequence's sum over steps of half the squared TD error, (B,).

    values, target_values (E, B, L, A); the rest as in `c51_loss`.
    """
    follows, terminal = td_masks(ends, valid, taken)
    prediction = take_action(ensemble_mean(values.float(), weights)[..., None], actions)[..., 0]
    with torch.no_grad():
        target = ensemble_mean(target_values.float(), weights)
        best = greedy_action(target, legal)
        following = next_step(take_action(target[..., None], best))[..., 0]
        goal = rewards.sign() + gamma * follows * following
    return (0.5 * (prediction - goal).square() * (follows | terminal)).sum(1)


def take_action(values: Tensor, actions: Tensor) -> Tensor:
    """values (B, L, A, Z), actions (B, L) → (B, L, Z)."""
    index = actions[..., None, None].expand(*actions.shape, 1, values.shape[-1])
    return values.gather(2, index)[:, :, 0]


def greedy_action(values: Tensor, legal: Tensor) -> Tensor:
    """values (B, L, A), legal (B, A) → (B, L): the best legal action."""
    return values.masked_fill(~legal[:, None], -torch.inf).argmax(-1)


def next_step(x: Tensor) -> Tensor:
    """x (B, L, Z) moved one step earlier; the last step repeats itself and is masked by the caller."""
    return torch.cat([x[:, 1:], x[:, -1:]], dim=1)


def project(probabilities: Tensor, rewards: Tensor, discounts: Tensor, support: Tensor) -> Tensor:
    """Distribution of r + discount·Z on the support: (..., Z), (...), (...), (Z,) → (..., Z), clipped at its ends."""
    low, high = support[0], support[-1]
    step = (high - low) / (support.numel() - 1)
    moved = (rewards[..., None] + discounts[..., None] * support).clamp(low, high)
    place = (moved - low) / step
    # Each atom's mass goes to its two neighbours in proportion to nearness: a triangular kernel, no scatter needed.
    grid = torch.arange(support.numel(), device=support.device, dtype=support.dtype)
    kernel = (1 - (place[..., None, :] - grid[:, None]).abs()).clamp(min=0)
    return (kernel @ probabilities[..., None])[..., 0]
