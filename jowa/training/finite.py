"""From the first loss or gradient that isn't finite no weight changes any more, and nobody waits to find out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jowa.training.distribution import Distribution


@dataclass(frozen=True)
class Failure:
    """The first step that was not finite, and the names of its losses and gradient norms that were not."""

    step: int
    names: list[str]


class FiniteGuard:
    """Watches the losses and gradient norms of every step on the device.

    The optimisers are told on the device to skip a step that isn't finite and all that follow; the host asks when it
    reads the metrics anyway. Every process sees the same sums, so that all skip, and stop, alike.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.names: list[str] = []
        self.step = torch.full((), -1, dtype=torch.int64, device=distribution.device)
        self.finite = torch.ones(0, dtype=torch.bool, device=distribution.device)

    def watch(self, step: int, losses: dict[str, Tensor], norms: dict[str, Tensor]) -> Tensor:
        """Look at one step's shares of the losses and its gradient norms; returns 1.0 (), float32, to skip it."""
        total = self.distribution.sum(torch.stack([loss.float() for loss in losses.values()]))
        finite = torch.cat([total, torch.stack([norm.float() for norm in norms.values()])]).isfinite()
        if not self.names:
            self.names = [*losses, *norms]
            self.finite = torch.ones_like(finite)
        first = (self.step < 0) & ~finite.all()
        self.step = torch.where(first, step, self.step)
        self.finite = torch.where(first, finite, self.finite)
        return (self.step >= 0).to(torch.float32)

    def failure(self) -> Failure | None:
        """What was not finite; waits for the device."""
        step = int(self.step)
        if step < 0:
            return None
        return Failure(step, [name for name, fine in zip(self.names, self.finite.tolist(), strict=True) if not fine])
