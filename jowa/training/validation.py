"""The training losses on held-out episodes, without dropout and without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jowa.data.sequences import SequenceDataset
from jowa.training.config import TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import TALLY, Learner
from jowa.training.loop import autocast
from jowa.training.parts import Part, draw_frames
from jowa.training.run import Hook
from jowa.training.tallies import summarise

HELD_OUT = "held_out/total"
"""The whole loss on held-out sequences: the lower, the better."""


def validation_hook(
    learner: Learner, held_out: SequenceDataset, config: TrainingConfig, distribution: Distribution
) -> Hook | None:
    """A hook that measures the stage's losses on evenly spread held-out sequences; None when there are none.

    Sums and counts are added up over everything before they are divided: the same whatever the number of processes.
    """
    total = min(config.validation_sequences, len(held_out))
    if total == 0:
        return None
    spread = np.linspace(0, len(held_out) - 1, total).astype(np.int64)
    mine = spread[distribution.rank :: distribution.ranks]
    chunk = config.micro_batch or config.batch_size // distribution.ranks

    @torch.no_grad()
    def validate(stage: str, step: int) -> dict[str, float]:
        learner.eval()
        sums: dict[str, Tensor] = {}
        # A process without sequences of its own still has to join the sum.
        for start in range(0, max(len(mine), 1), chunk):
            part = whole_part(held_out, mine[start : start + chunk], learner).to(distribution.device)
            ones = {name: torch.ones_like(count) for name, count in learner.counts(part).items()}
            with autocast(config.precision, distribution.device):
                # Not compiled: the last chunk's shape is another.
                shares = learner.forward(part, ones)[1]
            sums = {name: sums.get(name, 0) + share for name, share in shares.items()}
        tallies = {
            name.removeprefix(TALLY): distribution.sum(value).cpu()
            for name, value in sums.items()
            if name.startswith(TALLY)
        }
        return {f"held_out/{name.removeprefix('loss/')}": v for name, v in means(learner, tallies).items()}

    return validate


def whole_part(data: SequenceDataset, indices: np.ndarray, learner: Learner) -> Part:
    """These sequences, all their frames being the tokenizer's if it is trained."""
    batch = data.batch(indices)
    takes = torch.full((len(batch),), data.length if learner.stage.trains_tokenizer else 0)
    return Part(batch, *draw_frames(batch.valid, torch.zeros(batch.valid.shape), takes))


def means(learner: Learner, tallies: dict[str, Tensor]) -> dict[str, float]:
    """loss/<name>, loss/total and all that tallies tell."""
    values = {}
    for name in learner.loss_weights():
        places = float(tallies[f"places/{name}"].sum())
        values[f"loss/{name}"] = float(tallies[f"losses/{name}"].sum()) / max(places, 1.0)
    total = sum(weight * values[f"loss/{name}"] for name, weight in learner.loss_weights().items())
    return values | {"loss/total": total} | summarise(tallies)
