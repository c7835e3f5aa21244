"""The training losses on held-out episodes, without dropout and without gradients."""

from __future__ import annotations

import numpy as np
import torch

from jowa.data.sequences import SequenceDataset
from jowa.training.config import TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import Learner, Part, draw_frames
from jowa.training.loop import Hook, autocast


def validation_hook(
    learner: Learner, held_out: SequenceDataset, config: TrainingConfig, distribution: Distribution
) -> Hook | None:
    """A hook that measures the stage's losses on evenly spread held-out sequences; None when there are too few."""
    chunk = config.micro_batch or config.batch_size // distribution.ranks
    total = min(config.validation_sequences, len(held_out)) // distribution.ranks
    if total == 0:
        return None
    spread = np.linspace(0, len(held_out) - 1, total * distribution.ranks).astype(np.int64)
    mine = spread[distribution.rank :: distribution.ranks]

    @torch.no_grad()
    def validate(stage: str, step: int) -> dict[str, float]:
        learner.eval()
        sums: dict[str, float] = {}
        chunks = range(0, total, chunk)
        for start in chunks:
            batch = held_out.batch(mine[start : start + chunk]).to(distribution.device)
            frames = batch.valid.numel() if learner.stage.trains_tokenizer else 0
            part = Part(batch, *draw_frames(batch, frames, torch.Generator().manual_seed(0)))
            counts = {name: distribution.sum(count) for name, count in learner.counts(part).items()}
            with autocast(config.precision, distribution.device):
                _, shares = learner(part, counts)
            for name, share in shares.items():
                sums[name] = sums.get(name, 0.0) + float(distribution.sum(share.float()))
        return {f"held_out/{name.removeprefix('loss/')}": value / len(chunks) for name, value in sums.items()}

    return validate
