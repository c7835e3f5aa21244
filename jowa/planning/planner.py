"""What a planner gives back, and the rule all planners share: an illegal action never wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jowa.planning.dream import Context, Dream, Needs


@dataclass(frozen=True)
class Plan:
    """Decisions for N environments, and the R imagined futures of H agent steps they were chosen among.

    Attributes:
        actions: (N,) int64, the actions to play, in the full action set.
        root_q: (N, A) float, expected Q at the present frame, unmasked.
        scores: (N, R) float, the values of the futures kept to the end, best first; -inf where an environment had
            fewer than R. Greedy play keeps one, a tree search one a first action, by the measure it chooses by.
        first_actions: (N, R) int64, the action each of these futures begins with.
        future_actions: (N, R, H) int64, all actions along each future.
        frames: (N, R, H, K) int64, the codes imagined along each future. H is 0 in greedy play and 1 in a tree search,
            whose futures are the first action's step; an action never tried has the present frame there.
        rewards: (N, R, H) float, of the steps to these frames; 0 for an action never tried.
        continuations: (N, R, H) float, 0 where a step is predicted to end the episode; 1 for an action never tried,
            and throughout in a tree search that ignores ends.
    """

    actions: Tensor
    root_q: Tensor
    scores: Tensor
    first_actions: Tensor
    future_actions: Tensor
    frames: Tensor
    rewards: Tensor
    continuations: Tensor


class Planner(Protocol):
    """Chooses actions for N environments at once."""

    def needs(self, actions: int) -> Needs:
        """What a plan takes with so many actions in the full set."""

    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""


def check_legal(legal: Tensor, context: Context) -> None:
    """Refuse what isn't (N, A) bool, and, on the CPU only, where nothing may be played: a look waits for a device.

    Raises:
        ValueError: naming the first such environment.
    """
    environments = len(context.lengths)
    if legal.dtype != torch.bool or legal.dim() != 2 or len(legal) != environments:
        raise ValueError(
            f"legal must be bool of shape ({environments}, actions), not {legal.dtype} of {tuple(legal.shape)}"
        )
    if legal.device.type != "cpu":
        return
    stuck = (~legal.any(dim=1)).nonzero()[:, 0].tolist()
    if stuck:
        raise ValueError(f"environment {stuck[0]} has no legal action: give each at least one")


def legal_q(q: Tensor, legal: Tensor) -> Tensor:
    """Expected Q (N, ..., A) with -inf at the illegal actions of `legal` (N, A).

    Raises:
        ValueError: the model has another number of actions.
    """
    if legal.shape[-1] != q.shape[-1]:
        raise ValueError(f"legal must be of the model's {q.shape[-1]} actions, not {legal.shape[-1]}")
    between = (1,) * (q.dim() - legal.dim())
    return q.masked_fill(~legal.view(legal.shape[0], *between, legal.shape[1]), float("-inf"))
