"""Behaviour policies: they play legally, reproducibly, and about as well as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jowa.envs.protocol import ProtocolConfig
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.recording.behaviours import CONTROLLERS, LookAhead, UniformRandom, check_behaviour, make_behaviour
from jowa.recording.behaviours.base import Behaviour
from jowa.recording.behaviours.mixture import EpsilonMixture, constant, learning_history
from jowa.recording.behaviours.pong import reflected


def play(game: str, behaviour: Behaviour, steps: int, seed: int = 0) -> tuple[float, list[int]]:
    """Return and actions of the first `steps` agent steps of an episode."""
    env = SingleAtari(game, ProtocolConfig(), seed)
    env.reset()
    behaviour.reset()
    total, actions = 0.0, []
    while len(actions) < steps:
        actions.append(behaviour.act(env))
        assert actions[-1] in env.legal
        step = env.step(actions[-1], render=False)
        total += step.reward
        if step.terminated or step.truncated:
            break
    return total, actions


def test_controllers_play_well() -> None:
    assert play("Freeway", CONTROLLERS["Freeway"](0), 10_000)[0] >= 18
    assert play("Boxing", CONTROLLERS["Boxing"](0), 10_000)[0] > 30
    assert play("Breakout", CONTROLLERS["Breakout"](0), 1200)[0] > 40
    assert play("Pong", CONTROLLERS["Pong"](0), 2000)[0] > -5
    assert play("Phoenix", CONTROLLERS["Phoenix"](0), 10_000)[0] > 250


def test_pong_at_random_loses_what_the_controller_does_not() -> None:
    assert play("Pong", UniformRandom(0), 1000)[0] < -12


def test_look_ahead_beats_random_play() -> None:
    steps = 150
    chance = np.mean([play("Assault", UniformRandom(seed), steps)[0] for seed in range(4)])
    assert play("Assault", LookAhead(0, plans=5), steps)[0] > 1.5 * chance


def test_look_ahead_leaves_the_game_as_it_was() -> None:
    env, twin = (SingleAtari("Breakout", ProtocolConfig(repeat_action_probability=0.25), 3) for _ in range(2))
    env.reset()
    twin.reset()
    behaviour = LookAhead(1, plans=3, horizon=6)
    for _ in range(15):
        action = behaviour.act(env)
        step, same = env.step(action), twin.step(action)
        assert step.reward == same.reward and np.array_equal(step.frame, same.frame)
        assert np.array_equal(env.ram(), twin.ram())


@pytest.mark.parametrize("name", ["random", "scripted", "lookahead", "mix"])
def test_behaviours_are_reproducible(name: str) -> None:
    steps = 25 if name == "lookahead" else 300
    plays = [play("Breakout", make_behaviour(name, "Breakout", seed, epsilon=0.2), steps) for seed in (1, 1, 2)]
    assert plays[0] == plays[1]
    assert plays[0][1] != plays[2][1]


def test_mixture_plays_the_share_of_random_actions_it_says() -> None:
    env = SingleAtari("Boxing", ProtocolConfig(), 0)
    env.reset()
    alone, mixed = CONTROLLERS["Boxing"](0), EpsilonMixture(CONTROLLERS["Boxing"](0), constant(0.3), seed=5)
    mixed.reset()
    differing = 0
    for _ in range(1500):
        good, action = alone.act(env), mixed.act(env)
        differing += good != action
        env.step(action, render=False)
    # One random action in 18 equals the good one.
    assert abs(differing / 1500 - 0.3 * 17 / 18) < 0.05
    assert mixed.describe() == {"policy": "scripted", "epsilon": 0.3}


def test_quality_follows_epsilon() -> None:
    returns = []
    for epsilon in (0.02, 0.9):
        behaviour = EpsilonMixture(CONTROLLERS["Freeway"](0), constant(epsilon), seed=0)
        returns.append(play("Freeway", behaviour, 700)[0])
    assert returns[0] > returns[1] + 3


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_learning_history_stays_in_its_bounds(progress: float, seed: int) -> None:
    assert 0.01 <= learning_history(progress, np.random.default_rng(seed)) <= 1.0


def test_learning_history_goes_from_random_to_good() -> None:
    rng = np.random.default_rng(0)
    means = [np.mean([learning_history(progress, rng) for _ in range(300)]) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.7 and means[-1] < 0.02


@pytest.mark.parametrize("name", ["scripted", "lookahead"])
def test_a_rising_schedule_lets_chance_fall_evenly(name: str) -> None:
    behaviour = make_behaviour(name, "Freeway", 0, epsilon=0.2, schedule="rising")
    for progress, epsilon in ((0.0, 1.0), (0.5, 0.6), (1.0, 0.2)):
        behaviour.reset(progress)
        assert behaviour.describe()["epsilon"] == pytest.approx(epsilon)
        assert behaviour.describe()["policy"] == name


@given(st.floats(-1000, 1000))
def test_reflection_equals_bouncing_step_by_step(value: float) -> None:
    expected = value
    while not 44 <= expected <= 205:
        expected = 88 - expected if expected < 44 else 410 - expected
    assert reflected(value, 44, 205) == pytest.approx(expected, abs=1e-6)


def test_a_mixture_without_a_controller_looks_ahead() -> None:
    behaviour = make_behaviour("mix", "Seaquest", 0)
    behaviour.reset(0.5)
    assert behaviour.describe()["policy"] == "lookahead"


def test_impossible_behaviours_are_refused() -> None:
    with pytest.raises(UserError, match=r"'policy'.*mix"):
        check_behaviour("expert", "Pong")
    with pytest.raises(UserError, match=r"did you mean 'scripted'"):
        check_behaviour("script", "Pong")
    with pytest.raises(UserError, match=r"'schedule'.*constant, rising"):
        make_behaviour("scripted", "Pong", 0, schedule="falling")
    with pytest.raises(UserError, match=r"controller for Seaquest.*Pong.*lookahead"):
        check_behaviour("scripted", "Seaquest")
