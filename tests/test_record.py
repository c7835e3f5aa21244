"""Recording: what is stored is what was played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forks import fork
from launch import launch

from jowa.data.record import check, main, record
from jowa.data.store import EpisodeStore
from jowa.envs.atari import AtariEnvironments
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_md5
from jowa.errors import UserError
from jowa.games import task_id
from jowa.recording.config import RecordConfig

SHORT = ProtocolConfig(max_episode_frames=800)


def config(out: Path, **changes: object) -> RecordConfig:
    return replace(RecordConfig(game=["Breakout"], steps=500, out=str(out), policy="mix"), **changes)


def contents(out: Path, game: str) -> list[np.ndarray]:
    store = EpisodeStore(out, [game])
    rows = store.read(game, np.arange(int(store.tables[game].lengths.sum())))
    return [rows.frames, rows.actions, rows.rewards, rows.ends]


def test_replaying_the_stored_actions_gives_the_stored_rows(tmp_path: Path) -> None:
    protocol = ProtocolConfig(repeat_action_probability=0.25, max_episode_frames=1200)
    wanted = config(tmp_path, steps=700, seed=3, policy="scripted", epsilon=0.5, protocol=protocol)
    recorded = record(wanted)[0]
    frames, actions, rewards, ends = contents(tmp_path, "Breakout")
    table = EpisodeStore(tmp_path).tables["Breakout"]
    assert recorded.transitions == len(actions) >= 700 and recorded.episodes == len(table) >= 3
    assert recorded.mean_return == pytest.approx(table.returns.mean())
    envs = AtariEnvironments(["Breakout"], protocol, [episode_seed(episode_seed(3, task_id("Breakout")), 0)])
    for start, length, terminated in zip(table.starts, table.lengths, table.terminated, strict=True):
        frame = envs.reset()
        for row in range(start, start + length):
            assert np.array_equal(frame[0], frames[row])
            result = envs.step(actions[row : row + 1])
            assert result.rewards[0] == rewards[row]
            assert result.terminated[0] == ends[row]
            frame = result.frames
        assert result.terminated[0] == terminated and (terminated or result.truncated[0])
    assert rewards.sum() > 0


def test_manifest_and_episode_facts(tmp_path: Path) -> None:
    main(config(tmp_path, protocol=SHORT))
    store = EpisodeStore(tmp_path)
    facts = store.parts("Breakout")[0].provenance
    assert facts["rom_md5"] == rom_md5("Breakout") and facts["sticky"] is False and facts["policy"] == "mix"
    table = store.tables["Breakout"]
    for info, episode_return in zip(table.info, table.returns, strict=True):
        assert info["policy"] == "scripted" and info["raw_return"] == episode_return
    epsilons = [info["epsilon"] for info in table.info]
    assert epsilons[0] > 0.4 > epsilons[-1] >= 0.01


def test_rising_quality_is_told_of_every_episode(tmp_path: Path) -> None:
    record(config(tmp_path, policy="scripted", schedule="rising", epsilon=0.1, protocol=SHORT, steps=900))
    store = EpisodeStore(tmp_path)
    table = store.tables["Breakout"]
    expected = [1 - 0.9 * start / 900 for start in table.starts]
    assert [info["epsilon"] for info in table.info] == pytest.approx(expected) and len(table) >= 5
    assert store.parts("Breakout")[0].provenance["schedule"] == "rising"


def test_seeds_workers_and_company_decide_nothing_but_the_seed(tmp_path: Path) -> None:
    both = {"game": ["Breakout", "Boxing"], "steps": 300, "protocol": SHORT}
    record(config(tmp_path / "a", **both))
    record(config(tmp_path / "b", **both, workers=2))
    record(config(tmp_path / "c", **{**both, "game": ["Boxing"]}))
    record(config(tmp_path / "d", **{**both, "game": ["Boxing"]}, seed=1))

    def equal(one: str, other: str, game: str) -> bool:
        pairs = zip(contents(tmp_path / one, game), contents(tmp_path / other, game), strict=True)
        return all(np.array_equal(x, y) for x, y in pairs)

    assert equal("a", "b", "Breakout") and equal("a", "b", "Boxing") and equal("a", "c", "Boxing")
    assert not equal("c", "d", "Boxing")


def test_appending_adds_other_episodes(tmp_path: Path) -> None:
    record(config(tmp_path, steps=150, policy="random"))
    before = contents(tmp_path, "Breakout")[1]
    with pytest.raises(UserError, match="append=true"):
        check(config(tmp_path))
    again = config(tmp_path, steps=150, policy="random", append=True)
    check(again)
    record(again)
    after = contents(tmp_path, "Breakout")[1]
    assert np.array_equal(after[: len(before)], before)
    assert not np.array_equal(after[len(before) :][:100], before[:100])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"game": ["Pongg"]}, "Pong"),
        ({"game": []}, "at least one game"),
        ({"game": ["Pong", "Pong"]}, "twice"),
        ({"steps": 0}, "steps"),
        ({"workers": -1}, "workers"),
        ({"epsilon": 1.5}, "epsilon"),
        ({"policy": "expert"}, "policy"),
        ({"policy": "scripted", "game": ["Alien"]}, "Alien"),
        ({"protocol": ProtocolConfig(rom_dir="/nowhere")}, r"protocol\.rom_dir"),
        ({"protocol": ProtocolConfig(repeat_action_probability=2.0)}, r"protocol\.repeat"),
        ({"out": "/proc/nothing"}, "out"),
    ],
)
def test_mistakes_are_refused_before_work_starts(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(replace(config(tmp_path / "out"), **changes))
    assert not list(tmp_path.rglob("*.json"))


def test_command_line(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'out'}"
    # The keys of the two games' workers cross a process border as `__main__`'s own class.
    fine = launch("jowa.data.record", out, "game=[Breakout,Boxing]", "steps=100", "policy=random", "workers=1",
                  "protocol=machado", "protocol.max_episode_frames=400")  # fmt: skip
    assert fine.returncode == 0, fine.stderr
    assert "Breakout" in fine.stdout and "mean return" in fine.stdout
    assert EpisodeStore(tmp_path / "out").parts("Boxing")[0].provenance["sticky"] is True
    for mistake, word in ((["game=[Pongg]"], "Pong"), (["stepps=3"], "steps"), (["game=[Boxing]"], "append=true")):
        wrong = fork(tmp_path / "said", "jowa.data.record", out, *mistake)[0].end()
        assert wrong.returncode == 2 and word in wrong.stderr and "Traceback" not in wrong.stderr
        assert len(wrong.stderr.strip().splitlines()) == 1
