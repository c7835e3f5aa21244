"""planner=published: every game with its own published settings, in one evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_store import GAMES

from jowa import evaluate
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.play.player import Player
from jowa.games import GAMES as ALL_GAMES
from jowa.games import PRETRAINING_GAMES
from jowa.models.published import MODELS
from jowa.models.world_action_model import ModelConfig
from jowa.planning import config as planner_config
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.dream import Context
from jowa.planning.making import make_planner
from jowa.published_scores import PUBLISHED_SIZES, OfficialEvaluation, official_evaluation

SMALL = ["device=cpu", "episodes=2", "environments=2", "protocol.max_episode_frames=40", "report=false",
         "world_model_sequences=0", "threads=1", "bootstrap.resamples=50"]  # fmt: skip


def planner(*changes: str) -> PlannerConfig:
    return load_config(EvaluateConfig, "evaluate", ["ckpt=x", "planner=published", *changes]).planner


def test_every_game_of_every_size_has_its_settings() -> None:
    for size in PUBLISHED_SIZES:
        assert set(official_evaluation(size)) == set(PRETRAINING_GAMES)
        for game, published in official_evaluation(size).items():
            settings = planner().for_game(MODELS[size], game)
            assert (settings.name, settings.use_termination, settings.gamma) == ("beam", False, 0.99)
            assert (settings.context, settings.width, settings.horizon) == (
                published.context, published.width, published.horizon
            )  # fmt: skip
    phoenix = planner().for_game(MODELS["70M"], "Phoenix")
    assert (phoenix.context, phoenix.width, phoenix.horizon) == (1, 2, 2)


def test_what_is_set_goes_for_all_games() -> None:
    settings = planner("planner.width=7", "planner.use_termination=true").for_game(MODELS["150M"], "Seaquest")
    assert (settings.context, settings.width, settings.horizon, settings.use_termination) == (6, 7, 2, True)
    with pytest.raises(UserError, match=r"planner\.horizon=3 exceed the 8 frames"):
        planner("planner.horizon=3").for_game(MODELS["150M"], "Seaquest")


def test_the_name_alone_is_not_the_preset() -> None:
    with pytest.raises(UserError, match=r"planner\.name=published has nothing published to take"):
        check_planner(load_config(EvaluateConfig, "evaluate", ["ckpt=x", "planner.name=published"]).planner)


def test_other_planners_are_the_same_for_all_games() -> None:
    assert PlannerConfig().for_game(ModelConfig("nano"), "Pong") == PlannerConfig()
    with pytest.raises(ValueError, match="for_game"):
        make_planner(planner())


@pytest.mark.parametrize(
    ("size", "game", "message"),
    [("nano", "Phoenix", "with a nano model .40M, 70M, 150M have"), ("40M", "Pong", "no settings for Pong.*Phoenix")],
)
def test_unknown_settings_are_refused(size: str, game: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        planner().for_game(ModelConfig(size), game)


def test_an_evaluation_of_a_size_without_settings_writes_nothing(smoke_run: Path, tmp_path: Path) -> None:
    line = [f"ckpt={smoke_run}", "planner=published", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="planner=published has no settings for Breakout with a nano model"):
        evaluate.main(load_config(EvaluateConfig, "evaluate", line))
    assert not list(tmp_path.iterdir())


def test_an_evaluation_plays_each_game_with_its_own_settings(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(smoke_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    official = {GAMES[0]: OfficialEvaluation(1, 3, 1, ()), GAMES[1]: OfficialEvaluation(4, 2, 2, ())}
    monkeypatch.setattr(planner_config, "official_evaluation", lambda size: official if size == "nano" else {})

    given: dict[str, set[int]] = {}
    look = Player.context

    def seen(player: Player, rows: torch.Tensor) -> Context:
        context = look(player, rows)
        for task, length in zip(context.tasks.tolist(), context.lengths.tolist(), strict=True):
            given.setdefault(ALL_GAMES[task], set()).add(length)
        return context

    monkeypatch.setattr(Player, "context", seen)

    def played(*changes: str) -> dict[str, Any]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        evaluate.main(load_config(EvaluateConfig, "evaluate", [f"ckpt={run}", f"out={out}", *SMALL, *changes]))
        results: dict[str, Any] = json.loads((out / "results.json").read_text())
        return results

    together = played("planner=published", "modes=[no planning,planning]")
    modes = {mode["mode"]: mode for mode in together["modes"]}
    assert {game: max(lengths) for game, lengths in given.items()} == {GAMES[0]: 1, GAMES[1]: 4}
    assert all(mode["seconds"] > 0 for mode in modes.values())
    assert modes["planning"]["planner"]["games"] == {
        GAMES[0]: {"context": 1, "width": 3, "horizon": 1}, GAMES[1]: {"context": 4, "width": 2, "horizon": 2}
    }  # fmt: skip
    assert modes["no planning"]["planner"]["games"] == {GAMES[0]: {"context": 1}, GAMES[1]: {"context": 4}}
    assert modes["planning"]["planner"]["use_termination"] is False
    for game, own in official.items():
        alone = played(
            f"games=[{game}]", "modes=[planning]", "planner.use_termination=false", f"planner.width={own.width}",
            f"planner.horizon={own.horizon}", f"planner.context={own.context}",
        )  # fmt: skip
        assert alone["modes"][0]["episodes"] == [one for one in modes["planning"]["episodes"] if one["game"] == game]
        assert "games" not in alone["modes"][0]["planner"]
