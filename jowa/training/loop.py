"""The training loop: read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.errors import Interrupted, UserError
from jowa.files import write_json
from jowa.training.checkpoint import Place, load_optimizers
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.finite import Failure, FiniteGuard
from jowa.training.imagination import Imagination
from jowa.training.imagination_config import NEVER, ImaginationConfig
from jowa.training.interruption import Interruption
from jowa.training.learner import Learner
from jowa.training.meter import Meter
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part, parts_of_steps, step_seed
from jowa.training.progress import Progress
from jowa.training.saver import CheckpointSaver, Judge
from jowa.training.speed import workload

Hook = Callable[[str, int], dict[str, float]]
"""Called on every process with (stage, steps done); returns metrics to log."""


class Regularly(NamedTuple):
    """A hook and how often it is called; at a stage's end it always is."""

    hook: Hook
    every: int


@dataclass(frozen=True)
class Run:
    """What all stages of a run share. `facts` go into every checkpoint's description."""

    folder: Path
    seed: int
    config: TrainingConfig
    distribution: Distribution
    log: MetricsLog
    facts: dict[str, Any]
    imagination: ImaginationConfig = NEVER


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

    Raises:
        UserError: a loss or a gradient isn't finite; the weights are as they were before.
        Interrupted: a signal asked to stop; the step is done and a checkpoint of it saved. What else was due after
            that step is left out, since schedulers don't wait long.
    """
    config, distribution = run.config, run.distribution
    wrapped, optimizers = prepare(run, stage, learner, resume_from)
    imagination = Imagination(run.imagination, learner, distribution)
    if resume_from is not None:
        imagination.resume(resume_from, first_step, config.batch_size)
    steps = range(first_step, stage.steps)
    if distribution.ranks > 1 and steps:
        settle_buckets(run, name, stage, wrapped, data, steps[:1])
    guard = FiniteGuard(distribution)
    meter = Meter(distribution, workload(learner.model, stage, config.batch_size, distribution.device))
    with (
        CheckpointSaver(run.folder, run.facts, config.keep_checkpoints, distribution) as saver,
        Interruption(distribution) as interruption,
        Prefetch(
            parts_of_steps(data, steps, name, stage, config, run.seed, distribution, run.imagination)
        ) as prefetched,
        Progress(name, first_step, stage.steps, distribution.is_main) as progress,
    ):
        if look_first:
            place = Place(name, first_step)
            due = due_hooks(hooks, first_step, stage.steps)
            saver.judge(place, call_hooks(run, place, due, learner, meter), judge)
        for step in steps:
            interruption.begin_step()
            with meter.waiting():
                parts = next(prefetched)
            parts = imagination.complete(parts, run.seed, name, step)
            taken = train_step(run, name, step, wrapped, optimizers, guard, parts)
            meter.add(*taken, imagines=run.imagination.halves(step) == 2)
            place, last = Place(name, step + 1), step + 1 == stage.steps
            if place.step % config.target_every == 0:
                learner.model.synchronise_target()
            stopped_by = interruption.end_step()
            logs, saves = (last or place.step % every == 0 for every in (config.log_every, config.checkpoint_every))
            due = due_hooks(hooks, place.step, stage.steps)
            # Reading the device's verdict costs a wait, on a CPU nothing.
            if logs or saves or due or stopped_by or distribution.device.type == "cpu":
                stop_unless_finite(run, name, guard.failure(), data)
            if logs or stopped_by:
                values = meter.read() | imagination.read()
                run.log.write(name, place.step, values)
                progress.tell(values)
            progress.step()
            # Before the hooks, which may take longer than whoever sends signals waits, and may choose this one as best.
            if last or stopped_by:
                saver.save_now(place, learner, optimizers, imagination.state())
            elif saves or due:
                saver.save(place, learner, optimizers, imagination.state())
            if not stopped_by:
                saver.judge(place, call_hooks(run, place, due, learner, meter), judge)
                stopped_by = interruption.agree() if last else None
            if stopped_by:
                raise Interrupted(stopped_by, run.folder, f"step {place.step} of {name}")


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


def due_hooks(hooks: Sequence[Regularly], done: int, steps: int) -> list[Hook]:
    """Those to be called after `done` of a stage's steps."""
    return [hook for hook, every in hooks if done == steps or done % every == 0]


def call_hooks(run: Run, place: Place, hooks: Sequence[Hook], learner: Learner, meter: Meter) -> dict[str, float]:
    """Call the hooks that are due, log what they return, and return it all."""
    shown: dict[str, float] = {}
    for hook in hooks:
        values = hook(place.stage, place.step)
        if values:
            run.log.write(place.stage, place.step, values)
        shown |= values
        learner.train()
        meter.restart_clock()
    return shown


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


def backward(
    run: Run, name: str, step: int, wrapped: torch.nn.Module, parts: Sequence[Part]
) -> dict[str, Tensor]:
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


def stop_unless_finite(run: Run, name: str, failure: Failure | None, data: SequenceDataset) -> None:
    """Raise UserError for a step that wasn't finite, after writing down where its sequences lie."""
    if failure is None:
        return
    path = run.folder / f"not-finite-{name}-{failure.step + 1:08d}.json"
    if run.distribution.is_main:
        batch = data.order(step_seed(run.seed, name, 0)).batch(failure.step, run.config.batch_size)
        facts = {"stage": name, "step": failure.step, "seed": run.seed, "not_finite": failure.names}
        write_json(path, facts | {"sequences": data.coordinates(batch)})
    raise UserError(
        f"Training stopped in step {failure.step + 1} of {name}: {', '.join(failure.names)} not finite. No weight was "
        f"changed by it; {path} says which sequences the step had. Look at them, or go on from the last checkpoint by "
        f"resume={run.folder} and a lower {name}.learning_rate, or training.precision=fp32."
    )


def compiles(config: TrainingConfig, distribution: Distribution) -> bool:
    """Whether the learner is compiled: as the configuration says, and if it doesn't, on a GPU."""
    return distribution.device.type == "cuda" if config.compile is None else config.compile


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 where asked; 'auto' means on a GPU."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
