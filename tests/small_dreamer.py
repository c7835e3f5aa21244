"""A small agent to dream with, and copies of it on disk that are sure of what they predict."""

from __future__ import annotations

from pathlib import Path

import torch
from small_learner import TOKENIZER, small_model

from jowa.models.agent_files import save_agent
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel


def dreamer() -> tuple[Tokenizer, WorldActionModel]:
    """A small agent in whose dreams things happen: codes that look different, rewards, ends."""
    torch.manual_seed(0)
    tokenizer, model = Tokenizer(TOKENIZER), small_model()
    tokenizer.embedding.weight.data.mul_(100)
    model.reward_head[-1].weight.data.mul_(50)
    model.end_head[-1].weight.data.mul_(-50)  # with this sign an end is predicted now and then
    return tokenizer.eval(), model.eval()


def save_dreamer(folder: Path, data: Path | None, tokenizer: Tokenizer, model: WorldActionModel) -> Path:
    facts = {"games": ["Pong"], "data": data and str(data), "holdout": data and 0.3}
    save_agent(folder, tokenizer, model, facts)
    return folder


def rigged(folder: Path, data: Path, reward: int, ends: bool) -> Path:
    """An agent that always predicts the same reward and end."""
    tokenizer, model = dreamer()
    for head, choice in ((model.reward_head, reward + 1), (model.end_head, int(ends))):
        head[-1].weight.data.zero_()
        head[-1].bias.data.zero_()[choice] = 1
    return save_dreamer(folder, data, tokenizer, model)
