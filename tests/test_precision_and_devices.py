"""Lower precision stays out of the Q objectives, and processes without a GPU each use the CPU."""

from __future__ import annotations

import pytest
import torch
from small_learner import padded_batch, small_learner

from jowa.errors import UserError
from jowa.training.config import StageConfig
from jowa.training.distribution import choose_device


def test_q_objectives_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    learner = small_learner()
    learner.begin(StageConfig(steps=1, td_weight=1.0, conservative_weight=0.1))
    learner.eval()
    batch = padded_batch([8, 5], codes=True)
    h = torch.randn(2, 8, learner.model.config.width)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = learner._q_losses(h, batch, None)
        logits, target = learner.model.q_logits(h), learner.model.q_target_logits(h)
    with torch.no_grad():
        expected, _ = learner._q_objectives(logits.float(), target.float(), batch, None)
    assert losses.keys() == expected.keys() >= {"td", "conservative_all"}
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(("gpus", "processes", "device"), [(1, 2, "cpu"), (0, 1, "cpu")])
def test_fewer_gpus_than_processes_means_cpu(
    gpus: int, processes: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", str(processes - 1))
    assert choose_device("auto", "training.device").type == device


def test_one_gpu_named_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their collective operations would fail on it, in words that name no key."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"training\.device=cuda:1 is one GPU"):
        choose_device("cuda:1", "training.device")
