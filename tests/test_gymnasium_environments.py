"""Environments of Gymnasium as games: their screens, actions, chances and episodes, alone and beside others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import toy_environments
from numpy.typing import NDArray

from jowa import games
from jowa.envs.atari import AtariEnvironments, StepResult
from jowa.envs.environment_spec import EnvironmentConfig, game_name
from jowa.envs.environments import Environments, make_environments, open_single
from jowa.envs.gymnasium_environments import GymnasiumEnvironments, register_environment
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.errors import UserError
from jowa.games import legal_actions, legal_mask, num_actions, task_id

TOY = "toy_environments:Toy-v0"
PROTOCOL = ProtocolConfig()


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "_registered", {})


def toy(env: str = TOY, kwargs: dict[str, Any] | None = None, **settings: Any) -> str:
    return register_environment(env, EnvironmentConfig(kwargs=kwargs or {}, **settings))


def bare(seed: int, **kwargs: Any) -> toy_environments.Toy:
    """The environment itself at the beginning of the first episode of a seed."""
    environment = toy_environments.Toy(**kwargs)
    environment.reset(seed=episode_seed(seed, 0))
    return environment


def grey(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]))


def averaged(image: NDArray[Any]) -> NDArray[np.float64]:
    """(168, 252) → (84, 84)."""
    return np.asarray(image.reshape(84, 2, 84, 3).mean(axis=(1, 3)))


def played(envs: Environments, actions: Sequence[Sequence[int]]) -> list[StepResult]:
    return [envs.step(np.array(row)) for row in actions]


def same(ours: StepResult, theirs: StepResult, rows: Any = slice(None)) -> bool:
    return all(np.array_equal(getattr(ours, name)[rows], getattr(theirs, name)) for name in vars(theirs))


def test_screens_are_grey_and_averaged_over_areas() -> None:
    frames = make_environments([toy()], PROTOCOL, [3]).reset()
    assert frames.shape == (1, 84, 84) and frames.dtype == np.uint8
    assert np.abs(frames[0] - averaged(grey(bare(3).picture()))).max() <= 1


@pytest.mark.parametrize("show", ["grey", "one"])
def test_grey_images_are_taken_as_they_are(show: str) -> None:
    frame = make_environments([toy(kwargs={"show": show}, interpolation="nearest")], PROTOCOL, [3]).reset()[0]
    assert np.array_equal(frame, bare(3).picture()[::2, ::3, 0])


def test_edges_are_cut_off_before_pixels_are_chosen() -> None:
    game = toy(crop=[40, 44, 2, 82], interpolation="nearest")
    frame = make_environments([game], PROTOCOL, [3]).reset()[0]
    assert np.abs(frame - grey(bare(3).picture())[40:124, 2:170:2]).max() <= 1


@pytest.mark.parametrize("skip", [1, 2, 3])
@pytest.mark.parametrize("pool", [False, True])
def test_an_action_is_held_and_the_last_two_images_pooled(skip: int, pool: bool) -> None:
    game = toy(kwargs={"length": 50}, frame_skip=skip, max_pool=pool, interpolation="nearest")
    envs, environment = make_environments([game], PROTOCOL, [3]), bare(3, length=50)
    images = [environment.picture()]
    envs.reset()
    for action in (1, 2, 0):
        for _ in range(skip):
            environment.step(action)
            images.append(environment.picture())
        expected = np.maximum(grey(images[-1]), grey(images[-2])) if pool else grey(images[-1])
        result = envs.step(np.array([action]))
        assert result.rewards.tolist() == [action * skip]
        assert np.abs(result.frames[0] - expected[::2, ::3]).max() <= 1


def test_the_first_screen_of_an_episode_knows_nothing_of_the_last() -> None:
    envs = make_environments([toy(max_pool=True)], PROTOCOL, [3])
    first = envs.reset(None, [3])
    envs.step(np.array([2]))
    assert np.array_equal(envs.reset(None, [3]), first)


def test_the_image_may_be_an_entry_or_what_is_drawn() -> None:
    picture = bare(3).picture()
    for settings, expected in (
        ({"kwargs": {"show": "dict"}}, picture),
        ({"kwargs": {"show": "two"}, "observation": "right"}, picture),
        ({"kwargs": {"show": "vector"}, "observation": "render"}, 255 - picture),
        ({"kwargs": {"show": "dict"}, "observation": "render"}, 255 - picture),
    ):
        game = toy(name=f"toy{task_id('Zaxxon') + len(games.registered())}", **settings)
        frame = make_environments([game], PROTOCOL, [3]).reset()[0]
        assert np.abs(frame - averaged(grey(expected))).max() <= 1, settings
    small = toy(name="small", kwargs={"show": "table"}, observation="cells")
    assert make_environments([small], PROTOCOL, [3]).reset().shape == (1, 84, 84)


def test_a_fresh_table_has_the_environments_own_actions() -> None:
    game = toy(kwargs={"take": "from five"})
    assert (num_actions(game), legal_actions(game)) == (3, (0, 1, 2)) and legal_mask(game).all()
    envs = make_environments([game], PROTOCOL, [0])
    envs.reset()
    assert envs.legal.tolist() == [[True] * 3] and envs.tasks.tolist() == [60] == [task_id(game)]
    assert [envs.step(np.array([action])).rewards[0] for action in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no action 3"):
        envs.step(np.array([3]))


def test_actions_may_be_mapped_onto_ales() -> None:
    game = toy(actions=["UP", "NOOP", "LEFT"])
    assert (num_actions(game), legal_actions(game)) == (18, (0, 2, 4))
    envs = make_environments([game], PROTOCOL, [0])
    envs.reset()
    assert np.flatnonzero(envs.legal[0]).tolist() == [0, 2, 4] and envs.legal.shape == (1, 18)
    assert [envs.step(np.array([action])).rewards[0] for action in (2, 0, 4)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no action 1"):
        envs.step(np.array([1]))


def test_episodes_end_where_the_environment_ends_or_truncates_them_and_at_the_cap() -> None:
    long, short = toy(kwargs={"length": 5}, frame_skip=2), toy("toy_environments:toys/Short-v0")
    assert short == "toys-Short-v0"
    envs = make_environments([long, short], ProtocolConfig(), [0, 0])
    envs.reset()
    ends = [envs.step(np.array([1, 1])) for _ in range(4)]
    assert [one.terminated.tolist() for one in ends] == [[False] * 2, [False] * 2, [True, False], [False] * 2]
    assert [one.truncated.tolist() for one in ends] == [[False] * 2, [False] * 2, [False, True], [False] * 2]
    # The fifth environment step was the last: the skip is broken off; ended ones stay as they are.
    assert [one.rewards.tolist() for one in ends] == [[2, 1], [2, 1], [1, 1], [0, 0]]
    assert np.array_equal(ends[3].frames, ends[2].frames)
    capped = make_environments([long], ProtocolConfig(max_episode_frames=3), [0])
    capped.reset()
    cut = [capped.step(np.array([1])) for _ in range(2)]
    assert [bool(one.truncated[0]) for one in cut] == [False, True] and not cut[1].terminated.any()


def test_a_seed_and_the_actions_decide_an_episode() -> None:
    game = toy()
    actions = np.random.default_rng(0).integers(0, 3, (14, 3)).tolist()
    together, again = (make_environments([game] * 3, PROTOCOL, [5, 6, 5]) for _ in range(2))
    alone = [make_environments([game], PROTOCOL, [seed]) for seed in (5, 6, 5)]
    first = together.reset()
    assert np.array_equal(first, again.reset()) and np.array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(first, np.concatenate([one.reset() for one in alone]))
    for row, result in zip(actions, played(together, actions), strict=True):
        assert same(result, again.step(np.array(row)))
        for place, one in enumerate(alone):
            assert same(result, one.step(np.array(row[place : place + 1])), slice(place, place + 1))


def test_only_chosen_environments_begin_anew_and_episodes_are_numbered() -> None:
    envs = make_environments([toy()] * 3, PROTOCOL, [1, 2, 3])
    first = envs.reset(np.array([True, False, False]))
    moved = envs.step(np.ones(3, np.int64)).frames
    frames = envs.reset(np.array([False, True, True]), [9, 8, 3])
    assert np.array_equal(frames[0], moved[0]) and np.array_equal(frames[2], first[2])
    assert np.array_equal(frames[1], make_environments([envs.games[0]], PROTOCOL, [8]).reset()[0])
    # The next episodes of 1, 8 and 3.
    second = envs.reset()
    single = open_single(envs.games[0], PROTOCOL, 8)
    single.reset()
    assert np.array_equal(second[1], single.reset()) and not np.array_equal(second[1], frames[1])
    with pytest.raises(ValueError, match="one entry for each"):
        envs.reset(np.array([True]))


def test_sticky_actions_repeat_the_last_one_by_the_episodes_own_chance() -> None:
    game = toy(kwargs={"length": 400})
    actions = [[step % 2 + 1] for step in range(300)]
    always, half = (ProtocolConfig(repeat_action_probability=chance) for chance in (1.0, 0.5))
    envs = make_environments([game], always, [0])
    envs.reset()
    assert {float(one.rewards[0]) for one in played(envs, actions)} == {1.0}
    rewards = []
    for seeds in ([0], [0, 1], [1]):
        envs = make_environments([game] * len(seeds), half, seeds)
        envs.reset()
        rewards.append(np.array([one.rewards for one in played(envs, [row * len(seeds) for row in actions])]))
    assert np.array_equal(rewards[0][:, 0], rewards[1][:, 0]) and np.array_equal(rewards[2][:, 0], rewards[1][:, 1])
    assert not np.array_equal(rewards[0], rewards[2])
    # The actions alternate and a half of them repeat what was played: one in three is then not the one wanted.
    assert 70 < sum(int(reward != wanted) for reward, (wanted,) in zip(rewards[0][:, 0], actions, strict=True)) < 130


def test_max_no_op_frames_play_the_action_called_noop() -> None:
    protocol = ProtocolConfig(max_no_op_frames=3)
    game = toy(kwargs={"length": 400}, actions=["UP", "NOOP", "LEFT"])
    starts = {make_environments([game], protocol, [seed]).reset().tobytes() for seed in [4] * 3}
    assert len(starts) == 1
    seen = set()
    for seed in range(12):
        environment = bare(seed, length=400)
        beginnings = []
        for _ in range(4):
            beginnings.append(averaged(grey(environment.picture())))
            environment.step(1)
        frame = make_environments([game], protocol, [seed]).reset()[0]
        seen |= {number for number, one in enumerate(beginnings) if np.abs(frame - one).max() <= 1}
    assert seen == {0, 1, 2, 3}
    for other in (toy(name="fresh"), toy(name="without", actions=["UP", "DOWN", "LEFT"])):
        with pytest.raises(UserError, match=r"protocol\.max_no_op_frames needs an action that does nothing"):
            make_environments([other], protocol, [0])


def test_atari_games_and_others_share_a_batch() -> None:
    game = toy()
    names, seeds = [game, "Pong", game, "Boxing"], [1, 2, 3, 4]
    mixed = make_environments(names, PROTOCOL, seeds)
    apart = AtariEnvironments(["Pong", "Boxing"], PROTOCOL, [2, 4]), GymnasiumEnvironments([game] * 2, PROTOCOL, [1, 3])
    assert mixed.games == tuple(names) and mixed.tasks.tolist() == [60, task_id("Pong"), 60, task_id("Boxing")]
    assert mixed.legal.shape == (4, 18) and [int(row.sum()) for row in mixed.legal] == [3, 6, 3, 18]
    rows = [1, 3], [0, 2]
    first = mixed.reset()
    assert all(np.array_equal(first[own], one.reset()) for own, one in zip(rows, apart, strict=True))
    for action in (0, 1, 2, 1, 0, 2, 1):
        result = mixed.step(np.full(4, action))
        assert all(same(result, one.step(np.full(2, action)), own) for own, one in zip(rows, apart, strict=True))
    again = mixed.reset(np.array([True, True, False, False]), [9, 9, 9, 9])
    assert np.array_equal(again[2:], result.frames[2:]) and not np.array_equal(again[:2], result.frames[:2])
    mixed.close()


def test_one_environment_plays_what_many_do() -> None:
    game = toy()
    single, many = open_single(game, PROTOCOL, 7), make_environments([game], PROTOCOL, [7])
    assert single.legal == (0, 1, 2) and np.array_equal(single.reset(), many.reset()[0])
    for action in (1, 2):
        step, result = single.step(action), many.step(np.array([action]))
        assert step.frame is not None and np.array_equal(step.frame, result.frames[0])
        assert (step.reward, step.terminated, step.truncated) == (result.rewards[0], False, False)
    assert single.step(1, render=False).frame is None


def test_names_are_safe() -> None:
    assert game_name("minigrid:MiniGrid-Empty-6x6-v0", EnvironmentConfig()) == "MiniGrid-Empty-6x6-v0"
    assert game_name("a/B c-v0", EnvironmentConfig()) == "a-B-c-v0"
    assert game_name("a/B c-v0", EnvironmentConfig(name="mine")) == "mine"


@pytest.mark.parametrize(
    ("env", "settings", "sentence"),
    [
        ("CartPool-v1", {}, r"env=CartPool-v1 is unknown: .*Did you mean: `CartPole`.*env=<module>:<id>"),
        ("MiniGrid-Nowhere-v0", {}, "Install minigrid if it isn't, and write env=minigrid:MiniGrid-Nowhere-v0"),
        ("toy_environments:Toy-v3", {}, "env=toy_environments:Toy-v3 is unknown: .*Write an id that its module"),
        ("no_such_module:Toy-v0", {}, "needs the Python module no_such_module, which isn't installed"),
        (TOY, {"kwargs": {"colour": 1}}, r"can't be made \(TypeError: .*colour.*environment\.kwargs"),
        (TOY, {"kwargs": {"take": "continuous"}}, "has continuous actions, and only Discrete ones"),
        (TOY, {"kwargs": {"take": "several"}}, r"several actions at a time \(MultiDiscrete\)"),
        (TOY, {"kwargs": {"take": "many"}}, "has 257 actions, and there can be 256 at most"),
        (TOY, {"kwargs": {"show": "vector"}}, r"its observation is float32 \(4,\).*environment\.observation=render"),
        (TOY, {"kwargs": {"show": "two"}}, r"set environment\.observation to one of left, right"),
        (TOY, {"kwargs": {"show": "table"}}, r"cells uint8 \(7, 7, 3\), place Discrete.*at least 16 pixels"),
        (TOY, {"kwargs": {"show": "dict"}, "observation": "film"}, "which has camera, place: set it"),
        (TOY, {"kwargs": {"show": "dict"}, "observation": "place"}, "its observation is place Discrete, not uint8"),
        (TOY, {"observation": "film"}, "which is no dictionary"),
        ("FrozenLake-v1", {}, "shows no image that can be read: its observation is Discrete"),
        (TOY, {"kwargs": {"lie": True}}, r"gave float32 \(168, 252, 3\) where a uint8 image"),
        (TOY, {"kwargs": {"fail": "reset"}}, r"failed in reset\(\) \(RuntimeError: no world\): try it by itself"),
        (TOY, {"crop": [100, 68, 0, 0]}, r"environment\.crop=\[100, 68, 0, 0\] leaves nothing of an image of 168×252"),
        (TOY, {"crop": [1, 2]}, r"environment\.crop must be four numbers"),
        (TOY, {"frame_skip": 0}, r"environment\.frame_skip must be at least 1"),
        (TOY, {"interpolation": "cubic"}, r"environment\.interpolation must be one of area, nearest, linear"),
        (TOY, {"name": "a/b"}, r"environment\.name=a/b can't name a folder"),
        (TOY, {"name": "Pong"}, "Pong is the name of an Atari game"),
        (TOY, {"kwargs": {"render_mode": "human"}}, r"set environment\.observation=render instead"),
        (TOY, {"actions": ["UP", "DOWN"]}, r"environment\.actions has 2 names, and .* has 3 actions"),
        (TOY, {"actions": ["UP", "UP", "LEFT"]}, "names UP twice"),
        (TOY, {"actions": ["UPP", "UP", "LEFT"]}, "unknown name 'UPP': did you mean UP?"),
        (TOY, {"actions": "own"}, "must be 'fresh' or a list"),
    ],
)  # fmt: skip
def test_what_cant_be_played_is_one_sentence(env: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        toy(env, **settings)
    assert "\n" not in str(error.value) and games.registered() == ()


@pytest.mark.parametrize(("fail", "sentence"), [("step", r"failed in step\(\)"), ("reward", "gave the reward nan")])
def test_an_environment_that_breaks_while_it_plays_is_named(fail: str, sentence: str) -> None:
    envs = make_environments([toy(kwargs={"fail": fail})], PROTOCOL, [0])
    envs.reset()
    with pytest.raises(UserError, match=f"{TOY} {sentence}"):
        envs.step(np.array([0]))


def test_another_version_with_other_actions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    game = toy()
    monkeypatch.setitem(toy_environments.ACTIONS, "three", gymnasium.spaces.Discrete(4))
    with pytest.raises(UserError, match="has 4 actions, and Toy-v0 had 3 when it was recorded"):
        make_environments([game], PROTOCOL, [0])
