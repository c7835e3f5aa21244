"""Tuning the planner: on episodes of its own, the best mean wins, and what was tuned on can't be reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jowa import evaluate, tune
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.results.tuning import Setting, choose, grid, read_tuning
from jowa.tune import SEED, TuneConfig

SHORT = ["device=cpu", "games=[Pong]", "protocol.max_episode_frames=24", "bootstrap.resamples=50", "threads=1"]
TUNE = [*SHORT, "contexts=[1,2]", "widths=[1,2]", "horizons=[1]", "episodes=2"]
EVALUATE = [*SHORT, "episodes=1", "world_model_sequences=0", "report=false"]


@pytest.fixture(scope="module")
def run(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("tuned") / "run"))


@pytest.fixture(scope="module")
def tuned(run: Path) -> Path:
    tune.main(load_config(TuneConfig, "tune", [f"ckpt={run}", *TUNE]))
    return run / "tuning" / "001"


def test_reported_episodes_that_equal_a_tuning_one_are_counted(run: Path, tuned: Path, tmp_path: Path) -> None:
    """Play is deterministic here: other seeds bring the same episodes."""
    results = evaluated(run, tmp_path / "out", f"tuned={tuned}", "episodes=3", "protocol.random_action_probability=0")
    assert results["tuning"]["repeated_episodes"] == 3


def evaluated(run: Path, out: Path, *changes: str) -> dict[str, Any]:
    evaluate.main(load_config(EvaluateConfig, "evaluate", [f"ckpt={run}", *EVALUATE, f"out={out}", *changes]))
    return json.loads((out / "results.json").read_text())


def test_every_setting_plays_the_tuning_episodes_and_no_others(tuned: Path) -> None:
    lines = [json.loads(line) for line in (tuned / "episodes.jsonl").read_text().splitlines()]
    labels = [f"context {context}, width {width}, horizon 1" for width in (1, 2) for context in (1, 2)]
    assert [(one["mode"], one["seed"]) for one in lines] == [(label, SEED + k) for label in labels for k in (0, 1)]
    content = json.loads((tuned / "tuned.json").read_text())
    assert content["returns_points"]["Pong"][labels[0]] == [one["episode_return"] for one in lines[:2]]
    found = read_tuning(tuned)
    assert list(found.seeds) == [SEED, SEED + 1] and found.games["Pong"].setting == Setting(1, 1, 1), "all lose alike"
    assert found.games["Pong"].equals == 4


def test_evaluation_plays_what_was_tuned_and_says_so(run: Path, tuned: Path, tmp_path: Path) -> None:
    content = json.loads((tuned / "tuned.json").read_text())
    content["games"]["Pong"]["setting"] = {"context": 2, "width": 1, "horizon": 1}
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "tuned.json").write_text(json.dumps(content))
    results = evaluated(run, tmp_path / "out", f"tuned={changed}", "modes=[no planning,planning]")
    plain, planned = (mode["planner"] for mode in results["modes"])
    assert (planned["context"], planned["width"], planned["horizon"]) == (2, 1, 1)
    assert plain["context"] == 6, "greedy play is as it was given"
    assert results["tuning"] == {
        "first_seed": SEED, "episodes": 2, "same_weights": True, "same_protocol": True, "repeated_episodes": 0,
    }  # fmt: skip
    other = evaluated(run, tmp_path / "other", f"tuned={changed}", "protocol.max_episode_frames=20")
    assert other["tuning"]["same_protocol"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"seed={SEED + 1}", "can't be reported too"),
        ("games=[Breakout]", "not Breakout: tune it too"),
        ("modes=[random]", "add 'planning' to modes"),
        ("planner.gamma=0.9", r"planner.gamma=0.99, not 0.9"),
        ("planner=greedy", "planner.name=beam, not greedy"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_play(
    run: Path, tuned: Path, tmp_path: Path, change: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        evaluated(run, tmp_path / "out", f"tuned={tuned}", change)
    assert not (tmp_path / "out").exists()


def test_missing_and_damaged_tunings_are_one_sentence(run: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no tuned.json"):
        evaluated(run, tmp_path / "out", f"tuned={tmp_path}")
    whole = json.loads((tuned / "tuned.json").read_text())
    setting = whole["games"]["Pong"]["setting"]
    other = {"games": {"Pong": whole["games"]["Pong"] | {"setting": setting | {"context": "2"}}}}
    for damage in ("{", "[]", *(json.dumps(whole | change) for change in (other, {"planner": 3}))):
        (tmp_path / "tuned.json").write_text(damage)
        with pytest.raises(UserError, match="damaged"):
            read_tuning(tmp_path)


@given(st.lists(st.integers(1, 8), min_size=1), st.lists(st.integers(1, 4), min_size=1), st.lists(st.integers(1, 4)))
def test_the_grid_holds_every_fitting_combination_once_and_the_cheap_ones_first(contexts, widths, horizons):
    found = grid(contexts, widths, horizons, blocks=8)
    fitting = {
        (context, width, horizon)
        for context in contexts for width in widths for horizon in horizons if context + horizon <= 8
    }  # fmt: skip
    assert len(found) == len(fitting) and {(one.context, one.width, one.horizon) for one in found} == fitting
    assert [one.imagined for one in found] == sorted(one.imagined for one in found)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=9))
def test_the_best_mean_wins_and_of_equals_the_first(returns):
    settings = [Setting(context, 1, 1) for context in range(1, len(returns) + 1)]
    chosen = choose(dict(zip(settings, returns, strict=True)))
    means = [float(np.mean(values)) for values in returns]
    assert chosen.setting == settings[means.index(max(means))]
    assert chosen.mean_return_points == max(means) and chosen.equals == means.count(max(means))


def test_mistakes_on_the_command_line() -> None:
    for change, said in {
        "contexts=[]": "contexts", "widths=[0]": "widths", "horizons=[0]": "horizons", "episodes=0": "episodes",
        "planner=mcts": "planner.name=mcts", "seed=-1": "seed", "games=[Pong,Pong]": "twice",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said):
            tune.check(load_config(TuneConfig, "tune", ["ckpt=x", change]))


def test_nothing_that_fits_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="8 frames"):
        tune.main(load_config(TuneConfig, "tune", [f"ckpt={run}", *TUNE, "contexts=[8]"]))
