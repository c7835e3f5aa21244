"""Where environments show their images, how these may lie in memory, and what is said of those that can't be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from odd_environments import picture

from jowa import games
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.envs.environments import make_environments, open_single
from jowa.envs.gymnasium_environments import register_environment
from jowa.envs.images import layer_axis, sides
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.games import action_names

ODD = "odd_environments:Odd-v0"
PROTOCOL = ProtocolConfig()


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "_registered", {})


def odd(kwargs: dict[str, Any] | None = None, **settings: Any) -> str:
    return register_environment(ODD, EnvironmentConfig(kwargs=kwargs or {}, interpolation="nearest", **settings))


def first_screen(show: str, **settings: Any) -> NDArray[np.uint8]:
    return make_environments([odd({"show": show}, **settings)], PROTOCOL, [0]).reset()[0]


def chosen(image: NDArray[Any]) -> NDArray[Any]:
    """(40, 60) → (84, 84), the nearest pixels."""
    return image[np.arange(84) * 40 // 84][:, np.arange(84) * 60 // 84]


def in_grey(image: NDArray[np.uint8]) -> NDArray[Any]:
    return chosen(image @ np.array([0.299, 0.587, 0.114]))


@pytest.mark.parametrize(
    ("show", "settings"),
    [
        ("opacity", {}), ("opacity", {"layers": "colour"}), ("clear", {"layers": "colour"}), ("colours first", {}),
        ("shares", {}), ("signed", {}), ("tuple", {}), ("tuple", {"observation": "1"}),
        ("nested", {"observation": "eyes/left"}), ("two of a tuple", {"observation": "0"}), ("deep", {}),
        ("none", {"observation": "render"}),
    ],
)  # fmt: skip
def test_colours_are_found_wherever_they_are(show: str, settings: dict[str, Any]) -> None:
    assert np.abs(first_screen(show, **settings) - in_grey(picture(0))).max() <= 1


@pytest.mark.parametrize(
    ("show", "settings", "step"),
    [
        ("one first", {}, 0), ("grey shares", {}, 0), ("two last", {}, 4), ("five first", {}, 4),
        ("four first", {"layers": "frames"}, 4), ("four last", {"layers": "frames"}, 4),
    ],
)  # fmt: skip
def test_of_several_frames_the_last_counts(show: str, settings: dict[str, Any], step: int) -> None:
    assert np.array_equal(first_screen(show, **settings), chosen(picture(step)[:, :, 0]))


def test_an_image_is_told_by_its_shape() -> None:
    shapes = {(84, 60): None, (84, 60, 3): 2, (3, 84, 60): 0, (1, 84, 60): 0, (7, 7, 3): 2, (84, 60, 8): 2,
              (2, 84, 60): 0, (84, 60, 9): None, (8, 8, 8): None, (84,): None}  # fmt: skip
    assert {shape: layer_axis(shape) for shape in shapes} == shapes
    assert [sides(shape) for shape in ((84, 60), (84, 60, 4), (5, 84, 60))] == [(84, 60)] * 3
    assert sides((84, 60, 9)) is None and sides((84, 60, 3, 1)) is None


@pytest.mark.parametrize(
    ("kwargs", "settings", "sentence"),
    [
        ({"show": "none"}, {}, r"has no observation_space\): set environment\.observation=render"),
        ({"show": "unbounded"}, {}, r"its observation is float32 \(40, 60, 3\) without bounds, not uint8 or bounded"),
        ({"show": "many"}, {}, r"its observation is uint8 \(40, 60, 9\), not .* up to 8 colours or frames"),
        ({"show": "clear"}, {}, r"opacity or 4 grey frames: set environment\.layers to colour or frames"),
        ({"show": "four first"}, {}, r"opacity or 4 grey frames: set environment\.layers to colour or frames"),
        ({"show": "two last"}, {"layers": "colour"}, r"2 layers where environment\.layers=colour expects 1, 3 or 4"),
        ({"show": "beyond"}, {}, r"values from .* to 25\d\.0, and its space promises 0\.0 to 1\.0"),
        ({"show": "not a number"}, {}, "values from nan to nan, and its space promises"),
        ({"show": "nested"}, {}, r"set environment\.observation to one of eyes/left, eyes/right"),
        ({"show": "nested"}, {"observation": "eyes"}, "which has eyes/left, eyes/right, place: set it"),
        ({"show": "tuple"}, {"observation": "0"}, "its observation is 0 Discrete, not uint8"),
        ({"show": "lost"}, {}, "without the entry eyes/left that its space promises"),
        ({"odd": "empty"}, {"observation": "render"}, "gave an image of 0×60 pixels"),
        ({"odd": "old reset"}, {}, r"failed in reset\(\): it gave ndarray where \(observation, info\) was expected"),
        ({"note": float("inf")}, {}, r"environment\.kwargs must hold what JSON can"),
        ({"note": {1, 2}}, {}, r"environment\.kwargs must hold what JSON can"),
        ({}, {"layers": "grey"}, r"environment\.layers must be one of auto, colour, frames"),
        ({}, {"name": "codes"}, r"codes is a folder that every episode store keeps.*environment\.name"),
    ],
)  # fmt: skip
def test_what_cant_be_read_is_one_true_sentence(kwargs: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        odd(kwargs, **settings)
    assert "\n" not in str(error.value) and games.registered() == ()


@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
def test_an_environment_that_declares_no_space(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import odd_environments

    created = odd_environments.Odd.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        created(self, *args, **kwargs)
        delattr(self, missing)

    monkeypatch.setattr(odd_environments.Odd, "__init__", without)
    with pytest.raises(UserError, match=f"has no {missing}"):
        odd()


def test_an_id_may_be_a_reserved_name_too() -> None:
    with pytest.raises(UserError, match=r"set environment\.name to another"):
        register_environment("odd_environments:codes", EnvironmentConfig())
    assert register_environment("odd_environments:codes", EnvironmentConfig("mine")) == "mine"


@pytest.mark.parametrize("gives", [1e300, -1e300, 3e38])
def test_a_reward_must_fit_its_type(gives: float) -> None:
    env = make_environments([odd({"gives": gives}, frame_skip=2)], PROTOCOL, [0])
    env.reset()
    with pytest.raises(UserError, match=r"gave the reward -?(1e\+300|2e\+300|6e\+38): .* at most 3\.4e\+38"):
        env.step(np.array([0]))


def test_images_that_grow_cant_be_pooled() -> None:
    kwargs, settings = {"odd": "growing"}, {"observation": "render"}
    env = make_environments([odd(kwargs, max_pool=True, **settings)], PROTOCOL, [0])
    env.reset()
    with pytest.raises(UserError, match=r"images of 30×60 and then 31×60 pixels.*environment\.max_pool=false"):
        env.step(np.array([0]))
    env = make_environments([odd(kwargs, name="alone", **settings)], PROTOCOL, [0])
    env.reset()
    assert env.step(np.array([0])).frames.shape == (1, 84, 84)


@pytest.mark.parametrize("skip", [1, 2])
def test_steps_that_nobody_looks_at_change_no_screen(skip: int) -> None:
    game = odd(max_pool=True, frame_skip=skip)
    seen, unseen = (open_single(game, PROTOCOL, 0) for _ in range(2))
    seen.reset()
    unseen.reset()
    for step in range(1, 5 // skip + 1):
        expected = seen.step(0)
        result = unseen.step(0, render=step % 2 == 0)
        assert (result.frame is None) == (step % 2 == 1)
        if result.frame is not None:
            assert expected.frame is not None and np.array_equal(result.frame, expected.frame)


def test_eighteen_actions_of_its_own_are_numbers() -> None:
    fresh = odd({"actions": 18})
    mapped = odd({"actions": 18}, name="mapped", actions=list(games.ACTION_NAMES))
    assert action_names(fresh) == tuple(map(str, range(18))) and action_names(mapped) == games.ACTION_NAMES
