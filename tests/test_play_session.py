"""A session of play by itself: the agent's play is evaluation's, and dreams are the model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from play_fixtures import BEAM, small_agent, small_session

from jowa.dreaming.dreams import Dreams
from jowa.dreaming.starts import Start
from jowa.envs.environments import make_environments
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.play.player import agent_player
from jowa.evaluation.play.rollout import Turn, play
from jowa.games import ACTION_NAMES, legal_actions
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.playing.state import opening, present


class Watched:
    """A player whose actions, as chance left them, are kept."""

    def __init__(self, player: Any) -> None:
        self.player, self.actions = player, []

    def act(self, turn: Turn) -> np.ndarray:
        return self.player.act(turn)

    def record(self, actions: np.ndarray) -> None:
        self.actions.append(int(actions[0]))
        self.player.record(actions)


@pytest.mark.parametrize(
    "planner",
    [BEAM, PlannerConfig(name="greedy", context=8, horizon=0), PlannerConfig(name="mcts", simulations=2, context=2)],
    ids=lambda planner: planner.name,
)
def test_the_agent_plays_as_it_does_in_evaluation(planner: PlannerConfig) -> None:
    """Two episodes, with chance and sticky actions, of other seeds than the first."""
    rules = {"random_action_probability": 0.2, "repeat_action_probability": 0.25, "max_episode_frames": 28}
    agent, protocol = small_agent(), ProtocolConfig(**rules)
    environments = make_environments(["Pong"], protocol, [0])
    player = Watched(agent_player(agent, planner, ExecutionConfig(), environments, torch.device("cpu")))
    rollout = play(environments, player, {"Pong": [5, 6]}, mode="test", random_action_probability=0.2)
    session = small_session(agent=agent, planner=planner, seed=5, protocol=rules)
    played, endings = [], []
    for _ in range(14):
        session.tick()
        played.append(session.played.action if session.played else None)
        endings += [session.notice] if session.played is None else []
    wanted: list[int | None] = list(player.actions)
    wanted[6] = wanted[13] = None  # an episode's last action is forgotten with it
    assert played == wanted and len(set(player.actions)) > 2
    scores = [episode.episode_return for episode in rollout.episodes]
    assert [f"score of {score:g}." in ending for score, ending in zip(scores, endings, strict=True)] == [True, True]
    assert session.real.seed == 7


def test_a_dream_leaves_the_real_game_as_it_was() -> None:
    session, twin = small_session(), small_session()
    for one in (session, twin):
        for _ in range(4):
            one.tick()
    for elsewhere in (False, True):
        session.dream(elsewhere)
        for _ in range(3):
            session.tick()
        assert session.dreaming and session.real.agent_steps == 4
        session.wake()
    assert not session.dreaming
    for _ in range(5):
        session.tick()
        twin.tick()
        assert session.played == twin.played and session.real.score == twin.real.score
        np.testing.assert_array_equal(session.world.history.frame, twin.world.history.frame)


class OneStart:
    def __init__(self, start: Start) -> None:
        self.start = start

    def draw(self, random: np.random.Generator) -> Start:
        return self.start


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_dream_is_the_models(temperature: float) -> None:
    """Frames, rewards and ends equal those of `Dreams` from the screens that were seen."""
    session = small_session()
    for _ in range(9):
        session.tick()
    seen = session.real.history.copy(7).start()
    assert len(seen.frames) == 7 and len(seen.actions) == 6
    session.set_temperature(temperature)
    session.dream()
    np.testing.assert_array_equal(session.world.history.frame, seen.frames[-1])
    agent = session.agent
    dreams = Dreams(agent.tokenizer, agent.model, OneStart(seen), "Pong", 1, 7, temperature)
    random = np.random.default_rng([0, 0])
    dreams.seed([random])
    dreams.begin([0], [random])
    for step in range(12):
        action = legal_actions("Pong")[step % 6]
        session.step(action)
        dreamed = dreams.step(np.array([step % 6]))
        assert not dreamed.ended[0]
        assert session.world.reward == dreamed.rewards[0]
        np.testing.assert_array_equal(session.world.history.frame, dreams.frames()[0])


def test_a_predicted_end_begins_the_dream_again_from_the_real_screen() -> None:
    agent = small_agent()
    agent.model.end_head[-1].weight.data.zero_()
    agent.model.end_head[-1].bias.data[:] = torch.tensor([0.0, 1.0])
    session = small_session(agent=agent)
    session.tick()
    assert session.thought.futures[0].steps[0].ends
    session.dream()
    session.tick()
    assert session.world.agent_steps == 0 and session.real.agent_steps == 1
    assert session.notice == "The dream predicted an end after 1 agent step and began again from the real screen."
    np.testing.assert_array_equal(session.world.history.frame, session.real.history.frame)


def test_the_agent_plans_in_its_dream_from_what_was_dreamed() -> None:
    session = small_session()
    for _ in range(3):
        session.tick()
    session.plan_with(context=7)
    session.dream()
    for step in range(3):
        thought = session.thought
        context = session.world.history.context(7, 39)
        assert context.lengths.tolist() == [4 + step] and thought.futures[0].steps[0].frame.shape == (84, 84)
        session.step(thought.action)
        assert session.world.agent_steps == step + 1
        np.testing.assert_array_equal(session.world.history.frame, thought.futures[0].steps[0].frame)


def test_dreams_start_from_recorded_screens_where_there_are_any(tiny_data: Path) -> None:
    session = small_session(data=tiny_data)
    session.dream(elsewhere=True)
    assert session.start == "a recorded episode"
    agent = session.agent
    held = Agent(agent.tokenizer, agent.model, agent.description | {"holdout": 0.3})
    session = small_session(agent=held, data=tiny_data)
    session.dream(elsewhere=True)
    first = session.world.history.frame
    assert session.start == "a held-out episode" and first.max() == 230, "the store's own square"
    session.restart()
    assert not np.array_equal(session.world.history.frame, first)
    assert small_session().dream(elsewhere=True) is None
    session.choose_game("Boxing")
    session.dream(elsewhere=True)
    assert session.start == "the game after random actions"


def test_a_planner_is_changed_or_refused_as_the_configuration_is() -> None:
    session = small_session(planner=PlannerConfig(width=2, horizon=1, context=1, tie_tolerance=0.02))
    session.tick()
    session.tick()
    session.plan_with(width=3, horizon=2, context=6)
    assert len(session.thought.futures) == 3 and len(session.thought.futures[0].steps) == 2
    assert session.thought.action == session.thought.futures[0].action
    for changes, sentence in (
        ({"horizon": 3}, "planner.context=6 and planner.horizon=3 exceed the 8 frames the model sees"),
        ({"context": 9}, "planner.context=9 is not possible: the model sees 1 to 8 frames"),
        ({"horizon": 8}, "planner.horizon=8 leaves no context"),
        ({"name": "mcts", "horizon": 0}, "planner.horizon=0 gives planner.name=mcts no step to imagine"),
        ({"name": "published"}, "planner=published has no settings for Pong with a small model"),
    ):
        before = session.planner
        with pytest.raises(UserError, match=f"^{sentence}"):
            session.plan_with(**changes)
        assert session.planner == before
    session.plan_with(name="mcts")
    assert len(session.thought.futures[0].steps) == 1 and session.planner.tie_tolerance == 0
    session.plan_with(name="greedy", context=8)
    assert session.thought.futures[0].steps == () and len(session.thought.futures) == 1
    session.plan_with(name="beam", context=6)
    assert session.planner.tie_tolerance == 0.02, "the one it began with"


def test_another_game_begins_and_an_impossible_one_changes_nothing() -> None:
    session = small_session()
    session.tick()
    session.dream()
    before = present(session)
    with pytest.raises(UserError, match=r"Unknown game 'Bxing'.*did you mean 'Boxing'"):
        session.choose_game("Bxing")
    assert present(session) == before
    session.choose_game("Boxing")
    state = json.loads(present(session))
    assert (state["game"], state["agent_steps"], state["world"]) == ("Boxing", 0, "real")
    assert state["warning"].startswith("The agent was never trained on Boxing, only on Pong")
    assert [one["action"] for one in state["actions"]] == list(legal_actions("Boxing"))
    told = json.loads(opening(session))
    assert told["trained"] == ["Pong"] and len(told["others"]) == 59 and "published" not in told["planners"]


def test_the_state_tells_the_plan() -> None:
    session = small_session(planner=PlannerConfig(width=3, horizon=2, context=3))
    state = json.loads(present(session))
    thought = session.thought
    assert [row["action"] for row in state["plan"]["q"]] == list(legal_actions("Pong"))
    assert state["plan"]["value"] == thought.value and state["plan"]["action"] == thought.action
    for told, future in zip(state["plan"]["futures"], thought.futures, strict=True):
        assert [step["name"] for step in told["steps"]] == [ACTION_NAMES[step.action] for step in future.steps]
        assert all(step["frame"].startswith("data:image/png;base64,") for step in told["steps"])
