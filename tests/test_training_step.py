"""One step of training: its data, its random numbers, its gradients, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_learner import padded_batch, small_learner

from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.training import loop
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import Part, draw_frames
from jowa.training.loop import Run, batches, draw_mixture, split, train_step
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers

CPU = torch.device("cpu")


def make_run(folder: Path, config: TrainingConfig, rank: int = 0, ranks: int = 1, seed: int = 0) -> Run:
    return Run(folder, seed, config, Distribution(rank, ranks, CPU), MetricsLog(folder, active=False), {})


@pytest.mark.parametrize("where", ["loss", "one gradient"])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, where: str) -> None:
    learner = small_learner()
    stage = StageConfig(td_weight=1.0, tokenizer_frames=8)
    learner.begin(stage)
    config = TrainingConfig(batch_size=2)
    optimizers = Optimizers(learner, stage, config)
    batch = padded_batch([8, 8])
    run = make_run(tmp_path, config)
    train_step(run, "stage1", 0, learner, optimizers, batch)
    if where == "loss":
        learner.model.support[3] = torch.inf
    else:
        learner.model.reward_head[2].bias.register_hook(lambda gradient: gradient * torch.nan)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    with pytest.raises(UserError, match=r"step 1 of stage1.*not finite.*No weight was changed"):
        train_step(run, "stage1", 1, learner, optimizers, batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())


def test_the_data_order_does_not_know_the_number_of_processes(tiny_data: Path, tmp_path: Path) -> None:
    data = SequenceDataset(EpisodeStore(tiny_data), split="training", holdout=0.25)
    config = TrainingConfig(batch_size=4)

    def order(ranks: int) -> list[list[int]]:
        """What identifies each step's sequences, all processes' shares one after the other."""
        shares = [list(batches(data, make_run(tmp_path, config, rank, ranks), "s", range(9))) for rank in range(ranks)]
        return [
            [int(frames.sum()) for batch in step for frames in batch.frames.int()]
            for step in zip(*shares, strict=True)
        ]

    assert order(1) == order(2) == order(4)
    assert len(order(1)) == 9 and all(len(step) == 4 for step in order(1))
    resumed = list(batches(data, make_run(tmp_path, config), "s", range(5, 7)))
    assert [[int(frames.sum()) for frames in batch.frames.int()] for batch in resumed] == order(1)[5:7]
    other = list(batches(data, make_run(tmp_path, config, seed=1), "s", range(9)))
    assert [[int(frames.sum()) for frames in batch.frames.int()] for batch in other] != order(1)


def test_frames_for_the_tokenizer_are_real_ones_without_repeats() -> None:
    batch = padded_batch([8, 3, 1])
    generator = torch.Generator().manual_seed(0)
    index, weight = draw_frames(batch, 9, generator)
    assert len(set(index.tolist())) == 9 and batch.valid.flatten()[index].all() and weight.tolist() == [1.0] * 9
    again, _ = draw_frames(batch, 9, generator)
    assert index.tolist() != again.tolist()
    index, weight = draw_frames(batch, 100, generator)
    assert sorted(index.tolist()) == list(range(24)) and weight.sum() == 12
    assert torch.equal(weight > 0, batch.valid.flatten()[index])
    assert [len(part) for part in draw_frames(batch, 0, generator)] == [0, 0]


def test_micro_batches_are_the_whole_batch_cut_up() -> None:
    batch = padded_batch([8, 3, 1, 5, 2, 8])
    config = TrainingConfig(batch_size=6, micro_batch=2)
    parts = split(batch, config, StageConfig(tokenizer_frames=12), ranks=1, seed=0)
    assert [len(part.batch) for part in parts] == [2, 2, 2] and [len(part.frame_index) for part in parts] == [4, 4, 4]
    assert torch.equal(torch.cat([part.batch.actions for part in parts]), batch.actions)


def test_the_random_mixture_is_convex_and_the_same_for_all() -> None:
    learner = small_learner(q_networks=3)
    assert draw_mixture(learner, 5) is None
    learner.objective = replace(learner.objective, random_ensemble_mixture=True)
    mixture = draw_mixture(learner, 5)
    assert mixture is not None and mixture.shape == (3,) and mixture.sum() == pytest.approx(1) and mixture.min() >= 0
    assert torch.equal(mixture, draw_mixture(learner, 5)) and not torch.equal(mixture, draw_mixture(learner, 6))


def test_warm_up() -> None:
    learner = small_learner()
    stage = StageConfig(td_weight=1.0, warmup_steps=4, learning_rate=0.4)
    learner.begin(stage)
    optimizers = Optimizers(learner, stage, TrainingConfig())
    rates = []
    for step in range(6):
        optimizers.step(step)
        rates.append(optimizers.optimizers["model"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    learner = small_learner()
    stage = StageConfig(td_weight=1.0, tokenizer_frames=8)
    learner.begin(stage)
    config = TrainingConfig(batch_size=2, gradient_clip=0.01)
    metrics = train_step(
        make_run(tmp_path, config), "s", 0, learner, Optimizers(learner, stage, config), padded_batch([8, 8])
    )
    for module, key in ((learner.model, "model"), (learner.tokenizer, "tokenizer")):
        norm = torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(0.01, rel=1e-3) and metrics[f"gradient_norm/{key}"] > 0.01


@pytest.mark.parametrize(
    ("stage", "frames"),
    [
        (StageConfig(tokenizer_frames=16, learning_rate=1e-2, tokenizer_learning_rate=3e-3), True),
        (StageConfig(td_weight=1.0, conservative_weight=0.01, learning_rate=1e-2), False),
    ],
    ids=["stage 1", "stage 2"],
)
def test_a_small_batch_can_be_learned_by_heart(
    tmp_path: Path, tiny_data: Path, stage: StageConfig, frames: bool
) -> None:
    # The target copy's own spread is the least the loss can be: with so little foresight it hardly counts.
    learner = small_learner(ObjectiveConfig(gamma=0.05), width=32, q_networks=1, q_width=32)
    learner.begin(stage)
    batch = padded_batch([8, 8, 5, 8], codes=True)
    if frames:
        batch = SequenceDataset(EpisodeStore(tiny_data)).batch(np.array([0, 1]))
    config = TrainingConfig(batch_size=len(batch), gradient_clip=10.0)
    optimizers = Optimizers(learner, stage, config)
    run = make_run(tmp_path, config)
    history = [train_step(run, "s", step, learner, optimizers, batch) for step in range(40 if frames else 80)]
    first, last = history[0], history[-1]
    falls = {"loss/observation": 0.8, "loss/reward": 0.5, "loss/end": 0.5}
    falls |= {"loss/reconstruction": 0.5} if frames else {"loss/td": 0.5}
    for name, share in falls.items():
        assert last[name] < share * first[name], (name, float(first[name]), float(last[name]))


def test_batches_of_parts_count_over_all_parts(tmp_path: Path) -> None:
    learner = small_learner()
    learner.begin(StageConfig(td_weight=1.0))
    whole = padded_batch([8, 1, 3, 8], codes=True)
    parts = split(whole, TrainingConfig(batch_size=4, micro_batch=1), learner.stage, 1, 0)
    counts = loop.total_counts(learner, parts, Distribution(0, 1, CPU))
    alone = learner.counts(Part(whole, *draw_frames(whole, 0, torch.Generator())))
    assert counts.keys() == alone.keys() and all(counts[name] == alone[name] for name in counts)
