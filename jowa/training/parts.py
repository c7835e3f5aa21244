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
from jowa.training.imagination_config import NEVER, ImaginationConfig


class Part(NamedTuple):
    """What one forward call works on.

    frame_index (F,) int64 chooses the tokenizer's frames among the batch's B·L, frame_weight (F,) is 0 for padding;
    both are empty when the tokenizer is frozen. starts: real sequences from whose frames others are to be imagined.
    imagined: imagined sequences, which carry codes; the Q losses alone see them. Both are None without imagination.
    """

    batch: Batch
    frame_index: Tensor
    frame_weight: Tensor
    starts: Batch | None = None
    imagined: Batch | None = None

    @property
    def sequences(self) -> Batch:
        """What the Q losses see: the real sequences, then the imagined ones."""
        return self.batch if self.imagined is None else self.batch.beside(self.imagined)

    def to(self, device: torch.device) -> Part:
        return Part(*(None if part is None else part.to(device, non_blocking=True) for part in self))  # type: ignore[arg-type]

    def pin_memory(self) -> Part:
        """The same in memory that a GPU can copy from while it works."""
        return Part(*(None if part is None else part.pin_memory() for part in self))  # type: ignore[arg-type]


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
    imagination: ImaginationConfig = NEVER,
) -> Iterator[list[Part]]:
    """Each step's parts for this process, a pure function of (seed, stage, step) and of the process's rank.

    The global batch and the frames that train the tokenizer are the same whatever the number of processes. Once
    imagination has begun, the second half of the batch gives starts and only the first one trains as it is.
    """
    order = data.order(step_seed(seed, name, 0))
    for step in steps:
        chosen, halves = order.batch(step, config.batch_size), imagination.halves(step)
        real = config.batch_size // halves
        share = rank_slice(real, distribution.rank, distribution.ranks)
        batch = data.batch(chosen[:real][share])
        generator = torch.Generator().manual_seed(step_seed(seed, name, step))
        lots = torch.rand(real, data.length, generator=generator)[share]
        takes = frames_to_take(stage.tokenizer_frames, real, data.length)[share]
        size = config.micro_batch // halves if config.micro_batch else len(batch)
        parts = split(batch, lots, takes, size)
        if halves == 2:
            starts = data.batch(chosen[real:][share]).first_steps(data.length - imagination.horizon)
            parts = [part._replace(starts=starts[n * size : (n + 1) * size]) for n, part in enumerate(parts)]
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
