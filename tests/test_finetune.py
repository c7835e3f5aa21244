"""Finetuning on one game, from a pretraining run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_store import GAMES, final_weights, finetune_run, states_equal

from jowa import finetune
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.finetune import FinetuneConfig, adopt_task
from jowa.games import task_id
from jowa.models.agent_files import load_agent, tokenizer_hash
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints


def load(run: Path):
    return load_agent(latest_checkpoint(run))


def losses_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])


def test_on_frames_the_tokenizer_learns_too(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = finetune_run(tiny_data, tmp_path / "run", smoke_run)
    before, after = load(smoke_run), load(out)
    assert after.description["games"] == ["Pong"] and after.description["stage"] == "finetune"
    assert (after.description["step"], after.description["model"]) == (4, before.description["model"])
    assert tokenizer_hash(after.tokenizer) != tokenizer_hash(before.tokenizer)
    assert {"loss/reconstruction", "loss/td", "loss/observation", "loss/conservative_all"} <= set(losses_of(out))
    embeddings = [agent.model.code_task_embedding.weight.detach() for agent in (before, after)]
    changed = (embeddings[0] != embeddings[1]).any(1).nonzero().flatten().tolist()
    assert changed == [task_id("Pong")]
    assert [path.name for path in list_checkpoints(out)] == ["finetune-00000002", "finetune-00000004"]


def test_on_cached_codes_it_stays_as_it_was(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    caches = {path: path.stat().st_mtime_ns for path in tiny_data.glob("codes/*/*.npy")}
    out = finetune_run(tiny_data, tmp_path / "run", smoke_run, "stage.tokenizer_frames=0")
    before, after = load(smoke_run), load(out)
    assert tokenizer_hash(after.tokenizer) == tokenizer_hash(before.tokenizer)
    assert not torch.equal(after.model.q_networks.weight3, before.model.q_networks.weight3)
    assert "loss/reconstruction" not in losses_of(out) and "loss/td" in losses_of(out)
    assert {path: path.stat().st_mtime_ns for path in tiny_data.glob("codes/*/*.npy")} == caches


def test_interrupted_equals_uninterrupted(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    whole = finetune_run(tiny_data, tmp_path / "whole", smoke_run, "task_from=Breakout")
    finetune_run(tiny_data, tmp_path / "cut", smoke_run, "task_from=Breakout", "stage.steps=2")
    finetune_run(tiny_data, tmp_path / "cut", smoke_run, "task_from=Breakout", "resume=auto")
    assert final_weights(tmp_path / "cut") == final_weights(whole)
    assert final_weights(finetune_run(tiny_data, tmp_path / "own", smoke_run, "task_from=own")) != final_weights(whole)


@pytest.mark.parametrize(
    ("game", "task_from", "source"),
    [
        ("Robotank", "paper", "Phoenix"),
        ("MsPacman", "paper", "Berzerk"),
        ("Pong", "paper", "Pong"),
        ("Breakout", "paper", "Breakout"),
        ("Robotank", "own", "Robotank"),
        ("Robotank", "Pong", "Pong"),
    ],
)
def test_a_game_starts_from_the_task_embedding_asked_for(game: str, task_from: str, source: str) -> None:
    model = WorldActionModel(ModelConfig("t", 1, 1, 4, 1, 4), 8)
    tables = (model.code_task_embedding.weight, model.action_task_embedding.weight)
    before = [table.clone() for table in tables]
    adopt_task(model, game, task_from)
    for table, old in zip(tables, before, strict=True):
        assert torch.equal(table[task_id(game)], old[task_id(source)])
        others = [row for row in range(60) if row != task_id(game)]
        assert torch.equal(table[others], old[others])


def test_without_task_embeddings_nothing_is_adopted() -> None:
    model = WorldActionModel(ModelConfig("t", 1, 1, 4, 1, 4, task_embedding=False), 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adopt_task(model, "Robotank", "paper")
    assert states_equal(model.state_dict(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["size=40M"], "is of size nano, not 40M"),
        (["game=Boxing"], "no recorded episodes of Boxing"),
        (["task_from=Pongg"], "did you mean 'Pong'"),
        (["data.games=[Breakout]"], "leave data.games empty"),
        (["stage.steps=0"], "stage.steps above 0"),
        (["ckpt=nowhere"], "There is no agent in .*nowhere"),
        (["stage.tokenizer_frames=1", "training.micro_batch=1"], "stage.tokenizer_frames=1"),
        (["perceptual_weights=nowhere.pt"], "There is no file nowhere.pt"),
    ],
)
def test_what_cannot_be_finetuned(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        finetune_run(tiny_data, tmp_path / "run", smoke_run, *changes)
    assert not (tmp_path / "run").exists()


def test_a_pretraining_run_is_not_gone_on_with(smoke_run: Path, tiny_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")}
    for changes, message in ((["resume=auto"], "no configuration of this program"), ([], "isn't empty")):
        with pytest.raises(UserError, match=message):
            finetune_run(tiny_data, smoke_run, smoke_run, *changes)
    assert {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")} == before


def test_one_checkpoint_may_be_named_and_the_plan_asked_for(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = smoke_run / "checkpoints" / "stage2-00000002"
    finetune_run(tiny_data, tmp_path / "run", ckpt, "dry_run=true", "size=nano")
    text = capsys.readouterr().out
    assert "finetune: 4 steps × 4 sequences" in text and "Pong             found" in text and GAMES[0] not in text
    assert not list(tmp_path.iterdir())


def test_the_papers_recipe_is_the_preset() -> None:
    config = load_config(FinetuneConfig, "finetune", ["game=Pong", "ckpt=x"])
    assert config.out == "runs/finetune-Pong" and config.data.stride == 1 and config.training.batch_size == 32
    stage = config.stage
    assert (stage.steps, stage.learning_rate, stage.tokenizer_learning_rate) == (50_000, 5e-5, 1e-4)
    assert (stage.tokenizer_frames, stage.world_weight, stage.td_weight) == (128, 0.5, 1.0)
    finetune.check(config)
