"""Runs that imagine: what they train on, in one process or several, interrupted or not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from launch import launch
from processes import IMAGINING, in_double, process, together
from safetensors.torch import load_file
from small_learner import one_part, small_learner
from test_distributed import assert_same, distance, weights
from tiny_store import final_weights, finetune_run

from jowa.cli import load_config
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.finetune import FinetuneConfig
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.training.checkpoint import OPTIMIZERS, REPLAY, latest_checkpoint, list_checkpoints
from jowa.training.config import StageConfig, TrainingConfig
from jowa.training.distribution import Distribution
from jowa.training.imagination import Imagination
from jowa.training.imagination_config import ImaginationConfig, check_horizon, check_imagination
from jowa.training.meter import Meter
from jowa.training.parts import Part, parts_of_steps, step_seed
from jowa.training.speed import Workload, flops_per_token, workload

CPU = torch.device("cpu")
ALONE = Distribution(0, 1, CPU)
FROM_2 = ["imagination.from_step=2", "stage.steps=6", "training.checkpoint_every=1", "training.keep_checkpoints=9"]
ON_CODES = ["stage.tokenizer_frames=0", "objective.conservative=combo", "training.micro_batch=2"]


def replay_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / REPLAY)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_second_half_of_a_batch_gives_starts(tiny_data: Path, ranks: int) -> None:
    """From its step on, the first six of eight frames of them; the first half and its frames train as ever."""
    data = SequenceDataset(EpisodeStore(tiny_data))
    config, stage, imagination = TrainingConfig(batch_size=8, micro_batch=2), StageConfig(tokenizer_frames=9), 2
    steps = [
        list(parts_of_steps(data, range(4), "s", stage, config, 0, Distribution(rank, ranks, CPU),
                            ImaginationConfig(imagination)))
        for rank in range(ranks)
    ]  # fmt: skip
    for step, shares in enumerate(zip(*steps, strict=True)):
        parts: list[Part] = [part for share in shares for part in share]
        whole = data.batch(data.order(step_seed(0, "s", 0)).batch(step, 8))
        half = 8 if step < 2 else 4
        assert len(parts) == 4 and torch.equal(torch.cat([part.batch.frames for part in parts]), whole.frames[:half])
        assert sum(len(part.frame_index) for part in parts) == 9
        if step < 2:
            assert all(part.starts is None for part in parts)
            continue
        starts = [part.starts for part in parts]
        assert [len(batch) for batch in starts] == [len(part.batch) for part in parts] == [1] * 4
        assert torch.equal(torch.cat([batch.frames for batch in starts]), whole.frames[half:, :6])
        assert torch.equal(torch.cat([batch.valid for batch in starts]), whole.valid[half:, :6])


def test_each_step_draws_from_all_that_was_imagined(tiny_data: Path) -> None:
    data, learner = SequenceDataset(EpisodeStore(tiny_data)), small_learner()
    config, imagines = TrainingConfig(batch_size=8), ImaginationConfig(0, replay=10)
    imagination, drawn = Imagination(imagines, learner, ALONE), []
    for step, parts in enumerate(parts_of_steps(data, range(5), "s", StageConfig(), config, 0, ALONE, imagines)):
        (part,) = imagination.complete(parts, 0, "s", step)
        kept = imagination.replay.rows(torch.arange(len(imagination.replay))).codes.flatten(1).tolist()
        assert len(kept) == min(4 * (step + 1), 10) and part.starts is None and len(part.imagined) == 4
        assert all(codes in kept for codes in part.imagined.codes.flatten(1).tolist())
        drawn.append(part.imagined)
    without = [one_part(data.batch(data.order(0).batch(0, 4)))]
    assert imagination.complete(without, 0, "s", 5) == without


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, dict]]]:
    """What each of two processes found, case by case."""
    folder = tmp_path_factory.mktemp("two")
    together(process, 2, folder, IMAGINING)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", IMAGINING)
def test_two_processes_imagine_and_train_as_one(two: list[dict[str, dict[str, dict]]], name: str) -> None:
    with TemporaryDirectory() as folder:
        expected = in_double(IMAGINING[name.removesuffix(" in micro-batches")], ALONE, Path(folder))
    assert len(expected["replay"]["codes"]) == (12 if name.startswith("cql") else 3 * 8)
    for results in two:
        assert_same(results[name]["double"], expected)
        ours = results[name]["double"]["replay"]
        assert all(torch.equal(ours[key], part) for key, part in expected["replay"].items())
    kept = [results[name]["single"]["replay"] for results in two]
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(part, kept[1][key]) for key, part in kept[0].items())


@pytest.mark.parametrize("changes", [[], ON_CODES], ids=["on frames", "on codes"])
def test_interrupted_equals_uninterrupted(smoke_run: Path, tiny_data: Path, tmp_path: Path, changes: list[str]) -> None:
    """Stopped before imagination begins, when it does, after, and once the replay has overflowed."""
    settings = [*FROM_2, *changes, "imagination.replay=5"]
    whole = finetune_run(tiny_data, tmp_path / "whole", smoke_run, *settings)
    assert [(path / REPLAY).is_file() for path in list_checkpoints(whole)] == [False] * 2 + [True] * 4
    assert [len(replay_of(path)["tasks"]) for path in list_checkpoints(whole)[2:]] == [2, 4, 5, 5]
    for steps in (1, 2, 3, 5):
        cut = finetune_run(tiny_data, tmp_path / f"cut{steps}", smoke_run, *settings, f"stage.steps={steps}")
        finetune_run(tiny_data, cut, smoke_run, *settings, "resume=auto")
        assert final_weights(cut) == final_weights(whole)
        for name in (REPLAY, OPTIMIZERS):
            assert (latest_checkpoint(cut) / name).read_bytes() == (latest_checkpoint(whole) / name).read_bytes()
    never = finetune_run(tiny_data, tmp_path / "never", smoke_run, *settings, "imagination.from_step=null")
    assert weights(list_checkpoints(never)[1]).keys() == weights(list_checkpoints(whole)[1]).keys()
    same = [distance(*(weights(list_checkpoints(run)[n]) for run in (never, whole))) == 0 for n in (1, 2)]
    assert same == [True, False]
    assert not list(never.rglob(REPLAY))


def test_from_the_command_line_and_on_with_more_processes(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    settings = [*FROM_2, "imagination.from_step=1", "training.log_every=1"]
    whole = finetune_run(tiny_data, tmp_path / "whole", smoke_run, *settings)
    out = finetune_run(tiny_data, tmp_path / "run", smoke_run, *settings, "stage.steps=3")
    before = replay_of(latest_checkpoint(out))
    done = launch("jowa.finetune", f"resume={out}", "stage.steps=6", processes=2)
    assert done.returncode == 0, done.stderr
    after, alone = replay_of(latest_checkpoint(out)), replay_of(latest_checkpoint(whole))
    assert all(torch.equal(part, after[name][: len(part)]) for name, part in before.items())
    assert {name: part.shape for name, part in after.items()} == {name: part.shape for name, part in alone.items()}
    start, ours, theirs = (weights(path) for path in (list_checkpoints(out)[2], *map(latest_checkpoint, (out, whole))))
    moved = distance(theirs, start)
    assert moved > 0 and distance(ours, theirs) < 0.02 * moved, (distance(ours, theirs), moved)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = {"sequences_per_second", "steps", "ended", "return"}
    for line in lines:
        names = {key.removeprefix("imagination/") for key in line if key.startswith("imagination/")}
        assert names == (told if line["step"] > 1 else set())
    assert lines[-1]["imagination/sequences_per_second"] > 0 and 1 <= lines[-1]["imagination/steps"] <= 2


def test_what_is_lost_or_changed_is_told(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = finetune_run(tiny_data, tmp_path / "run", smoke_run, *FROM_2, "stage.steps=3")
    with pytest.raises(UserError, match=r"has imagination\.width=2, not 3"):
        load_config(FinetuneConfig, "finetune", [f"resume={out}", "imagination.width=3"])
    path = latest_checkpoint(out) / REPLAY
    content = path.read_bytes()
    imagination = Imagination(ImaginationConfig(2), small_learner(), ALONE)
    for damage in (lambda: path.write_bytes(content[:50]), path.unlink):
        damage()
        with pytest.raises(UserError, match=rf"is damaged \(.*{re.escape(REPLAY)}"):
            finetune_run(tiny_data, out, smoke_run, *FROM_2, "resume=auto")
        with pytest.raises(UserError, match=r"imagined\.safetensors, .* missing or damaged .*: put it back"):
            imagination.resume(path.parent, 3, 4)
    imagination.resume(path.parent, 2, 4)
    assert imagination.state() == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["imagination.from_step=-1"], r"imagination\.from_step must not be negative"),
        (["imagination.horizon=0"], r"imagination\.horizon must be at least 1, not 0"),
        (["imagination.width=0"], r"imagination\.width must be at least 1, not 0"),
        (["imagination.horizon=8"], r"imagination\.horizon=8 leaves no real frame of the model's 8: .* at most 7"),
        (["stage.td_weight=0", "stage.conservative_weight=0"], r"set stage\.td_weight above 0, or .*from_step=null"),
        (["training.batch_size=5"], r"training\.batch_size=5 can't be half imagined by 1 process: .* multiple of 2"),
        (["training.micro_batch=1"], r"training\.micro_batch=1 can't be half imagined: take an even number"),
        (["imagination.replay=1"], r"imagination\.replay=1 doesn't hold the 2 sequences .* take 2 or more"),
    ],
)
def test_what_cannot_be_imagined(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        finetune_run(tiny_data, tmp_path / "run", smoke_run, "imagination.from_step=1", *changes)
    assert not (tmp_path / "run").exists()


def test_halves_are_shared_by_processes_too() -> None:
    stages, training = {"stage": StageConfig(td_weight=1.0)}, TrainingConfig(batch_size=12)
    check_imagination(ImaginationConfig(0), training, stages, 3)
    with pytest.raises(UserError, match=r"batch_size=12 can't be half imagined by 4 processes: take a multiple of 8"):
        check_imagination(ImaginationConfig(0), training, stages, 4)
    check_imagination(ImaginationConfig(replay=0, width=-1), training, {"stage": StageConfig()}, 5)
    check_horizon(ImaginationConfig(horizon=99), 8)
    check_horizon(ImaginationConfig(0, horizon=7), 8)


def test_operations_count_what_is_trained() -> None:
    """The world's heads see half of the sequences, all else sees all; planning is time alone."""
    model, stage = WorldActionModel(ModelConfig("t", 1, 1, 4, 1, 4), 8), StageConfig(td_weight=1.0)
    without = flops_per_token(model, StageConfig(td_weight=1.0, world_weight=0.0))
    whole, half = flops_per_token(model, stage), flops_per_token(model, stage, imagined=0.5)
    assert half == pytest.approx((whole + without) / 2) and half < whole
    load = workload(model, stage, 4, CPU)
    assert (load.flops, load.imagining_flops) == (whole, half)
    speed = Workload(2, 10, 3.0, 100.0, 2.0).speed(5, 4.0, 1, imagining=2)
    assert speed["speed/mfu"] == pytest.approx(10 * (3 * 3 + 2 * 2) / 4 / 100)
    assert speed["speed/tokens_per_second"] == 5 * 10 / 4
    meter = Meter(ALONE, Workload(2, 10, 0.0, 1.0, 1.0))
    shares = {"loss/total": torch.ones(())}
    for imagines in (False, True, True):
        meter.add(shares, {}, imagines=imagines)
    read = meter.read()
    assert read["speed/mfu"] == pytest.approx(read["speed/tokens_per_second"] * 2 / 3)
    meter.add(shares, {})
    assert meter.read()["speed/mfu"] == 0
