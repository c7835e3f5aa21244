"""What is logged: to files, to other loggers, and what is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_learner import one_part, padded_batch, small_learner
from tiny_store import pretrain_run

from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.games import GAMES
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.training import loop
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.learner import TALLY
from jowa.training.loop import total_counts
from jowa.training.metrics import MetricsLog, check_logger, run_id
from jowa.training.speed import Workload, flops_per_token
from jowa.training.tallies import confusion, f1, summarise
from jowa.training.validation import validation_hook

ALONE = Distribution(0, 1, torch.device("cpu"))


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_broken_logger_never_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    class Broken:
        def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
            raise RuntimeError("no network")

        def close(self) -> None:
            raise AssertionError("it was dropped")

    monkeypatch.setattr("jowa.training.metrics.make_sink", lambda logger, run: Broken())
    log = MetricsLog(tmp_path)
    log.write("s", 1, {"loss/td": 1.0})
    log.write("s", 2, {"loss/td": 2.0})
    log.close()
    assert [line["loss/td"] for line in lines_of(tmp_path)] == [1.0, 2.0]
    assert capsys.readouterr().err.count("no network") == 1


def test_a_logger_is_closed_when_a_run_fails(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(MetricsLog, "close", lambda self: closed.append(self))
    monkeypatch.delattr(loop, "train_step")
    with pytest.raises(NameError):
        pretrain_run(tiny_data, tmp_path / "run")
    assert len(closed) == 1


def test_a_logger_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jowa.training.metrics.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"training\.logger=wandb .*pip install 'jowa\[wandb\]'"):
        check_logger("wandb")
    check_logger("none")


def test_tensorboard_has_every_value(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, "tensorboard")
    log.write("stage1", 5, {"loss/td": 0.5})
    log.write("stage1", 6, {"loss/td": 0.25})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("stage1/loss/td")] == [(5, 0.5), (6, 0.25)]


def test_wandb_is_offline_and_a_run_keeps_its_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = (
        "from pathlib import Path; from jowa.training.metrics import MetricsLog; "
        f"log = MetricsLog(Path({str(tmp_path)!r}), 'wandb'); log.write('s', 1, {{'loss/td': 1.0}}); log.close()"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{run_id(tmp_path)}"))) >= 1
    assert {path.name.rsplit("-", 1)[1] for path in (tmp_path / "wandb").glob("offline-run-*")} == {run_id(tmp_path)}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=30))
def test_f1_as_it_is_defined(steps: list[tuple[int, int, bool]]) -> None:
    predicted, labels, mask = (torch.tensor(column)[None] for column in zip(*steps, strict=True))
    counts = confusion(predicted, labels, mask, 3)
    kept = [(p, label) for p, label, counted in steps if counted]
    for one in range(3):
        hits = sum(p == label == one for p, label in kept)
        relevant, found = sum(label == one for _, label in kept), sum(p == one for p, _ in kept)
        if not relevant:
            assert f1(counts, one) is None
        elif not hits:
            assert f1(counts, one) == 0
        else:
            precision, recall = hits / found, hits / relevant
            assert f1(counts, one) == pytest.approx(2 * precision * recall / (precision + recall))


def test_tallies_are_what_the_heads_say() -> None:
    learner = small_learner()
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1))
    batch = padded_batch([8, 3, 5], codes=True)
    with torch.no_grad():
        _, metrics = learner(one_part(batch), learner.counts(one_part(batch)))
        hidden = learner.model.hidden(batch.codes, batch.actions, batch.tasks)
        q = learner.model.q_values(hidden.last_code)
        guesses = learner.model.observation_logits(hidden.observation).argmax(-1)
    values = summarise({key.removeprefix(TALLY): value for key, value in metrics.items() if key.startswith(TALLY)})
    right = counted = 0
    for row, length in enumerate((8, 3, 5)):
        truth, guess = batch.codes[row, :length].flatten()[1:], guesses[row, :length].flatten()[:-1]
        right, counted = right + int((truth == guess).sum()), counted + len(truth)
        game, own = GAMES[batch.tasks[row]], q[row, :length]
        taken = own.gather(1, batch.actions[row, :length, None]).mean()
        best = own[:, :6].amax(1).mean()
        assert values[f"game/{game}/q_data"] == pytest.approx(float(taken), rel=1e-4)
        assert values[f"game/{game}/q_argmax"] == pytest.approx(float(best), rel=1e-4)
    assert values["world/code_accuracy"] == pytest.approx(right / counted)
    seen = torch.cat([batch.codes[row, :length].flatten() for row, length in enumerate((8, 3, 5))])
    shares = torch.bincount(seen, minlength=32) / len(seen)
    assert values["codes/used"] == pytest.approx(float((shares > 0).float().mean()))
    assert values["codes/perplexity"] == pytest.approx(float(torch.exp(-(shares * (shares + 1e-30).log()).sum())))


def test_a_games_losses_make_up_the_whole() -> None:
    learner = small_learner()
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1, tokenizer_frames=9))
    batch, counts = padded_batch([8, 3, 5]), {}
    part = one_part(batch, frames=9)
    counts = total_counts(learner, [part], ALONE)
    _, metrics = learner(part, counts)
    for name in learner.loss_weights():
        whole = metrics[f"{TALLY}losses/{name}"].sum() / metrics[f"{TALLY}places/{name}"].sum()
        torch.testing.assert_close(whole, metrics[f"loss/{name}"], rtol=1e-4, atol=1e-6)
    values = summarise({key.removeprefix(TALLY): value for key, value in metrics.items() if key.startswith(TALLY)})
    alone = one_part(batch[1:2])
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1))
    _, of_one = learner(alone, total_counts(learner, [alone], ALONE))
    game = GAMES[batch.tasks[1]]
    assert values[f"game/{game}/loss/td"] == pytest.approx(float(of_one["loss/td"]), rel=1e-4)


@pytest.mark.parametrize("stage", [StageConfig(tokenizer_frames=8), StageConfig(td_weight=1.0)])
def test_held_out_losses_are_those_of_one_undivided_batch(tiny_data: Path, stage: StageConfig) -> None:
    learner = small_learner()
    learner.begin(stage)
    data = SequenceDataset(EpisodeStore(tiny_data), split="held_out", holdout=0.5)
    config = TrainingConfig(batch_size=5, validation_sequences=7)
    measure = validation_hook(learner, data, config, ALONE)
    assert measure is not None
    values = measure("s", 0)
    batch = data.batch(np.linspace(0, len(data) - 1, 7).astype(np.int64))
    part = one_part(batch, frames=batch.valid.numel() if stage.trains_tokenizer else 0)
    with torch.no_grad():
        loss, metrics = learner(part, learner.counts(part))
    for name, value in metrics.items():
        if name.startswith("loss/"):
            assert values[f"held_out/{name.removeprefix('loss/')}"] == pytest.approx(float(value), rel=1e-4), name
    assert values["held_out/total"] == pytest.approx(float(loss), rel=1e-4)
    assert "held_out/world/code_accuracy" in values


@pytest.mark.parametrize(("layers", "heads", "width", "networks", "q_width", "mflop"), [(12, 12, 768, 3, 1792, 559)])
def test_operations_a_token_as_counted_by_hand(
    layers: int, heads: int, width: int, networks: int, q_width: int, mflop: float
) -> None:
    with torch.device("meta"):
        model = WorldActionModel(ModelConfig("150M", layers, heads, width, networks, q_width), 2048)
    assert flops_per_token(model, StageConfig(td_weight=1.0)) / 1e6 == pytest.approx(mflop, rel=2e-3)
    assert Workload(2, 592, 1e9, 1e12).speed(3, 2.0, 2)["speed/mfu"] == pytest.approx(3 * 592 * 1e9 / 2 / 2e12)


def test_a_run_logs_what_one_wants_to_know(tiny_data: Path, tmp_path: Path) -> None:
    run = pretrain_run(tiny_data, tmp_path / "run", "training.logger=tensorboard")
    one, two = ([line for line in lines_of(run) if line["stage"] == stage] for stage in ("stage1", "stage2"))
    common = {"loss/total", "loss/observation", "loss/reward", "loss/end", "gradient_norm/model", "learning_rate/model",
              "world/code_accuracy", "codes/used", "codes/perplexity", "speed/tokens_per_second",
              "speed/step_seconds", "speed/loader_wait", "memory/host_gb"}  # fmt: skip
    for line in (one[0], two[0]):
        assert common <= line.keys()
        assert 0 <= line["speed/loader_wait"] <= 1
    assert {"loss/reconstruction", "loss/quantisation", "gradient_norm/tokenizer",
            "learning_rate/tokenizer"} <= one[0].keys()  # fmt: skip
    assert {"loss/td", "loss/conservative_all", "loss/conservative_data"} <= two[0].keys()
    for name in ("loss/observation", "loss/td", "q_data", "q_argmax"):
        assert {f"game/{game}/{name}" for game in EpisodeStore(tiny_data).games} <= {k for line in two for k in line}
    assert list((run / "tensorboard").iterdir())
