"""What a plan's best future makes of a real prefix: a sequence to train on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from jowa.data.batch import Batch
from jowa.planning.planner import Plan


class Future(NamedTuple):
    """N futures of H agent steps.

    actions (N, H) int64; codes (N, H, K) int64 of the frames they lead to; rewards (N, H) float, −1, 0 or 1;
    ends (N, H) bool: whether a step is taken and ends the episode; taken (N, H) bool: not after such an end.
    """

    actions: Tensor
    codes: Tensor
    rewards: Tensor
    ends: Tensor
    taken: Tensor

    @classmethod
    def best(cls, plan: Plan, use_termination: bool) -> Future:
        """Each environment's best one; predicted ends count unless they are ignored."""
        goes_on = plan.continuations[:, 0] > 0 if use_termination else torch.ones_like(plan.rewards[:, 0]) > 0
        taken = pad(goes_on[:, :-1].long().cumprod(1), (1, 0), value=1) > 0
        return cls(plan.future_actions[:, 0], plan.frames[:, 0], plan.rewards[:, 0], taken & ~goes_on, taken)

    def discounted(self, gamma: float) -> Tensor:
        """(N,): the rewards of the steps taken, discounted from the first one."""
        weights = gamma ** torch.arange(self.rewards.shape[1], device=self.rewards.device)
        return (self.rewards * self.taken * weights).sum(1)


def sequences_along(prefixes: Batch, future: Future, length: int) -> Batch:
    """Sequences of `length` steps: each prefix up to its present frame, its last valid one, and then its future.

    At the present frame the future's first action is taken, in place of the real one. The last imagined frame is valid
    but not taken: nothing was done there, its action is 0. After a predicted end there is padding and no such frame.

    Args:
        prefixes: of at most `length` − H frames with codes, the real steps first.
        future: on the same device.
        length: L, at least one frame more than H.
    """
    assert prefixes.codes is not None, "prefixes carry codes"
    given, horizon = prefixes.valid.sum(1, keepdim=True), future.actions.shape[1]
    row = torch.arange(length, device=given.device)
    room = length - prefixes.valid.shape[1]
    step = row - given + 1  # which step of the future the row's is: the present frame's is the first
    frame = row - given  # and which imagined frame it shows
    is_step, is_frame = (step >= 0) & (step < horizon), (frame >= 0) & (frame < horizon)

    def along(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index.clamp(0, horizon - 1))

    def after(real: Tensor, imagined: Tensor) -> Tensor:
        """Real values before the present frame, the future's from there on, zeros where nothing was done."""
        done = along(imagined, step).masked_fill(~taken, 0)
        return torch.where(row < given - 1, pad(real, (0, room)), done.to(real.dtype))

    taken = is_step & along(future.taken, step)
    reached = is_frame & along(future.taken & ~future.ends, frame)
    places = frame.clamp(0, horizon - 1)[:, :, None].expand(-1, -1, future.codes.shape[2])
    shown = future.codes.gather(1, places).masked_fill(~reached[:, :, None], 0)
    return Batch(
        frames=None,
        codes=torch.where((row < given)[:, :, None], pad(prefixes.codes, (0, 0, 0, room)), shown),
        actions=after(prefixes.actions, future.actions),
        rewards=after(prefixes.rewards, future.rewards),
        ends=after(prefixes.ends, future.ends),
        valid=(row < given) | reached,
        tasks=prefixes.tasks,
        imagined=torch.ones_like(prefixes.tasks, dtype=torch.bool),
        taken=(row < given - 1) | taken,
    )
