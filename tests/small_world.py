"""A small world model that predicts various things, sequences for it, and decoding the slow way."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.data.batch import Batch
from jowa.models.world_action_model import ModelConfig, WorldActionModel

VOCABULARY, K = 6, 36


def small_world_model() -> WorldActionModel:
    """In eval mode."""
    torch.manual_seed(0)
    model = WorldActionModel(ModelConfig(layers=2, heads=2, width=16, q_networks=1, q_width=8), VOCABULARY)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def make_batch(seed: int, tasks: list[int], length: int = 5) -> Batch:
    """Slowly changing codes; the second sequence is padded, the third ends at its last valid step."""
    random = torch.Generator().manual_seed(seed)
    count = len(tasks)
    codes = torch.randint(VOCABULARY, (count, 1, K), generator=random).repeat(1, length, 1)
    change = torch.rand(codes.shape, generator=random) < 0.3
    codes = torch.where(change, torch.randint(VOCABULARY, codes.shape, generator=random), codes)
    valid, ends = torch.ones(count, length, dtype=torch.bool), torch.zeros(count, length, dtype=torch.bool)
    valid[1, 3:] = False
    valid[2, 2:], ends[2, 1] = False, True
    rewards = torch.randint(-1, 2, (count, length), generator=random).float() * 7
    actions = torch.randint(18, (count, length), generator=random)
    return Batch(None, codes * valid[:, :, None], actions * valid, rewards * valid, ends, valid, torch.tensor(tasks))


def decode_slowly(model: WorldActionModel, codes: Tensor, actions: Tensor, task: Tensor) -> Tensor:
    """The frame (K,) after codes (T, K) and actions (T,): the whole sequence again for every code."""
    guess = torch.zeros(1, 1, K, dtype=torch.int64)
    actions = torch.cat([actions, torch.zeros(1, dtype=torch.int64)])[None]
    for k in range(K):
        hidden = model.hidden(torch.cat([codes[None], guess], dim=1), actions, task[None])
        state = hidden.observation[0, -2, -1] if k == 0 else hidden.observation[0, -1, k - 1]
        guess[0, 0, k] = model.observation_logits(state).argmax()
    return guess[0, 0]
