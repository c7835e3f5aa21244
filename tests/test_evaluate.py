"""Evaluation from the command line on real games: what it leaves, from anywhere, alone and in company."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import fork
from launch import launch
from tiny_store import GAMES, LENGTHS

from jowa import evaluate
from jowa.cli import load_config
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.games import legal_actions, reference

MODES = ["random", "no planning", "planning"]
SMALL = ["device=cpu",
         "episodes=2", "environments=2", "protocol.max_episode_frames=80", "planner.horizon=1", "film_agent_steps=5",
         "world_model_sequences=8", "threads=1", "bootstrap.resamples=200"]  # fmt: skip


@pytest.fixture(scope="module")
def run(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, so that its evaluations are this file's alone."""
    return Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("evaluated") / "run"))


@pytest.fixture(scope="module")
def first(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first evaluation's folder, made from another folder with a relative path."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "link").symlink_to(run)
    done = launch("jowa.evaluate", "ckpt=link", *SMALL, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["link"]
    assert "report.html" in done.stdout and all(game in done.stdout for game in GAMES)
    return run / "evaluations" / "001"


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def in_process(run: Path, *changes: str) -> None:
    evaluate.main(load_config(EvaluateConfig, "evaluate", [f"ckpt={run}", *SMALL, *changes]))


def test_results_hold_what_is_promised(first: Path, run: Path, tiny_data: Path) -> None:
    assert sorted(path.name for path in first.iterdir()) == [
        "episodes.jsonl", "evaluation.json", "report.html", "results.json", "scores.csv", "scores.md", "scores.tex",
    ]  # fmt: skip
    results = results_of(first)
    assert set(results) == {
        "created", "command", "checkpoint", "model", "protocol", "config", "seed", "bootstrap", "modes", "data",
        "references", "world_model", "roms", "versions", "wall_seconds", "held_out", "environments",
        "warnings", "weights", "unseen_games", "baselines", "improvements", "diagnostics", "q_calibration",
        "tuning",
    }  # fmt: skip
    assert Path(results["checkpoint"]).resolve() == (run / "checkpoints" / "stage2-00000004").resolve()
    assert results["command"] == " ".join(["python -m jowa.evaluate", "ckpt=link", *SMALL])
    assert results["model"]["name"] == "nano" and results["protocol"]["max_episode_frames"] == 80
    assert [mode["mode"] for mode in results["modes"]] == MODES
    assert [mode["planner"].get("name") for mode in results["modes"]] == [None, "greedy", "beam"]
    for mode in results["modes"]:
        assert [(episode["game"], episode["seed"]) for episode in mode["episodes"]] == [
            (game, seed) for game in GAMES for seed in (0, 1)
        ]
        # 80 frames are 20 agent steps.
        assert all(episode["agent_steps"] <= 20 for episode in mode["episodes"])
        for game in mode["games"]:
            returns = [e["episode_return"] for e in mode["episodes"] if e["game"] == game["game"]]
            assert game["mean"]["value"] == pytest.approx(np.mean(returns))
            scores = reference(game["game"])
            expected = (np.mean(returns) - scores.random) / (scores.human - scores.random)
            assert game["human_normalised"]["value"] == pytest.approx(expected)
    store = EpisodeStore(tiny_data)
    for game in GAMES:
        assert results["data"][game]["mean"] == pytest.approx(store.tables[game].returns.mean())
        assert results["data"][game]["episodes"] == len(LENGTHS) and len(results["roms"][game]) == 32
    assert [evidence["game"] for evidence in results["world_model"]] == ["all games", *GAMES]
    assert all(evidence["sequences"] > 0 for evidence in results["world_model"])


def test_the_report_needs_nothing_but_itself(first: Path) -> None:
    html = (first / "report.html").read_text()
    sources = re.findall(r"""(?:src|href|poster|data)\s*=\s*["']([^"']*)""", html) + re.findall(r"url\(([^)]*)\)", html)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in html and "<script src" not in html
    assert all(game in html for game in GAMES) and ("video/mp4" in html or "image/gif" in html)


def test_another_evaluation_gets_another_folder(first: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    in_process(run, "modes=[random]", "report=false")
    assert sorted(path.name for path in first.parent.iterdir())[:2] == ["001", "002"]
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before
    again, whole = results_of(first.parent / "002"), results_of(first)
    assert again["modes"][0]["episodes"] == whole["modes"][0]["episodes"]


def test_two_processes_play_the_same_episodes(first: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = launch("jowa.evaluate", f"ckpt={run}", f"out={out}", *SMALL, "report=false", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Numbers:") == 1 and "Report:" not in done.stdout
    together, alone = results_of(out), results_of(first)
    for ours, theirs in zip(together["modes"], alone["modes"], strict=True):
        assert ours["episodes"] == theirs["episodes"] and ours["games"] == theirs["games"]
        assert ours["human_normalised"] == theirs["human_normalised"] and ours["decisions"] == theirs["decisions"]
    assert together["world_model"] == alone["world_model"]


def test_one_game_of_a_checkpoint_named_from_within(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other games than the data's may be played; nothing is written among the checkpoints."""
    evaluations = set((run / "evaluations").iterdir()) if (run / "evaluations").is_dir() else set()
    monkeypatch.chdir(run / "checkpoints" / "stage2-00000002")
    in_process(Path(), "games=[Boxing]", "modes=[no planning]", "episodes=3", "environments=1", "report=false")
    files = ["agent.json", "manifest.json", "optimizers.pt", "weights.safetensors"]
    assert sorted(path.name for path in Path().iterdir()) == files
    (folder,) = set((run / "evaluations").iterdir()) - evaluations
    results = results_of(folder)
    assert results["data"] == {} and results["world_model"] == []
    assert [episode["seed"] for episode in results["modes"][0]["episodes"]] == [0, 1, 2]
    assert len(legal_actions("Boxing")) == 18 and "Boxing" in capsys.readouterr().out


def test_moved_data_are_named_or_done_without(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    for description in moved.glob("checkpoints/*/agent.json"):
        description.write_text(description.read_text().replace(str(tiny_data.resolve()), "/nowhere"))
    in_process(moved, "modes=[random]", "episodes=1", "report=false")
    in_process(moved, "modes=[random]", "episodes=1", "report=false", f"data={tiny_data}")
    assert results_of(moved / "evaluations" / "001")["data"] == {}
    assert set(results_of(moved / "evaluations" / "002")["data"]) == set(GAMES)


NO_PICTURES = ["world_model_sequences=0", "report=false"]
LONG = ["games=[Pong]", "episodes=10", "modes=[random,no planning]", *NO_PICTURES]


def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_ledger(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    in_process(run, *LONG, f"out={whole}")
    killed = fork(tmp_path / "said", "jowa.evaluate", f"ckpt={run}", *SMALL, *LONG, f"out={out}", processes=2)
    moment, seen = int(np.random.default_rng().integers(1, 15)), 0
    while seen < moment and all(one.process.is_alive() for one in killed):
        time.sleep(0.01)
        seen = sum(part.read_bytes().count(b"\n") for part in out.glob("episodes.rank-*.jsonl"))
    for one in killed:
        one.process.kill()
    for one in killed:
        one.end()
    assert not (out / "results.json").exists(), f"it was done before {moment} episodes were seen"
    capsys.readouterr()
    in_process(run, *LONG, f"out={out}")
    said = capsys.readouterr().err
    kept = int(re.search(r"(\d+) episodes are there already", said).group(1))
    assert kept >= moment
    assert (out / "episodes.jsonl").read_bytes() == (whole / "episodes.jsonl").read_bytes()
    assert (whole / "episodes.jsonl").read_text().count("\n") == 20
    assert results_of(out)["modes"][1]["games"] == results_of(whole)["modes"][1]["games"]
    assert results_of(out)["modes"][0]["decisions"] < results_of(whole)["modes"][0]["decisions"]
    with pytest.raises(UserError, match="isn't empty"):
        in_process(run, *LONG, f"out={out}")


def test_games_and_episodes_share_batches_and_decide_nothing(run: Path, tmp_path: Path) -> None:
    """One call for two games' episodes, whatever plays beside it, equals a call for each."""
    together = tmp_path / "together"
    short = ["modes=[planning]", "protocol.max_episode_frames=40", *NO_PICTURES]
    in_process(run, *short, "environments=3", f"out={together}")
    apart = []
    for game in GAMES:
        for seed in range(2):
            out = tmp_path / f"{game}-{seed}"
            alone = [f"games=[{game}]", "episodes=1", f"seed={seed}", f"out={out}"]
            in_process(run, *short, *alone)
            apart += (out / "episodes.jsonl").read_text().splitlines()
    assert (together / "episodes.jsonl").read_text().splitlines() == apart


def test_an_unknown_game_is_named_by_its_key(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown game 'Pnog' \(key 'games'\): did you mean 'Pong'"):
        in_process(run, "games=[Pnog]", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_game_the_agent_never_saw_is_played_with_a_warning(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process(run, f"games=[{GAMES[0]},Boxing]", "episodes=1",
               "modes=[no planning]", *NO_PICTURES, f"out={tmp_path / 'out'}")  # fmt: skip
    results = results_of(tmp_path / "out")
    assert "Boxing" in results["unseen_games"] and any("never trained on" in one for one in results["warnings"])
    assert "never trained on Boxing" in capsys.readouterr().err
