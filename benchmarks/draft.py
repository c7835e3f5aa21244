"""Drafting: how much faster planning is when the next frame is guessed from the present one and verified.

    python benchmarks/draft.py --ckpt runs/demo                 # a trained agent in real contexts of its own data
    python benchmarks/draft.py --model 40M                      # random weights: nearly every guess is wrong

Everything is measured in one process, in rounds that plan once with and once without drafts; ratios are the medians of
the rounds' ratios. Both ways must imagine the same frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from arguments import a_width, natural, positive, user_errors
from plan_counts import random_contexts
from rounds import Rounds, Work
from torch import Tensor

from jowa.cli import load_config
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore, has_episodes
from jowa.errors import UserError
from jowa.models.agent_files import Agent
from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.decoder import Block, BlockDecoder, Imagined, likeliest
from jowa.planning.drafting import DraftingDecoder, FewDrafted
from jowa.planning.dream import Context
from jowa.planning.planner import Plan
from jowa.planning.tree_dream import TreeDream
from jowa.pretrain import PretrainConfig
from jowa.training.starting_point import open_agent

HORIZON = 2


class Counted(FewDrafted):
    """Drafts as play does, and counts blocks and trunk calls."""

    def __init__(self, model: WorldActionModel, rows: int) -> None:
        self.drafting = DraftingDecoder(model)
        super().__init__(self.drafting, BlockDecoder(model, likeliest), rows)
        self.blocks = self.calls = 0

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
        self.drafting.calls = 0
        imagined = super().__call__(cache, block)
        self.blocks += 1
        self.calls += self.drafting.calls or len(block.growth.slots)
        return imagined


def agent_and_model(ckpt: str | None, size: str) -> tuple[Agent | None, WorldActionModel]:
    """The agent in `ckpt` and its model; without, a model of that size with random weights, and no agent."""
    if ckpt is not None:
        agent = open_agent(ckpt).agent
        return agent, agent.model.eval()
    config = load_config(PretrainConfig, "pretrain", ["+exp=atari15", f"model={size}"])
    torch.manual_seed(0)
    return None, WorldActionModel(config.model, config.tokenizer.vocabulary).eval()


def real_contexts(agent: Agent, count: int, frames: int) -> tuple[Context, Tensor]:
    """Contexts drawn from the episodes the agent was trained on. Raises UserError where these aren't at hand."""
    description = agent.description
    folder, games = description["data"], list(description["games"])
    if folder is None or not all(has_episodes(Path(folder), game) for game in games):
        raise UserError(f"--ckpt is an agent whose data ({folder or 'unknown'}) are not here: name one whose are.")
    store = EpisodeStore(Path(folder), games)
    data = SequenceDataset(store, length=frames, stride=1)
    batch = data.batch(np.random.default_rng(0).integers(len(data), size=count))
    assert batch.frames is not None
    codes = agent.tokenizer.encode(batch.frames.flatten(0, 1)).unflatten(0, (count, frames))
    return Context(codes, batch.actions, batch.valid.sum(1), batch.tasks), torch.ones(
        count, agent.model.config.actions, dtype=torch.bool
    )


def compare(
    model: WorldActionModel, context: Context, legal: Tensor, width: int, rows: int, rounds: int
) -> dict[str, object]:
    planner, drafting = BeamSearch(width, HORIZON), Counted(model, rows)
    dreams = {"plain": TreeDream(model), "drafted": TreeDream(model, decode=drafting)}
    plans: dict[str, Plan] = {}

    def work(name: str) -> Work:
        def plan() -> None:
            plans[name] = planner.plan(dreams[name], context, legal)

        return plan

    works = {name: work(name) for name in dreams}
    for plan in works.values():
        plan()
    drafting.blocks = drafting.calls = 0
    found = Rounds(works, rounds, model.device)
    same = plans["plain"].frames == plans["drafted"].frames
    return {
        "environments": len(legal),
        "width": width,
        "plain, times drafted": found.times("plain", "drafted"),
        "trunk calls a block": drafting.calls / drafting.blocks,
        "equal codes": f"{int(same.sum())} of {same.numel()}",
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", help="an agent whose data are at hand")
    parser.add_argument("--model", default="nano", choices=["nano", "40M", "70M", "150M"], help="without --ckpt")
    parser.add_argument("--environments", type=positive, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--widths", type=a_width, nargs="+", default=[2, 4])
    parser.add_argument("--context", type=positive, default=6, help="frames")
    parser.add_argument("--rows", type=natural, default=10**6, help="draft up to so many frames at once; play: 16")
    parser.add_argument("--rounds", type=positive, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with user_errors(parser):
        compare_all(arguments)


def compare_all(arguments: argparse.Namespace) -> None:
    """Print a line for each width and number of environments."""
    agent, model = agent_and_model(arguments.ckpt, arguments.model)
    frames, blocks = arguments.context, model.config.blocks
    if frames + HORIZON > blocks:
        raise UserError(f"--context {frames} and {HORIZON} steps ahead exceed the {blocks} frames the model sees.")
    for width in arguments.widths:
        for count in arguments.environments:
            context, legal = real_contexts(agent, count, frames) if agent else random_contexts(model, count, frames)
            print(json.dumps(compare(model, context, legal, width, arguments.rows, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
