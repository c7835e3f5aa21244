"""The training loop: read it top to bottom."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from jowa.data.batch import Batch
from jowa.data.order import rank_slice
from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.errors import Interrupted, UserError
from jowa.models.world_action_model import BLOCK_TOKENS, BLOCKS
from jowa.training.checkpoint import Place, load_optimizers
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.interruption import Interruption
from jowa.training.learner import Learner, Part, draw_frames
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.saver import CheckpointSaver

JUDGED_BY = "held_out/total"
"""The metric whose lowest value makes a stage's best checkpoint."""

Hook = Callable[[str, int], dict[str, float]]
"""Called on every process with (stage, steps done) at validation or picture time; returns metrics to log."""


@dataclass(frozen=True)
class Run:
    """What all stages of a run share. `facts` go into every checkpoint's description."""

    folder: Path
    seed: int
    config: TrainingConfig
    distribution: Distribution
    log: MetricsLog
    facts: dict[str, Any]


def train_stage(
    run: Run,
    name: str,
    stage: StageConfig,
    learner: Learner,
    data: SequenceDataset,
    resume_from: Path | None = None,
    first_step: int = 0,
    validate: Hook | None = None,
    picture: Hook | None = None,
) -> None:
    """Run one stage from `first_step` to its end, leaving a checkpoint at the end and every checkpoint_every steps.

    Step s draws its data and random numbers from (seed, stage, s) alone: a resumed run repeats an uninterrupted one.
    Raises Interrupted when a signal asks to stop, once the step is done and a checkpoint of it saved; what else was due
    after that step is left out, since schedulers don't wait long.
    """
    config, distribution = run.config, run.distribution
    learner.begin(stage)
    learner.train()
    wrapped = distribution.wrap(learner)
    optimizers = Optimizers(learner, stage, config)
    if resume_from is not None:
        load_optimizers(resume_from, optimizers)
    else:
        learner.model.synchronise_target()
    meter = Meter(distribution, config.batch_size)
    steps = range(first_step, stage.steps)
    with (
        CheckpointSaver(run.folder, run.facts, config.keep_checkpoints, distribution) as saver,
        Interruption(distribution) as interruption,
        Prefetch(batches(data, run, name, steps)) as prefetched,
        progress(run, name, first_step, stage.steps) as bar,
    ):
        for step, batch in zip(steps, prefetched, strict=True):
            interruption.begin_step()
            metrics = train_step(run, name, step, wrapped, optimizers, batch.to(distribution.device, non_blocking=True))
            done = step + 1
            place = Place(name, done)
            if done % config.target_every == 0:
                learner.model.synchronise_target()
            meter.add(metrics)
            stopped_by = interruption.end_step()
            if done % config.log_every == 0 or done == stage.steps or stopped_by is not None:
                values = meter.read()
                run.log.write(name, done, values)
                bar.set_postfix(postfix(values))
            bar.update()
            if stopped_by is not None:
                saver.save_now(place, learner, optimizers)
                raise Interrupted(stopped_by, run.folder, f"step {done} of {name}")
            shown: dict[str, float] = {}
            for hook, every in ((validate, config.validate_every), (picture, config.picture_every)):
                if hook is not None and (done % every == 0 or done == stage.steps):
                    if values := hook(name, done):
                        run.log.write(name, done, values)
                        shown |= values
                    learner.train()
                    meter.restart_clock()
            if done == stage.steps:
                saver.save_now(place, learner, optimizers)
            elif done % config.checkpoint_every == 0:
                saver.save(place, learner, optimizers)
            if JUDGED_BY in shown:
                saver.mark_best(place, shown[JUDGED_BY], JUDGED_BY)


def train_step(
    run: Run, name: str, step: int, wrapped: torch.nn.Module, optimizers: Optimizers, batch: Batch
) -> dict[str, Tensor]:
    """One optimiser step; returns this process's share of every metric.

    Raises UserError, before any weight changes, when the loss or a gradient isn't finite.
    """
    distribution = run.distribution
    learner = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(learner, Learner)
    seed = step_seed(run.seed, name, step)
    torch.manual_seed(seed + distribution.rank)
    parts = split(batch, run.config, learner.stage, distribution.ranks, seed + distribution.rank)
    counts = total_counts(learner, parts, distribution)
    mixture = draw_mixture(learner, seed)
    optimizers.zero_grad()
    metrics: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        if isinstance(wrapped, DistributedDataParallel):
            wrapped.require_backward_grad_sync = number == len(parts) - 1
        with autocast(run.config.precision, distribution.device):
            loss, shares = wrapped(part, counts, mixture)
        loss.backward()
        metrics = {key: metrics[key] + value if metrics else value for key, value in shares.items()}
    try:
        norms = optimizers.step(step)
    except FloatingPointError as error:
        raise UserError(
            f"Training stopped at step {step} of {name}: {error}. No weight was changed by it; start a run "
            "in another out with a lower learning_rate of the stage, or with training.precision=fp32."
        ) from error
    return metrics | {key: norm.detach() / distribution.ranks for key, norm in norms.items()}


def batches(data: SequenceDataset, run: Run, name: str, steps: range) -> Iterator[Batch]:
    """This process's slice of each step's global batch."""
    config, distribution = run.config, run.distribution
    share = rank_slice(config.batch_size, distribution.rank, distribution.ranks)
    order = data.order(step_seed(run.seed, name, 0))
    for step in steps:
        yield data.batch(order.batch(step, config.batch_size)[share])


def split(batch: Batch, config: TrainingConfig, stage: StageConfig, ranks: int, seed: int) -> list[Part]:
    """Micro-batches, each with its share of the tokenizer's frames."""
    size = config.micro_batch or len(batch)
    generator = torch.Generator().manual_seed(seed)
    frames = stage.tokenizer_frames * size // config.batch_size
    parts = []
    for start in range(0, len(batch), size):
        micro = batch[start : start + size]
        parts.append(Part(micro, *draw_frames(micro, frames, generator)))
    return parts


def total_counts(learner: Learner, parts: list[Part], distribution: Distribution) -> dict[str, Tensor]:
    """How many places every loss sums over, over all micro-batches and processes: one small all-reduce."""
    counts = [learner.counts(part) for part in parts]
    stacked = torch.stack([torch.stack(list(part.values())) for part in counts]).sum(0)
    return dict(zip(counts[0], distribution.sum(stacked).unbind(), strict=True))


def draw_mixture(learner: Learner, seed: int) -> Tensor | None:
    """A random convex combination of the Q networks, the same on all processes, when the objective asks for it."""
    if not learner.objective.random_ensemble_mixture:
        return None
    lots = torch.rand(learner.model.config.q_networks, generator=torch.Generator().manual_seed(seed))
    return (lots / lots.sum()).to(learner.legal.device)


def step_seed(seed: int, name: str, step: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 where asked; 'auto' means on a GPU."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


class Meter:
    """Means of the metrics since the last reading; nothing leaves the device in between."""

    def __init__(self, distribution: Distribution, batch_size: int) -> None:
        self.distribution = distribution
        self.batch_size = batch_size
        self.total: dict[str, Tensor] = {}
        self.steps = self.timed_steps = 0
        self.restart_clock()

    def add(self, metrics: dict[str, Tensor]) -> None:
        self.total = {key: self.total.get(key, 0) + value for key, value in metrics.items()}
        self.steps += 1
        self.timed_steps += 1

    def restart_clock(self) -> None:
        self.started, self.timed_steps = time.perf_counter(), 0

    def read(self) -> dict[str, float]:
        """Means over steps, summed over processes, and the throughput of all processes together."""
        stacked = self.distribution.sum(torch.stack([value.float() for value in self.total.values()])) / self.steps
        values = dict(zip(self.total, stacked.tolist(), strict=True))
        seconds = max(time.perf_counter() - self.started, 1e-9)
        sequences = self.timed_steps * self.batch_size / seconds
        values["speed/sequences_per_second"] = sequences
        values["speed/tokens_per_second"] = sequences * BLOCKS * BLOCK_TOKENS
        self.total, self.steps = {}, 0
        self.restart_clock()
        return values


def progress(run: Run, name: str, first: int, steps: int) -> tqdm[Any]:
    return tqdm(total=steps, initial=first, desc=name, unit="step", disable=not run.distribution.is_main)


def postfix(values: dict[str, float]) -> dict[str, str]:
    short = {key.removeprefix("loss/"): f"{v:.3g}" for key, v in values.items() if key.startswith("loss/")}
    return short | {"tokens/s": f"{values['speed/tokens_per_second']:.0f}"}
