"""Stopped by a signal, in any step of either stage, a run goes on as if it had never been."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from launch import ENVIRONMENT, ROOT, command, start
from processes import pretraining, together
from tiny_store import final_weights, pretrain_config, pretrain_run

from jowa import pretrain
from jowa.cli import load_config, run
from jowa.errors import Interrupted
from jowa.training import after_step, interruption, loop
from jowa.training.checkpoint import latest_checkpoint, list_checkpoints, read_best
from jowa.training.interruption import Interruption

# Every step draws random numbers and leaves a line; the target copy, warm-up and the best checkpoint have their steps.
RANDOM = [
    "model.dropout=0.2", "stage1.warmup_steps=3", "stage2.warmup_steps=3", "training.target_every=3",
    "training.log_every=1", "training.picture_every=1000",
]  # fmt: skip
LONG = [*RANDOM, "stage1.steps=16", "stage2.steps=24", "training.checkpoint_every=4", "training.validate_every=12"]
EVERY = 4


def losses(run: Path) -> list[tuple[str, int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["stage"], line["step"], line["loss/total"]) for line in lines if "loss/total" in line]


def held_out(run: Path) -> list[tuple[str, int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["stage"], line["step"], line["held_out/total"]) for line in lines if "held_out/total" in line]


def last_step(run: Path) -> tuple[str, int]:
    try:
        line = json.loads((run / "metrics.jsonl").read_bytes().splitlines()[-1])
        return line["stage"], line["step"]
    except (OSError, ValueError, IndexError):
        return "", 0


def wait_for(process: subprocess.Popen[Any], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


def stop(words: list[str], out: Path, number: int, stage: str, after: int) -> subprocess.CompletedProcess[str]:
    """Start a command, and send it a signal once its run's metrics have got beyond a stage's step."""
    process = start(words)
    wait_for(process, lambda: last_step(out) > (stage, after))
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def printed(errors: str) -> list[str]:
    (line,) = [line for line in errors.splitlines() if line.startswith("jowa: stopped by")]
    return shlex.split(line.split("; go on with: ")[1])


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_run(tiny_data, tmp_path_factory.mktemp("whole") / "run", *LONG)


def test_stopped_again_and_again_a_run_ends_as_if_it_had_not_been(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    words = command("jowa.pretrain", "+exp=smoke", f"data.path={tiny_data}", f"out={out}", *LONG)
    for number, name, code, stage, after in (
        (signal.SIGTERM, "SIGTERM", 143, "stage1", 2),
        (signal.SIGINT, "SIGINT", 130, "stage2", 2),
    ):
        done = stop(words, out, number, stage, after)
        place = last_step(out)
        assert done.returncode == code, done.stderr
        assert f"jowa: stopped by {name} after step {place[1]} of {place[0]}; go on with: " in done.stderr
        assert "Traceback" not in done.stderr and place[0] == stage
        assert latest_checkpoint(out).name == f"{stage}-{place[1]:08d}"
        words = printed(done.stderr)
        assert words == ["python", "-m", "jowa.pretrain", f'resume="{out}"']
    before = last_step(out)[1]
    assert stop(words, out, signal.SIGKILL, "stage2", before + EVERY).returncode == -signal.SIGKILL
    killed = last_step(out)[1]
    # One checkpoint may have been on its way.
    assert int(latest_checkpoint(out).name[-8:]) >= max(before, killed - 2 * EVERY)
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", words[3:]))
    assert final_weights(out) == final_weights(whole)
    assert losses(out) == losses(whole)
    assert not list(out.rglob(".*")) and len(list(out.glob("config*.yaml"))) == 4


def test_three_processes_stop_after_the_same_step(tiny_data: Path, tmp_path: Path) -> None:
    """Three, since sums of two don't show in which order they are added up."""
    changes = [f"data.path={tiny_data}", *RANDOM, "stage1.steps=2", "stage2.steps=20", "training.checkpoint_every=1000",
               "training.batch_size=6", "stage1.tokenizer_frames=12"]  # fmt: skip
    whole = tmp_path / "whole"
    together(pretraining, 3, ["+exp=smoke", *changes, f"out={whole}"])
    out = tmp_path / "stopped"
    words = command("jowa.pretrain", "+exp=smoke", *changes, f"out={out}", processes=3)
    done = stop(words, out, signal.SIGTERM, "stage2", 3)
    assert done.returncode != 0 and latest_checkpoint(out).name == f"stage2-{last_step(out)[1]:08d}"
    assert 3 < last_step(out)[1] < 20
    words = printed(done.stderr)
    assert words == ["torchrun", "--nproc-per-node=3", "-m", "jowa.pretrain", f"resume={out}"]
    together(pretraining, 3, words[4:])
    assert final_weights(out) == final_weights(whole) and losses(out) == losses(whole)


@pytest.fixture(scope="module")
def short(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain_run(tiny_data, tmp_path_factory.mktemp("short") / "run", *RANDOM)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize(("step", "number"), enumerate([signal.SIGTERM, signal.SIGINT] * 2))
def test_every_step_may_be_the_last(
    short: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int,
    number: int,
) -> None:  # fmt: skip
    take, out = loop.train_step, tmp_path / "run"

    def signalled(run, name, this, *rest):
        if (name, this) == (stage, step):
            signal.raise_signal(number)
        return take(run, name, this, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", signalled)
        with pytest.raises(Interrupted) as stopped:
            pretrain_run(tiny_data, out, *RANDOM)
    assert (stopped.value.signal_number, stopped.value.run) == (number, out)
    assert stopped.value.place == f"step {step + 1} of {stage}"
    assert list_checkpoints(out)[-1].name == f"{stage}-{step + 1:08d}"
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", [f"resume={out}"]))
    assert final_weights(out) == final_weights(short) and losses(out) == losses(short)
    # What would have looked at the run after that step does so when it goes on.
    assert held_out(out) == held_out(short) and read_best(out) == read_best(short)


@pytest.mark.parametrize(("step", "stage"), [(2, "stage1"), (4, "stage1"), (4, "stage2")])
def test_a_signal_while_something_looks_at_the_run_is_heeded_too(
    short: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, stage: str
) -> None:
    call, out = after_step.call_hooks, tmp_path / "run"

    def signalled(run, place, *rest):
        if (place.stage, place.step) == (stage, step):
            signal.raise_signal(signal.SIGTERM)
            assert step < 4 or latest_checkpoint(out).name == place.folder_name
        return call(run, place, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(after_step, "call_hooks", signalled)
        with pytest.raises(Interrupted) as stopped:
            pretrain_run(tiny_data, out, *RANDOM)
    assert stopped.value.place == f"step {min(step + 1, 4)} of {stage}"
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", [f"resume={out}"]))
    assert final_weights(out) == final_weights(short)


def test_nobody_has_to_read_along(tiny_data: Path, tmp_path: Path) -> None:
    """Ctrl-C ends the reader of a pipe as well as the run: the step is saved all the same."""
    out = tmp_path / "run"
    words = command("jowa.pretrain", "+exp=smoke", f"data.path={tiny_data}", f"out={out}", *LONG)
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    wait_for(process, lambda: last_step(out) > ("stage1", 4))
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert latest_checkpoint(out).name == "{}-{:08d}".format(*last_step(out))


def test_the_demo_preempted_in_both_stages_ends_as_it_would_have(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make demo`'s settings but for its size: other data, three steps a stage, four sequences a step."""
    changes = [f"data.path={tiny_data}", "data.games=[]", "data.holdout=0.25", "stage1.steps=3", "stage2.steps=3",
               "training.batch_size=4", "training.threads=1", "training.checkpoint_every=2",
               "training.log_every=1"]  # fmt: skip

    def demo(out: Path) -> pretrain.PretrainConfig:
        return load_config(pretrain.PretrainConfig, "pretrain", ["+exp=demo", f"out={out}", *changes, "resume=auto"])

    take, preempted_at = loop.train_step, {("stage1", 0), ("stage2", 1)}

    def preempted(run, name, step, *rest):
        if (name, step) in preempted_at:
            preempted_at.remove((name, step))
            signal.raise_signal(signal.SIGTERM)
        return take(run, name, step, *rest)

    pretrain.main(demo(tmp_path / "whole"))
    monkeypatch.setattr(loop, "train_step", preempted)
    for _ in range(2):
        with pytest.raises(Interrupted):
            pretrain.main(demo(tmp_path / "run"))
    pretrain.main(demo(tmp_path / "run"))
    assert final_weights(tmp_path / "run") == final_weights(tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as at a terminal: a shell's background jobs ignore it from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_ends_at_once_and_afterwards_all_is_as_before(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_distributed import ALONE

    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with Interruption(ALONE) as stopping:
        stopping.begin_step()
        assert stopping.end_step() is None
        signal.raise_signal(signal.SIGINT)
        # A scheduler and torchrun both pass it on: that is one signal.
        signal.raise_signal(signal.SIGINT)
        assert stopping.end_step() == signal.SIGINT
        monkeypatch.setattr(interruption, "ONE_SIGNAL", 0.0)
        # One that is passed on late is no reason to lose the step, impatience is.
        signal.raise_signal(signal.SIGTERM)
        assert stopping.end_step() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert [signal.getsignal(number) for number in interruption.SIGNALS] == before
    pretrain.main(pretrain_config(tiny_data, tmp_path / "run", "stage1.steps=1", "stage2.steps=0"))
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


@pytest.mark.parametrize(
    ("folder", "environment", "expected"),
    [
        ("runs/x", {}, "python -m jowa.pretrain resume=runs/x"),
        ("a b/it's", {}, None),
        (
            "runs/x",
            {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"},
            "torchrun --nnodes=2 … --nproc-per-node=8 -m jowa.pretrain resume=runs/x",
        ),
        ("runs/x", {"RANK": "1"}, ""),
    ],
)
def test_the_command_printed_means_the_run(
    folder: str, environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def stopped(config: pretrain.PretrainConfig) -> None:
        raise Interrupted(signal.SIGTERM, Path(folder), "step 1 of stage1")

    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("sys.argv", ["jowa.pretrain"])
    with pytest.raises(SystemExit) as end:
        run(stopped, pretrain.PretrainConfig, "pretrain")
    assert end.value.code == 143
    errors = capsys.readouterr().err
    if expected is None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        (override,) = OverridesParser.create().parse_overrides(printed(errors)[-1:])
        assert override.value() == folder
    else:
        assert errors == (
            f"jowa: stopped by SIGTERM after step 1 of stage1; go on with: {expected}\n" if expected else ""
        )
