"""Padding has no influence on anything, whatever stands in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_learner import one_part, padded_batch, small_learner
from torch import Tensor

from jowa.training.config import StageConfig

STAGES = {
    "stage 1": StageConfig(tokenizer_frames=24),
    "stage 2": StageConfig(world_weight=0.1, td_weight=1.0, conservative_weight=0.1),
}


@pytest.mark.parametrize("q_loss", ["c51", "mse"])
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_padding_has_no_influence_on_losses_and_gradients(stage: StageConfig, q_loss: str) -> None:
    learner = small_learner(q_loss=q_loss)
    learner.begin(stage)
    batch = padded_batch([8, 3, 1], codes=not stage.trains_tokenizer)
    assert backward(learner, batch, stage)[0] == backward(learner, batch, stage)[0]
    losses, gradients = backward(learner, batch, stage)
    other_losses, other_gradients = backward(learner, disturb_padding(batch), stage)
    assert losses == pytest.approx(other_losses, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    changed = replace(batch, actions=(batch.actions + 1) % 18)
    assert losses != pytest.approx(backward(learner, changed, stage)[0], rel=1e-6)


def backward(learner, batch, stage) -> tuple[dict[str, float], dict[str, Tensor]]:
    learner.zero_grad()
    frames = batch.valid.numel() if stage.trains_tokenizer else 0
    part = one_part(batch, frames)
    loss, metrics = learner(part, learner.counts(part))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    return {name: value.item() for name, value in metrics.items() if name.startswith("loss/")}, gradients


def disturb_padding(batch):
    """The same sequences with anything at all where nothing is."""
    random = torch.Generator().manual_seed(9)

    def fill(part: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        shape = batch.valid.shape + (1,) * (part.dim() - 2)
        return torch.where(batch.valid.view(shape), part, draw().to(part.dtype))

    def integers(part: Tensor, high: int) -> Tensor:
        return fill(part, lambda: torch.randint(0, high, part.shape, generator=random))

    return replace(
        batch,
        frames=None if batch.frames is None else integers(batch.frames, 256),
        codes=None if batch.codes is None else integers(batch.codes, 32),
        actions=integers(batch.actions, 18),
        rewards=fill(batch.rewards, lambda: torch.randn(batch.rewards.shape, generator=random)),
        ends=integers(batch.ends, 2),
    )
