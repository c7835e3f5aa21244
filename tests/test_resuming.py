"""Which runs may be gone on with, by which settings, and what is said of those that may not."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import cast

import pytest
import torch
from omegaconf import OmegaConf
from processes import be_rank, together
from tiny_store import final_weights, finetune_run, pretrain_config, pretrain_run, write_store

from jowa import finetune, pretrain
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.files import lock_file
from jowa.resuming import CONFIG, FREE, flatten, newest_config
from jowa.training import session
from jowa.training.checkpoint import Place, latest_checkpoint, list_checkpoints, load_optimizers
from jowa.training.distribution import Distribution, check_agreement, distributed
from jowa.training.optimization import Optimizers
from jowa.training.run_folder import prepare_run_folder, set_aside_undone

ALONE = Distribution(0, 1, torch.device("cpu"))


def resumed(*overrides: str) -> pretrain.PretrainConfig:
    return load_config(pretrain.PretrainConfig, "pretrain", list(overrides))


@pytest.fixture
def run(smoke_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(smoke_run, tmp_path / "run")


def test_a_runs_folder_is_all_it_takes(smoke_run: Path, run: Path) -> None:
    config, began = resumed(f"resume={run}"), OmegaConf.to_container(OmegaConf.load(smoke_run / CONFIG))
    assert (config.out, config.resume) == (str(run), str(run)) and began["out"] == str(smoke_run)
    same = began | {"out": str(run), "resume": str(run)}
    assert OmegaConf.to_container(OmegaConf.structured(config)) == same
    pretrain.main(config)
    assert final_weights(run) == final_weights(smoke_run)


def test_what_is_asked_for_beside_it_is_heeded(tiny_data: Path, run: Path, tmp_path: Path) -> None:
    """Presets change what they say, not what they leave alone; the next one goes on with what was asked last."""
    asked = ["stage2.steps=6", "training.log_every=1", "training.batch_size=4", "model.layers=1"]
    config = resumed(f"resume={run}", *asked)
    assert (config.stage2.steps, config.stage1.steps, config.training.log_every) == (6, 4, 1)
    assert config.training.checkpoint_every == 2 and config.data.path == str(tiny_data)
    pretrain.main(config)
    assert newest_config(run) == run / "config-resumed-1.yaml"
    assert resumed(f"resume={run}").stage2.steps == 6 and resumed(f"resume={run}", "+exp=smoke").stage2.steps == 4
    straight = pretrain_run(tiny_data, tmp_path / "straight", "stage2.steps=6")
    assert final_weights(run) == final_weights(straight)
    moved = write_store(tmp_path / "moved")
    pretrain.main(resumed(f"resume={run}", "stage2.steps=7", f"data.path={moved}"))
    assert latest_checkpoint(run).name == "stage2-00000007"


def test_what_fixes_the_result_cannot_be_changed(run: Path) -> None:
    for change, said in (
        ("model=40M", "model.name=nano, not 40M"),
        ("model.q_networks=2", "model.q_networks=1, not 2"),
        ("+exp=demo", "seed=0, not 1"),
        ("training.batch_size=8", "training.batch_size=4, not 8"),
        ("stage2.td_weight=0.5", "stage2.td_weight=1.0, not 0.5"),
        ("data.games=[Pong]", r"data.games=\[\], not \['Pong'\]"),
        ("seed=3", "seed=0, not 3"),
        ("objective.random_ensemble_mixture=true", "mixture=false, not true"),
    ):
        with pytest.raises(UserError, match=said):
            resumed(f"resume={run}", change)
    keys = flatten(asdict(pretrain.PretrainConfig())) | flatten(asdict(finetune.FinetuneConfig()))
    assert {key for key in keys if FREE.fullmatch(key) and "." not in key} == {
        "out", "resume", "dry_run", "ckpt", "size", "perceptual_weights",
    }  # fmt: skip
    assert not any(FREE.fullmatch(key) for key in keys if key.startswith(("model.", "objective.")))
    assert {key for key in keys if FREE.fullmatch(key) and key.startswith("stage")} == {
        "stage.steps", "stage1.steps", "stage2.steps",
    }  # fmt: skip


def test_a_learning_rate_is_changed_by_whoever_names_the_run_and_it(run: Path, tiny_data: Path) -> None:
    changed = resumed(f"resume={run}", "stage2.learning_rate=0.5", "training.precision=fp32")
    assert changed.stage2.learning_rate == 0.5 and changed.stage1 == resumed(f"resume={run}").stage1
    with pytest.raises(UserError, match=r"stage2\.learning_rate=0\.001, not 0\.5"):
        pretrain_config(tiny_data, run, "resume=auto", "stage2.learning_rate=0.5")


def test_other_data_are_refused_wherever_they_are(run: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", lengths=(23, 9, 30, 12, 18))
    with pytest.raises(UserError, match=rf"in {run} was made with other data: data\.path or the episodes of Breakout"):
        pretrain.main(resumed(f"resume={run}", "stage2.steps=6", f"data.path={other}"))
    assert len(list(run.glob("config*.yaml"))) == 1


def test_auto_begins_and_goes_on(tiny_data: Path, tmp_path: Path, smoke_run: Path) -> None:
    out = tmp_path / "run"
    pretrain_run(tiny_data, out, "resume=auto", "stage2.steps=0")
    pretrain_run(tiny_data, out, "resume=auto")
    assert final_weights(out) == final_weights(smoke_run)
    with pytest.raises(UserError, match="has seed=0, not 1"):
        pretrain_config(tiny_data, out, "resume=auto", "seed=1")


def test_a_run_without_a_checkpoint_is_begun_by_auto_alone(tiny_data: Path, tmp_path: Path, smoke_run: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(smoke_run / CONFIG, out)
    (out / "metrics.jsonl").write_text('{"stage": "stage1", "step": 1, "loss/total": 3}\n')
    with pytest.raises(UserError, match=r"no checkpoint yet: .*resume=auto"):
        pretrain.main(resumed(f"resume={out}"))
    pretrain_run(tiny_data, out, "resume=auto", "stage1.steps=2", "stage2.steps=0")
    assert [path.name for path in list_checkpoints(out)] == ["stage1-00000002"]
    assert json.loads((out / "metrics-undone-1.jsonl").read_text())["loss/total"] == 3


def test_a_run_is_trained_by_one_process_at_a_time(
    run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said = "is being trained by another process: wait for it to end, or choose another out"
    with lock_file(run / ".lock"), pytest.raises(UserError, match=said):
        pretrain.main(resumed(f"resume={run}", "stage2.steps=6"))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    new = tmp_path / "new"

    def begin_again(*arguments: object, **options: object) -> None:
        assert (new / ".lock").is_file()
        with pytest.raises(UserError, match=said):
            pretrain_run(tiny_data, new, "resume=auto")

    monkeypatch.setattr(session, "train_stage", begin_again)
    pretrain_run(tiny_data, new)
    assert [path.name for path in new.glob("config*")] == [CONFIG] and not list(new.glob(".*"))


def test_the_lock_of_a_killed_process_is_none(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    for out in (run, tmp_path / "new"):
        out.mkdir(exist_ok=True)
        (out / ".lock").touch()
    pretrain.main(resumed(f"resume={run}", "stage2.steps=5"))
    pretrain_run(tiny_data, tmp_path / "new", "stage1.steps=1", "stage2.steps=0")
    assert not list(run.glob(".*")) and not list((tmp_path / "new").glob(".*"))


def test_an_optimizers_file_that_is_missing_is_not_to_be_deleted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optimizers\.pt is missing: put it back") as told:
        load_optimizers(tmp_path, cast(Optimizers, None))
    assert "delete" not in str(told.value)


def test_finetuning_needs_neither_game_nor_checkpoint(
    smoke_run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune_run(tiny_data, tmp_path / "whole", smoke_run)
    out = finetune_run(tiny_data, tmp_path / "cut", smoke_run, "stage.steps=2")
    monkeypatch.chdir(tmp_path)
    finetune.main(load_config(finetune.FinetuneConfig, "finetune", ["resume=cut", "stage.steps=4"]))
    assert final_weights(out) == final_weights(whole)
    with pytest.raises(UserError, match="has game=Pong, not Breakout"):
        load_config(finetune.FinetuneConfig, "finetune", [f"resume={out}", "game=Breakout"])


@pytest.mark.parametrize("text", ["stage3: {}", "model: [", "- 1", "training: {batch_size: many}", ""])
def test_a_damaged_configuration_is_one_sentence(run: Path, text: str) -> None:
    (run / CONFIG).write_text(text)
    if not text:
        (run / CONFIG).unlink()
    with pytest.raises(UserError, match=r"config\.yaml.*(choose another run|resume=no)\.$"):
        resumed(f"resume={run}")


def test_metrics_of_steps_to_be_taken_again_are_set_aside(tmp_path: Path) -> None:
    lines = [f'{{"stage": "{stage}", "step": {step}}}\n' for stage in ("a", "b") for step in (1, 2, 3)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(lines) + '{"stage": "b", "st')
    set_aside_undone(tmp_path, ["a", "b"], Place("b", 2))
    assert path.read_text() == "".join(lines[:5])
    assert (tmp_path / "metrics-undone-1.jsonl").read_text() == lines[5] + '{"stage": "b", "st'
    set_aside_undone(tmp_path, ["a", "b"], Place("b", 2))
    assert len(list(tmp_path.iterdir())) == 2
    set_aside_undone(tmp_path, ["a", "b"], Place("a", 3))
    assert path.read_text() == "".join(lines[:3])
    set_aside_undone(tmp_path, ["a", "b"], None)
    assert path.read_text() == "" and (tmp_path / "metrics-undone-3.jsonl").read_text() == "".join(lines[:3])


def disagree(rank: int, ranks: int, port: int, data: Path, folder: Path) -> None:
    """Two processes of one run with other settings on the second; each leaves what it was told."""
    be_rank(rank, ranks, port)
    with distributed("cpu") as distribution:
        check_agreement(distribution, {"a": 1})
    try:
        pretrain_run(data, folder / "run", *(["model.q_width=8", "stage1.steps=9"] if rank == 1 else []))
    except UserError as error:
        (folder / f"{rank}.txt").write_text(str(error))


def test_processes_that_disagree_all_say_so(tiny_data: Path, tmp_path: Path) -> None:
    together(disagree, 2, tiny_data, tmp_path)
    said = "model.q_width is 16 on rank 0 and 8 on rank 1"
    assert all(said in (tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert not (tmp_path / "run").exists()


def test_the_data_are_compared_too(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = Distribution.gather

    def other_pong(self: Distribution, value: object) -> list[object]:
        if isinstance(value, dict) and "data fingerprints of Pong" in value:
            return [value, value | {"data": "elsewhere", "data fingerprints of Pong": "another"}]
        return gather(self, value)

    monkeypatch.setattr(Distribution, "gather", other_pong)
    with pytest.raises(UserError, match=r"data fingerprints of Pong is \w+ on rank 0 and another on rank 1"):
        pretrain_run(tiny_data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_number_is_given_twice(tmp_path: Path) -> None:
    for number in (2, 10):
        (tmp_path / f"config-resumed-{number}.yaml").touch()
        (tmp_path / f"metrics-undone-{number}.jsonl").touch()
    (tmp_path / CONFIG).touch()
    prepare_run_folder(str(tmp_path), "auto", pretrain.PretrainConfig())
    (tmp_path / "metrics.jsonl").write_text('{"stage": "b"}')
    set_aside_undone(tmp_path, ["b"], None)
    assert newest_config(tmp_path) == tmp_path / "config-resumed-11.yaml"
    assert (tmp_path / "metrics-undone-11.jsonl").read_text() and len(list(tmp_path.iterdir())) == 8


def test_versions_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    check_agreement(ALONE, {"a": 1})
    theirs = {"the version of jowa": "0", "the version of PyTorch": torch.__version__, "a": 1}
    monkeypatch.setattr(Distribution, "gather", lambda self, value: [value, value, theirs])
    with pytest.raises(UserError, match=r"the version of jowa is .* on rank 0 and 0 on rank 2"):
        check_agreement(ALONE, {"a": 1})
