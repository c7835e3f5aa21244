"""The training loop: read it top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.training.after_step import AfterStep, Trained
from jowa.training.checkpoint import load_optimizers
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.finite import FiniteGuard
from jowa.training.imagination import Imagination
from jowa.training.learner import Learner
from jowa.training.meter import Meter
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part, parts_of_steps, step_seed
from jowa.training.run import Regularly, Run
from jowa.training.saver import Judge
from jowa.training.speed import workload


def train_stage(
    run: Run,
    name: str,
    stage: StageConfig,
    learner: Learner,
    data: SequenceDataset,
    hooks: Sequence[Regularly],
    judge: Judge,
    resume_from: Path | None = None,
    first_step: int = 0,
    look_first: bool = False,
) -> None:
    """Run one stage from `first_step` to its end.

    It leaves a checkpoint at the end, every checkpoint_every steps and wherever a hook looks at the run.

    Step s draws its data and random numbers from (seed, stage, s) alone: a resumed run repeats an uninterrupted one.
    look_first: call the hooks due at `first_step`, which a signal had left out, or before which nothing was done.

    Raises UserError and Interrupted as `AfterStep` does.
    """
    config, distribution = run.config, run.distribution
    wrapped, optimizers = prepare(run, stage, learner, resume_from)
    imagination = Imagination(run.imagination, learner, distribution)
    if resume_from is not None:
        imagination.resume(resume_from, first_step, config.batch_size)
    steps, guard = range(first_step, stage.steps), FiniteGuard(distribution)
    if distribution.ranks > 1 and steps:
        settle_buckets(run, name, stage, wrapped, data, steps[:1])
    meter = Meter(distribution, workload(learner.model, stage, config.batch_size, distribution.device))
    parts_ahead = parts_of_steps(data, steps, name, stage, config, run.seed, distribution, run.imagination)
    trained = Trained(learner, optimizers, imagination, guard, meter, data)
    with AfterStep(run, name, steps, trained, hooks, judge) as after, Prefetch(parts_ahead) as prefetched:
        if look_first:
            after.look(first_step)
        for step in steps:
            after.interruption.begin_step()
            with meter.waiting():
                parts = next(prefetched)
            parts = imagination.complete(parts, run.seed, name, step)
            taken = train_step(run, name, step, wrapped, optimizers, guard, parts)
            meter.add(*taken, imagines=run.imagination.halves(step) == 2)
            if (step + 1) % config.target_every == 0:
                learner.model.synchronise_target()
            after.step(step + 1)


def prepare(
    run: Run, stage: StageConfig, learner: Learner, resume_from: Path | None
) -> tuple[torch.nn.Module, Optimizers]:
    """The learner made ready for the stage, as it is to be called, and its optimisers."""
    learner.begin(stage)
    learner.train()
    if compiles(run.config, run.distribution):
        learner.compile(dynamic=False)
    optimizers = Optimizers(learner, stage, run.config)
    if resume_from is not None:
        load_optimizers(resume_from, optimizers)
    else:
        learner.model.synchronise_target()
    return run.distribution.wrap(learner), optimizers


def train_step(
    run: Run,
    name: str,
    step: int,
    wrapped: torch.nn.Module,
    optimizers: Optimizers,
    guard: FiniteGuard,
    parts: Sequence[Part],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One optimiser step; returns this process's share of every metric, and the learning rates.

    No weight changes once `guard` has seen something that isn't finite. Nothing here waits for the device.
    """
    optimizers.zero_grad()
    metrics = backward(run, name, step, wrapped, parts)
    norms = optimizers.clip_gradients()
    losses = {key: value for key, value in metrics.items() if key.startswith("loss/")}
    rates = optimizers.step(step, skip=guard.watch(step, losses, norms))
    return metrics | {key: norm.detach() / run.distribution.ranks for key, norm in norms.items()}, rates


def backward(run: Run, name: str, step: int, wrapped: torch.nn.Module, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Add up the gradients of one step; returns this process's share of every metric."""
    distribution = run.distribution
    learner = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(learner, Learner)
    seed = step_seed(run.seed, name, step)
    # Dropout differs between processes, which have different sequences.
    torch.manual_seed(seed + distribution.rank)
    parts = [part.to(distribution.device) for part in parts]
    counts = total_counts(learner, parts, distribution)
    mixture = draw_mixture(learner, seed)
    metrics: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        if isinstance(wrapped, DistributedDataParallel):
            wrapped.require_backward_grad_sync = number == len(parts) - 1
        with autocast(run.config.precision, distribution.device):
            loss, shares = wrapped(part, counts, mixture)
        loss.backward()
        metrics = {key: metrics[key] + value if metrics else value for key, value in shares.items()}
    return metrics


def settle_buckets(
    run: Run, name: str, stage: StageConfig, wrapped: torch.nn.Module, data: SequenceDataset, step: range
) -> None:
    """Let the processes' gradients be grouped as they will be from the second step on, by a backward pass in vain.

    DDP regroups them after the first one. With three processes and more, other groups are other orders of summation,
    and a resumed run would differ in the last bit from one that has long got beyond its first step.
    """
    for parts in parts_of_steps(data, step, name, stage, run.config, run.seed, run.distribution):
        backward(run, name, step[0], wrapped, parts)
    wrapped.zero_grad()


def total_counts(learner: Learner, parts: Sequence[Part], distribution: Distribution) -> dict[str, Tensor]:
    """How many places every loss sums over, over all micro-batches and processes: one small all-reduce."""
    counts = [learner.counts(part) for part in parts]
    stacked = torch.stack([torch.stack(list(part.values())) for part in counts]).sum(0)
    return dict(zip(counts[0], distribution.sum(stacked).unbind(), strict=True))


def draw_mixture(learner: Learner, seed: int) -> Tensor | None:
    """A random convex combination of the Q networks, the same on all processes, when the objective asks for it."""
    if not learner.objective.random_ensemble_mixture:
        return None
    lots = torch.rand(learner.model.config.q_networks, generator=torch.Generator().manual_seed(seed))
    return (lots / lots.sum()).to(learner.legal.device, non_blocking=True)


def compiles(config: TrainingConfig, distribution: Distribution) -> bool:
    """Whether the learner is compiled: as the configuration says, and if it doesn't, on a GPU."""
    return distribution.device.type == "cuda" if config.compile is None else config.compile


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 where asked; 'auto' means on a GPU."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
