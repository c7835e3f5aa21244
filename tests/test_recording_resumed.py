"""Recordings that are interrupted and resumed, and recordings beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import ROOT

from jowa.data import record as recording
from jowa.data.record import check, main, record
from jowa.data.store import EpisodeStore, committed_parts
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.play.player import Player
from jowa.recording.behaviours import UniformRandom
from jowa.recording.config import RecordConfig
from jowa.recording.resuming import recording_alone, shares_left, stored_steps
from jowa.recording.side_by_side import shares

SHORT = ProtocolConfig(max_episode_frames=160)


class Killed(BaseException):
    """Stands for a death between two episodes."""


def config(out: Path, **changes: object) -> RecordConfig:
    wanted = RecordConfig(game=["Breakout", "Boxing"], steps=200, out=str(out), policy="random", protocol=SHORT)
    return replace(wanted, **changes)


def dying_after(calls: int, method: Callable) -> Callable:
    def call(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Killed
        return method(*arguments, **named)

    return call


def hashes(out: Path, game: str) -> list[int]:
    """A number for each episode that tells whether two are the same."""
    store = EpisodeStore(out, [game])
    table = store.tables[game]
    actions = store.column(game, "actions")
    return [hash(actions[start : start + n].tobytes()) for start, n in zip(table.starts, table.lengths, strict=True)]


def test_an_interrupted_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It dies in the second game; the first one is left alone, and of the second only the rest is played."""
    wanted = config(tmp_path, resume=True)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(UniformRandom, "act", dying_after(350, UniformRandom.act))
        main(wanted)
    store = EpisodeStore(tmp_path)
    first, begun = store.fingerprint("Breakout"), store.transitions("Boxing")
    assert store.transitions("Breakout") >= 200 > begun >= 80
    with pytest.raises(UserError, match="resume=true to go on"):
        check(replace(wanted, resume=False))
    played: list[int] = []
    monkeypatch.setattr(UniformRandom, "act", counting(played, UniformRandom.act))
    main(wanted)
    store = EpisodeStore(tmp_path)
    assert store.fingerprint("Breakout") == first and len(played) == store.transitions("Boxing") - begun
    assert 200 <= store.transitions("Boxing") < 200 + 40
    assert len(set(hashes(tmp_path, "Boxing"))) == len(hashes(tmp_path, "Boxing"))
    before = len(played), store.fingerprint("Boxing")
    capsys.readouterr()
    main(wanted)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split() for line in lines] == [["Breakout", "0", "0", "there"], ["Boxing", "0", "0", "there"]]
    assert (len(played), EpisodeStore(tmp_path).fingerprint("Boxing")) == before


def counting(calls: list[int], method: Callable) -> Callable:
    def call(*arguments: object) -> object:
        calls.append(1)
        return method(*arguments)

    return call


def test_only_the_very_recording_is_resumed(tmp_path: Path) -> None:
    done = config(tmp_path, game="Boxing", steps=50)
    record(done)
    for other in ({"seed": 1}, {"policy": "scripted"}, {"policy": "lookahead"}):
        with pytest.raises(UserError, match=r"part-00000 is of another recording.*append=true"):
            check(replace(done, resume=True, **other))
    other = replace(done, resume=True, append=True, seed=1)
    check(other)
    record(other)
    record(other)
    assert EpisodeStore(tmp_path).transitions("Boxing") == 2 * 80 == 2 * sum(stored_steps(other, "Boxing").values())
    more = replace(done, resume=True, append=True, steps=100)
    (added,) = record(more)
    assert added.transitions == 40 and len(committed_parts(tmp_path, "Boxing")) == 3


def test_a_mix_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its share of random actions falls over the whole recording, the part before the interruption included."""
    wanted = config(tmp_path, game="Breakout", policy="mix", steps=400)
    record(wanted)
    record(replace(wanted, steps=800, resume=True))
    epsilons = np.array([info["epsilon"] for info in EpisodeStore(tmp_path).tables["Breakout"].info])
    assert len(epsilons) == 20 and epsilons[:10].min() < 0.1 and epsilons[10:].max() < 0.3


@pytest.mark.parametrize("schedule", ["constant", "rising"])
def test_an_agents_recording_goes_on(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    wanted = config(
        tmp_path, policy=str(smoke_run), epsilon=0.3, steps=200, schedule=schedule, device="cpu", threads=1,
        environments=2, resume=True, protocol=ProtocolConfig(max_episode_frames=80),
    )  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Player, "act", dying_after(45, Player.act))
        record(wanted)
    before = {game: hashes(tmp_path, game) for game in ("Breakout", "Boxing") if committed_parts(tmp_path, game)}
    assert before
    record(wanted)
    assert [one.episodes for one in record(wanted)] == [0, 0]
    for game in ("Breakout", "Boxing"):
        after = hashes(tmp_path, game)
        table = EpisodeStore(tmp_path).tables[game]
        assert after[: len(before.get(game, []))] == before.get(game, []) and len(set(after)) == len(after)
        assert len({info["seed"] for info in table.info}) == len(table) == 10
        epsilons = sorted(info["epsilon"] for info in table.info)
        expected = [0.3] * 10 if schedule == "constant" else np.linspace(0.3, 1, 10)
        assert epsilons == pytest.approx(expected)


@given(
    st.integers(1, 300), st.integers(0, 3), st.sampled_from(["constant", "rising"]),
    st.sampled_from([0.0, 0.3, 1.0]), st.lists(st.integers(0, 60), min_size=10, max_size=10),
)  # fmt: skip
def test_what_is_left_of_an_agents_shares(
    steps: int, seed: int, schedule: str, epsilon: float, played: list[int]
) -> None:
    wanted = shares(steps, seed, schedule, epsilon)
    stored: dict[float | None, int] = {}
    for share, count in zip(wanted, played, strict=False):
        stored[share.epsilon] = stored.get(share.epsilon, 0) + count
    left = shares_left(wanted, stored)
    assert all(share.steps > 0 for share in left)
    for value in {share.epsilon for share in wanted}:
        asked, still = (sum(one.steps for one in some if one.epsilon == value) for some in (wanted, left))
        assert still == max(asked - stored.get(value, 0), 0)


def test_two_recorders_of_one_game_exclude_each_other(tmp_path: Path) -> None:
    with recording_alone(tmp_path, ["Boxing"]):
        for changes in ({}, {"append": True}, {"workers": 2}):
            with pytest.raises(UserError, match=r"Another process is recording into .*Boxing.*out"):
                record(config(tmp_path, **changes))
        record(config(tmp_path, game="Breakout", steps=20))
    record(config(tmp_path, game="Boxing", steps=20))
    assert EpisodeStore(tmp_path).games == ("Boxing", "Breakout")


def test_parts_are_committed_while_it_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "COMMIT_SECONDS", 0.0)
    record(config(tmp_path, game="Boxing", steps=120))
    assert len(committed_parts(tmp_path, "Boxing")) == 3


def test_a_killed_recorder_takes_its_workers_along_and_can_be_resumed(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "jowa.data.record", "game=[Breakout,Boxing]", "policy=random", "workers=2",
            f"out={tmp_path}", "protocol.max_episode_frames=160", "steps=10000000"]  # fmt: skip
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(tmp_path.glob("*/.*.tmp/frames/zarr.json"))) == 2)
    names = list(tmp_path.glob("*/.*.tmp"))
    workers = [int(path.name.split("-")[0].lstrip(".")) for path in names]
    assert all(alive(worker) for worker in workers) and process.pid not in workers
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(worker) for worker in workers))
    record(config(tmp_path, steps=100, resume=True))
    assert set(EpisodeStore(tmp_path).games) == {"Boxing", "Breakout"} and not list(tmp_path.glob("*/.*.tmp"))


def alive(process: int) -> bool:
    """Whether a thread of it still runs: what a process has open is closed, and unlocked, with its last thread only."""
    states = []
    for status in Path(f"/proc/{process}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            states.append(status.read_text().rpartition(")")[2].split()[0])
    return any(state not in "ZX" for state in states)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to be")
