"""What hands play: keys and buttons reach the game, each tab's own, and a tap counts for a step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from play_fixtures import small_session, toy_session

from jowa.envs.environments import open_single
from jowa.errors import UserError
from jowa.games import ACTION_NAMES, legal_actions
from jowa.playing.hands import Hands
from jowa.playing.keys import action_for, keys_of, no_op
from jowa.playing.state import opening, present

UP, DOWN, NOOP = ACTION_NAMES.index("UP"), ACTION_NAMES.index("DOWN"), 0


def test_what_hands_play_reaches_the_game() -> None:
    session = small_session("Freeway")
    twin = open_single("Freeway", session.rules.protocol, 0)
    twin.reset(0)
    session.drive("human")
    session.show_plan(False)
    wanted = [UP, UP, NOOP, DOWN, UP, NOOP]
    holds = [["UP"], None, [], ["DOWN"], ["DOWN", "UP"], []]
    for action, keys in zip(wanted, holds, strict=True):
        if keys is not None:
            session.hold(keys)
        session.tick()
        assert session.played is not None and (session.played.action, session.played.by) == (action, "human")
        np.testing.assert_array_equal(session.world.history.frame, twin.step(action).frame)
    assert session.thought is None, "nobody wants the plan"
    session.show_plan(True)
    assert session.thought is not None
    session.step(UP)
    assert session.played.action == UP
    with pytest.raises(UserError, match=r"^7 is no legal action of Freeway: choose among 0 \(NOOP\), 2 \(UP\), 5 "):
        session.step(7)


def test_a_tap_between_two_steps_counts_for_one() -> None:
    session = small_session("Freeway")
    session.drive("human")
    session.hold(["UP"])
    session.hold([])
    played = []
    for _ in range(2):
        session.tick()
        played.append(session.played.action)
    assert played == [UP, NOOP]
    session.hold([], action=DOWN)
    session.hold([])
    session.tick()
    assert session.played.action == DOWN
    session.hold(["UP"])
    session.drive("agent")
    session.drive("human")
    session.tick()
    assert session.played.action == NOOP, "hands that were off the controls hold nothing"


def test_every_tab_has_hands_of_its_own() -> None:
    hands = Hands()

    def plays() -> str:
        held, taken = hands.holds("Boxing"), hands.take("Boxing")
        assert held == taken and taken is not None
        return ACTION_NAMES[taken]

    hands.hold(["UP"], None, tab=1)
    hands.hold(["RIGHT"], None, tab=2)
    assert plays() == "UPRIGHT"
    hands.hold([], None, tab=3)
    assert plays() == "UPRIGHT"
    hands.hold(["DOWN"], None, tab=2)
    assert plays() == "DOWN", "it moved last"
    hands.hold([], 1, tab=3)
    assert plays() == "FIRE"
    hands.hold([], None, tab=2)
    hands.hold([], None, tab=3)
    assert plays() == "UP"
    hands.release()
    assert plays() == "NOOP"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["UP", "DOWN", "LEFT", "RIGHT", "FIRE"]), unique=True, max_size=5))
def test_keys_mean_the_legal_action_of_the_most_of_them(held: list[str]) -> None:
    for game in ("Pong", "Freeway", "Boxing", "Breakout"):
        names = {ACTION_NAMES[action]: action for action in legal_actions(game)}
        action = action_for(held, game)
        assert action in names.values()
        keys = {key for key in keys_of(game) if key in ACTION_NAMES[action]}
        assert keys <= set(held) and action == (names["NOOP"] if not keys else action)
        for name in names:
            meant = {key for key in keys_of(game) if key in name}
            assert not (meant <= set(held) and len(meant) > len(keys)), f"{name} is more of {held}"
    assert no_op("Pong") == NOOP


def test_a_game_with_actions_of_its_own_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    session = toy_session(monkeypatch)
    session.tick()
    assert session.real.agent_steps == 1 and len(session.thought.q) == 3
    session.drive("human")
    session.tick()
    assert session.real.agent_steps == 1, "it has no action that does nothing"
    with pytest.raises(UserError, match=r"^Toy-v0 has no action that does nothing"):
        session.step()
    session.hold([], action=2)
    session.tick()
    assert session.real.reward == 2 and session.played.action == 2
    state = json.loads(present(session))
    assert state["waits"] and state["keys"] == [] and [one["name"] for one in state["actions"]] == ["0", "1", "2"]
    assert json.loads(opening(session))["others"] == []
    session.dream()
    session.tick()
    assert session.world.agent_steps == 1 or "an end" in session.notice
    with pytest.raises(UserError, match=r"^The model has 3 actions, those of Toy-v0, and Pong has 18 others"):
        session.choose_game("Pong")
    session.close()


def test_the_key_pressed_last_wins() -> None:
    assert ACTION_NAMES[action_for(["LEFT", "RIGHT"], "Boxing")] == "RIGHT"
    assert ACTION_NAMES[action_for(["RIGHT", "LEFT", "FIRE"], "Boxing")] == "LEFTFIRE"
    assert ACTION_NAMES[action_for(["UP", "RIGHT"], "Boxing")] == "UPRIGHT"
    assert ACTION_NAMES[action_for(["LEFT", "UP"], "Freeway")] == "UP"
    assert ACTION_NAMES[action_for(["LEFT"], "Freeway")] == "NOOP"
