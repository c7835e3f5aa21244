"""What a dream makes of recorded actions: let loose from some first frames on, and one step ahead of the true ones."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.planning.dream import Context
from jowa.planning.tree_dream import TreeDream


@torch.inference_mode()
def free_running(dream: TreeDream, codes: Tensor, actions: Tensor, tasks: Tensor, context: int) -> Tensor:
    """Frames `context` … L − 1 of B sequences, (B, L − context, K), decoded from the given frames and each other.

    codes (B, L, K) of the true frames, of which the first `context` are looked at; actions (B, L); tasks (B,).
    """
    length = codes.shape[1]
    given = torch.full_like(tasks, context)
    node = dream.reset(Context(codes[:, :context], actions[:, :context], given, tasks), room=length - context).ids
    frames = []
    for step in range(context, length):
        node = dream.expand(node, actions[:, step - 1 : step]).ids
        frames.append(dream.codes(node)[:, 0])
    return torch.stack(frames, dim=1)


@torch.inference_mode()
def one_step_ahead(dream: TreeDream, codes: Tensor, actions: Tensor, tasks: Tensor, context: int) -> Tensor:
    """The same frames, each decoded from all true frames before it: (B, L − context, K)."""
    frames = []
    for step in range(context, codes.shape[1]):
        given = torch.full_like(tasks, step)
        root = dream.reset(Context(codes[:, :step], actions[:, :step], given, tasks), room=1).ids
        frames.append(dream.codes(dream.expand(root, actions[:, step - 1 : step]).ids)[:, 0])
    return torch.stack(frames, dim=1)
