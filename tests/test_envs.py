"""Environments against a straightforward reference made of ALE calls, and against each other."""

from __future__ import annotations

import ale_py
import cv2
import numpy as np
import pytest

from jowa.envs.atari import AtariEnvironments
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.roms import rom_md5, rom_path
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.games import GAMES, legal_actions, task_id

# Breakout and Berzerk end within the steps played, so that resets are met.
SHORT = ("Breakout", "Berzerk")
# Skiing: ALE knows 9 actions only. YarsRevenge, TimePilot, Berzerk: a second reset differs from a fresh start.
PLAYED = (*SHORT, "Pong", "Skiing", "YarsRevenge", "TimePilot", "MsPacman")


class Reference:
    """What the preprocessing means, written down once more without thought of speed."""

    def __init__(self, game: str, seed: int, sticky: float) -> None:
        self.game, self.seed, self.sticky, self.episode = game, seed, sticky, -1

    def reset(self) -> np.ndarray:
        self.episode += 1
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", self.sticky)
        self.ale.setInt("random_seed", episode_seed(self.seed, self.episode))
        self.ale.loadROM(rom_path(self.game))
        self.ale.reset_game()
        screen = self.ale.getScreenGrayscale()
        return self._resize(np.maximum(screen, np.zeros_like(screen)))

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        reward, screens = 0, []
        for _ in range(4):
            reward += self.ale.act(action)
            screens.append(self.ale.getScreenGrayscale())
            if self.ale.game_over():
                return self._resize(screens[-1]), reward, True
        return self._resize(np.maximum(screens[2], screens[3])), reward, False

    @staticmethod
    def _resize(screen: np.ndarray) -> np.ndarray:
        return cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("played", "sticky"), [(PLAYED, 0.0), (SHORT, 0.25)])
def test_vector_and_single_environments_equal_plain_ale(played: tuple[str, ...], sticky: float) -> None:
    protocol = ProtocolConfig(repeat_action_probability=sticky)
    seeds = [11 + index for index in range(len(played))]
    vector = AtariEnvironments(played, protocol, seeds)
    singles = [SingleAtari(game, protocol, seed) for game, seed in zip(played, seeds, strict=True)]
    references = [Reference(game, seed, sticky) for game, seed in zip(played, seeds, strict=True)]
    frames = vector.reset()
    for index in range(len(played)):
        assert np.array_equal(frames[index], references[index].reset())
        assert np.array_equal(frames[index], singles[index].reset())
    rng = np.random.default_rng(0)
    ends = dict.fromkeys(played, 0)
    rewarded = set()
    for _ in range(400):
        actions = rng.integers(0, 18, len(played))
        result = vector.step(actions)
        assert not result.truncated.any()
        for index, game in enumerate(played):
            frame, reward, over = references[index].step(int(actions[index]))
            single = singles[index].step(int(actions[index]))
            assert (result.rewards[index], result.terminated[index]) == (reward, over), game
            assert (single.reward, single.terminated) == (reward, over), game
            rewarded |= {game} if reward else set()
            if over:
                ends[game] += 1
            else:
                assert np.array_equal(result.frames[index], frame), game
                assert np.array_equal(single.frame, frame), game
        if result.terminated.any():
            frames = vector.reset(result.terminated)
            for index in np.flatnonzero(result.terminated):
                frame = references[index].reset()
                assert np.array_equal(frames[index], frame)
                assert np.array_equal(singles[index].reset(), frame)
    vector.close()
    assert all(ends[game] for game in SHORT) and len(rewarded) >= len(played) // 2


def test_going_back_to_the_beginning_equals_loading_the_rom() -> None:
    """SingleAtari's shortcut, on games whose second plain reset differs from the first."""
    for game in ("Berzerk", "KungFuMaster", "Solaris", "Qbert"):
        env = SingleAtari(game, ProtocolConfig(), 3)
        fresh = Reference(game, 3, 0.0)
        for _ in range(2):
            assert np.array_equal(env.reset(), fresh.reset())
            for action in np.random.default_rng(1).integers(0, 18, 120):
                frame, reward, over = fresh.step(int(action))
                step = env.step(int(action))
                assert step.reward == reward and step.terminated == over
                if over:
                    break
                assert np.array_equal(step.frame, frame)


def _play(games: list[str], seeds: list[int], watched: int, linger: int) -> list[tuple[bytes, float, bool]]:
    """The watched environment's trajectory; every environment is reset `linger` steps after its end."""
    protocol = ProtocolConfig(repeat_action_probability=0.25, max_episode_frames=400)
    envs = AtariEnvironments(games, protocol, seeds)
    own = np.random.default_rng(5)
    others = np.random.default_rng(len(games))
    seen = [(envs.reset()[watched].tobytes(), 0.0, False)]
    waiting = np.zeros(len(games), int)
    over = np.zeros(len(games), bool)
    while len(seen) < 250:
        actions = others.integers(0, 18, len(games))
        if not over[watched]:
            actions[watched] = own.integers(0, 18)
        result = envs.step(actions)
        if not over[watched]:
            frame, reward, end = (part[watched] for part in (result.frames, result.rewards, result.terminated))
            seen.append((frame.tobytes(), float(reward), bool(end)))
        else:
            assert result.rewards[watched] == 0 and not result.terminated[watched] and not result.truncated[watched]
            assert result.frames[watched].tobytes() == seen[-1][0]
        over |= result.terminated | result.truncated
        waiting[over] += 1
        due = over & (waiting > linger)
        if due.any():
            frames = envs.reset(due)
            if due[watched]:
                seen.append((frames[watched].tobytes(), 0.0, False))
            over &= ~due
            waiting[due] = 0
    return seen


def test_company_and_delay_change_nothing() -> None:
    alone = _play(["Breakout"], [7], 0, linger=0)
    assert alone == _play(["Pong", "Breakout", "Breakout", "Pong"], [1, 2, 7, 3], 2, linger=5)
    assert alone != _play(["Breakout"], [8], 0, linger=0)


def test_given_seeds_number_episodes_anew_and_leave_others_alone() -> None:
    protocol = ProtocolConfig(repeat_action_probability=0.25)
    envs = AtariEnvironments(["Boxing", "Boxing"], protocol, [1, 2])
    actions = np.random.default_rng(0).integers(0, 18, (40, 2))

    def play() -> list[np.ndarray]:
        return [envs.step(pair).frames for pair in actions]

    envs.reset()
    first = play()
    before = first[-1]
    after = envs.reset(np.array([True, False]), [2, 99])
    assert np.array_equal(after[1], before[1]) and not np.array_equal(after[0], before[0])
    again = [envs.step(np.array([pair[1], 0])).frames[0] for pair in actions]
    assert all(np.array_equal(x, y[1]) for x, y in zip(again, first, strict=True))


def test_attributes_and_bad_arguments() -> None:
    envs = AtariEnvironments(["Pong", "Alien"], ProtocolConfig(), [0, 1])
    assert envs.tasks.tolist() == [task_id("Pong"), 1] and envs.tasks.dtype == np.int64
    assert [tuple(np.flatnonzero(row)) for row in envs.legal] == [legal_actions("Pong"), tuple(range(18))]
    envs.reset()
    for actions in ([0], [0, 18], [-1, 0]):
        with pytest.raises(ValueError):
            envs.step(np.array(actions))
    with pytest.raises(ValueError):
        envs.reset(np.array([True]))
    with pytest.raises(ValueError):
        AtariEnvironments(["Pong"], ProtocolConfig(), [0, 1])
    with pytest.raises(UserError, match="Pong"):
        AtariEnvironments(["Pongg"], ProtocolConfig(), [0])
    with pytest.raises(UserError, match=r"protocol\.frame_skip"):
        AtariEnvironments(["Pong"], ProtocolConfig(frame_skip=0), [0])


def test_the_cap_counts_frames() -> None:
    protocol = ProtocolConfig(max_episode_frames=42)
    envs = AtariEnvironments(["Pong"], protocol, [0])
    single = SingleAtari("Pong", protocol, 0)
    envs.reset()
    single.reset()
    results = [(bool(envs.step(np.array([0])).truncated[0]), single.step(0).truncated) for _ in range(11)]
    assert results == [(False, False)] * 10 + [(True, True)]
    with pytest.raises(ValueError, match="reset"):
        single.step(0)


def test_max_no_op_frames_vary_within_their_bound() -> None:
    protocol = ProtocolConfig(max_no_op_frames=3)
    ale = ale_py.ALEInterface()
    ale.loadROM(rom_path("Boxing"))
    ale.reset_game()
    allowed = []
    for _ in range(5):
        allowed.append(Reference._resize(ale.getScreenGrayscale()).tobytes())
        ale.act(0)
    envs = AtariEnvironments(["Boxing"] * 12, protocol, list(range(12)))
    single = SingleAtari("Boxing", protocol, 0)
    for screens in (envs.reset(), [single.reset() for _ in range(24)]):
        seen = {screen.tobytes() for screen in screens}
        assert seen == set(allowed[:4])


def test_snapshots_bring_the_future_back() -> None:
    env = SingleAtari("Breakout", ProtocolConfig(repeat_action_probability=0.25), 4)
    env.reset()
    actions = np.random.default_rng(0).integers(0, 18, 60)
    for action in actions[:20]:
        env.step(int(action))
    snapshot, steps, ram, lives = env.clone(), env.steps, env.ram(), env.lives()
    futures = []
    for _ in range(2):
        env.restore(snapshot)
        assert env.steps == steps and np.array_equal(env.ram(), ram) and env.lives() == lives == 5
        steps_taken = [env.step(int(action)) for action in actions]
        futures.append([(step.frame.tobytes(), step.reward) for step in steps_taken])
    assert futures[0] == futures[1] and len(futures[0]) == 60


def test_other_roms(tmp_path) -> None:
    ours = rom_path("Phoenix").read_bytes()
    changed = bytearray(ours)
    changed[-300] ^= 1
    (tmp_path / "phoenix.bin").write_bytes(changed)
    (tmp_path / "pong.bin").write_bytes(b"no cartridge")
    assert rom_md5("Phoenix") != rom_md5("Phoenix", str(tmp_path))
    protocol = ProtocolConfig(rom_dir=str(tmp_path))
    assert AtariEnvironments(["Phoenix"], protocol, [0]).reset().any()
    assert SingleAtari("Phoenix", protocol, 0).reset().any()
    with pytest.raises(UserError, match=r"protocol\.rom_dir"):
        SingleAtari("Alien", protocol, 0)
    with pytest.raises(UserError, match="cartridge"):
        AtariEnvironments(["Pong"], protocol, [0])


def test_packaged_roms_are_all_there() -> None:
    assert all(rom_path(game).is_file() for game in GAMES)
    assert len({rom_md5(game) for game in GAMES}) == 60


def test_only_emulators_of_games_that_are_played_are_open() -> None:
    """A game that begins when another is over takes its place; an episode is what it would be anyway."""
    protocol = ProtocolConfig(max_episode_frames=16)
    environments = AtariEnvironments(["Pong", "Breakout", "Boxing"], protocol, [0, 1, 2])
    fresh = AtariEnvironments(["Pong"], protocol, [0])

    def played(game: int) -> list[np.ndarray]:
        frames = [environments.reset(np.arange(3) == game)]
        for _ in range(4):
            result = environments.step(np.array([2, 1, 1]))
            frames.append(result.frames)
        assert result.truncated.tolist() == [number == game for number in range(3)]
        return frames

    for _ in range(2):
        alone = [fresh.reset(), *(fresh.step(np.array([2])).frames for _ in range(4))]
        beside = played(0)
        assert set(environments._vectors) == {"Pong"}
        assert all(np.array_equal(one[0], other[0]) for one, other in zip(beside, alone, strict=True))
        assert played(1)[0][2].max() == 0, "Boxing was never reset"
        assert set(environments._vectors) == {"Breakout"}
    environments.reset(np.array([True, False, True]))
    assert set(environments._vectors) == {"Pong", "Boxing"}
    environments.close()
    fresh.close()
