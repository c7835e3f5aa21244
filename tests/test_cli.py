"""The command line: every mistake is one clear sentence and exit code 2, before anything is made."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from forks import fork
from launch import launch

from jowa import convert, evaluate, export, finetune, pretrain, results, transfer
from jowa.cli import run
from jowa.data import export as data_export
from jowa.data import fetch, inspect, record, select, verify
from jowa.data.importing import ImportConfig
from jowa.models.agent_files import DESCRIPTION, WEIGHTS

ENTRY_POINTS = {
    "pretrain": (pretrain.main, pretrain.PretrainConfig),
    "finetune": (finetune.main, finetune.FinetuneConfig),
    "transfer": (transfer.main, transfer.TransferConfig),
    "evaluate": (evaluate.main, evaluate.EvaluateConfig),
    "record": (record.main, record.RecordConfig),
    "convert": (convert.main, convert.ConvertConfig),
    "results": (results.main, results.ResultsConfig),
    "fetch": (fetch.main, fetch.FetchConfig),
    "import": (importlib.import_module("jowa.data.import").main, ImportConfig),
    "data_export": (data_export.main, data_export.ExportConfig),
    "export": (export.main, export.ExportConfig),
    "select": (select.main, select.SelectConfig),
    "inspect": (inspect.main, inspect.InspectConfig),
    "verify": (verify.main, verify.VerifyConfig),
}
DATA = {"record", "fetch", "import", "data_export", "select", "inspect", "verify"}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run an entry point as its command line would: (exit code, stdout, stderr)."""

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"jowa.{name}", *arguments])
        code = 0
        try:
            run(*ENTRY_POINTS[name], name)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, errors = result
    assert code == 2, errors
    assert errors.startswith("jowa: ") and errors.endswith("\n") and errors.count("\n") == 1, errors
    assert len(errors) > 20 and "Traceback" not in errors and "Error(" not in errors, errors
    for word in words:
        assert word in errors, errors


@pytest.fixture
def place(smoke_run: Path, tiny_data: Path, tmp_path: Path) -> dict[str, str]:
    """What stands for {run}, {data}, {out}, {damaged} and {file} in the arguments below."""
    (tmp_path / "file").write_text("here is a file")
    return {"run": str(smoke_run), "data": str(tiny_data), "out": str(tmp_path / "out"), "file": str(tmp_path / "file")}


PRETRAIN = "pretrain +exp=smoke data.path={data} out={out}"
FINETUNE = "finetune game=Pong ckpt={run} data.path={data} out={out} training.batch_size=4"
EVALUATE = "evaluate ckpt={run} out={out}"
RECORD = "record out={out} steps=10"

MISTAKES = {
    # Games
    f"{PRETRAIN} data.games=[Pong,Braekout]": ("'Braekout'", "did you mean 'Breakout'?"),
    f"{PRETRAIN} data.games=[xyz]": ("'xyz'", "choose among AirRaid"),
    f"{PRETRAIN} data.games=[[Pong]]": ("Unknown game", "(key 'data.games')"),
    f"{FINETUNE} game=pong-v5": ("'pong-v5'", "did you mean 'Pong'?"),
    f"{EVALUATE} games=[Pongg]": ("'Pongg'", "did you mean 'Pong'?"),
    f"{EVALUATE} games=[Pong,Pong]": ("games names a game twice",),
    f"{EVALUATE} seed=-1": ("seed must not be negative",),
    f"{EVALUATE} bootstrap.seed=-1": ("bootstrap.seed must not be negative",),
    f"{EVALUATE} data=/nowhere": ("data=/nowhere holds no episodes",),
    f"{EVALUATE} protocol.rom_dir=/nowhere": ("/nowhere",),
    f"{RECORD} game=[Pongg]": ("'Pongg'", "did you mean 'Pong'?"),
    # Keys
    f"{PRETRAIN} stepz=3": ("Unknown configuration key 'stepz'",),
    f"{PRETRAIN} +stepz=3": ("Unknown configuration key 'stepz'",),
    f"{PRETRAIN} stage1.stepz=3": ("'stage1.stepz'", "did you mean 'stage1.steps'?"),
    f"{PRETRAIN} +stage1.stepz=3": ("'stage1.stepz'", "did you mean 'stage1.steps'?"),
    f"{PRETRAIN} stage3.steps=3": ("'stage3'",),
    f"{PRETRAIN} +a.b.c=3": ("Unknown configuration key 'a'",),
    f"{PRETRAIN} ++model.wdith=3": ("'model.wdith'", "did you mean 'model.width'?"),
    f"{FINETUNE} model.width=64": ("'model'",),
    f"{EVALUATE} planner.widht=3": ("'planner.widht'", "did you mean 'planner.width'?"),
    f"{EVALUATE} planner.foo=3": ("'planner.foo'; planner has name, width, horizon",),
    f"{RECORD} gmae=[Pong]": ("'gmae'", "did you mean 'game'?"),
    # Values
    "finetune": ("A value is missing: give game=… (or env=…) and ckpt=…",),
    "finetune ckpt={run}": ("give game=…",),
    "finetune +exp=smoke": ("The preset exp/smoke chooses a model", "leave out +exp=smoke"),
    "finetune model=nano": ("This command takes no model: leave out model=…",),
    "finetune exp=laptop": ("'exp' isn't chosen by default: write +exp=…",),
    "transfer ckpt={run}": ("A value is missing: give game=…",),
    "transfer game=Pong ckpt={run} data.path={data} arms=[pretraind]": ("did you mean 'pretrained'?",),
    "evaluate": ("A value is missing: give ckpt=…",),
    f"{PRETRAIN} training.batch_size=": ("'training.batch_size'", "Integer"),
    f"{PRETRAIN} training.batch_size=many": ("'training.batch_size'", "'many'", "Integer"),
    f"{PRETRAIN} training.batch_size=1.5": ("'training.batch_size'", "'1.5'"),
    f"{PRETRAIN} training.batch_size=null": ("'training.batch_size'", "not Optional"),
    f"{PRETRAIN} stage1.learning_rate=[1]": ("'stage1.learning_rate'",),
    f"{PRETRAIN} training=3": ("'training'",),
    f"{PRETRAIN} data.games=Pong": ("'data.games' is a list: write data.games=[…]",),
    "fetch games=[Pong] runs=2": ("'runs' is a list: write runs=[…]",),
    "import source=rlu path={data} games=Pong": ("'games' is a list: write games=[…]",),
    f"{PRETRAIN} resume=true": ("resume=true", "resume=auto"),
    f"{PRETRAIN} resume=": ("resume=auto", "resume=no"),
    f"{PRETRAIN} resume=perhaps": ("no run in perhaps", "config.yaml"),
    "finetune resume=auto": ("A value is missing: give game=… (or env=…) and ckpt=…",),
    "finetune resume={run}": ("no configuration of this program", "choose another run"),
    f"{PRETRAIN} out=${{{{nothing}}}}": ("'out'", "'nothing'"),
    f"{EVALUATE} episodes=few": ("'episodes'", "'few'"),
    f"{RECORD} steps=all": ("'steps'", "'all'"),
    f"{PRETRAIN} data.games=[Pong": ("'data.games=[Pong' can't be read", "key=value"),
    f"{PRETRAIN} --verbose": ("'--verbose' can't be read",),
    f"{PRETRAIN} seed": ("'seed' can't be read", "key=value"),
    f"{PRETRAIN} training.precision=fp8": ("training.precision", "bf16"),
    f"{PRETRAIN} objective.conservative=yes": ("objective.conservative", "combo"),
    f"{PRETRAIN} objective.gamma=2": ("objective.gamma",),
    f"{PRETRAIN} training.device=tpu": ("training.device=tpu", "auto"),
    f"{PRETRAIN} training.threads=0": ("threads",),
    f"{PRETRAIN} training.log_every=0": ("training.log_every",),
    f"{PRETRAIN} training.gradient_clip=0": ("training.gradient_clip",),
    f"{PRETRAIN} training.gradient_clip=nan": ("training.gradient_clip must be a finite number",),
    f"{PRETRAIN} training.weight_decay=inf": ("training.weight_decay must be a finite number",),
    f"{PRETRAIN} objective.gamma=nan": ("objective.gamma must be a finite number",),
    f"{PRETRAIN} stage1.learning_rate=nan": ("stage1.learning_rate must be a finite number",),
    f"{PRETRAIN} stage2.td_weight=inf": ("stage2.td_weight must be a finite number",),
    f"{FINETUNE} stage.tokenizer_learning_rate=nan": ("stage.tokenizer_learning_rate must be a finite number",),
    f"{PRETRAIN} stage1.warmup_steps=-1": ("stage1.warmup_steps",),
    f"{PRETRAIN} objective.random_ensemble_mixture=true": ("random_ensemble_mixture", "model.q_networks is 1"),
    f"{FINETUNE} objective.random_ensemble_mixture=true": ("random_ensemble_mixture", "model.q_networks is 1"),
    f"{PRETRAIN} stage1.world_weight=0": ("stage1 has nothing to learn",),
    f"{PRETRAIN} stage1.learning_rate=0": ("stage1.learning_rate",),
    f"{PRETRAIN} stage1.conservative_weight=1": ("stage1.td_weight",),
    f"{PRETRAIN} stage1.steps=0 stage2.steps=0": ("stage1.steps",),
    f"{PRETRAIN} data.stride=9": ("data.stride=9", "model.blocks=8", "at most 8"),
    f"{PRETRAIN} data.stride=0": ("data.stride",),
    f"{PRETRAIN} model.blocks=3": ("data.stride=4", "model.blocks=3"),
    f"{FINETUNE} data.stride=9": ("data.stride=9", "model.blocks=8"),
    f"{PRETRAIN} data.holdout=1": ("data.holdout",),
    f"{PRETRAIN} tokenizer.perceptual=lpips": ("tokenizer.perceptual_weights", "tokenizer.perceptual=none"),
    f"{EVALUATE} device=tpu": (" device=tpu",),
    f"{EVALUATE} modes=[dreaming]": ("'dreaming'", "'planning'"),
    f"{EVALUATE} modes=[]": ("modes",),
    f"{EVALUATE} bootstrap.resamples=0": ("bootstrap.resamples",),
    f"{EVALUATE} protocol.frame_skip=0": ("protocol.frame_skip",),
    # Presets
    "pretrain +exp=smoky": ("'exp/smoky'", "atari15, demo, laptop, smoke"),
    "pretrain exp=smoke": ("+exp=",),
    f"{PRETRAIN} model=80M": ("'model/80M'", "150M, 40M, 70M, nano"),
    f"{EVALUATE} planner=oracle": ("'planner/oracle'", "beam"),
    f"{EVALUATE} protocol=mine": ("'protocol/mine'", "choose one of", "machado"),
    f"{EVALUATE} protocol=machdo": ("'protocol/machdo'", "did you mean 'machado'?", "nature, published, quick"),
    f"{EVALUATE} episodes=0": ("episodes must be at least 1",),
    f"{EVALUATE} environments=0": ("environments must be at least 1",),
    # Data
    f"{PRETRAIN} data.path={{out}}/none": ("no recorded episodes", "jowa.data.record", "data.path"),
    f"{PRETRAIN} data.games=[Boxing]": ("no recorded episodes of Boxing", "data.path"),
    f"{PRETRAIN} data.games=[Pong,Pong]": ("data.games names a game twice",),
    f"{PRETRAIN} training.batch_size=1000": ("fewer than one batch of 1000", "training.batch_size"),
    f"{FINETUNE} game=Boxing": ("needs recorded episodes of Boxing",),
    # Sizes
    f"{PRETRAIN} model.heads=3": ("model.heads=3", "model.width=32"),
    f"{PRETRAIN} model.heads=64": ("model.heads=64", "model.width=32"),
    f"{PRETRAIN} model.heads=0": ("heads", "at least 1"),
    f"{PRETRAIN} tokenizer.widths=[3,3,3]": ("tokenizer.widths",),
    f"{PRETRAIN} training.micro_batch=3": ("training.micro_batch=3",),
    f"{PRETRAIN} out={{run}} resume=auto model.width=64": ("has model.width=32, not 64", "another out"),
    f"{PRETRAIN} out={{run}} resume=auto model=40M": ("has model.name=nano, not 40M",),
    f"{PRETRAIN} out={{run}} resume=auto tokenizer.vocabulary=64": ("has tokenizer.vocabulary=32, not 64",),
    "pretrain resume={run}/checkpoints/stage2-00000004": ("name the run's folder, resume=", "/run."),
    "pretrain resume={run} model=40M": ("has model.name=nano, not 40M",),
    "pretrain resume={run} seed=1 stage1.learning_rate=1": ("has seed=0, not 1",),
    "pretrain resume={run} training.batch_size=8": ("has training.batch_size=4, not 8",),
    "pretrain resume={run} out={out}": ("leave out as it is",),
    "pretrain resume={run} stage2.steps=3": ("has done 4 steps of stage2", "can't have 3 steps", "4 or more"),
    "pretrain resume={run} stage1.steps=5": ("has done 4 steps of stage1", "set its steps to 4."),
    "pretrain resume={run} data.path={out}": ("no recorded episodes",),
    f"{PRETRAIN} out={{data}} resume=auto": ("isn't empty", "holds no run"),
    f"{FINETUNE} size=40M": ("is of size nano, not 40M",),
    f"{EVALUATE} size=150M": ("is of size nano, not 150M",),
    # Planning
    f"{EVALUATE} planner.horizon=8": ("planner.horizon=8 leaves no context", "at most 7"),
    f"{EVALUATE} planner.horizon=4": ("planner.context=6", "at most 4"),
    f"{EVALUATE} planner.width=0": ("planner.width=0",),
    f"{EVALUATE} execution.draft_rows=-1": ("execution.draft_rows",),
    f"{EVALUATE} execution.memory=0": ("execution.memory must be above 0 GiB",),
    f"{EVALUATE} execution.memory=inf": ("execution.memory must be above 0 GiB and finite",),
    # Folders
    f"{PRETRAIN} out={{file}}/run": ("cannot write", "set out to"),
    f"{PRETRAIN} out={{file}}": ("cannot write", "set out to"),
    f"{PRETRAIN} out={{run}}": ("isn't empty", "resume="),
    f"{FINETUNE} out={{file}}/run": ("cannot write", "set out to"),
    f"{EVALUATE} out={{file}}/run": ("cannot write", "set out to"),
    f"{EVALUATE} out={{run}}": ("isn't empty", "another out"),
    f"{RECORD} out={{file}}/run": ("cannot write", "set out to"),
    # Checkpoints
    f"{FINETUNE} ckpt={{out}}/none": ("no agent in", "/out/none"),
    f"{EVALUATE} ckpt={{out}}/none": ("no agent in", "/out/none"),
    f"{EVALUATE} ckpt={{file}}": ("no agent in",),
    f"{EVALUATE} ckpt={{data}}": ("no agent in",),
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line: str, call, place: dict[str, str], tmp_path: Path) -> None:
    run_before = sorted(Path(place["run"]).rglob("*"))
    assert_refused(call(*line.format(**place).split(" ")), *MISTAKES[line])
    assert sorted(Path(place["run"]).rglob("*")) == run_before
    # The entry points may try whether a folder can be written, but leave nothing in it.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
@pytest.mark.parametrize("line", [FINETUNE, EVALUATE, "pretrain resume={run}"])
def test_a_damaged_checkpoint_is_one_sentence(
    line: str, name: str, call, place: dict[str, str], tmp_path: Path
) -> None:
    place["run"] = shutil.copytree(place["run"], tmp_path / "run")
    cut(tmp_path / "run" / "checkpoints" / "stage2-00000004" / name)
    assert_refused(call(*line.format(**place).split(" ")), "stage2-00000004", name)


def test_damaged_data_is_one_sentence(call, place: dict[str, str], tmp_path: Path) -> None:
    place["data"] = shutil.copytree(place["data"], tmp_path / "data")
    cut(next((tmp_path / "data" / "Pong").rglob("c/0/0/0")))
    assert_refused(call(*PRETRAIN.format(**place).split(" ")), "frames/c/0/0/0 is damaged", "record or import it again")


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_and_configuration_can_be_asked_for(name: str, call) -> None:
    for flag in ("--help", "-h"):
        code, text, errors = call(name, flag)
        assert (code, errors) == (0, "")
        module = f"{'data.' * (name in DATA)}{name.removeprefix('data_')}"
        assert f"usage: python -m jowa.{module} " in text and "exp: atari15, demo" in text
    code, text, errors = call(name, "--cfg")
    keys = {field.name for field in dataclasses.fields(ENTRY_POINTS[name][1])}
    assert (code, errors) == (0, "") and keys == set(yaml.safe_load(text))
    key = next(key for key in ("seed", "size", "out", "path") if key in keys)
    code, text, _ = call(name, f"{key}=7", "--cfg")
    assert code == 0 and str(yaml.safe_load(text)[key]) == "7"
    assert call(name, "--cfg", "sede=7")[0] == 2


def test_presets_can_be_composed(call) -> None:
    _, text, _ = call("pretrain", "+exp=atari15", "model=70M", "stage1.steps=7", "--cfg")
    assert "name: 70M" in text and "steps: 7" in text and "steps: 1500000" in text and "- StarGunner" in text
    _, text, _ = call("evaluate", "protocol=published", "planner=greedy", "--cfg")
    assert "max_episode_frames: 432000" in text and "name: greedy" in text


def test_what_the_system_refuses_is_one_sentence(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(config: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/where")

    def broken(config: object) -> None:
        raise OSError("of no file")

    monkeypatch.setitem(ENTRY_POINTS, "record", (refused, record.RecordConfig))
    assert_refused(call("record"), "/some/where can't be read or written: Permission denied.")
    monkeypatch.setitem(ENTRY_POINTS, "record", (broken, record.RecordConfig))
    with pytest.raises(OSError, match="of no file"):
        call("record")


def test_interruption_is_no_accident(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(ENTRY_POINTS, "record", (interrupted, record.RecordConfig))
    code, _, errors = call("record")
    assert (code, errors) == (130, "jowa: interrupted\n")


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        ("jowa.pretrain", f"{PRETRAIN} model.heads=3", ("model.heads=3",)),
        ("jowa.finetune", f"{FINETUNE} size=40M", ("not 40M",)),
        ("jowa.evaluate", f"{EVALUATE} planner.horizon=8", ("leaves no context",)),
    ],
)
def test_processes_of_their_own_agree(
    module: str, line: str, words: tuple[str, ...], place: dict[str, str], tmp_path: Path
) -> None:
    (process,) = fork(tmp_path / "said", module, *line.format(**place).split(" ")[1:], cwd=tmp_path)
    done = process.end()
    assert_refused((done.returncode, done.stdout, done.stderr), *words)


@pytest.mark.parametrize("line", [PRETRAIN, FINETUNE])
def test_a_batch_that_the_processes_cannot_share(
    line: str, call, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert_refused(call(*line.format(**place).split(" ")), "training.batch_size=4", "3 processes", "multiple of 3")


def test_under_torchrun_the_sentence_comes_first(place: dict[str, str], tmp_path: Path) -> None:
    """torchrun itself says more after it, and ends with a code of its own."""
    line = f"{PRETRAIN} training.batch_size=3".format(**place)
    done = launch("jowa.pretrain", *line.split(" ")[1:], processes=2, cwd=tmp_path)
    assert done.returncode != 0
    before_torchrun = done.stderr[: done.stderr.index("Traceback")].splitlines()
    ours = {text for text in before_torchrun if text.startswith("jowa")}
    assert ours == {"jowa: training.batch_size=3 can't be shared by 2 processes: take a multiple of 2."}
    assert not Path(place["out"]).exists()
