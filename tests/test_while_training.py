"""Playing while training: it tells how good the agent is, chooses the best checkpoint, and changes nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from launch import launch
from tiny_store import final_weights, pretrain_run, write_store

from jowa.errors import UserError
from jowa.evaluation.play.while_training import scores
from jowa.training.checkpoint import read_best

PLAY = ["evaluation.every=2", "evaluation.episodes=1", "evaluation.max_episode_frames=60"]


def played(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "evaluation/score" in line]


def test_a_run_plays_and_learns_the_same(tiny_data: Path, tmp_path: Path) -> None:
    quiet = pretrain_run(tiny_data, tmp_path / "quiet")
    run = pretrain_run(tiny_data, tmp_path / "run", *PLAY)
    assert final_weights(run) == final_weights(quiet)
    lines = played(run)
    assert [(line["stage"], line["step"]) for line in lines] == [("stage2", 2), ("stage2", 4)]
    games = {key.split("/")[1] for key in lines[0] if key.endswith("/return")}
    assert games == {"Breakout", "Pong"}
    normalised = [lines[0][f"evaluation/{game}/human_normalised"] for game in games]
    assert lines[0]["evaluation/score"] == pytest.approx(sum(normalised) / 2, rel=1e-4)
    assert read_best(run)["stage2"]["metric"] == "evaluation/score"
    assert read_best(run)["stage1"]["metric"] == "held_out/total" == read_best(quiet)["stage2"]["metric"]
    planned = pretrain_run(tiny_data, tmp_path / "planned", *PLAY, "evaluation.planning=true")
    assert len(played(planned)) == 2 and final_weights(planned) == final_weights(quiet)


def test_without_known_scores_the_loss_chooses_the_best(tmp_path: Path) -> None:
    run = pretrain_run(write_store(tmp_path / "data", ("AirRaid", "Pooyan")), tmp_path / "run", *PLAY, "stage1.steps=1")
    assert not played(run) and "evaluation/AirRaid/return" in (run / "metrics.jsonl").read_text()
    assert read_best(run)["stage2"]["metric"] == "held_out/total"


def test_three_processes_share_two_games(tiny_data: Path, tmp_path: Path) -> None:
    settings = ["+exp=smoke", f"data.path={tiny_data}", f"out={tmp_path / 'run'}", "training.batch_size=6", *PLAY,
                "stage1.tokenizer_frames=12", "stage1.steps=1", "stage2.steps=1"]  # fmt: skip
    done = launch("jowa.pretrain", *settings, processes=3)
    assert done.returncode == 0, done.stderr
    (line,) = played(tmp_path / "run")
    assert {"evaluation/Breakout/return", "evaluation/Pong/return"} <= line.keys()
    assert all(math.isfinite(value) for key, value in line.items() if key.startswith("evaluation/"))


def test_scores_of_games_without_a_human_one() -> None:
    assert scores({"AirRaid": 5.0})["evaluation/score"] == 5.0
    assert "evaluation/score" not in scores({"AirRaid": 5.0, "Pooyan": 7.0})
    both = scores({"AirRaid": 5.0, "Pong": 21.0})
    assert both["evaluation/score"] == both["evaluation/Pong/human_normalised"] > 1


@pytest.mark.parametrize("change", ["evaluation.every=-1", "evaluation.episodes=0", "evaluation.max_episode_frames=0"])
def test_settings_that_make_no_sense(tiny_data: Path, tmp_path: Path, change: str) -> None:
    with pytest.raises(UserError, match=change.split("=")[0]):
        pretrain_run(tiny_data, tmp_path / "run", change)
    assert not (tmp_path / "run").exists()
