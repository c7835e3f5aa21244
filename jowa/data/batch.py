"""The batch: the one border between the data and everything downstream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B sequences of L agent steps; tensors only.

    Row t of a sequence is (s_t, a_t, r_{t+1}, done_{t+1}): the reward and the end that follow the action taken at
    the frame. Padding, on the right unless the data were asked for it on the left, is zero frames and codes, action 0,
    reward 0, no end, `valid` False.

    Attributes:
        frames: (B, L, 1, 84, 84) uint8 grey screens, or None when the sequences carry codes only.
        codes: (B, L, K) tokenizer codes of the frames, or None; uint16 as read, int64 once moved with `to`.
        actions: (B, L) int64 indices into ALE's full set of 18 actions.
        rewards: (B, L) float32, raw as the game gave them (the objectives clip them to their sign).
        ends: (B, L) bool, True where the game terminated after the step (a truncated episode has no end).
        valid: (B, L) bool, True where the row is a real step and not padding.
        tasks: (B,) int64 task ids, the games' indices in alphabetical order.
        imagined: (B,) bool, True for sequences a model dreamed; None when all are real.
        taken: (B, L) bool, True where the action was really chosen, by the data or by a planner; None where all valid
            rows' were. An imagined sequence's last frame is valid, since the step before led there, but nothing was
            done in it.
    """

    frames: Tensor | None
    codes: Tensor | None
    actions: Tensor
    rewards: Tensor
    ends: Tensor
    valid: Tensor
    tasks: Tensor
    imagined: Tensor | None = None
    taken: Tensor | None = None

    @property
    def steps(self) -> Tensor:
        """(B, L) bool: the rows at which something was done."""
        return self.valid if self.taken is None else self.taken

    def __len__(self) -> int:
        """B, the number of sequences."""
        return int(self.actions.shape[0])

    def __getitem__(self, rows: slice) -> Batch:
        """Some of the sequences."""
        return self.map(lambda part: part[rows])

    def beside(self, other: Batch) -> Batch:
        """These sequences, then the other's of the same length, without frames; with codes if both carry them."""

        def both(name: str) -> Tensor:
            return torch.cat([getattr(self, name), getattr(other, name)])

        none = torch.zeros_like(self.tasks, dtype=torch.bool), torch.zeros_like(other.tasks, dtype=torch.bool)
        dreamed = [none[n] if part.imagined is None else part.imagined for n, part in enumerate((self, other))]
        return Batch(
            frames=None,
            codes=None if self.codes is None or other.codes is None else both("codes"),
            **{name: both(name) for name in ("actions", "rewards", "ends", "valid", "tasks")},
            imagined=torch.cat(dreamed),
            taken=both("steps"),
        )

    def first_steps(self, length: int) -> Batch:
        """The sequences' first `length` steps."""
        return self.map(lambda part: part if part.dim() == 1 else part[:, :length])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device; frames stay uint8, codes become int64 there, as losses want them."""
        moved = self.map(lambda part: part.to(device, non_blocking=non_blocking))
        return moved if moved.codes is None else dataclasses.replace(moved, codes=moved.codes.long())

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU can copy from while it works."""
        return self.map(Tensor.pin_memory)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with all its tensors changed."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in parts.items()}
        return Batch(**changed)

    def with_codes(self, codes: Tensor) -> Batch:
        """The same batch with `codes` (B, L, K) int64 beside its frames."""
        if codes.shape[:2] != self.actions.shape:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} do not fit a batch of {tuple(self.actions.shape)} steps"
            )
        return dataclasses.replace(self, codes=codes)
