"""Finetuning on one game, from a pretraining run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_store import GAMES, final_weights, finetune_run, states_equal, write_store

from jowa import finetune
from jowa.cli import load_config
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.finetune import FinetuneConfig
from jowa.games import legal_actions, legal_mask, task_id
from jowa.models.agent_files import load_agent, tokenizer_hash
from jowa.models.task_rows import start_task_row
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning.greedy import Greedy
from jowa.training import learner
from jowa.training.checkpoint import OPTIMIZERS, latest_checkpoint, list_checkpoints
from jowa.training.new_game import task_sources


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


def test_a_game_starts_from_the_task_row_asked_for(smoke_run: Path) -> None:
    def rows(game: str, task_from: str) -> list[str]:
        return task_sources(load(smoke_run), game, task_from)

    assert [rows(game, "paper") for game in ("Robotank", "MsPacman", "Pong")] == [["Phoenix"], ["Berzerk"], ["Pong"]]
    assert rows("Breakout", "paper") == rows("Breakout", "own") == ["Breakout"]
    assert rows("Robotank", "own") == ["Robotank"] and rows("Robotank", "Pong") == ["Pong"]
    assert rows("Robotank", "mean") == list(GAMES)


@pytest.mark.parametrize("sources", [(3,), (5,), (5, 7, 3), tuple(range(60))])
def test_a_task_row_is_the_mean_of_its_sources_and_no_other_changes(sources: tuple[int, ...]) -> None:
    model = WorldActionModel(ModelConfig("t", 1, 1, 4, 1, 4), 8)
    tables = (model.code_task_embedding.weight, model.action_task_embedding.weight)
    before = [table.clone() for table in tables]
    start_task_row(model, 3, sources)
    for table, old in zip(tables, before, strict=True):
        torch.testing.assert_close(table[3], sum(old[source] for source in sources) / len(sources))
        others = [row for row in range(60) if row != 3]
        assert torch.equal(table[others], old[others])


def test_without_task_embeddings_there_is_no_row() -> None:
    model = WorldActionModel(ModelConfig("t", 1, 1, 4, 1, 4, task_embedding=False), 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    start_task_row(model, 3, [5])
    assert states_equal(model.state_dict(), before)


def test_one_row_and_one_set_of_actions_everywhere(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, targets and play are told the game's own task id and its own legal actions, whatever row it copied."""
    seen: list[tuple[str, list[int], list[int]]] = []

    def watch(owner: Any, name: str, tasks: Callable[..., Any], legal: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            seen.append((name, tasks(*arguments).unique().tolist(), legal(*arguments)))
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    def actions(mask: torch.Tensor) -> list[int]:
        return sorted({int(action) for row in mask.reshape(-1, 18) for action in row.nonzero()})

    watch(WorldActionModel, "hidden", lambda self, codes, acts, tasks: tasks, lambda *_: actions(legal_here))
    legal_here = torch.from_numpy(legal_mask("Pong"))
    watch(learner, "c51_loss", lambda *a: torch.tensor([task_id("Pong")]), lambda *a: actions(a[6]))
    watch(Greedy, "plan", lambda self, dream, context, legal: context.tasks, lambda *a: actions(a[3]))
    finetune_run(tiny_data, tmp_path / "run", smoke_run, "task_from=Breakout", "stage.steps=2", "evaluation.every=2",
                 "evaluation.episodes=1", "evaluation.max_episode_frames=40")  # fmt: skip
    assert {name for name, _, _ in seen} == {"hidden", "c51_loss", "plan"}
    assert all(tasks == [task_id("Pong")] and legal == list(legal_actions("Pong")) for _, tasks, legal in seen)


def test_the_best_returns_are_chosen_again_alike(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole episodes, the best first, until there are enough; whatever the seed of the run."""
    store = EpisodeStore(tiny_data, ["Pong"])
    returns, lengths = store.tables["Pong"].returns, store.tables["Pong"].lengths
    order = np.argsort(-returns, kind="stable")
    best = order[: int(np.searchsorted(lengths[order].cumsum(), 15)) + 1]
    chosen = []
    for seed in (0, 1):
        out = tmp_path / f"run{seed}"
        finetune_run(tiny_data, out, smoke_run, "data.transitions=15", f"seed={seed}")
        chosen.append(load(out).description["selection"])
        chosen_best = f"training on {len(best)} of 5 episodes, top ones first: {lengths[best].sum()}"
        assert chosen_best in capsys.readouterr().out
    assert chosen[0] == chosen[1] and chosen[0] is not None
    finetune_run(tiny_data, tmp_path / "all", smoke_run, "data.transitions=1000", "data.quality=all")
    assert "training on 5 of 5 episodes" in capsys.readouterr().out


def test_the_same_seed_repeats_itself(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    runs = [finetune_run(tiny_data, tmp_path / name, smoke_run, *changes)
            for name, changes in (("a", []), ("b", []), ("c", ["seed=1"]))]  # fmt: skip
    one, same, other = (final_weights(run) for run in runs)
    assert one == same != other


def test_it_ends_with_how_well_it_plays_and_keeps_the_best(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finetune_run(tiny_data, tmp_path / "run", smoke_run, "evaluation.every=2", "evaluation.episodes=2",
                       "evaluation.max_episode_frames=60")  # fmt: skip
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    returns = {line["step"]: line["evaluation/Pong/return"] for line in lines if "evaluation/Pong/return" in line}
    assert list(returns) == [2, 4]
    assert f"Pong: mean return {returns[4]:g} in 2 episodes after step 4." in printed
    assert f"evaluate it by: python -m jowa.evaluate ckpt={out}/checkpoints/best" in printed
    assert load_agent(latest_checkpoint(out / "checkpoints" / "best")).description["step"] in (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["size=40M"], "is of size nano, not 40M"),
        (["game=Boxing"], r"needs recorded.*Boxing.*jowa.data.record game=Boxing.*jowa.data.fetch games=\[Boxing\]"),
        (["game=Berzerk"], "jowa.data.record game=Berzerk [^`]*`, or set data.path"),
        (["task_from=Pongg"], r"task_from is own, mean, paper.*\(key 'task_from'\): did you mean 'Pong'"),
        (["data.quality=best"], "data.quality must be one of all, last, top"),
        (["data.quality=last", "data.transitions=9"], "data.quality=last needs checkpoints"),
        (["data.transitions=0"], "data.transitions must be at least 1"),
        (["data.selection=some.json"], "data.transitions=null"),
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


def test_fewer_transitions_than_one_window(smoke_run: Path, tmp_path: Path) -> None:
    data = write_store(tmp_path / "data", ("Pong",), (4, 3))
    with pytest.raises(UserError, match="has 7 transitions, fewer than one window of 8 frames: record some with"):
        finetune_run(data, tmp_path / "run", smoke_run)


def test_actions_that_are_not_the_games(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A store that another program wrote: the game's name is Pong's, its actions are not."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data / "Breakout", data / "Boxing")
    shutil.copytree(tiny_data / "Pong", data / "Pong")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpisodeStore, "column", with_action(EpisodeStore.column, 17))
        with pytest.raises(UserError, match=r"was played with action 17 \(row 3\), but the game's actions are 0, 1, 3"):
            finetune_run(data, tmp_path / "run", smoke_run)


def with_action(column: Callable[..., Any], action: int) -> Callable[..., Any]:
    def changed(store: EpisodeStore, game: str, name: str) -> Any:
        values = column(store, game, name)
        if name == "actions":
            values = values.copy()
            values[3] = action
        return values

    return changed


def test_a_pretraining_run_is_not_gone_on_with(smoke_run: Path, tiny_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")}
    for changes, message in ((["resume=auto"], "no configuration of this program"), ([], "isn't empty")):
        with pytest.raises(UserError, match=message):
            finetune_run(tiny_data, smoke_run, smoke_run, *changes)
    assert {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")} == before


def test_a_checkpoint_without_the_optimisers_state(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    """It is good to start from, not to go on from."""
    source = tmp_path / "source"
    shutil.copytree(smoke_run, source)
    for file in source.rglob(OPTIMIZERS):
        file.unlink()
    out = finetune_run(tiny_data, tmp_path / "run", source, "stage.steps=2")
    assert final_weights(out) == final_weights(finetune_run(tiny_data, tmp_path / "same", smoke_run, "stage.steps=2"))
    (latest_checkpoint(out) / OPTIMIZERS).unlink()
    with pytest.raises(UserError, match=r"finetune-00000002 is damaged \(No such file.*optimizers.pt\): there is none"):
        finetune_run(tiny_data, out, source, "resume=auto")


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
    assert (config.data.transitions, config.data.quality) == (5000, "top")
    stage = config.stage
    assert (stage.steps, stage.learning_rate, stage.tokenizer_learning_rate) == (50_000, 5e-5, 1e-4)
    assert (stage.tokenizer_frames, stage.world_weight, stage.td_weight) == (128, 0.5, 1.0)
    finetune.check(config)
