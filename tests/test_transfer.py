"""What transfers: the arms begin as they say, learn from the same episodes, and are compared by sound statistics."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from launch import launch
from safetensors.torch import load_file
from tiny_store import final_weights, states_equal, write_store

from jowa import finetune, transfer
from jowa.cli import load_config
from jowa.errors import Interrupted, UserError
from jowa.evaluation.pages.transfer_page import render, sentences, short, table
from jowa.evaluation.results.transfer_results import Transfer, compare_runs, costs, metrics_of, read_run
from jowa.evaluation.statistics.transfer_statistics import (
    BETTER,
    NOT_SHOWN,
    UNTESTED,
    WORSE,
    compare,
    mean_height,
    mean_over_seeds,
    verdict,
)
from jowa.finetune import FinetuneConfig
from jowa.models.agent_files import WEIGHTS, load_agent, read_description
from jowa.training.adaptation import AdaptationConfig
from jowa.training.checkpoint import latest_checkpoint
from jowa.training.config import StageConfig
from jowa.training.fresh_start import STARTS, check_fresh, fresh_parts
from jowa.training.loop import train_stage

SMALL = [
    "game=Pong", "stage.steps=2", "stage.tokenizer_frames=8", "training.batch_size=4", "training.threads=1",
    "training.device=cpu", "training.validate_every=1", "training.validation_sequences=4", "training.log_every=1",
    "data.holdout=0.25", "evaluation.every=0", "seeds=[0,1]",
]  # fmt: skip


def config_of(data: Path, out: Path, ckpt: Path, *changes: str) -> transfer.TransferConfig:
    overrides = [f"data.path={data}", f"out={out}", f"ckpt={ckpt}", *SMALL, *changes]
    return load_config(transfer.TransferConfig, "transfer", overrides)


def compare_all(data: Path, out: Path, ckpt: Path, *changes: str) -> Path:
    transfer.main(config_of(data, out, ckpt, *changes))
    return out


@pytest.fixture(scope="module")
def comparison(smoke_run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished one with two seeds."""
    return compare_all(tiny_data, tmp_path_factory.mktemp("transfer") / "out", smoke_run)


def runs_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*-seed*"))


# Statistics


def test_means_have_students_interval() -> None:
    mean = mean_over_seeds([1.0, 2.0, 3.0])
    assert mean.value == 2.0 and mean.seeds == (1.0, 2.0, 3.0)
    assert mean.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert mean.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)
    assert mean_over_seeds([1.0, 3.0]).high == pytest.approx(2 + 12.7062, abs=1e-4)
    assert (mean_over_seeds([4.0]).low, mean_over_seeds([4.0]).high) == (None, None)


def test_the_area_is_the_curves_mean_height() -> None:
    assert mean_height([0, 10, 30], torch.tensor([0.0, 10.0, 20.0]).numpy()) == pytest.approx(350 / 30)
    assert mean_height([5], torch.tensor([3.0]).numpy()) == 3.0


def test_a_difference_is_paired_by_seed_and_judged_by_its_interval() -> None:
    series = {
        "pretrained": [{0: 0.0, 10: 11.0}, {0: 0.0, 10: 22.0, 15: 9.0}, {0: 0.0, 10: 33.0}],
        "scratch": [{0: 0.0, 10: 10.0}, {0: 0.0, 10: 20.0}, {0: 0.0, 10: 30.0}],
    }
    found = compare("m", True, series, "scratch")
    assert found.steps == (0, 10)
    (difference,) = found.differences
    assert (difference.arm, difference.baseline) == ("pretrained", "scratch")
    assert difference.final.seeds == (1.0, 2.0, 3.0) and difference.area.seeds == (0.5, 1.0, 1.5)
    # The arms' own intervals overlap by far: only in pairs is 2 ± 2.48 what is left.
    assert difference.final.high == pytest.approx(2 + 2.484, abs=1e-3)
    assert difference.final_verdict == NOT_SHOWN
    assert [arm.final.value for arm in found.arms] == [22.0, 20.0]
    assert compare("m", True, {"pretrained": series["pretrained"]}, "scratch").differences == ()
    assert compare("m", True, {"a": [{0: 1.0}], "b": [{1: 1.0}]}, "b") is None


@pytest.mark.parametrize(
    ("values", "higher_is_better", "expected"),
    [
        ([5.0, 5.1, 5.2], True, BETTER),
        ([5.0, 5.1, 5.2], False, WORSE),
        ([-5.0, -5.1, -5.2], True, WORSE),
        ([-5.0, -5.1, -5.2], False, BETTER),
        ([5.0, 0.1, 5.2], True, NOT_SHOWN),
        ([0.0, 0.0, 0.0], True, NOT_SHOWN),
        ([1.0, 1.0, 1.0], True, UNTESTED),
        ([5.0], True, UNTESTED),
    ],
)
def test_verdicts(values: list[float], higher_is_better: bool, expected: str) -> None:
    assert verdict(mean_over_seeds(values), higher_is_better) == expected


# Starts


def test_arms_begin_as_they_say(smoke_run: Path) -> None:
    agent = load_agent(latest_checkpoint(smoke_run))
    starts = {start: fresh_parts(agent, start, seed=3) for start in STARTS}
    tokenizers = {start: states_equal(one.tokenizer.state_dict(), agent.tokenizer.state_dict())
                  for start, one in starts.items()}  # fmt: skip
    models = {start: states_equal(one.model.state_dict(), agent.model.state_dict()) for start, one in starts.items()}
    assert tokenizers == {"pretrained": True, "tokenizer": True, "scratch": False}
    assert models == {"pretrained": True, "tokenizer": False, "scratch": False}
    assert states_equal(starts["tokenizer"].model.state_dict(), starts["scratch"].model.state_dict())
    again, other = fresh_parts(agent, "scratch", seed=3), fresh_parts(agent, "scratch", seed=4)
    assert states_equal(again.tokenizer.state_dict(), starts["scratch"].tokenizer.state_dict())
    assert not states_equal(other.model.state_dict(), again.model.state_dict())


def test_runs_begin_from_these_weights(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Learning rates of almost nothing leave the weights where each arm began."""
    still = ["stage.learning_rate=1e-12", "stage.tokenizer_learning_rate=1e-12", "training.weight_decay=0", "seeds=[2]"]
    out = compare_all(tiny_data, tmp_path / "out", smoke_run, *still)
    agent = load_agent(latest_checkpoint(smoke_run))
    for start in STARTS:
        found = load_file(latest_checkpoint(out / f"{start}-seed2") / WEIGHTS)
        expected = fresh_parts(agent, start, seed=2)
        for name, tensor in expected.model.state_dict().items():
            if "q_target" not in name:
                torch.testing.assert_close(found[f"model.{name}"], tensor, rtol=0, atol=1e-9)
        for name, tensor in expected.tokenizer.state_dict().items():
            torch.testing.assert_close(found[f"tokenizer.{name}"], tensor, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("start", "method", "frames", "message"),
    [
        ("scratch", "full", 0, "start=scratch needs a tokenizer that learns"),
        ("scratch", "lora", 8, "finetune.method=lora would leave the trunk of start=scratch"),
        ("tokenizer", "heads", 8, "finetune.method=heads would leave the trunk of start=tokenizer"),
    ],
)
def test_random_parts_must_learn(start: str, method: str, frames: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_fresh(start, AdaptationConfig(method), StageConfig(tokenizer_frames=frames))
    check_fresh("pretrained", AdaptationConfig(method), StageConfig(tokenizer_frames=frames))
    check_fresh("tokenizer", AdaptationConfig(), StageConfig())


# The comparison


def test_every_run_is_an_ordinary_one_on_the_same_episodes(comparison: Path) -> None:
    assert runs_in(comparison) == sorted(f"{arm}-seed{seed}" for arm in STARTS for seed in (0, 1))
    facts = [read_description(latest_checkpoint(comparison / name)) for name in runs_in(comparison)]
    assert len({json.dumps([one["data_fingerprints"], one["selection"], one["holdout"]]) for one in facts}) == 1
    assert {one["step"] for one in facts} == {2}
    assert len({final_weights(comparison / name) for name in runs_in(comparison)}) == 6


def test_numbers_go_from_before_the_first_step_to_the_last(comparison: Path) -> None:
    folder = comparison / "comparisons" / "001"
    results = json.loads((folder / "transfer.json").read_text())
    assert results["arms"] == list(STARTS) and results["seeds"] == [0, 1]
    names = [metric["name"] for metric in results["metrics"]]
    assert {"held_out/reward", "held_out/end", "held_out/observation", "held_out/td"} <= set(names)
    assert "held_out/world/code_accuracy" in names and "held_out/reconstruction" in names
    assert all(metric["steps"] == [0.0, 1.0, 2.0] for metric in results["metrics"])
    assert {tuple(cost[key] for key in ("steps", "sequences", "transitions", "runs")) for cost in results["cost"]} == {
        (2, 8, 64, 2)
    }
    assert all(cost["seconds"] > 0 for cost in results["cost"])
    rows = list(csv.DictReader((folder / "transfer.csv").read_text().splitlines()))
    assert len(rows) == len(names) * 3 * 3 * 2
    line = next(
        line for line in (comparison / "scratch-seed1" / "metrics.jsonl").read_text().splitlines()
        if '"step": 0' in line and "held_out/reward" in line
    )  # fmt: skip
    (row,) = [row for row in rows if (row["arm"], row["seed"], row["step"], row["metric"])
              == ("scratch", "1", "0", "held_out/reward")]  # fmt: skip
    assert float(row["value"]) == pytest.approx(json.loads(line)["held_out/reward"])


def test_before_the_first_step_nothing_has_been_learnt(comparison: Path) -> None:
    first = [read_run(comparison / f"{arm}-seed0", arm, 0, finetune.STAGE) for arm in ("pretrained", "tokenizer")]
    values = [run.series["held_out/reconstruction"] for run in first]
    assert values[0][0] == values[1][0] and values[0][0] != values[0][2]


def test_looking_first_changes_no_weight(comparison: Path, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    changes = ["training.look_first=false", "arms=[scratch]", "seeds=[0]"]
    out = compare_all(tiny_data, tmp_path / "out", smoke_run, *changes)
    assert final_weights(out / "scratch-seed0") == final_weights(comparison / "scratch-seed0")
    assert '"step": 0,' not in (out / "scratch-seed0" / "metrics.jsonl").read_text()


def test_finished_runs_are_not_repeated_and_seeds_may_be_added(
    comparison: Path, smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = shutil.copytree(comparison, tmp_path / "out")
    files = {path: path.stat().st_mtime_ns for name in runs_in(comparison) for path in (comparison / name).rglob("*")}
    page = (comparison / "comparisons" / "001" / "transfer.html").read_bytes()
    compare_all(tiny_data, comparison, smoke_run, "seeds=[0,1,5]", "arms=[pretrained,scratch]")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (comparison / "comparisons" / "001" / "transfer.html").read_bytes() == page
    results = json.loads((comparison / "comparisons" / "002" / "transfer.json").read_text())
    assert results["seeds"] == [0, 1, 5] and results["arms"] == ["pretrained", "scratch"]
    out = capsys.readouterr().out
    assert "Run 1 of 6, pretrained with seed 0, is finished." in out
    assert "Run 5 of 6, pretrained with seed 5, begins or goes on." in out


def test_an_interrupted_comparison_goes_on(comparison: Path, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = 0

    def stopped(run: object, name: str, stage: StageConfig, *rest: object, **options: object) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            train_stage(run, name, replace(stage, steps=1), *rest, **options)
            raise Interrupted(signal.SIGTERM, Path("x"), "step 1 of finetune")
        train_stage(run, name, stage, *rest, **options)

    with patch("jowa.training.session.train_stage", stopped), pytest.raises(Interrupted) as stop:
        compare_all(tiny_data, out, smoke_run, "seeds=[0]")
    assert stop.value.run == out and stop.value.place == "step 1 of finetune in tokenizer-seed0"
    assert runs_in(out) == ["pretrained-seed0", "tokenizer-seed0"]
    transfer.main(load_config(transfer.TransferConfig, "transfer", [f"resume={out}"]))
    for name in ("tokenizer-seed0", "scratch-seed0"):
        assert final_weights(out / name) == final_weights(comparison / name)
    tables = ((folder / "comparisons" / "001" / "transfer.csv").read_text() for folder in (out, comparison))
    ours, theirs = ([row for row in csv.DictReader(table.splitlines()) if row["seed"] == "0"] for table in tables)
    assert ours == theirs and len(ours) > 10


def test_several_processes_compare_together(comparison: Path, smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = [f"data.path={tiny_data}", f"out={out}", f"ckpt={smoke_run}", *SMALL, "arms=[pretrained,scratch]"]
    done = launch("jowa.transfer", *changes, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Page: ") == 1 and len(runs_in(out)) == 4
    assert [path.name for path in (out / "comparisons").iterdir()] == ["001"]
    metrics = [read_run(folder / "scratch-seed1", "scratch", 1, finetune.STAGE).series["held_out/reward"]
               for folder in (out, comparison)]  # fmt: skip
    assert metrics[0][0] == pytest.approx(metrics[1][0], rel=1e-4) and metrics[0].keys() == metrics[1].keys()


def test_it_plays_from_before_the_first_step(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    play = ["evaluation.every=2", "evaluation.episodes=1", "evaluation.max_episode_frames=40", "arms=[scratch]"]
    out = compare_all(tiny_data, tmp_path / "out", smoke_run, *play, "seeds=[0]", "data.holdout=0")
    results = json.loads((out / "comparisons" / "001" / "transfer.json").read_text())
    (metric,) = results["metrics"]
    assert metric["name"] == "evaluation/Pong/return" and metric["steps"] == [0.0, 2.0]
    assert any("One seed shows no spread" in caution for caution in results["cautions"])


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["arms=[pretrained,scratchh]"], "no 'scratchh' to give as arms: did you mean 'scratch'"),
        (["arms=[]"], "arms is empty"),
        (["seeds=[]"], "seeds is empty"),
        (["seeds=[1,1]"], "seeds names one twice: 1, 1"),
        (["seeds=[-1,1]"], "seeds must not be negative"),
        (["seed=1"], "set seeds and arms instead"),
        (["start=scratch"], "set seeds and arms instead"),
        (["data.holdout=0"], "nothing to compare: set evaluation.every above 0 to play, or data.holdout"),
        (["stage.tokenizer_frames=0"], "start=scratch needs a tokenizer that learns"),
        (["finetune.method=lora"], "would leave the trunk of start=tokenizer"),
        (["ckpt=nowhere"], "There is no agent in .*nowhere"),
        (["game=Boxing"], "needs recorded episodes of Boxing"),
        (["stage.steps=0"], "stage.steps above 0"),
    ],
)
def test_what_cannot_be_compared(
    changes: list[str], message: str, smoke_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        compare_all(tiny_data, tmp_path / "out", smoke_run, *changes)
    assert not (tmp_path / "out").exists()


def test_other_settings_do_not_join_a_comparison(comparison: Path, smoke_run: Path, tiny_data: Path) -> None:
    for change, message in (
        ("stage.learning_rate=1e-3", r"has stage.learning_rate=5e-05, not 0.001"),
        ("training.validation_sequences=5", "has training.validation_sequences=4, not 5, and what is compared"),
    ):
        with pytest.raises(UserError, match=message):
            compare_all(tiny_data, comparison, smoke_run, change)


def test_other_episodes_do_not_join_a_comparison(comparison: Path, smoke_run: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", lengths=(23, 9, 30, 12, 18))
    before = {path: path.stat().st_mtime_ns for path in comparison.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"was trained on other episodes than .*other holds now"):
        compare_all(other, comparison, smoke_run, "seeds=[0,1,2]")
    assert {path: path.stat().st_mtime_ns for path in comparison.rglob("*") if path.is_file()} == before


def test_a_dry_run_says_which_runs(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare_all(tiny_data, tmp_path / "out", smoke_run, "dry_run=true", "seeds=[4]")
    text = capsys.readouterr().out
    assert "Runs: pretrained-seed4, tokenizer-seed4, scratch-seed4" in text and "finetune: 2 steps" in text
    assert not (tmp_path / "out").exists()


def test_finetunings_recipe_is_each_runs() -> None:
    ours = load_config(transfer.TransferConfig, "transfer", ["game=Pong", "ckpt=x"])
    recipe = load_config(FinetuneConfig, "finetune", ["game=Pong", "ckpt=x"])
    for key in ("stage", "objective", "finetune", "imagination", "environment", "task_from"):
        assert getattr(ours, key) == getattr(recipe, key)
    assert replace(ours.data, holdout=0.0) == recipe.data
    for key in ("batch_size", "target_every", "weight_decay", "gradient_clip"):
        assert getattr(ours.training, key) == getattr(recipe.training, key)
    transfer.check(ours)


# The page


@pytest.fixture(scope="module")
def results(comparison: Path, smoke_run: Path, tiny_data: Path) -> Transfer:
    config = config_of(tiny_data, comparison, smoke_run)
    runs = [read_run(comparison / f"{arm}-seed{seed}", arm, seed, finetune.STAGE) for arm in STARTS for seed in (0, 1)]
    return transfer.compared(config, runs, transfer.common_basis(config))


def test_the_page_shows_curves_verdicts_and_cost(results: Transfer) -> None:
    html = render(results)
    assert html.count("<svg") == len(results.metrics) and "http" not in re.sub(r"http://www\.w3\.org/\S+", "", html)
    for text in ("Verdicts", "Learning curves", "Equal cost", "2 seeds are few", "pretrained − scratch"):
        assert text in html
    assert "Each arm has codes of its own" in html and "(prefers-color-scheme: dark)" in html
    assert all(sentence.replace("'", "&#x27;") in html for sentence in sentences(results))


def test_the_table_says_a_sentence_for_each_difference(results: Transfer) -> None:
    text = table(results)
    shared = [metric for metric, _ in results.metrics if metric.shared]
    assert len(sentences(results)) == 2 * 2 * len(shared) == results.tested
    assert all(sentence in text for sentence in sentences(results))
    assert "Held-out observation loss *" in text and "Held-out reward loss *" not in text
    assert not any("observation" in sentence for sentence in sentences(results))


@pytest.mark.parametrize(
    ("seeds", "words"), [((0,), "nothing is tested"), ((0, 1, 2), "3 seeds are few: .* very wide")]
)
def test_few_seeds_are_spoken_of(results: Transfer, seeds: tuple[int, ...], words: str) -> None:
    assert re.search(words, " ".join(replace(results, seeds=seeds).cautions))


def test_one_seed_draws_no_interval(comparison: Path, results: Transfer) -> None:
    runs = [read_run(comparison / f"{arm}-seed0", arm, 0, finetune.STAGE) for arm in STARTS]
    alone = replace(results, seeds=(0,), metrics=compare_runs(runs, metrics_of("Pong")), cost=costs(runs, 4, 8))
    assert "PolyCollection" in render(results) and "PolyCollection" not in render(alone)
    assert "Shaded" in render(results) and "Shaded" not in render(alone)
    assert "without any spread over seeds nothing is tested" in sentences(alone)[0]


def test_without_the_baseline_there_are_no_verdicts(comparison: Path, results: Transfer) -> None:
    runs = [read_run(comparison / f"{arm}-seed{seed}", arm, seed, "finetune") for arm in STARTS[:2] for seed in (0, 1)]
    apart = replace(results, arms=STARTS[:2], metrics=compare_runs(runs, metrics_of("Pong")))
    assert not sentences(apart) and "<h2>Verdicts" not in render(apart) and "<h2>Verdicts" in render(results)
    assert any("Without the arm scratch" in caution for caution in apart.cautions)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (-1e-9, "−1e−09"), (12.34, "12.3"), (-0.5, "−0.5"), (123456.0, "123,456")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text
