"""The training loop: read it top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.errors import UserError
from jowa.files import write_json
from jowa.training.checkpoint import Place, load_optimizers, save_checkpoint
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.finite import Failure, FiniteGuard
from jowa.training.learner import Learner
from jowa.training.meter import Meter
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part, parts_of_steps, step_seed
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


def train_stage(
    run: Run,
    name: str,
    stage: StageConfig,
    learner: Learner,
    data: SequenceDataset,
    resume_from: Path | None = None,
    first_step: int = 0,
    hooks: Sequence[Regularly] = (),
) -> None:
    """Run one stage from `first_step` to its end, leaving a checkpoint at the end and every checkpoint_every steps.

    Step s draws its data and random numbers from (seed, stage, s) alone: a resumed run repeats an uninterrupted one.
    Raises UserError, with the weights as they were before, when a loss or a gradient isn't finite.
    """
    config, distribution = run.config, run.distribution
    learner.begin(stage)
    learner.train()
    if compiles(config, distribution):
        learner.compile(dynamic=False)
    wrapped = distribution.wrap(learner)
    optimizers = Optimizers(learner, stage, config)
    if resume_from is not None:
        load_optimizers(resume_from, optimizers)
    else:
        learner.model.synchronise_target()
    guard = FiniteGuard(distribution)
    meter = Meter(distribution, workload(learner.model, stage, config.batch_size, distribution.device))
    steps = range(first_step, stage.steps)
    parts_ahead = parts_of_steps(data, steps, name, stage, config, run.seed, distribution)
    with Prefetch(parts_ahead) as prefetched, progress(run, name, first_step, stage.steps) as bar:
        for step in steps:
            with meter.waiting():
                parts = next(prefetched)
            meter.add(*train_step(run, name, step, wrapped, optimizers, guard, parts))
            done, last = step + 1, step + 1 == stage.steps
            logs, checkpoints = (last or done % every == 0 for every in (config.log_every, config.checkpoint_every))
            hooks_due = [hook for hook, every in hooks if last or done % every == 0]
            # Reading the device's verdict costs a wait, on a CPU nothing.
            if logs or checkpoints or hooks_due or distribution.device.type == "cpu":
                stop_unless_finite(run, name, guard.failure(), data)
            if done % config.target_every == 0:
                learner.model.synchronise_target()
            if logs:
                values = meter.read()
                run.log.write(name, done, values)
                bar.set_postfix(postfix(values))
            bar.update()
            for hook in hooks_due:
                if values := hook(name, done):
                    run.log.write(name, done, values)
                learner.train()
                meter.restart_clock()
            if distribution.is_main and checkpoints:
                save_checkpoint(run.folder, Place(name, done), learner, optimizers, run.facts, config.keep_checkpoints)


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
    distribution = run.distribution
    learner = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped
    assert isinstance(learner, Learner)
    seed = step_seed(run.seed, name, step)
    # Dropout differs between processes, which have different sequences.
    torch.manual_seed(seed + distribution.rank)
    parts = [part.to(distribution.device) for part in parts]
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
    norms = optimizers.clip_gradients()
    losses = {key: value for key, value in metrics.items() if key.startswith("loss/")}
    rates = optimizers.step(step, skip=guard.watch(step, losses, norms))
    return metrics | {key: norm.detach() / distribution.ranks for key, norm in norms.items()}, rates


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
        f"changed by it; {path} says which sequences the step had. Lower the stage's learning_rate or set "
        f"training.precision=fp32 in a new run, or look at these data."
    )


def compiles(config: TrainingConfig, distribution: Distribution) -> bool:
    """Whether the learner is compiled: as the configuration says, and if it doesn't, on a GPU."""
    return distribution.device.type == "cuda" if config.compile is None else config.compile


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 where asked; 'auto' means on a GPU."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def progress(run: Run, name: str, first: int, steps: int) -> tqdm[Any]:
    return tqdm(total=steps, initial=first, desc=name, unit="step", disable=not run.distribution.is_main)


def postfix(values: dict[str, float]) -> dict[str, str]:
    short = {key.removeprefix("loss/"): f"{v:.3g}" for key, v in values.items() if key.startswith("loss/")}
    return short | {"tokens/s": f"{values['speed/tokens_per_second']:.0f}"}
