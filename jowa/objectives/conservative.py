"""Conservative penalties that keep Q low away from the data: CQL (Kumar et al. 2020) and COMBO (Yu et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from jowa.objectives.temporal_difference import take_action


def conservative_losses(q: Tensor, actions: Tensor, valid: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Sums of the two means whose difference is the penalty; divide each by its count in `conservative_counts`.

    q (B, L, A) expected Q of all actions; actions, valid (B, L); real (B,) bool: whose actions count as data. CQL takes
    every sequence as real; COMBO leaves the imagined ones out.
    """
    taken = take_action(q[..., None], actions)[..., 0]
    return {
        "conservative_all": (q.logsumexp(-1) * valid).sum(),
        "conservative_data": -(taken * (valid & real[:, None])).sum(),
    }


def conservative_counts(valid: Tensor, real: Tensor) -> dict[str, Tensor]:
    return {"conservative_all": valid.sum(), "conservative_data": (valid & real[:, None]).sum()}
