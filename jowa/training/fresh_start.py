"""What of a pretrained agent finetuning begins from: all of it, its tokenizer alone, or nothing but its sizes."""

from __future__ import annotations

import difflib
from dataclasses import replace

import torch

from jowa.errors import UserError
from jowa.models.agent_files import Agent
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel
from jowa.training.adaptation import AdaptationConfig
from jowa.training.config import StageConfig

STARTS = ("pretrained", "tokenizer", "scratch")


def check_start(start: str, key: str) -> None:
    """Raises UserError naming the `key` for a start there isn't."""
    if start not in STARTS:
        close = difflib.get_close_matches(start, STARTS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose among {', '.join(STARTS)}."
        raise UserError(f"There is no '{start}' to give as {key}: {hint}")


def check_fresh(start: str, adaptation: AdaptationConfig, stage: StageConfig) -> None:
    """Raises UserError where random parts would stay as they are."""
    if start != "pretrained" and adaptation.method != "full":
        raise UserError(
            f"finetune.method={adaptation.method} would leave the trunk of start={start} as random as it begins: set "
            "finetune.method=full."
        )
    if start == "scratch" and not stage.trains_tokenizer:
        raise UserError(
            "start=scratch needs a tokenizer that learns, else its codes stay random: set stage.tokenizer_frames above "
            "0."
        )


def fresh_parts(agent: Agent, start: str, seed: int) -> Agent:
    """The agent with the parts that don't come from its checkpoint made anew, in the same sizes.

    The world-action model of one seed begins alike whether the tokenizer is fresh as well or not.
    """
    if start == "pretrained":
        return agent
    model, tokenizer = agent.model, agent.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WorldActionModel(model.config, model.vocabulary, model.tokens_per_frame)
        if start == "scratch":
            tokenizer = Tokenizer(tokenizer.config)
    return replace(agent, tokenizer=tokenizer.eval(), model=model.eval())
