"""What one training step works on: this process's share of the global batch, in micro-batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jowa.data.batch import Batch
from jowa.data.order import rank_slice
from jowa.data.sequences import SequenceDataset
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution


class Part(NamedTuple):
    """What one forward call works on.

    frame_index (F,) int64 chooses the tokenizer's frames among the batch's B·L, frame_weight (F,) is 0 for padding;
    both are empty when the tokenizer is frozen.
    """

    batch: Batch
    frame_index: Tensor
    frame_weight: Tensor

    def to(self, device: torch.device) -> Part:
        index, weight = (part.to(device, non_blocking=True) for part in self[1:])
        return Part(self.batch.to(device, non_blocking=True), index, weight)

    def pin_memory(self) -> Part:
        """The same in memory that a GPU can copy from while it works."""
        return Part(self.batch.pin_memory(), self.frame_index.pin_memory(), self.frame_weight.pin_memory())


def step_seed(seed: int, name: str, step: int) -> int:
    """The seed of all that is random in one step of a stage."""
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


def parts_of_steps(
    data: SequenceDataset,
    steps: range,
    name: str,
    stage: StageConfig,
    config: TrainingConfig,
    seed: int,
    distribution: Distribution,
) -> Iterator[list[Part]]:
    """Each step's parts for this process, a pure function of (seed, stage, step) and of the process's rank.

    The global batch and the frames that train the tokenizer are the same whatever the number of processes.
    """
    share = rank_slice(config.batch_size, distribution.rank, distribution.ranks)
    order = data.order(step_seed(seed, name, 0))
    takes = frames_to_take(stage.tokenizer_frames, config.batch_size, data.length)[share]
    for step in steps:
        batch = data.batch(order.batch(step, config.batch_size)[share])
        generator = torch.Generator().manual_seed(step_seed(seed, name, step))
        lots = torch.rand(config.batch_size, data.length, generator=generator)[share]
        parts = split(batch, lots, takes, config.micro_batch or len(batch))
        yield [part.pin_memory() for part in parts] if distribution.device.type == "cuda" else parts


def frames_to_take(frames: int, sequences: int, length: int) -> Tensor:
    """How many of `frames` each of so many sequences of `length` frames gives, as evenly as can be: (sequences,)."""
    bounds = np.arange(sequences + 1) * min(frames, sequences * length) // sequences
    return torch.from_numpy(np.diff(bounds))


def split(batch: Batch, lots: Tensor, takes: Tensor, size: int) -> list[Part]:
    """Micro-batches of `size` sequences, each with its frames."""
    return [
        Part(batch[rows], *draw_frames(batch.valid[rows], lots[rows], takes[rows]))
        for rows in (slice(start, start + size) for start in range(0, len(batch), size))
    ]


def draw_frames(valid: Tensor, lots: Tensor, takes: Tensor) -> tuple[Tensor, Tensor]:
    """Choose takes[b] frames of each sequence by lot, without repeats, real ones before padding.

    valid (B, L) bool, lots (B, L) in [0, 1), takes (B,) → index (F,) int64 into the B·L frames and weight (F,), 0 for
    padding; F is the sum of `takes`, whatever is valid.
    """
    ranking = (lots + (~valid) * 2.0).argsort(dim=1)
    chosen = torch.arange(valid.shape[1]) < takes[:, None]
    index = (ranking + torch.arange(len(valid))[:, None] * valid.shape[1])[chosen]
    return index, valid.flatten()[index].float()
