"""The page from the command line: it is served until Ctrl-C, and what can't work is said before that."""

from __future__ import annotations

import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from launch import command, start
from small_dreamer import dreamer, save_dreamer

import jowa.play
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.play import PlayConfig, open_session
from jowa.playing.server import listen
from jowa.training.distribution import choose_device


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dreamer(tmp_path_factory.mktemp("agent"), None, *dreamer())


def config(agent: Path, *changes: str) -> PlayConfig:
    return load_config(PlayConfig, "play", [f"ckpt={agent}", "device=cpu", "port=0", *changes])


def test_it_serves_until_ctrl_c_and_leaves_nothing(agent: Path) -> None:
    before = sorted(path.name for path in agent.iterdir())
    words = command("jowa.play", f"ckpt={agent}", "game=Boxing", "port=0", "device=cpu", "threads=1")
    process = start(words, cwd=agent)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        address = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"jowa.play" in answer.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, "Stopped.\n") and "Ctrl-C" in line
    assert errors == (
        "jowa: The agent was never trained on Boxing, only on Pong: its plans and dreams may mean little.\n"
    )
    assert sorted(path.name for path in agent.iterdir()) == before


def test_ctrl_c_during_a_slow_decision_ends_it_as_well(agent: Path) -> None:
    process = start([sys.executable, "-c", SLOW, f"ckpt={agent}", "port=0", "device=cpu", "threads=1"], cwd=agent)
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stdout.readline().startswith("Open http")
        assert process.stderr.readline() == "thinking\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (0, "Stopped.\n", "")


# Most of its time is spent inside torch, where an interpreter that ends aborts a thread.
SLOW = """
import sys
import torch
import jowa.play
from jowa.cli import run
from jowa.playing.thought import Thinker

def think(*_):
    print("thinking", file=sys.stderr, flush=True)
    many = torch.ones(1500, 1500)
    while True:
        many @ many

Thinker.think = think
run(jowa.play.main, jowa.play.PlayConfig, "play")
"""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["port=70000"], r"^port=70000 is no port: set it to 1 … 65535, or to 0"),
        (["seed=-1"], "^seed must not be negative"),
        (["planner.width=0"], r"^planner\.width=0 keeps no future"),
        (["planner.horizon=7"], r"^planner\.context=6 and planner\.horizon=7 exceed the 8 frames"),
        (["game=Pnog"], r"^Unknown game 'Pnog' \(key 'game'\): did you mean 'Pong'\?"),
        (["planner=published"], r"^planner=published has no settings for Pong"),
        (["protocol.rom_dir=/nowhere"], r"^There is no ROM /nowhere/pong\.bin for Pong"),
        (["data=/nowhere"], r"^data=/nowhere holds no episodes of Pong"),
        (["threads=0"], "^threads must be at least 1"),
        (["size=nano"], "nano"),
    ],
)
def test_what_cannot_work_is_one_sentence(agent: Path, changes: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        jowa.play.main(config(agent, *changes))


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("out: here\n")
    with pytest.raises(UserError, match=f"^There is no agent in {tmp_path}: give a run's folder"):
        jowa.play.main(config(tmp_path))


def test_a_port_in_use_is_noticed_before_the_agent_is_read(tmp_path: Path) -> None:
    with listen(0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"^port={port} can't be used"):
            jowa.play.main(config(tmp_path / "no agent", f"port={port}"))


def test_without_aiohttp_it_says_what_to_install(agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jowa.play, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^The page needs aiohttp: pip install 'jowa\[play\]'\.$"):
        jowa.play.main(config(agent))


def test_the_first_game_and_the_trainings_data_are_taken(
    agent: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = choose_device("cpu", "device")
    session = open_session(config(agent), cpu)
    assert session.game == "Pong" and session.rules.data is None and capsys.readouterr().err == ""
    (tmp_path / "agent").mkdir()
    session = open_session(config(save_dreamer(tmp_path / "agent", tiny_data, *dreamer())), cpu)
    session.dream(elsewhere=True)
    assert session.start == "a held-out episode"
