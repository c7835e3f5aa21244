"""The imagined sequences that training draws from: a ring of the newest ones, the same on every process."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.data.batch import Batch
from jowa.training.parts import step_seed

_TYPES = {"codes": torch.uint16, "actions": torch.uint8, "rewards": torch.float32, "ends": torch.bool,
          "valid": torch.bool, "taken": torch.bool, "tasks": torch.int16}  # fmt: skip


class Replay:
    """Keeps the newest `size` sequences.

    Attributes:
        added: sequences added so far, those overwritten included.
    """

    def __init__(self, size: int, length: int, tokens: int, device: torch.device) -> None:
        """length: agent steps a sequence; tokens: codes a frame."""
        shapes: dict[str, tuple[int, ...]] = {"codes": (length, tokens), "tasks": ()}
        self.size = size
        self.added = 0
        self._ring = {
            name: torch.zeros(size, *shapes.get(name, (length,)), dtype=kind, device=device)
            for name, kind in _TYPES.items()
        }

    def __len__(self) -> int:
        return min(self.added, self.size)

    def add(self, batch: Batch) -> None:
        """Put sequences, `size` at most, in the places of the oldest."""
        first = self.added % self.size
        head = min(len(batch), self.size - first)
        for name, ring in self._ring.items():
            new = getattr(batch, name)
            ring[first : first + head] = new[:head]
            ring[: len(batch) - head] = new[head:]
        self.added += len(batch)

    def rows(self, index: Tensor) -> Batch:
        """The sequences at places `index` (n,) int64, on the replay's device, as the learner wants them."""
        index = index.to(self._ring["tasks"].device, non_blocking=True)
        found = {name: _chosen(ring, index) for name, ring in self._ring.items()}
        found |= {name: found[name].long() for name in ("codes", "actions", "tasks")}
        return Batch(frames=None, **found, imagined=torch.ones_like(found["tasks"], dtype=torch.bool))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {name: ring[: len(self)] for name, ring in self._ring.items()}

    def load_state(self, state: dict[str, Tensor], added: int) -> None:
        """Raises ValueError unless the state is that of such a replay after so many sequences."""
        kept = min(added, self.size)
        expected = {name: (kept, *ring.shape[1:]) for name, ring in self._ring.items()}
        if {name: tuple(part.shape) for name, part in state.items()} != expected:
            raise ValueError(f"no replay of {kept} sequences")
        for name, ring in self._ring.items():
            ring[:kept] = state[name]
        self.added = added


def _chosen(ring: Tensor, index: Tensor) -> Tensor:
    """A ring's rows `index` (n,)."""
    # A GPU has no kernel that looks up unsigned numbers of 16 bits; signed ones are moved alike.
    return ring.view(torch.int16)[index].view(torch.uint16) if ring.dtype == torch.uint16 else ring[index]


def places_to_draw(seed: int, name: str, step: int, kept: int, count: int) -> Tensor:
    """Which of a replay's `kept` sequences a step of a stage draws, uniformly: (count,) int64, for all processes."""
    generator = torch.Generator().manual_seed(step_seed(seed, f"{name}/replay", step))
    return torch.randint(kept, (count,), generator=generator)
