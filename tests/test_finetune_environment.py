"""Finetuning on environments of Gymnasium: a further task row, and actions of its own or mapped onto ALE's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_custom_games import TOY, forget, recorded
from tiny_store import final_weights

from jowa import evaluate, finetune, games
from jowa.cli import load_config
from jowa.data import record
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.finetune import FinetuneConfig
from jowa.games import game_of, legal_mask, task_id
from jowa.models.agent_files import Agent, load_agent
from jowa.planning.beam_search import BeamSearch
from jowa.recording.config import RecordConfig
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.new_game import trained_games

SMALL = ["stage.steps=4", "stage.tokenizer_frames=8", "training.batch_size=4", "training.checkpoint_every=2",
         "evaluation.every=0", "training.threads=1", "training.device=cpu"]  # fmt: skip
MAPPED = ["environment.actions=[NOOP,LEFT,RIGHT]", "environment.name=Mapped"]


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def finetuned(out: Path, data: Path, ckpt: Path, *changes: str) -> Path:
    overrides = [f"out={out}", f"data.path={data}", f"ckpt={ckpt}", *SMALL, *changes]
    finetune.main(load_config(FinetuneConfig, "finetune", overrides))
    return out


def agent_of(run: Path) -> Agent:
    return load_agent(latest_checkpoint(run))


def test_a_fresh_row_and_fresh_actions(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By env=, and in another process by the name that the episodes have; evaluated by the checkpoint alone."""
    recorded(tmp_path / "data")
    run = finetuned(tmp_path / "run", tmp_path / "data", smoke_run, f"env={TOY}", "evaluation.every=4",
                    "evaluation.episodes=2")  # fmt: skip
    assert "Toy-v0: mean return" in capsys.readouterr().out
    forget(monkeypatch)
    by_name = finetuned(tmp_path / "again", tmp_path / "data", smoke_run, "game=Toy-v0", "evaluation.every=0")
    assert final_weights(by_name) == final_weights(run)
    forget(monkeypatch)
    agent, before = agent_of(run), agent_of(smoke_run)
    assert (agent.model.config.tasks, agent.model.config.actions) == (61, 3) and task_id("Toy-v0") == 60
    new, old = agent.model.code_task_embedding.weight, before.model.code_task_embedding.weight
    assert new.shape[0] == 61 and torch.equal(new[:60], old)
    evaluate.main(load_config(EvaluateConfig, "evaluate", [f"ckpt={run}", "episodes=2", f"out={tmp_path / 'page'}",
                                                           "world_model_sequences=4", "film_agent_steps=4",
                                                           "device=cpu"]))  # fmt: skip
    assert "Toy-v0" in capsys.readouterr().out and (tmp_path / "page" / "report.html").is_file()


def test_mapped_actions_keep_the_agents_own(smoke_run: Path, tmp_path: Path) -> None:
    recorded(tmp_path / "data", *MAPPED)
    actions = EpisodeStore(tmp_path / "data", ["Mapped"]).column("Mapped", "actions")
    assert set(actions.tolist()) == {0, 3, 4}
    heads = [tmp_path / "run", tmp_path / "data", smoke_run, "game=Mapped", "finetune.method=heads"]
    with pytest.raises(UserError, match=r"leave its task row as random as .*or task_from to mean or a game"):
        finetuned(*heads)
    run = finetuned(*heads, "task_from=mean")
    agent, before = agent_of(run).model, agent_of(smoke_run).model
    assert (agent.config.tasks, agent.config.actions) == (61, 18)
    assert torch.equal(agent.action_embedding.weight, before.action_embedding.weight)
    assert agent.q_networks.weight3.shape == before.q_networks.weight3.shape


def test_one_row_and_its_own_actions_in_imagination_too(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "data", *MAPPED)
    seen: list[Any] = []
    plan = BeamSearch.plan

    def watched(self: BeamSearch, dream: Any, context: Any, legal: torch.Tensor) -> Any:
        seen.append((context.tasks.unique().tolist(), legal.unique(dim=0)))
        return plan(self, dream, context, legal)

    monkeypatch.setattr(BeamSearch, "plan", watched)
    whole = finetuned(tmp_path / "run", tmp_path / "data", smoke_run, "game=Mapped", "imagination.from_step=1")
    assert len(seen) == 3
    for tasks, legal in seen:
        assert tasks == [task_id("Mapped")] == [60] and torch.equal(legal[0], torch.from_numpy(legal_mask("Mapped")))
        assert len(legal) == 1
    cut = [tmp_path / "cut", tmp_path / "data", smoke_run, "game=Mapped", "imagination.from_step=1"]
    finetuned(*cut, "stage.steps=2")
    forget(monkeypatch)
    assert final_weights(finetuned(*cut, "resume=auto")) == final_weights(whole)


def test_one_environment_after_another(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a row; the agent plays both where they share ALE's actions."""
    for name in ("First", "Second"):
        recorded(tmp_path / "data", MAPPED[0], f"environment.name={name}")
        forget(monkeypatch)
    first = finetuned(tmp_path / "first", tmp_path / "data", smoke_run, "game=First")
    forget(monkeypatch)
    second = finetuned(tmp_path / "second", tmp_path / "data", first, "game=Second", "task_from=First")
    forget(monkeypatch)
    agent = agent_of(second)
    assert agent.model.config.tasks == 62 and [game_of(task) for task in (60, 61)] == ["First", "Second"]
    again = load_config(RecordConfig, "record", ["game=[First,Second]", f"policy={second}", "steps=20", "device=cpu",
                                                 f"out={tmp_path / 'played'}", "threads=1"])  # fmt: skip
    record.main(again)
    assert EpisodeStore(tmp_path / "played").games == ("First", "Second")


def test_other_actions_take_the_place_of_the_agents(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though there are as many of them: what one game's actions mean is nothing to another's."""
    for name in ("First", "Second"):
        recorded(tmp_path / "data", f"environment.name={name}")
        forget(monkeypatch)
    first = finetuned(tmp_path / "first", tmp_path / "data", smoke_run, "game=First")
    forget(monkeypatch)
    for method, match in (("heads", "the embeddings of its actions and its task row"), ("lora", "")):
        if match:
            with pytest.raises(UserError, match=match):
                finetuned(tmp_path / "no", tmp_path / "data", first, "game=Second", f"finetune.method={method}")
            forget(monkeypatch)
        else:
            finetuned(tmp_path / "second", tmp_path / "data", first, "game=Second", f"finetune.method={method}")
    assert agent_of(tmp_path / "second").model.config.action_set == "Second"
    assert trained_games(agent_of(tmp_path / "second")) == ["Breakout", "Pong", "First", "Second"]
    for game in ("First", "Pong"):
        with pytest.raises(UserError, match=f"those of Second, and {game} has .* others"):
            evaluate.main(load_config(EvaluateConfig, "evaluate", [f"ckpt={tmp_path / 'second'}", f"games=[{game}]"]))
    back = finetuned(tmp_path / "back", tmp_path / "data", tmp_path / "second", "game=First")
    assert agent_of(back).model.config.action_set == "First" and agent_of(back).model.config.tasks == 62


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["env=toy_environments:Toy-v0", "game=Pong"], "are two games: leave game out"),
        (["game=Toy-v0", "finetune.method=heads"], "the embeddings of its actions and its task row as random"),
        (["env=toy_environments:Toy-v0", "environment.frame_skip=2"], "two different environments here"),
        (["env=toy_environments:Toy-v0", "environment.name=New"], "`python -m jowa.data.record env=toy_environments"),
        (["env=toy_environments:Toy-v0", "environment.kwargs={take: continuous}"], "has continuous actions"),
        (["env=toy_environments:Toy-v0", "environment.kwargs={show: vector}"], "no image"),
        (["env=Nothing-v0"], "env=Nothing-v0 is unknown"),
        (["game=Toy-v1"], "Unknown game 'Toy-v1'"),
        (["game=Toy-v0", "task_from=Toy-v0"], "has no task row for"),
    ],
)
def test_what_cannot_be_finetuned_on(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], message: str
) -> None:
    recorded(tmp_path / "data")
    forget(monkeypatch)
    with pytest.raises(UserError, match=message):
        finetuned(tmp_path / "run", tmp_path / "data", smoke_run, *changes)
    assert not (tmp_path / "run").exists() and games.GAMES


def test_actions_beyond_the_environments(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "data")
    column = EpisodeStore.column

    def beyond(store: EpisodeStore, game: str, name: str) -> Any:
        values = column(store, game, name)
        return values + 1 if name == "actions" else values

    monkeypatch.setattr(EpisodeStore, "column", beyond)
    with pytest.raises(UserError, match=r"was played with action 3 .*the game's actions are 0, 1, 2"):
        finetuned(tmp_path / "run", tmp_path / "data", smoke_run, "game=Toy-v0")
