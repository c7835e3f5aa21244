"""Conservative penalties that keep Q low away from the data: CQL (Kumar et al. 2020) and COMBO (Yu et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from jowa.objectives.temporal_difference import take_action


def conservative_losses(q: Tensor, actions: Tensor, taken: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Each sequence's sums, (B,), of the two means whose difference is the penalty; divide by `conservative_counts`.

    q (B, L, A) expected Q of all actions; actions (B, L); taken (B, L) bool: where one was chosen; real (B,) bool:
    whose actions count as data. CQL takes every sequence as real; COMBO leaves the imagined ones out.
    """
    chosen = take_action(q[..., None], actions)[..., 0]
    return {
        "conservative_all": (q.logsumexp(-1) * taken).sum(1),
        "conservative_data": -(chosen * (taken & real[:, None])).sum(1),
    }


def conservative_counts(taken: Tensor, real: Tensor) -> dict[str, Tensor]:
    """How many steps each of `conservative_losses` sums over, (B,)."""
    return {"conservative_all": taken.sum(1), "conservative_data": (taken & real[:, None]).sum(1)}
