"""One step of training: its data, its random numbers, its gradients, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_learner import one_part, padded_batch, small_learner

from jowa.data.batch import Batch
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.training import loop
from jowa.training.after_step import stop_unless_finite
from jowa.training.config import ObjectiveConfig, StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.finite import FiniteGuard
from jowa.training.learner import Learner
from jowa.training.loop import draw_mixture, train_step
from jowa.training.metrics import MetricsLog
from jowa.training.optimization import Optimizers
from jowa.training.parts import Part, frames_to_take, parts_of_steps, split, step_seed
from jowa.training.run import Run

CPU = torch.device("cpu")
ALONE = Distribution(0, 1, CPU)


def make_run(folder: Path, config: TrainingConfig, rank: int = 0, ranks: int = 1, seed: int = 0) -> Run:
    return Run(folder, seed, config, Distribution(rank, ranks, CPU), MetricsLog(folder, active=False), {})


def take_steps(learner: Learner, run: Run, batches: list[Batch], frames: int = 0) -> list[dict[str, torch.Tensor]]:
    """Train on one batch after the other; the metrics of each step."""
    optimizers, guard = Optimizers(learner, learner.stage, run.config), FiniteGuard(run.distribution)
    parts = [one_part(batch, frames, seed=step) for step, batch in enumerate(batches)]
    return [train_step(run, "s", step, learner, optimizers, guard, [part])[0] for step, part in enumerate(parts)]


@pytest.mark.parametrize("where", ["loss", "one gradient"])
def test_from_a_step_that_is_not_finite_on_nothing_changes(tmp_path: Path, tiny_data: Path, where: str) -> None:
    learner = small_learner()
    stage = StageConfig(td_weight=1.0, tokenizer_frames=8)
    learner.begin(stage)
    config = TrainingConfig(batch_size=2)
    run, guard, optimizers = make_run(tmp_path, config), FiniteGuard(ALONE), Optimizers(learner, stage, config)
    part = one_part(padded_batch([8, 8]), frames=8)
    train_step(run, "stage1", 0, learner, optimizers, guard, [part])
    assert guard.failure() is None
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    support = learner.model.support.clone()
    if where == "loss":
        learner.model.support[3] = torch.inf
    else:
        hook = learner.model.reward_head[2].bias.register_hook(lambda gradient: gradient * torch.nan)
    train_step(run, "stage1", 1, learner, optimizers, guard, [part])
    train_step(run, "stage1", 2, learner, optimizers, guard, [part])
    learner.model.support.copy_(support)
    if where == "one gradient":
        hook.remove()
    train_step(run, "stage1", 3, learner, optimizers, guard, [part])
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    data = SequenceDataset(EpisodeStore(tiny_data))
    with pytest.raises(UserError, match=r"step 2 of stage1: .*not finite\. No weight was changed") as caught:
        stop_unless_finite(run, "stage1", guard.failure(), data)
    assert ("loss/td" in str(caught.value)) == (where == "loss") and "gradient_norm/model" in str(caught.value)
    written = json.loads((tmp_path / "not-finite-stage1-00000002.json").read_text())
    expected = data.order(step_seed(0, "stage1", 0)).batch(1, 2)
    assert written["step"] == 1 and written["sequences"] == data.coordinates(expected)


def test_the_data_order_does_not_know_the_number_of_processes(tiny_data: Path, tmp_path: Path) -> None:
    data = SequenceDataset(EpisodeStore(tiny_data), split="training", holdout=0.25)
    config, stage = TrainingConfig(batch_size=4), StageConfig(tokenizer_frames=7)

    def order(ranks: int, steps: range = range(9), seed: int = 0) -> list[list[list[int]]]:
        """What identifies each step's sequences and chosen frames, all processes' shares one after the other."""
        shares = [
            list(parts_of_steps(data, steps, "s", stage, config, seed, Distribution(rank, ranks, CPU)))
            for rank in range(ranks)
        ]
        return [[fingerprints(part) for parts in step for part in parts] for step in zip(*shares, strict=True)]

    def fingerprints(part: Part) -> list[int]:
        chosen = part.batch.frames.flatten(0, 1)[part.frame_index]
        return [int(frames.sum()) for frames in (*part.batch.frames.int(), *chosen.int())]

    def joined(steps: list[list[list[int]]], sequences: int) -> list[list[int]]:
        return [[x for part in step for x in part[:sequences]] + [x for part in step for x in part[sequences:]]
                for step in steps]  # fmt: skip

    assert joined(order(1), 4) == joined(order(2), 2) == joined(order(4), 1)
    assert all(len(step) == 4 + 7 for step in joined(order(1), 4))
    assert order(1, range(5, 7)) == order(1)[5:7]
    assert order(1, seed=1) != order(1)


def test_frames_for_the_tokenizer_are_spread_evenly() -> None:
    for frames, sequences in ((9, 4), (2, 3), (7, 7), (33, 4)):
        takes = frames_to_take(frames, sequences, 8)
        assert takes.sum() == min(frames, 8 * sequences) and takes.max() - takes.min() <= 1


def test_frames_for_the_tokenizer_are_real_ones_without_repeats() -> None:
    batch = padded_batch([8, 3, 1])
    part = one_part(batch, 9)
    assert len(set(part.frame_index.tolist())) == 9
    assert part.frame_weight.tolist() == [1.0] * 3 + [1.0] * 3 + [1.0, 0.0, 0.0]
    assert part.frame_index.tolist() != one_part(batch, 9, seed=1).frame_index.tolist()
    everything = one_part(batch, 100)
    assert sorted(everything.frame_index.tolist()) == list(range(24)) and everything.frame_weight.sum() == 12
    assert torch.equal(everything.frame_weight > 0, batch.valid.flatten()[everything.frame_index])
    assert len(one_part(batch).frame_index) == 0


def test_micro_batches_are_the_whole_batch_cut_up() -> None:
    batch = padded_batch([8, 3, 1, 5, 2, 8])
    lots = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
    takes = frames_to_take(12, 6, 8)
    whole, parts = split(batch, lots, takes, 6)[0], split(batch, lots, takes, 2)
    assert [len(part.batch) for part in parts] == [2, 2, 2] and [len(part.frame_index) for part in parts] == [4, 4, 4]
    assert torch.equal(torch.cat([part.batch.actions for part in parts]), batch.actions)
    shifted = [part.frame_index + 16 * number for number, part in enumerate(parts)]
    assert torch.equal(torch.cat(shifted), whole.frame_index)


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
        optimizers.step(step, torch.zeros(()))
        rates.append(optimizers.optimizers["model"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    learner = small_learner()
    stage = StageConfig(td_weight=1.0, tokenizer_frames=8)
    learner.begin(stage)
    config = TrainingConfig(batch_size=2, gradient_clip=0.01)
    (metrics,) = take_steps(learner, make_run(tmp_path, config), [padded_batch([8, 8])], frames=8)
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
    steps = 40 if frames else 80
    history = take_steps(learner, make_run(tmp_path, config), [batch] * steps, 16 if frames else 0)
    first, last = history[0], history[-1]
    falls = {"loss/observation": 0.8, "loss/reward": 0.5, "loss/end": 0.5}
    falls |= {"loss/reconstruction": 0.5} if frames else {"loss/td": 0.5}
    for name, share in falls.items():
        assert last[name] < share * first[name], (name, float(first[name]), float(last[name]))


def test_batches_of_parts_count_over_all_parts(tmp_path: Path) -> None:
    learner = small_learner()
    learner.begin(StageConfig(td_weight=1.0))
    whole = padded_batch([8, 1, 3, 8], codes=True)
    parts = split(whole, torch.zeros(4, 8), frames_to_take(0, 4, 8), 1)
    counts = loop.total_counts(learner, parts, Distribution(0, 1, CPU))
    alone = learner.counts(one_part(whole))
    assert counts.keys() == alone.keys() and all(counts[name] == alone[name] for name in counts)
