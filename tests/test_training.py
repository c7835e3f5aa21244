"""Pretraining from end to end on a tiny store: what a run leaves, and that stopping it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tiny_store import GAMES, LENGTHS, final_weights, pretrain_config, pretrain_run, states_equal, write_store
from torch import Tensor

from jowa import pretrain
from jowa.cli import load_config
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.models.agent_files import WEIGHTS, load_agent, tokenizer_hash
from jowa.training import loop
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints
from jowa.training.finite import FiniteGuard
from jowa.training.run_folder import CONFIG


def metrics_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_it_should(smoke_run: Path, tiny_data: Path) -> None:
    assert sorted(path.name for path in smoke_run.iterdir()) == [
        "checkpoints", "config.yaml", "metrics.jsonl", "pictures",
    ]  # fmt: skip
    # Four steps a stage, a checkpoint every two, the last two of each stage are kept.
    assert [path.name for path in list_checkpoints(smoke_run)] == [
        "stage1-00000002", "stage1-00000004", "stage2-00000002", "stage2-00000004",
    ]  # fmt: skip
    for stage in ("stage1", "stage2"):
        with Image.open(smoke_run / "pictures" / f"{stage}-00000004.png") as picture:
            pixels = np.asarray(picture)
        assert min(pixels.shape) > 2 * 3 * 84 and pixels.std() > 10
    kept = OmegaConf.load(smoke_run / CONFIG)
    assert kept["stage1"]["steps"] == 4 and kept["data"]["path"] == str(tiny_data) and kept["model"]["layers"] == 1
    assert not list(smoke_run.rglob("*.tmp")) and not list(smoke_run.rglob(".*"))


def test_metrics_tell_of_both_stages(smoke_run: Path) -> None:
    lines = metrics_of(smoke_run)
    training = [line for line in lines if "loss/total" in line]
    assert [(line["stage"], line["step"]) for line in training] == [
        ("stage1", 2), ("stage1", 4), ("stage2", 2), ("stage2", 4),
    ]  # fmt: skip
    assert {"loss/reconstruction", "loss/quantisation", "loss/observation", "gradient_norm/tokenizer"} <= set(lines[0])
    assert {"loss/td", "loss/conservative_all", "loss/conservative_data", "loss/end"} <= set(lines[-2])
    assert "loss/reconstruction" not in lines[-2] and "loss/td" not in lines[0]
    assert "held_out/td" in lines[-1] and "held_out/reconstruction" in lines[2]
    assert all(np.isfinite(value) for line in lines for key, value in line.items() if key != "stage")
    stage1 = training[0]
    squared = load_agent(latest_checkpoint(smoke_run)).tokenizer.config.squared_weight * stage1["loss/squared_error"]
    rest = sum(stage1[f"loss/{name}"] for name in ("reconstruction", "quantisation", "observation", "reward", "end"))
    assert stage1["loss/total"] == pytest.approx(rest + squared, rel=1e-4)
    last = training[-1]
    world = 0.1 * sum(last[f"loss/{name}"] for name in ("observation", "reward", "end"))
    penalty = 0.1 * (last["loss/conservative_all"] + last["loss/conservative_data"])
    assert last["loss/total"] == pytest.approx(world + last["loss/td"] + penalty, rel=1e-4)


def test_checkpoints_are_agents_that_know_their_origin(smoke_run: Path, tiny_data: Path) -> None:
    agent = load_agent(latest_checkpoint(smoke_run))
    facts = agent.description
    assert (facts["stage"], facts["step"], facts["games"]) == ("stage2", 4, list(GAMES))
    assert facts["data"] == str(tiny_data.resolve()) and facts["holdout"] == 0.25
    assert facts["data_fingerprints"] == {game: EpisodeStore(tiny_data).fingerprint(game) for game in GAMES}
    # Stage 2 left the tokenizer as stage 1 made it, and ended on a step that copies the target.
    before = load_agent(smoke_run / "checkpoints" / "stage1-00000004")
    assert tokenizer_hash(before.tokenizer) == tokenizer_hash(agent.tokenizer)
    assert not torch.equal(before.model.trunk.layers[0].qkv.weight, agent.model.trunk.layers[0].qkv.weight)
    online, target = agent.model.q_networks.state_dict(), agent.model.q_target.state_dict()
    assert all(torch.equal(tensor, target[name]) for name, tensor in online.items())


def test_one_seed_gives_the_same_weights_and_codes_are_made_once(
    smoke_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    caches = {path: path.stat().st_mtime_ns for path in tiny_data.glob("codes/*/*.npy")}
    assert {path.parent.name for path in caches} == set(GAMES)
    again = pretrain_run(tiny_data, tmp_path / "again")
    assert final_weights(again) == final_weights(smoke_run)
    assert {path: path.stat().st_mtime_ns for path in tiny_data.glob("codes/*/*.npy")} == caches
    other = pretrain_run(tiny_data, tmp_path / "other", "seed=1", "stage2.steps=0")
    assert final_weights(other) != (smoke_run / "checkpoints" / "stage1-00000004" / WEIGHTS).read_bytes()


class Stopped(Exception):
    """Somebody pulled the plug."""


def stop_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Fail instead of taking a stage's step with this number (0, 1, …)."""
    take = loop.train_step

    def step_or_stop(run, name, number, *rest):
        if (name, number) == (stage, step):
            raise Stopped
        return take(run, name, number, *rest)

    monkeypatch.setattr(loop, "train_step", step_or_stop)


# Dropout and the random mixture draw numbers at every step, warm-up asks for the step's number.
RANDOM = [
    "model.dropout=0.2",
    "model.attention_dropout=0.2",
    "model.q_networks=2",
    "objective.random_ensemble_mixture=true",
    "stage1.warmup_steps=3",
    "stage2.warmup_steps=3",
    "training.validate_every=1",
    "training.target_every=3",
]


@pytest.fixture(scope="module")
def uninterrupted(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_run(tiny_data, tmp_path_factory.mktemp("whole") / "run", *RANDOM)


@pytest.mark.parametrize(
    ("stage", "step", "goes_on_from"),
    [
        # Each step here is looked at and so leaves a checkpoint; the first of a stage has none before it.
        ("stage1", 0, None),
        ("stage1", 3, "stage1-00000003"),
        ("stage2", 0, "stage1-00000004"),
        ("stage2", 1, "stage2-00000001"),
        ("stage2", 3, "stage2-00000003"),
    ],
)
def test_interrupted_equals_uninterrupted(
    uninterrupted: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stage: str, step: int, goes_on_from: str | None,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_at(patched, stage, step)
        with pytest.raises(Stopped):
            pretrain_run(tiny_data, out, *RANDOM)
    newest = list_checkpoints(out)
    assert (newest[-1].name if newest else None) == goes_on_from
    pretrain_run(tiny_data, out, *RANDOM, "resume=auto")
    assert final_weights(out) == final_weights(uninterrupted)
    for checkpoint in list_checkpoints(uninterrupted, "stage2"):
        assert (out / "checkpoints" / checkpoint.name / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert (out / "config-resumed-1.yaml").is_file() and OmegaConf.load(out / CONFIG)["resume"] == "no"
    assert {line["stage"] for line in metrics_of(out)} == {"stage1", "stage2"}


def test_the_target_is_copied_at_the_stages_start_and_every_so_often(uninterrupted: Path) -> None:
    """Every third step: after two of the four it still holds what the stage began with, after four what step 3 left."""
    start, middle, end = (
        load_agent(uninterrupted / "checkpoints" / name).model
        for name in ("stage1-00000004", "stage2-00000002", "stage2-00000004")
    )
    assert states_equal(middle.q_target.state_dict(), start.q_networks.state_dict())
    for online in (start, middle, end):
        assert not states_equal(end.q_target.state_dict(), online.q_networks.state_dict())


def test_more_steps_may_be_added_to_a_finished_run(uninterrupted: Path, tiny_data: Path, tmp_path: Path) -> None:
    pretrain_run(tiny_data, tmp_path / "run", *RANDOM, "stage2.steps=2")
    pretrain_run(tiny_data, tmp_path / "run", *RANDOM, "resume=auto")
    assert final_weights(tmp_path / "run") == final_weights(uninterrupted)
    before = final_weights(tmp_path / "run")
    pretrain_run(tiny_data, tmp_path / "run", *RANDOM, "resume=auto")
    assert final_weights(tmp_path / "run") == before


def test_nothing_is_overwritten(smoke_run: Path, tiny_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")}
    with pytest.raises(UserError, match=r"isn't empty.*resume="):
        pretrain_run(tiny_data, smoke_run)
    with pytest.raises(UserError, match=r"has model\.width=32, not 64"):
        pretrain_run(tiny_data, smoke_run, "resume=auto", "model.width=64")
    assert {path: path.stat().st_mtime_ns for path in smoke_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [("training.batch_size=400", "fewer than one batch"), ("training.logger=paper", "training.logger must be one of")],
)
def test_what_cannot_be_run_leaves_no_folder(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    monkeypatch.setattr("jowa.training.metrics.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        pretrain_run(tiny_data, tmp_path / "run", change)
    assert not (tmp_path / "run").exists()


def test_a_failing_run_keeps_its_last_checkpoint(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = FiniteGuard.watch

    def fail_at_three(self: FiniteGuard, step: int, losses: dict[str, Tensor], norms: dict[str, Tensor]) -> Tensor:
        return watch(self, step, losses | ({"loss/end": torch.tensor(torch.nan)} if step == 3 else {}), norms)

    monkeypatch.setattr(FiniteGuard, "watch", fail_at_three)
    with pytest.raises(UserError, match=r"step 4 of stage1: loss/end not finite.*not-finite-stage1-00000004\.json"):
        pretrain_run(tiny_data, tmp_path / "run")
    places = json.loads((tmp_path / "run" / "not-finite-stage1-00000004.json").read_text())["sequences"]
    assert len(places) == 4 and places[0].keys() == {"game", "episode", "first_step", "last_step"}
    assert latest_checkpoint(tmp_path / "run").name == "stage1-00000002"


def test_dry_run_prints_the_plan_and_creates_nothing(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tiny_data.rglob("*"))
    pretrain.main(pretrain_config(tiny_data, tmp_path / "run", "dry_run=true", "data.games=[Pong,Boxing,Breakout]"))
    text = capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and sorted(tiny_data.rglob("*")) == before
    steps = sum(LENGTHS)
    assert f"Pong             found: {len(LENGTHS)} episodes, {steps} transitions" in text
    assert "Boxing           missing" in text and "1 of 3 games are missing" in text
    assert "stage1: 4 steps × 4 sequences × 296 tokens" in text and "trains tokenizer, world model at 0.001" in text
    assert "trains world model, Q at" in text
    for word in ("Disk", "cached codes", "checkpoints", "Memory", "with the target copy", "batch"):
        assert word in text, word


def test_a_dry_run_says_what_is_wrong_with_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_store(tmp_path / "data", ("Pong",))
    manifest = data / "Pong" / "part-00000" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 99'))
    for games in ("[]", "[Pong]"):
        pretrain.main(pretrain_config(data, tmp_path / "run", "dry_run=true", f"data.games={games}"))
        text = capsys.readouterr().out
        assert "has format 99, this jowa reads format 2: use a newer jowa" in text
        assert "jowa.data.record" not in text and "are missing" not in text


def test_dry_run_of_the_papers_pretraining(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["+exp=atari15", "dry_run=true", f"data.path={tmp_path}/none", f"out={tmp_path}/run"]
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", overrides))
    text = capsys.readouterr().out
    assert "109.045 M" in text and "127.778 M" in text and "4.047 M" in text
    assert "1,500,000 steps × 512 sequences × 296 tokens" in text and "15 of 15 games are missing" in text
    assert not list(tmp_path.iterdir())


def test_games_chosen_and_short_data(tmp_path: Path) -> None:
    """One game, whose single episode is shorter than a sequence: everything is padding, nothing can be held out."""
    data = write_store(tmp_path / "data", ("Freeway",), (3, 2, 1, 5))
    out = pretrain_run(data, tmp_path / "run", "data.holdout=0", "data.games=[Freeway]", "training.picture_every=4")
    assert load_agent(latest_checkpoint(out)).description["games"] == ["Freeway"]
    assert not (out / "pictures").exists() and not any("held_out/td" in line for line in metrics_of(out))


VARIANTS: dict[str, list[str]] = {
    "mse with cql": ["model.q_loss=mse"],
    "no penalty": ["objective.conservative=none"],
    "combo": ["objective.conservative=combo"],
    "mixture of three": ["objective.random_ensemble_mixture=true", "model.q_networks=3"],
    "q apart": ["objective.q_shapes_backbone=false", "stage2.world_weight=0"],
    "bf16 in micro-batches": ["training.precision=bf16", "training.micro_batch=2"],
    "one stage": ["stage1.td_weight=1", "stage1.conservative_weight=0.1", "stage2.steps=0"],
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_variants_train(tiny_data: Path, tmp_path: Path, changes: list[str]) -> None:
    out = pretrain_run(tiny_data, tmp_path / "run", *changes, "training.picture_every=100", "data.holdout=0")
    losses = [line["loss/total"] for line in metrics_of(out) if "loss/total" in line]
    assert np.isfinite(losses).all()


def test_a_run_does_not_go_on_with_other_data(smoke_run: Path, tiny_data: Path) -> None:
    for change in ("data.holdout=0.5", "data.stride=2"):
        options = [f"data.path={tiny_data}", f"out={smoke_run}", "resume=auto", "stage2.steps=6", change]
        with pytest.raises(UserError, match=change.split("=")[0]):
            pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", ["+exp=smoke", *options]))
