"""The ensemble of distributional Q networks on one hidden state, as batched matrix products (paper, section 4.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARAMETERS = ("weight1", "bias1", "gain1", "shift1", "weight2", "bias2", "gain2", "shift2", "weight3", "bias3")
"""The parameters' names, in the order of the published files."""


class QEnsemble(nn.Module):
    """E networks: Linear, dropout, LayerNorm, Mish; Linear, LayerNorm, Mish; Linear to actions × atoms.

    Parameters are stacked with a leading E, as in the published files. `atoms` = 1 gives scalar Q values.
    """

    def __init__(self, members: int, width: int, hidden: int, actions: int, atoms: int, dropout: float = 0.01) -> None:
        super().__init__()
        self.members, self.actions, self.atoms, self.dropout = members, actions, atoms, dropout
        outputs = actions * atoms
        for i, (fan_in, fan_out) in enumerate(((width, hidden), (hidden, hidden), (hidden, outputs)), start=1):
            bound = 1 / math.sqrt(fan_in)
            self.register_parameter(f"weight{i}", uniform(bound, members, fan_out, fan_in))
            self.register_parameter(f"bias{i}", uniform(bound, members, fan_out))
        for i in (1, 2):
            self.register_parameter(f"gain{i}", nn.Parameter(torch.ones(members, hidden)))
            self.register_parameter(f"shift{i}", nn.Parameter(torch.zeros(members, hidden)))

    def forward(self, h: Tensor) -> Tensor:
        """h (..., D) → logits (E, ..., actions, atoms)."""
        x = h.reshape(1, -1, h.shape[-1]).expand(self.members, -1, -1)
        x = self._linear(1, x)
        x = F.dropout(x, self.dropout, self.training)
        x = F.mish(self._norm(1, x))
        x = F.mish(self._norm(2, self._linear(2, x)))
        x = self._linear(3, x)
        return x.view(self.members, *h.shape[:-1], self.actions, self.atoms)

    def _linear(self, i: int, x: Tensor) -> Tensor:
        weight, bias = self.get_parameter(f"weight{i}"), self.get_parameter(f"bias{i}")
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    def _norm(self, i: int, x: Tensor) -> Tensor:
        gain, shift = self.get_parameter(f"gain{i}"), self.get_parameter(f"shift{i}")
        return F.layer_norm(x, x.shape[-1:]) * gain[:, None] + shift[:, None]


def uniform(bound: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def ensemble_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """values (E, ...) → (...): the plain mean, or the convex combination `weights` (E,) (random ensemble mixture)."""
    if weights is None:
        return values.mean(0)
    return torch.tensordot(weights.to(values.dtype), values, dims=1)
