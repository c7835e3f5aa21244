"""The fewest seconds that beam search on a shared prefix could take on a machine, from shapes alone.

Each of the 37·H positions either moves its bytes or does its arithmetic, whichever takes longer, and nothing else:

- bytes: the trunk's and the observation head's weights once; per environment the prefix and all blocks kept or growing
  up to this position, read once for all its beams, and what they write;
- arithmetic: the same weights for every row, and each row's attention over its own path.

The context is one such pass over its tokens, whose queries are counted as if each saw half of them; Q is read at the
root and at the end of every block for its weights' sake. Reward, end and embeddings are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rounds import Rounds, Work

from jowa.models.world_action_model import WorldActionModel


@dataclass(frozen=True)
class Machine:
    """bandwidth: bytes/s of its memory. flops: FLOP/s of its matrix products."""

    bandwidth: float
    flops: float

    def seconds(self, moved: float, done: float) -> float:
        """For so many bytes and so many operations at the same time."""
        return max(moved / self.bandwidth, done / self.flops)


H200 = Machine(4.3e12, 790e12)
"""As measured with bfloat16: what the table in the project's specification is computed with."""


@dataclass(frozen=True)
class Search:
    """Beam search for N environments whose contexts have so many frames."""

    environments: int
    width: int
    horizon: int
    context: int


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights, of one token's keys and values in all layers, and of bytes a number."""

    trunk: int
    observation_head: int
    q_networks: int
    keys_values: int
    block_tokens: int
    number_bytes: int

    @classmethod
    def of(cls, model: WorldActionModel, number_bytes: int) -> Sizes:
        """Those of the matrices, without biases and norms."""
        trunk, observation = (_matrices(part) for part in (model.trunk, model.observation_head))
        q = sum(weight.numel() for weight in model.q_networks.parameters() if weight.dim() == 3)
        config = model.config
        return cls(trunk, observation, q, 2 * config.layers * config.width, model.block_tokens, number_bytes)


def ideal_seconds(sizes: Sizes, search: Search, machine: Machine) -> float:
    """Of one plan for all environments together."""
    prefix, number = search.context * sizes.block_tokens - 1, sizes.number_bytes
    # A token attends with 2 operations for each number of a key or a value it sees, and causally to half of the prefix.
    read = search.environments * prefix * (2 * sizes.trunk + sizes.keys_values * prefix)
    written = search.environments * prefix * sizes.keys_values
    total = machine.seconds(number * (sizes.trunk + written), read)
    total += (search.horizon + 1) * machine.seconds(number * sizes.q_networks, 0)
    for step in range(search.horizon):
        rows = search.width ** min(step + 1, 2)
        kept = prefix + step * search.width * sizes.block_tokens
        for offset in range(1, sizes.block_tokens + 1):
            seen = prefix + step * sizes.block_tokens + offset
            token = 2 * (sizes.trunk + sizes.observation_head) + 2 * sizes.keys_values * seen
            moved = search.environments * sizes.keys_values * (kept + rows * offset + rows)
            weights = sizes.trunk + sizes.observation_head
            total += machine.seconds(number * (weights + moved), search.environments * rows * token)
    return total


def measured_machine(device: torch.device, dtype: torch.dtype, side: int = 2048, rounds: int = 9) -> Machine:
    """What a large copy (its bytes read and written) and a large square product reach here, the best of some rounds."""
    copy, copied = large_copy(device, dtype)
    square = torch.ones(side, side, dtype=dtype, device=device)
    works: dict[str, Work] = {"copy": copy, "product": lambda: square @ square}
    seconds = {name: min(found) for name, found in Rounds(works, rounds, device).seconds.items()}
    return Machine(copied / seconds["copy"], 2 * side**3 / seconds["product"])


def large_copy(device: torch.device, dtype: torch.dtype) -> tuple[Work, int]:
    """A copy that no cache holds, and the bytes it reads and writes."""
    source = torch.ones(2**28 // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


def _matrices(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
