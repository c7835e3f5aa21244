"""A session of watching and playing: one agent, one game, and what is done with them; no network, no clock.

Everything is synchronous and follows from the agent, the rules and the calls. Each call either does what it says or
raises UserError, one sentence, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jowa.dreaming.starts import Starts
from jowa.envs.environments import check_playable
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.evaluation.play.rollout import Turn, with_chance
from jowa.games import action_names, check_game, legal_actions, legal_mask
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.playing.hands import Hands
from jowa.playing.thought import Thinker, Thought
from jowa.playing.worlds import DreamWorld, Ending, Here, RealWorld, World, other_starts

AGENT, HUMAN = "agent", "human"
SPEEDS = (1.0, 30.0)
"""Agent steps a second, the slowest and the fastest."""


@dataclass(frozen=True)
class Rules:
    """What stays as it is during a session, but for the planner, with which it begins.

    seed: the first episode's. data: the episode store that dreams may start from.
    """

    planner: PlannerConfig
    protocol: ProtocolConfig
    execution: ExecutionConfig
    seed: int = 0
    data: Path | None = None


@dataclass(frozen=True)
class Played:
    """The last action of the present episode and who chose it: the agent, the human or chance."""

    action: int
    by: str


class Session:
    """The agent at play.

    Attributes:
        game: its name. planner: its checked settings.
        running: whether it is meant to go on by itself, at `speed` agent steps a second.
        driver: who chooses, `AGENT` or `HUMAN`; shows_plan: whether the agent plans while the human plays.
        temperature: of the dreams to come.
        world: where one plays; real: the real game, which waits while one dreams.
        elsewhere: whether the dream started away from the present screen; start: where from, in words.
        played: the last action; None at an episode's beginning.
        notice: what happened last, a sentence.
    """

    def __init__(self, agent: Agent, game: str, rules: Rules) -> None:
        """agent: on its device. Raises UserError for a game or planner that can't be played with."""
        self.agent, self.rules = agent, rules
        self.blocks = agent.model.config.blocks
        self.thinker = Thinker(agent, rules.execution)
        self.running, self.speed = True, 15.0
        self.driver, self.shows_plan = AGENT, True
        self.temperature = 0.0
        self._dreams = 0  # so far: each has random numbers of its own
        self.elsewhere = False
        self._thought: Thought | None = None
        self.played: Played | None = None
        self._asked = rules.planner
        self._tie_tolerance = rules.planner.tie_tolerance
        self._hands = Hands()
        self._open(game)

    def _open(self, game: str) -> None:
        planner = self._asked.for_game(self.agent.model.config, check_game(game))
        check_playable([game], self.rules.protocol, "game")
        self.real = RealWorld(game, self.rules.protocol, self.rules.seed, self.thinker, self.blocks)
        self.game, self.planner = game, planner
        self.world: World = self.real
        self.start, self.notice = "", ""
        self._hands.release()
        self._look()

    @property
    def dreaming(self) -> bool:
        return self.world is not self.real

    @property
    def thought(self) -> Thought | None:
        """The agent's plan at the present frame; None while the human plays and doesn't want to see it."""
        if self._thought is None and (self.driver == AGENT or self.shows_plan):
            self._thought = self.thinker.think(self.world.history, self.game, self.planner)
        return self._thought

    def tick(self) -> None:
        """One agent step by whoever drives; nothing while a game that can't idle waits for a key."""
        action = self._hands.take(self.game) if self.driver == HUMAN else None
        if self.driver == HUMAN and action is None:
            return
        self._play(action)

    def step(self, action: int | None = None) -> None:
        """One agent step, by the given legal action or else by whoever drives."""
        if action is None and self.driver == HUMAN:
            action = self._hands.take(self.game)
            if action is None:
                raise UserError(f"{self.game} has no action that does nothing: hold a key or a button.")
        self._check_legal(action)
        self._play(action)

    def _play(self, action: int | None) -> None:
        by = HUMAN
        if action is None:
            action, by = self._agents_action()
        ending = self.world.step(action)
        self._look()
        if ending is not None:
            self.notice = self._sentence(ending)
        else:
            self.played = Played(action, by)

    def _agents_action(self) -> tuple[int, str]:
        """What the agent plays, chance playing in between as in evaluation, but never in a dream."""
        assert self.thought is not None, "an agent that drives plans"
        action = self.thought.action
        if action not in legal_actions(self.game):
            raise UserError(
                f"The planner chose {action_names(self.game)[action]}, which isn't legal in {self.game}: restart with "
                "planner.choice=return."
            )
        if self.dreaming:
            return action, AGENT
        real, yes = self.real, np.array([True])
        turn = Turn(real.history.frame[None], ~yes, yes, np.array([real.seed]), np.array([real.agent_steps]))
        chance = self.rules.protocol.random_action_probability
        played = int(with_chance(np.array([action]), turn, legal_mask(self.game)[None], chance)[0])
        return played, AGENT if played == action else "chance"

    def hold(self, keys: Sequence[str], action: int | None = None, tab: int = 0) -> None:
        """The human at a tab holds keys, in the order pressed, or the button of one action; a tap counts for one step.

        What other tabs hold stays held.
        """
        self._check_legal(action)
        self._hands.hold(keys, action, tab)

    @property
    def holds(self) -> int | None:
        """The action that what is held means; None where it means none."""
        return self._hands.holds(self.game)

    def restart(self) -> None:
        """Begin another episode: with the next seed, or in a dream at the next start."""
        self.world.restart()
        self.notice = ""
        self._look()

    def run(self, running: bool) -> None:
        """Go on by itself, or pause."""
        self.running = running

    def set_speed(self, speed: float) -> None:
        """Agent steps a second, within `SPEEDS`."""
        self.speed = speed

    def drive(self, driver: str) -> None:
        """Give the controls to the agent or the human."""
        self.driver = driver
        self._hands.release()

    def show_plan(self, shown: bool) -> None:
        """Whether the agent's plan is made and shown while the human plays."""
        self.shows_plan = shown
        if not shown and self.driver == HUMAN:
            self._thought = None

    def wake(self) -> None:
        """Back to the real game where it was left."""
        self.world, self.start, self.notice = self.real, "", ""
        self._look()

    def dream(self, elsewhere: bool = False) -> None:
        """Go on in imagination: from the present real screen, or from another start."""
        self._dream(elsewhere, self.temperature)

    def set_temperature(self, temperature: float) -> None:
        """Of the codes that are imagined; a dream that goes on begins again with it."""
        if self.dreaming:
            self._dream(self.elsewhere, temperature)
        self.temperature = temperature

    def _dream(self, elsewhere: bool, temperature: float) -> None:
        here = None if elsewhere else self.real.history
        starts: Starts
        if here is None:
            starts, where = other_starts(self.rules.data, self.agent, self.game)
        else:
            starts, where = Here(here.copy(self.blocks - 1)), "the present screen"
        random = np.random.default_rng([self.rules.seed, self._dreams])
        world = DreamWorld(self.agent, self.thinker, self.game, starts, random, temperature, here)
        self._dreams += 1
        self.world, self.start, self.notice, self.elsewhere = world, where, "", elsewhere
        self._look()

    def plan_with(self, **changes: Any) -> None:
        """Change the planner's name, width, horizon, context or simulations."""
        if changes.get("name") == "published":
            asked = replace(self._asked, name="published", width=0, horizon=0, context=0)
        else:
            asked = replace(self.planner, **changes)
        tolerance = 0.0 if asked.name == "mcts" else self._tie_tolerance
        asked = replace(asked, tie_tolerance=tolerance)
        self.planner = asked.for_game(self.agent.model.config, self.game)
        self._asked, self._thought = asked, None

    def choose_game(self, game: str) -> None:
        """Leave the present game for another, at the first seed."""
        before = self.real
        self._open(game)
        before.close()

    def close(self) -> None:
        """Let go of the game and the dream; nothing can be played afterwards."""
        self.world = self.real
        self.real.close()

    def _look(self) -> None:
        """The present frame is another: what was thought and played belongs to the one before."""
        self._thought = self.played = None

    def _check_legal(self, action: int | None) -> None:
        legal = legal_actions(self.game)
        if action is not None and action not in legal:
            names = action_names(self.game)
            numbers = ", ".join(f"{one} ({names[one]})" if names[one] != str(one) else names[one] for one in legal)
            raise UserError(f"{action} is no legal action of {self.game}: choose among {numbers}.")

    def _sentence(self, ending: Ending) -> str:
        steps = f"{ending.agent_steps:,} agent step{'s' * (ending.agent_steps != 1)}"
        if self.dreaming:
            where = "at another start" if self.elsewhere else "from the real screen"
            return f"The dream predicted an end after {steps} and began again {where}."
        return f"Episode {ending.number} ended after {steps} with a score of {ending.score:g}."
