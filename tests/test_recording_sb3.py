"""Recording agents of stable-baselines3: all they play while they train is stored as it was played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import torch

from jowa.data.record import check, record
from jowa.data.selection import Rules, choose
from jowa.data.sources.episode import SourceEpisode
from jowa.data.store import EpisodeStore, Rows
from jowa.envs.protocol import ProtocolConfig
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.evaluation.pages.data_page import returns_over_time
from jowa.evaluation.play.rollout import Turn
from jowa.games import legal_actions
from jowa.recording.config import RecordConfig
from jowa.recording.episodes import capped
from jowa.recording.sb3_config import Sb3Config
from jowa.recording.sb3_player import Sb3Player, load_agent
from jowa.recording.sb3_training import CHECKPOINTS, RecordingEnvironments, Training, stacked

STICKY = ProtocolConfig(repeat_action_probability=0.25, max_episode_frames=160)
CPU = torch.device("cpu")


def config(out: Path, **changes: object) -> RecordConfig:
    wanted = RecordConfig(
        game="Breakout", steps=300, policy="sb3", environments=2, out=str(out), protocol=STICKY, device="cpu", threads=1
    )
    return replace(wanted, **changes)


def everything(out: Path, game: str = "Breakout") -> tuple[EpisodeStore, Rows]:
    store = EpisodeStore(out, [game])
    return store, store.read(game, np.arange(store.transitions(game)))


def assert_replayed(store: EpisodeStore, rows: Rows, game: str, protocol: ProtocolConfig) -> None:
    """The stored actions, played in an emulator alone, give the stored frames, rewards and ends."""
    table = store.tables[game]
    for start, length, terminated, info in zip(table.starts, table.lengths, table.terminated, table.info, strict=True):
        env = SingleAtari(game, protocol, info["seed"])
        frame = env.reset()
        for row in range(start, start + length):
            assert np.array_equal(frame, rows.frames[row])
            step = env.step(int(rows.actions[row]))
            assert step.reward == rows.rewards[row] and step.terminated == rows.ends[row]
            frame = step.frame
        assert step.terminated == terminated and (step.terminated or step.truncated), "episodes are whole"


@pytest.mark.parametrize("algorithm", ["DQN", "PPO"])
def test_a_training_is_stored_as_it_was_played(tmp_path: Path, algorithm: str) -> None:
    protocol = replace(STICKY, max_episode_frames=80)
    wanted = config(tmp_path, steps=160, protocol=protocol, sb3=Sb3Config(algorithm=algorithm))
    check(wanted)
    (recorded,) = record(wanted)
    store, rows = everything(tmp_path)
    assert_replayed(store, rows, "Breakout", protocol)
    assert recorded.transitions == len(rows.actions) >= 160
    assert set(rows.actions) <= set(legal_actions("Breakout")) and len(set(rows.actions)) > 2
    table = store.tables["Breakout"]
    checkpoints = [info["checkpoint"] for info in table.info]
    trained = [info["training_steps"] for info in table.info]
    assert checkpoints == sorted(checkpoints) and trained == sorted(trained)
    assert 1 <= checkpoints[0] < 20 and checkpoints[-1] == CHECKPOINTS and trained[-1] == 160
    assert all(
        one == min(CHECKPOINTS, 1 + steps * CHECKPOINTS // 160) for one, steps in zip(checkpoints, trained, strict=True)
    )
    assert {(info["policy"], info["algorithm"]) for info in table.info} == {("sb3", algorithm)}
    facts = store.parts("Breakout")[0].provenance
    assert facts["policy"] == "sb3" and facts["sticky"] is True and facts["sb3"]["algorithm"] == algorithm
    # As DQN-Replay: a run, a part for each checkpoint, by which episodes are selected and shown.
    assert {part.provenance["run"] for part in store.parts("Breakout")} == {0}
    of_parts = [part.provenance["checkpoint"] for part in store.parts("Breakout")]
    assert [of_parts[part] for part in table.parts] == checkpoints and len(set(of_parts)) == len(of_parts) > 2
    last = choose(store, "Breakout", Rules(runs=1, transitions=1, quality="last"))
    assert [checkpoints[episode] for episode in last.episodes] == [CHECKPOINTS]
    assert returns_over_time(store, "Breakout").axis == "checkpoint"


def test_a_training_repeats_itself_under_its_seed(tmp_path: Path) -> None:
    stored = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        record(config(tmp_path / out, seed=seed, steps=80))
        stored.append(everything(tmp_path / out)[1])
    assert np.array_equal(stored[0].actions, stored[1].actions) and np.array_equal(stored[0].frames, stored[1].frames)
    assert not np.array_equal(stored[0].actions, stored[2].actions)


def test_a_trained_agent_is_saved_loaded_and_played(tmp_path: Path) -> None:
    short = replace(STICKY, max_episode_frames=80)
    training = config(tmp_path / "a", steps=40, protocol=short, sb3=Sb3Config(save=str(tmp_path / "agents")))
    check(training)
    record(training)
    file = tmp_path / "agents" / "Breakout.zip"
    with pytest.raises(UserError, match=r"Breakout\.zip is there already.*sb3\.save"):
        check(replace(training, out=str(tmp_path / "again")))
    played = replace(training, steps=45, environments=3, out=str(tmp_path / "b"), sb3=Sb3Config(load=str(file)))
    check(played)
    record(played)
    store, rows = everything(tmp_path / "b")
    assert_replayed(store, rows, "Breakout", short)
    agent, legal = load_agent(str(file), "DQN", ["Breakout"], CPU), legal_actions("Breakout")
    assert agent._n_updates >= 5, "40 agent steps, the first 4 of them without learning"
    for start, length in zip(store.tables["Breakout"].starts, store.tables["Breakout"].lengths, strict=True):
        frames = np.concatenate([np.zeros((3, 84, 84), np.uint8), rows.frames[start : start + length]])
        seen = np.stack([frames[step : step + 4] for step in range(length)])
        best, _ = agent.predict(seen, deterministic=True)
        assert rows.actions[start : start + length].tolist() == [legal[index] for index in best]
    record(replace(played, out=str(tmp_path / "c"), epsilon=1.0))
    assert len(set(everything(tmp_path / "c")[1].actions)) == 4
    record(replace(played, out=str(tmp_path / "d"), environments=1))
    assert np.array_equal(everything(tmp_path / "d")[1].frames, rows.frames)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    file = tmp_path / "Breakout.zip"
    file.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"can't be read as a DQN agent.*sb3\.load"):
        check(config(tmp_path, sb3=Sb3Config(load=str(file))))
    record(
        config(
            tmp_path / "a", steps=8, sb3=Sb3Config(save=str(tmp_path)), protocol=replace(STICKY, max_episode_frames=8)
        )
    )
    with pytest.raises(UserError, match=r"Discrete\(4\), Boxing has .*18 actions"):
        check(config(tmp_path, game="Boxing", sb3=Sb3Config(load=str(file))))


def test_the_agent_sees_the_last_four_screens_and_clipped_rewards() -> None:
    stored: list[SourceEpisode] = []
    told: list[int] = []
    training = Training("DQN", 1500, 3, 100, 7, CPU)
    envs = RecordingEnvironments("Asterix", ProtocolConfig(), training, stored.append, capped(told.append, 1500))
    random = np.random.default_rng(0)
    seen, gained, ends = [envs.reset()], [], []
    for _ in range(600):
        stacks, rewards, ended, infos = envs.step(random.integers(0, envs.action_space.n, 3))
        facts = {"terminal_observation", "TimeLimit.truncated"}
        assert [set(info) for info in infos] == [facts if end else set() for end in ended]
        seen.append(stacks)
        gained.append(rewards)
        ends.append(ended)
    envs.close()
    assert sum(told) == 1500
    places = [(step, row) for step, ended in enumerate(ends) for row in np.flatnonzero(ended)]
    assert len(places) == len(stored) >= 4 and len({step for step, _ in places}) > 1, "they end at different times"
    for (last, row), episode in zip(places, stored, strict=True):
        first = last + 1 - len(episode.actions)
        padded = np.concatenate([np.zeros((3, 84, 84), np.uint8), episode.frames])
        for step in range(len(episode.actions)):
            assert np.array_equal(seen[first + step][row], padded[step : step + 4])
        assert first == 0 or ends[first - 1][row]
        assert np.array_equal(np.sign(episode.rewards), [reward[row] for reward in gained[first : last + 1]])
    assert max(one.rewards.max() for one in stored) > 1, "raw rewards are stored"


class Brightness:
    """An agent whose choice depends on all four screens."""

    def predict(self, stacks: np.ndarray, deterministic: bool) -> tuple[np.ndarray, None]:
        assert deterministic
        weights = np.array([1, 2, 3, 5])
        return (stacks.astype(np.int64).sum(axis=(2, 3)) @ weights) % 4, None


def test_a_player_remembers_its_episode_and_no_other() -> None:
    random = np.random.default_rng(0)
    player, legal = Sb3Player(Brightness(), ["Breakout", "Breakout"]), legal_actions("Breakout")
    history: list[list[np.ndarray]] = [[], []]
    for step in range(30):
        frames = random.integers(0, 255, (2, 84, 84), dtype=np.uint8)
        begins = np.array([step == 0, step % 7 == 0])
        turn = Turn(frames, begins, np.ones(2, bool), np.zeros(2, np.int64), np.zeros(2, np.int64))
        for row in range(2):
            past = [np.zeros((84, 84), np.uint8)] * 3 if begins[row] else history[row]
            history[row] = [*past, frames[row]][-4:]
        best, _ = Brightness().predict(np.array(history), deterministic=True)
        assert player.act(turn).tolist() == [legal[index] for index in best]


def test_stacks_begin_black() -> None:
    stacks = np.arange(2 * 4 * 84 * 84).reshape(2, 4, 84, 84).astype(np.uint8)
    following = stacked(stacks, np.full((2, 84, 84), 9, np.uint8), np.array([False, True]))
    assert (
        np.array_equal(following[0, :3], stacks[0, 1:]) and not following[1, :3].any() and (following[:, 3] == 9).all()
    )
