"""Rollouts: every seed played once to its end, chances that belong to episodes, idle environments that cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
from fake_environments import FakeEnvironments
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.envs.atari import AtariEnvironments
from jowa.envs.protocol import ProtocolConfig
from jowa.evaluation.play.episode import Episode
from jowa.evaluation.play.noise import random_legal_actions, uniform
from jowa.evaluation.play.play_progress import PlayProgress
from jowa.evaluation.play.player import RandomPlayer
from jowa.evaluation.play.rollout import Turn, episode_seeds, play


class Constant:
    """Always plays one action, and remembers what it was shown and told."""

    def __init__(self, action: int) -> None:
        self.action = action
        self.turns: list[Turn] = []
        self.recorded: list[np.ndarray] = []

    def act(self, turn: Turn) -> np.ndarray:
        self.turns.append(turn)
        return np.full(len(turn.playing), self.action, np.int64)

    def record(self, actions: np.ndarray) -> None:
        self.recorded.append(actions)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 9), st.integers(0, 9))
def test_every_seed_is_played_once_to_its_end(pongs, boxings, pong_episodes, boxing_episodes):
    environments = FakeEnvironments(["Pong"] * pongs + ["Boxing"] * boxings)
    seeds = {"Pong": list(range(pong_episodes)), "Boxing": list(range(7, 7 + boxing_episodes))}
    policy = Constant(1)
    rollout = play(environments, policy, seeds, mode="test")
    asked = [(game, seed) for game, wanted in seeds.items() for seed in wanted]
    assert [(episode.game, episode.seed) for episode in rollout.episodes] == asked
    for episode in rollout.episodes:
        assert episode.agent_steps == 3 + episode.seed % 5
        assert episode.episode_return == 2.0 * episode.agent_steps
        assert episode.terminated and not episode.truncated and episode.mode == "test"
    assert rollout.decisions == sum(episode.agent_steps for episode in rollout.episodes)
    assert rollout.decisions == sum(int(turn.playing.sum()) for turn in policy.turns)


def test_a_policy_sees_the_present_screen_of_its_episode():
    policy = Constant(0)
    play(FakeEnvironments(["Pong", "Pong"]), policy, {"Pong": [3, 0, 5]}, mode="test")
    for turn in policy.turns:
        shown = turn.frames[:, 0, :3]
        assert (shown[turn.playing, 0] == turn.steps[turn.playing]).all()
        assert (shown[turn.playing, 2] == turn.seeds[turn.playing]).all()
        assert (turn.begins == (turn.playing & (turn.steps == 0))).all()


def test_episodes_at_the_cap_are_truncated():
    rollout = play(FakeEnvironments(["Pong"], cap=4), Constant(0), {"Pong": [0, 4]}, mode="test")
    assert [(one.agent_steps, one.terminated, one.truncated) for one in rollout.episodes] == [
        (3, True, False),
        (4, False, True),
    ]


def test_chance_replaces_the_stated_share_by_legal_actions_and_tells_the_policy():
    legal = np.zeros((40, 18), bool)
    legal[:, [0, 3, 4]] = True
    environments, policy = FakeEnvironments(["Pong"] * 40, legal), Constant(3)
    play(environments, policy, {"Pong": range(2000)}, mode="test", random_action_probability=0.3)
    played = np.concatenate(
        [actions[turn.playing] for actions, turn in zip(policy.recorded, policy.turns, strict=True)]
    )
    assert set(played) == {0, 3, 4}
    assert np.mean(played != 3) == pytest.approx(0.2, abs=0.02), "a third of the random actions are the chosen one"
    environments_saw = np.concatenate([actions for actions in environments.played if actions])
    assert np.bincount(played)[3:].tolist() == np.bincount(environments_saw)[3:].tolist()


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_an_episode_depends_on_its_seed_and_not_on_who_plays_beside_it(probability):
    def episodes(count: int, seeds: list[int]):
        environments = FakeEnvironments(["Pong"] * count)
        rollout = play(
            environments, RandomPlayer(environments.legal), {"Pong": seeds}, mode="test",
            random_action_probability=probability)  # fmt: skip
        return {episode.seed: episode for episode in rollout.episodes}

    alone, beside = episodes(1, [4, 2, 9]), episodes(3, [9, 1, 2, 4])
    assert all(alone[seed] == beside[seed] for seed in alone)
    assert len({episode.episode_return for episode in episodes(4, list(range(0, 50, 5))).values()}) > 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 9), st.integers(0, 9))
def test_the_batch_stays_full_until_no_episode_waits(at_once, pongs, boxings):
    """However many play at once: the same episodes, never more than `at_once`, and fewer only when nothing is left."""
    seeds = {"Pong": list(range(pongs)), "Boxing": list(range(7, 7 + boxings))}
    games = [game for game, wanted in seeds.items() for _ in range(min(at_once, len(wanted)))] or ["Pong"]
    policy, kept = Constant(1), []
    rollout = play(FakeEnvironments(games), policy, seeds, mode="test", at_once=at_once, keep=kept.append)
    everything = play(FakeEnvironments(["Pong", "Boxing"] * 9), Constant(1), seeds, mode="test")
    assert rollout.episodes == everything.episodes
    assert sorted(kept, key=str) == sorted(rollout.episodes, key=str) and len(kept) == pongs + boxings
    waiting = pongs + boxings
    for turn in policy.turns:
        waiting -= int(turn.begins.sum())
        assert turn.playing.sum() == at_once or (turn.playing.sum() < at_once and waiting == 0)


def test_an_episode_is_kept_the_moment_it_ends():
    policy, decisions_then = Constant(0), []
    play(
        FakeEnvironments(["Pong"]), policy, {"Pong": [0, 4]}, mode="test",
        keep=lambda episode: decisions_then.append((episode.seed, len(policy.turns))))  # fmt: skip
    assert decisions_then == [(0, 3), (4, 3 + 7)]


def test_seeds_without_an_environment_or_given_twice_are_refused():
    with pytest.raises(ValueError, match="no environment plays Boxing"):
        play(FakeEnvironments(["Pong"]), Constant(0), {"Boxing": [0]}, mode="test")
    with pytest.raises(ValueError, match="twice"):
        play(FakeEnvironments(["Pong"]), Constant(0), {"Pong": [1, 1]}, mode="test")


def test_seeds_are_the_same_for_every_game():
    assert episode_seeds(5, ["Pong", "Boxing"], 3) == {"Pong": [5, 6, 7], "Boxing": [5, 6, 7]}


def test_uniform_numbers_are_uniform_and_unrelated():
    seeds, steps = (axis.ravel() for axis in np.meshgrid(np.arange(300), np.arange(300)))
    draws = [uniform(seeds, steps, stream) for stream in (1, 2)]
    for draw in draws:
        assert draw.min() >= 0 and draw.max() < 1
        counts = np.bincount((draw * 100).astype(int), minlength=100)
        assert ((counts - 900) ** 2 / 900).sum() < 160, "chi-square with 99 degrees of freedom"
    for other in (draws[1], uniform(seeds, steps + 1, 1), uniform(seeds + 1, steps, 1)):
        assert abs(np.corrcoef(draws[0], other)[0, 1]) < 0.015


@given(
    st.lists(st.lists(st.booleans(), min_size=18, max_size=18).filter(any), min_size=1, max_size=8), st.integers(0, 99)
)
def test_random_actions_are_legal_and_reach_every_legal_one(masks, seed):
    legal = np.array(masks)
    chances = uniform(np.full(len(legal), seed), np.arange(len(legal)), 0)
    assert legal[np.arange(len(legal)), random_legal_actions(legal, chances)].all()
    ends = [random_legal_actions(legal, np.full(len(legal), chance)) for chance in (0.0, 1 - 2**-53)]
    assert ends[0].tolist() == [mask.index(True) for mask in masks]
    assert ends[1].tolist() == [17 - mask[::-1].index(True) for mask in masks]


def test_real_games_side_by_side_repeat_exactly():
    protocol = ProtocolConfig(max_episode_frames=400)
    results = []
    for count in (1, 2):
        games = ["Pong"] * count + ["Breakout"] * count
        environments = AtariEnvironments(games, protocol, list(range(len(games))))
        seeds = episode_seeds(0, ["Pong", "Breakout"], 2)
        rollout = play(environments, RandomPlayer(environments.legal), seeds, mode="random")
        environments.close()
        results.append(rollout)
    assert results[0].episodes == results[1].episodes
    assert len(results[0].episodes) == 4
    assert all(one.agent_steps <= 100 and one.truncated == (one.agent_steps == 100) for one in results[0].episodes)


def test_the_bar_foretells_by_the_lengths_of_each_games_own_episodes():
    done = [Episode("Pong", 0, "m", 0.0, 100, True, False), Episode("Pong", 1, "m", 0.0, 300, True, False)]
    bar = PlayProgress("planning", 4, cap=1000, known=done[:1], shown=False)
    assert bar.done([("Pong", 50), ("Pong", 900)]) == (pytest.approx(0.5 + 0.95), True)
    assert bar.done([("Boxing", 50), ("Pong", 50)]) == (pytest.approx(0.05 + 0.5), False)
    bar.show(done[1:], [], 7)
    assert bar.done([("Pong", 50)]) == (pytest.approx(1 + 0.25), True)


def test_the_bar_says_how_much_is_left(monkeypatch, capsys):
    monkeypatch.setattr("jowa.evaluation.play.play_progress._SECONDS", 0.0)
    with PlayProgress("planning", 3, cap=50) as bar:
        play(FakeEnvironments(["Pong"]), Constant(0), {"Pong": [0, 1, 2]}, mode="planning", bar=bar)
    shown = capsys.readouterr().err.split("\r")
    assert any("planning, 0 of 3 episodes" in one and "at most" in one for one in shown)
    assert any("planning, 1 of 3 episodes" in one and "left" in one and "at most" not in one for one in shown)
    assert "100%" in shown[-1] and "planning, 3 episodes" in shown[-1] and any("decisions/s" in one for one in shown)
