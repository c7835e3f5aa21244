"""Compiling changes no loss and no gradient, happens once, and no step makes the host wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_syncs import HostSyncs
from small_learner import one_part, padded_batch, small_learner
from test_training_step import ALONE, make_run
from torch._dynamo.utils import counters

from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.finite import FiniteGuard
from jowa.training.learner import Learner
from jowa.training.loop import draw_mixture, total_counts, train_step
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part

STAGES = {
    "stage 1": (StageConfig(tokenizer_frames=6), 6),
    "stage 2": (StageConfig(world_weight=0.1, td_weight=1.0, conservative_weight=0.1), 0),
    "half imagined": (StageConfig(world_weight=0.1, td_weight=1.0, conservative_weight=0.1, tokenizer_frames=6), 6),
}


def part_of(name: str, lengths: list[int], seed: int = 0) -> Part:
    frames = STAGES[name][1]
    part = one_part(padded_batch(lengths, codes=not frames, seed=seed), frames, seed)
    if name != "half imagined":
        return part
    dreamed = padded_batch(lengths[::-1], codes=True, seed=seed + 9)
    taken = dreamed.valid & (torch.arange(8) < 6)
    return part._replace(imagined=replace(dreamed, imagined=torch.ones(len(lengths)) > 0, taken=taken))


def gradients(learner: Learner, part: Part) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(metrics, gradients) of one part, the training loop's way."""
    learner.zero_grad()
    loss, metrics = learner(part, total_counts(learner, [part], ALONE), draw_mixture(learner, 3))
    loss.backward()
    return metrics, {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", STAGES)
def test_compiled_is_eager_and_compiled_once(name: str) -> None:
    learner = small_learner(ObjectiveConfig(random_ensemble_mixture=True, conservative="combo"))
    learner.begin(STAGES[name][0])
    parts = [part_of(name, lengths, seed) for seed, lengths in enumerate(([8, 3, 1], [5, 8, 8], [1, 2, 8]))]
    eager = [gradients(learner, part) for part in parts]
    torch._dynamo.reset()
    counters.clear()
    learner.compile(dynamic=False, backend="aot_eager")
    for part, (metrics, expected) in zip(parts, eager, strict=True):
        found, compiled = gradients(learner, part)
        assert found.keys() == metrics.keys() and compiled.keys() == expected.keys()
        torch.testing.assert_close(found, metrics, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=3e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize("name", STAGES)
def test_a_step_never_makes_the_host_wait(name: str, tmp_path: Path) -> None:
    stage = STAGES[name][0]
    learner = small_learner(ObjectiveConfig(random_ensemble_mixture=True))
    learner.begin(stage)
    run = make_run(tmp_path, TrainingConfig(batch_size=2))
    guard, optimizers = FiniteGuard(ALONE), Optimizers(learner, stage, run.config)
    part = part_of(name, [8, 3])
    with HostSyncs() as syncs:
        for step in range(2):
            train_step(run, "s", step, learner, optimizers, guard, [part])
    assert not syncs.found


@pytest.mark.parametrize(
    "wait",
    [torch.Tensor.item, torch.nonzero, bool, lambda x: x[x > 0], lambda x: x.masked_select(x > 0)],
    ids=["item", "nonzero", "bool", "a mask as index", "masked_select"],
)
def test_what_makes_the_host_wait_is_found(wait: Callable[[torch.Tensor], object]) -> None:
    with HostSyncs() as syncs:
        wait(torch.ones(1))
    assert syncs.found
