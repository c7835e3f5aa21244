"""Checkpoints are there wholly or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import forking
from launch import ENVIRONMENT, ROOT, command
from saving_child import ALONE, learner_and_optimizers, save_for_ever
from tiny_store import final_weights, pretrain_config, pretrain_run

from jowa import pretrain
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.models.agent_files import DESCRIPTION, WEIGHTS, load_agent
from jowa.training import checkpoint, saver
from jowa.training.checkpoint import (
    MANIFEST,
    OPTIMIZERS,
    Place,
    best_checkpoints,
    check_intact,
    holds_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    remove_leftovers,
    write_checkpoint,
)
from jowa.training.metrics import MetricsLog
from jowa.training.saver import CheckpointSaver, Judge


def names(run: Path) -> list[str]:
    return [path.name for path in list_checkpoints(run)]


def test_fifty_kills_leave_whole_checkpoints(tmp_path: Path) -> None:
    context = forking()
    delays = random.Random(0)
    newest, left_over = 0, 0
    for _ in range(50):
        begun = context.Semaphore(0)
        child = context.Process(target=save_for_ever, args=(tmp_path, newest + 1, begun))
        child.start()
        # The second save begins when the first is done.
        for _ in range(delays.randint(2, 3)):
            assert begun.acquire(timeout=60)
        time.sleep(delays.uniform(0, 0.05))
        child.kill()
        child.join()
        for path in list_checkpoints(tmp_path):
            check_intact(path)
        left_over += bool(list((tmp_path / "checkpoints").glob(".*.tmp")))
        remove_leftovers(tmp_path)
        if list_checkpoints(tmp_path):
            newest = int(names(tmp_path)[-1][-8:])
            model = load_agent(latest_checkpoint(tmp_path)).model
            assert (next(model.parameters()) == newest).all()
    assert newest >= 50 and left_over > 5
    with CheckpointSaver(tmp_path, {}, keep=2, distribution=ALONE) as saving:
        saving.save_now(Place("stage1", newest + 1), *learner_and_optimizers())
    assert len(set(list_checkpoints(tmp_path)) - set(best_checkpoints(tmp_path).values())) <= 2


def test_a_checkpoint_is_of_its_step_though_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, optimizers = learner_and_optimizers()
    weight = learner.model.trunk.layers[0].qkv.weight
    moment = optimizers.optimizers["model"].state[weight]["exp_avg"]
    before = weight.detach().clone(), moment.clone()
    go = threading.Event()

    def later(*arguments: Any) -> Path:
        go.wait(60)
        return write_checkpoint(*arguments)

    monkeypatch.setattr(saver, "write_checkpoint", later)
    with CheckpointSaver(tmp_path, {}, keep=2, distribution=ALONE) as saving:
        saving.save(Place("stage1", 1), learner, optimizers)
        with torch.no_grad():
            weight.zero_()
            moment.zero_()
        assert names(tmp_path) == []
        go.set()
        saving.save(Place("stage1", 2), learner, optimizers)
    first, second = list_checkpoints(tmp_path)
    assert torch.equal(load_agent(first).model.trunk.layers[0].qkv.weight, before[0])
    state = torch.load(first / OPTIMIZERS, weights_only=True)["model"]["state"]
    assert any(torch.equal(values["exp_avg"], before[1]) for values in state.values())
    assert not load_agent(second).model.trunk.layers[0].qkv.weight.any()


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    learner, optimizers = learner_and_optimizers()
    with CheckpointSaver(tmp_path, {}, keep=2, distribution=ALONE) as saving:
        for step, value in enumerate([3.0, 1.0, 2.0, float("nan"), 1.5, 1.2]):
            saving.save(Place("stage1", step), learner, optimizers)
            saving.judge(Place("stage1", step), {"held_out/total": value}, Judge("held_out/total", True))
        for step, value in enumerate([3.0, 1.0, 2.0, 1.0]):
            saving.save(Place("stage2", step), learner, optimizers)
            saving.judge(Place("stage2", step), {"score": value, "other": 9.0}, Judge("score", False))
        saving.judge(Place("stage2", 9), {"score": 100.0}, Judge("score", False))
        saving.judge(Place("stage2", 3), {"other": 100.0}, Judge("score", False))
    assert names(tmp_path) == [
        "stage1-00000001", "stage1-00000004", "stage1-00000005",
        "stage2-00000000", "stage2-00000002", "stage2-00000003",
    ]  # fmt: skip
    assert latest_checkpoint(tmp_path).name == "stage2-00000003"
    assert latest_checkpoint(tmp_path / "checkpoints" / "best").name == "stage2-00000000"
    assert holds_checkpoint(tmp_path / "checkpoints" / "best") and not holds_checkpoint(tmp_path / "best")
    shutil.rmtree(tmp_path / "checkpoints" / "stage2-00000000")
    assert latest_checkpoint(tmp_path / "checkpoints" / "best").name == "stage1-00000001"


def test_half_a_checkpoint_is_put_aside_and_written_anew(tmp_path: Path) -> None:
    learner, optimizers = learner_and_optimizers()
    half = tmp_path / "checkpoints" / "stage1-00000001"
    half.mkdir(parents=True)
    (half / WEIGHTS).write_bytes(b"half")
    with CheckpointSaver(tmp_path, {}, keep=2, distribution=ALONE) as saving:
        saving.save_now(Place("stage1", 1), learner, optimizers)
    assert names(tmp_path) == [half.name]
    check_intact(half)
    assert (half.with_name(f"{half.name}.old") / WEIGHTS).read_bytes() == b"half"


def test_a_checkpoint_that_cannot_be_dropped_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learner, optimizers = learner_and_optimizers()

    def refused(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with CheckpointSaver(tmp_path, {}, keep=1, distribution=ALONE) as saving:
        saving.save_now(Place("stage1", 1), learner, optimizers)
        with monkeypatch.context() as patched:
            patched.setattr(saver, "prune", refused)
            saving.save_now(Place("stage1", 2), learner, optimizers)
        assert names(tmp_path) == ["stage1-00000001", "stage1-00000002"]
        said = "jowa: old checkpoints of stage1 can't be removed (Permission denied); training goes on.\n"
        assert capsys.readouterr().err == said
        left_over = tmp_path / "checkpoints" / ".stage1-00000001.tmp"
        left_over.mkdir()
        (left_over / WEIGHTS).touch()
        saving.save_now(Place("stage1", 3), learner, optimizers)
    assert names(tmp_path) == ["stage1-00000003"] and capsys.readouterr().err == ""


def test_a_best_that_could_not_be_noted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, optimizers = learner_and_optimizers()
    judge = Judge("loss", True)

    def no_room(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointSaver(tmp_path, {}, keep=3, distribution=ALONE) as saving:
        with monkeypatch.context() as patched:
            patched.setattr(saver, "write_json", no_room)
            saving.save(Place("stage1", 1), learner, optimizers)
            saving.judge(Place("stage1", 1), {"loss": 1.0}, judge)
            saving.save_now(Place("stage1", 2), learner, optimizers)
        saving.judge(Place("stage1", 2), {"loss": 2.0}, judge)
    assert best_checkpoints(tmp_path)["stage1"].name == "stage1-00000002"


def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    learner, optimizers = learner_and_optimizers()
    for step, value, sequences, best in ((1, 1.0, 8, 1), (2, 2.0, 8, 1), (3, 2.0, 16, 3), (4, 3.0, 16, 3)):
        with CheckpointSaver(tmp_path, {}, keep=9, distribution=ALONE) as saving:
            saving.save(Place("stage1", step), learner, optimizers)
            saving.judge(Place("stage1", step), {"loss": value}, Judge("loss", True, {"sequences": sequences}))
        assert best_checkpoints(tmp_path)["stage1"].name == f"stage1-{best:08d}"


def test_a_run_keeps_the_best_on_held_out_data(tiny_data: Path, tmp_path: Path) -> None:
    changes = ["training.checkpoint_every=1", "training.validate_every=1", "training.keep_checkpoints=1"]
    out = pretrain_run(tiny_data, tmp_path / "run", *changes, "training.picture_every=100", "stage1.learning_rate=1")
    assert best_checkpoints(out)["stage1"].name != "stage1-00000004"
    best = {path.name for path in best_checkpoints(out).values()}
    assert best | {"stage1-00000004", "stage2-00000004"} == set(names(out))


def full(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The disk is full when the checkpoints of these steps are written, after some of them was."""
    write = checkpoint.write_agent

    def write_or_not(folder: Path, tensors: Any, description: dict[str, Any]) -> None:
        write(folder, tensors, description)
        if description["step"] in steps:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_agent", write_or_not)


def test_a_full_disk_costs_a_warning_but_not_the_run(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full(monkeypatch, 2, 3)
    changes = ["training.checkpoint_every=1", "training.keep_checkpoints=1", "stage2.steps=0"]
    out = pretrain_run(tiny_data, tmp_path / "run", *changes)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jowa:")]
    assert warnings == [
        f"jowa: the checkpoint after step {step} of stage1 can't be saved (No space left on device); training goes on, "
        "the last good one is stage1-00000001."
        for step in (2, 3)
    ]
    assert names(out) == ["stage1-00000004"] and not list(out.rglob(".*"))


def test_a_full_disk_at_a_stages_end_keeps_the_last_good_one(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        full(patched, 4)
        with pytest.raises(UserError, match=r"step 4 of stage1 .*No space left.* one is stage1-00000002.*resume="):
            pretrain_run(tiny_data, out, "training.keep_checkpoints=1")
    assert names(out) == ["stage1-00000002"] and not list(out.rglob(".*"))
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", [f"resume={out}"]))
    assert final_weights(out) == final_weights(pretrain_run(tiny_data, tmp_path / "whole"))


def test_a_full_disk_anywhere_else_is_one_sentence(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: MetricsLog, stage: str, step: int, values: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(MetricsLog, "write", write)
    with pytest.raises(UserError, match=r"disk is full while writing .*: make room and go on with resume="):
        pretrain_run(tiny_data, tmp_path / "run")


def test_a_real_limit_is_one_sentence(tiny_data: Path, tmp_path: Path) -> None:
    """The system lets no file grow beyond 64 KiB; the files of checkpoints and the pictures do."""
    out = tmp_path / "run"
    words = command("jowa.pretrain", "+exp=smoke", f"data.path={tiny_data}", f"out={out}", "training.picture_every=3")
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *words]
    done = subprocess.run(limited, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    ours = [line for line in done.stderr.splitlines() if line.startswith("jowa:")]
    assert done.returncode == 2 and len(ours) == 4 and "Traceback" not in done.stderr, done.stderr
    assert "step 2 of stage1 can't be saved (File too large); training goes on, there is no good one yet" in ours[0]
    assert any("the picture of step 3 of stage1 can't be saved (File too large); training goes on" in o for o in ours)
    assert "step 4 of stage1 can't be saved (File too large): there is no good one yet; make room in" in ours[3]
    assert not list((out / "checkpoints").iterdir())


@pytest.fixture
def copied(smoke_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(smoke_run, tmp_path / "run")


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, OPTIMIZERS, MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_checkpoint_is_not_gone_on_from(copied: Path, name: str, damage: str) -> None:
    newest = copied / "checkpoints" / "stage2-00000004"
    path = newest / name
    content = path.read_bytes()
    if damage == "gone" and name != DESCRIPTION:
        path.unlink()
    else:
        path.write_bytes(content[:-100] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    resume = [f"resume={copied}", "stage2.steps=5"]
    with pytest.raises(UserError, match=rf"{newest} is damaged \(.*{name}.*\): delete it .* from stage2-00000002"):
        pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", resume))
    assert len(names(copied)) == 4
    shutil.rmtree(newest)
    (copied / "checkpoints" / ".stage1-00000002.tmp").mkdir()
    (copied / "checkpoints" / ".best.json.tmp").touch()
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", resume))
    assert names(copied)[-1] == "stage2-00000005" and not list(copied.rglob(".*"))


def test_the_first_damaged_checkpoint_has_none_before_it(tiny_data: Path, tmp_path: Path) -> None:
    out = pretrain_run(tiny_data, tmp_path / "run", "stage1.steps=1", "stage2.steps=0")
    (latest_checkpoint(out) / WEIGHTS).write_bytes(b"")
    with pytest.raises(UserError, match="none before it: start a new run"):
        pretrain.main(pretrain_config(tiny_data, out, "resume=auto", "stage1.steps=1", "stage2.steps=0"))
