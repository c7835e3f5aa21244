"""A small episode store and small runs on it, for tests of training, finetuning and evaluation.

The games' names are real, their frames are not: a bright square walks over a dark screen, to the right or to the left
as the action says, and the reward is its direction's sign now and then.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jowa import finetune, pretrain
from jowa.cli import load_config
from jowa.data.store import EpisodeWriter
from jowa.games import legal_actions
from jowa.models.agent_files import WEIGHTS
from jowa.training.checkpoint import latest_checkpoint

GAMES = ("Breakout", "Pong")
LENGTHS = (23, 9, 30, 12, 17)
"""Agent steps of each game's episodes; the last one is cut, the others end."""


def write_store(folder: Path, games: tuple[str, ...] = GAMES, lengths: tuple[int, ...] = LENGTHS) -> Path:
    for game in games:
        with EpisodeWriter(folder, game, provenance={"source": "a test"}) as writer:
            for number, length in enumerate(lengths):
                frames, actions, rewards = moving_square(game, number, length)
                writer.append(frames, actions, rewards, terminated=number < len(lengths) - 1)
    return folder


def moving_square(game: str, number: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng([len(game), number])
    legal = np.array(legal_actions(game), np.uint8)
    actions = random.choice(legal, length)
    direction = np.where(actions == legal[-1], 1, -1)
    places = (random.integers(0, 84) + 3 * np.cumsum(direction)) % 76
    frames = random.integers(0, 20, (length, 84, 84)).astype(np.uint8)
    for frame, place in zip(frames, places, strict=True):
        frame[30:38, place : place + 8] = 230
    rewards = (direction * 2.0 * (random.random(length) < 0.3)).astype(np.float32)
    return frames, actions, rewards


def pretrain_config(data: Path, out: Path, *changes: str) -> pretrain.PretrainConfig:
    overrides = ["+exp=smoke", f"data.path={data}", f"out={out}", *changes]
    return load_config(pretrain.PretrainConfig, "pretrain", overrides)


def pretrain_run(data: Path, out: Path, *changes: str) -> Path:
    """A finished pretraining run in `out`; it draws no pictures unless asked to, which takes half of its time."""
    pretrain.main(pretrain_config(data, out, "training.picture_every=1000", *changes))
    return out


def finetune_run(data: Path, out: Path, ckpt: Path, *changes: str) -> Path:
    """A finished finetuning run on Pong in `out`, four steps of four sequences unless changed."""
    small = ["stage.steps=4", "stage.tokenizer_frames=8", "training.batch_size=4", "training.checkpoint_every=2",
             "evaluation.every=0"]  # fmt: skip
    overrides = [f"data.path={data}", f"out={out}", f"ckpt={ckpt}", "game=Pong", "training.threads=1", *small, *changes]
    finetune.main(load_config(finetune.FinetuneConfig, "finetune", overrides))
    return out


def final_weights(run: Path) -> bytes:
    return (latest_checkpoint(run) / WEIGHTS).read_bytes()


def states_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
