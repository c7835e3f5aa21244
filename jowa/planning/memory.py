"""How much memory a plan takes, and how much there is."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from jowa.models.world_action_model import WorldActionModel
from jowa.planning.dream import Needs
from jowa.planning.tree import ALIGNMENT, slots_for


def plan_bytes(model: WorldActionModel, frames: int, needs: Needs, graphed: bool = False) -> int:
    """The most bytes of memory a plan takes for one environment, the weights aside; for N environments N times that.

    With `frames` L of context, K codes a frame, `needs` of P nodes alive, B at once and M kept when others go, width D,
    E Q networks of Z atoms, V codes, A actions, b bytes a number and

        S = (L + P)(K + 1) - 1 slots, T = L(K + 1) - 1 tokens of context,

    it is the cache, the most of what reading the context, decoding a block and moving kept blocks take beside it, and
    codes, actions and positions in 64 bits:

        b (2 layers D S + max(16 D T, B (S + R), 2 D (K + 1) M)) + 8 (K + 1)(L + 4 B + P)
        R = max(17 D, 3 D + V, 2 D + A Z q / b),    q = 8 E + 4 if b = 4 else E (8 + b)

    where the S beside R, the attention bias, is rounded up to a multiple of 16. The 16 D a token are the layers' at
    their highest, in the MLP: its two times 4 D, queries, keys and values, what was attended to, the residual stream
    before and after, the tokens embedded. What an operation takes and gives back within itself is not in it, nor
    tables of 16 S bytes that all environments share. Blocks that are `graphed` have a working set of their own,
    B (S + R), beside the others'.
    """
    config, number = model.config, model.code_embedding.weight.element_size()
    tokens, width = model.block_tokens, config.width
    slots = slots_for(frames, needs.nodes, tokens)
    outputs = config.actions * (config.atoms if config.q_loss == "c51" else 1)
    # Expected Q is computed in single precision: logits, their softmaxes and, in other precisions, a copy between.
    q_bytes = 8 * config.q_networks + 4 if number == 4 else config.q_networks * (8 + number)
    heads = max(3 * width + model.vocabulary, 2 * width + outputs * q_bytes // number)
    row = slots + -slots % ALIGNMENT + max(17 * width, heads)
    moved = 2 * width * tokens * needs.kept
    working = max(16 * width * (frames * tokens - 1), needs.at_once * row, moved) + graphed * needs.at_once * row
    whole_numbers = 8 * tokens * (frames + 4 * needs.at_once + needs.nodes)
    return number * (2 * config.layers * width * slots + working) + whole_numbers


def draft_bytes(model: WorldActionModel, frames: int, needs: Needs, rows: int) -> int:
    """What drafting takes beside that at most, however many the environments: K + 1 tokens for each of `rows` nodes.

    A token has R numbers as in a plan, without Q, and three times a row of the bias while that is put together.
    """
    if not needs.at_once:
        return 0
    width, tokens = model.config.width, model.block_tokens
    slots = slots_for(frames, needs.nodes, tokens)
    row = 3 * slots + max(17 * width, 3 * width + model.vocabulary)
    return rows * tokens * row * model.code_embedding.weight.element_size()


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, what torch holds there without using it included.

    On a CPU what Linux says is available, or less where the processes of a job share a limit (control groups); on other
    systems half of the machine's memory.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return int(min(available, _job_bytes()))


def _job_bytes() -> float:
    """What the control group this process is in may still take; infinity where there is no limit."""
    try:
        own = Path("/proc/self/cgroup").read_text("ascii").splitlines()[0].split(":")[2].lstrip("/")
        folder = Path("/sys/fs/cgroup") / own
        limit, used = ((folder / name).read_text("ascii").strip() for name in ("memory.max", "memory.current"))
        return math.inf if limit == "max" else max(int(limit) - int(used), 0)
    except (OSError, ValueError, IndexError):
        return math.inf
