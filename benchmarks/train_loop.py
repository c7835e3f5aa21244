"""What holds up the real training loop beside its steps: waiting for data, and saving."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from tiny_store import write_store

from jowa.data.codes import build_codes
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.models.agent_files import tokenizer_hash
from jowa.pretrain import PretrainConfig
from jowa.training.config import DataConfig
from jowa.training.learner import Learner
from jowa.training.loop import train_stage
from jowa.training.metrics import FILE, MetricsLog
from jowa.training.run import Regularly, Run
from jowa.training.saver import Judge
from jowa.training.stage_data import stage_data

STEPS, EVERY = 12, 4
"""Steps of a run of the loop, and how often it reads its clock or saves."""
EPISODE = 100
NO_BEST = Judge("nothing", True)


def loop_stalls(config: PretrainConfig, name: str, learner: Learner, run: Run) -> dict[str, float]:
    """The share of its time that the loop waits for data, and how many steps' time a checkpoint holds it up."""
    episodes = 1 + 2 * config.training.batch_size * config.data.stride // EPISODE
    store = EpisodeStore(write_store(run.folder / "data", lengths=(EPISODE,) * max(4, episodes)))
    stage = config.stages[name]
    if not stage.trains_tokenizer:
        random_codes(store, learner)
    where = DataConfig(path=str(store.folder), stride=config.data.stride)
    data, _ = stage_data(store, where, None, stage, learner.tokenizer, config.model.blocks, run.distribution)
    return {
        "loader wait, share of a step": loader_wait(config, name, learner, data, run),
        "checkpoint stall, steps": checkpoint_stall(config, name, learner, data, run),
    }


def loader_wait(config: PretrainConfig, name: str, learner: Learner, data: SequenceDataset, run: Run) -> float:
    """The median of the clock's readings but the first, which has the first batch in it."""
    log = MetricsLog(run.folder)
    training = replace(config.training, log_every=EVERY, checkpoint_every=10 * STEPS)
    run, stage = replace(run, config=training, log=log), replace(config.stages[name], steps=4 * EVERY)
    train_stage(run, name, stage, learner, data, [], NO_BEST)
    log.close()
    lines = [json.loads(line) for line in (run.folder / FILE).read_text().splitlines()]
    return statistics.median(line["speed/loader_wait"] for line in lines[1:])


def checkpoint_stall(config: PretrainConfig, name: str, learner: Learner, data: SequenceDataset, run: Run) -> float:
    """How much longer the steps behind a checkpoint take than the others, in steps; the longest of two."""
    times: list[float] = []

    def stamp(stage: str, step: int) -> dict[str, float]:
        # Called before the loop saves; whatever saving costs lies between this stamp and the next.
        times.append(time.perf_counter())
        return {}

    training = replace(config.training, log_every=10 * STEPS, checkpoint_every=EVERY)
    run, stage = replace(run, config=training), replace(config.stages[name], steps=STEPS)
    train_stage(run, name, stage, learner, data, [Regularly(stamp, 1)], NO_BEST)
    intervals = [after - before for before, after in pairwise(times)]
    behind = [seconds for step, seconds in enumerate(intervals, start=1) if step % EVERY == 0]
    others = [seconds for step, seconds in enumerate(intervals, start=1) if step % EVERY]
    usual = statistics.median(others)
    return max(behind) / usual - 1


def random_codes(store: EpisodeStore, learner: Learner) -> None:
    """Codes under the tokenizer's name, so that none have to be made."""
    random = torch.Generator().manual_seed(0)
    vocabulary, codes = learner.tokenizer.config.vocabulary, learner.tokenizer.tokens_per_frame

    def encode(frames: Tensor) -> Tensor:
        return torch.randint(0, vocabulary, (len(frames), codes), generator=random)

    for game in store.games:
        build_codes(store, game, tokenizer_hash(learner.tokenizer), encode, chunk=1024)
