"""Planners written for reading: one environment, Python lists, no tree of slots, no cache, no batch of environments.

The fast planners must choose what these do. They share nothing with `jowa.planning` but the settings: the rules are
those of its docstrings, and a model's imagination is `WorldActionModel.hidden` on whole sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from toy_mdp import ToyMDP

from jowa.models.world_action_model import Hidden, WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.mcts import MonteCarloTreeSearch


@dataclass(frozen=True)
class State:
    """A moment, real or imagined.

    Attributes:
        place: what its world knows it by.
        q: expected Q of every action there.
        frame: its codes.
        reward: of the action that led there.
        ended: whether that action is predicted to end the episode.
    """

    place: Any
    q: list[float]
    frame: list[int]
    reward: float = 0.0
    ended: bool = False


Imagine = Callable[[list[tuple[State, int]]], list[State]]
"""Where actions lead: one state for every (state, action)."""


class ToyWorld:
    """Process n of a ToyMDP; a state's place is its number."""

    def __init__(self, mdp: ToyMDP, n: int) -> None:
        self.mdp, self.n = mdp, n

    def root(self, state: int) -> State:
        return State(state, self.mdp.q[self.n, state].tolist(), [state])

    def imagine(self, steps: list[tuple[State, int]]) -> list[State]:
        states = []
        for state, action in steps:
            place = self.n, state.place, action
            new = self.root(int(self.mdp.following[place]))
            states.append(replace(new, reward=self.mdp.reward[place].item(), ended=bool(self.mdp.end[place])))
        return states


@dataclass(frozen=True)
class History:
    """L frames' codes, and the L - 1 actions between them."""

    frames: list[list[int]]
    actions: list[int]


class ModelWorld:
    """A model's imagination of one game; a state's place is the whole history that ends in it.

    Every code is decoded from a pass of whole sequences from position 0 through the causal model; what is not decoded
    yet is 0, which nothing before it sees.
    """

    def __init__(self, model: WorldActionModel, task: int) -> None:
        self.model, self.task = model, task

    def root(self, history: History) -> State:
        """The present."""
        return State(history, self._q([history])[0], history.frames[-1])

    @torch.no_grad()
    def imagine(self, steps: list[tuple[State, int]]) -> list[State]:
        """Histories of equal length go through the model side by side, which changes nothing for any of them."""
        model, tokens = self.model, self.model.tokens_per_frame
        new = [History([*state.place.frames, [0] * tokens], [*state.place.actions, action]) for state, action in steps]
        for code in range(tokens):
            hidden = self._read(new)
            if code == 0:  # the last action but one place: that of the frame before the new one
                rewards = model.reward_logits(hidden.action[:, -2]).argmax(dim=-1) - 1
                ends = model.end_logits(hidden.action[:, -2]).argmax(dim=-1)
            before = hidden.observation[:, -1, code - 1] if code else hidden.observation[:, -2, -1]
            for history, chosen in zip(new, model.observation_logits(before).argmax(dim=-1).tolist(), strict=True):
                history.frames[-1][code] = chosen
        facts = zip(new, self._q(new), rewards.tolist(), ends.tolist(), strict=True)
        return [State(place, q, place.frames[-1], float(reward), bool(end)) for place, q, reward, end in facts]

    @torch.no_grad()
    def _q(self, histories: list[History]) -> list[list[float]]:
        values: list[list[float]] = self.model.q_values(self._read(histories).last_code[:, -1]).tolist()
        return values

    def _read(self, histories: list[History]) -> Hidden:
        codes = torch.tensor([history.frames for history in histories])
        actions = torch.tensor([[*history.actions, 0] for history in histories])  # the last one is not chosen yet
        return self.model.hidden(codes, actions, torch.full((len(histories),), self.task))


def greedy(root: State, legal: list[int]) -> int:
    """The legal action of highest Q; the lowest of equal ones."""
    return max(legal, key=lambda action: (root.q[action], -action))


@dataclass(frozen=True)
class Future:
    """What may happen: imagined states, oldest first, and the actions that lead to them.

    Attributes:
        leaf: the last state; the present one before anything is imagined.
        total: discounted rewards, none after an end that is respected.
        ended: whether such an end lies on the way.
        score: what the future is worth.
    """

    leaf: State
    states: tuple[State, ...] = ()
    actions: tuple[int, ...] = ()
    total: float = 0.0
    ended: bool = False
    score: float = 0.0

    def followed_by(self, action: int, state: State, legal: list[int], search: BeamSearch) -> Future:
        step = len(self.actions)
        total, ended = self.total, self.ended
        if not ended:
            total += search.gamma**step * state.reward
            ended = search.use_termination and state.ended
        score = total
        if not ended:
            score += search.gamma ** (step + 1) * max(state.q[a] for a in legal)
        return Future(state, (*self.states, state), (*self.actions, action), total, ended, score)

    @property
    def matters(self) -> int:
        """How many of its steps do: none after the end of an ended one."""
        ends = [step for step, state in enumerate(self.states, start=1) if state.ended]
        return ends[0] if self.ended else len(self.states)


def beam_search(imagine: Imagine, root: State, legal: list[int], search: BeamSearch) -> list[Future]:
    """The futures that are kept to the end, best first; the legal actions ascend."""
    beam = [Future(root)]
    for _ in range(search.horizon):
        steps = []
        for future in beam:
            ranked = sorted(legal, key=lambda action, q=future.leaf.q: -q[action])[: search.width]
            # One step is enough to carry a future on that has ended.
            steps += [(future, action) for action in (ranked[:1] if future.ended else ranked)]
        states = imagine([(future.leaf, action) for future, action in steps])
        children = [
            future.followed_by(action, state, legal, search)
            for (future, action), state in zip(steps, states, strict=True)
        ]
        best = max(child.score for child in children)
        judged = [best if child.score >= best - search.tie_tolerance else child.score for child in children]
        order = sorted(range(len(children)), key=lambda i: -judged[i])
        beam = [children[i] for i in order[: search.width]]
    return beam


class PlainNode:
    """A state that the tree search visits, and what it knows of it."""

    def __init__(self, prior: float) -> None:
        self.prior = prior
        self.id = 0
        self.state: State | None = None
        self.reward = 0.0
        self.ended = False
        self.visits = 0
        self.total = 0.0
        self.children: dict[int, PlainNode] = {}

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else 0.0


class PlainSearch:
    """Monte Carlo tree search."""

    def __init__(self, imagine: Imagine, root: State, legal: list[int], search: MonteCarloTreeSearch) -> None:
        self.imagine, self.legal, self.search = imagine, legal, search
        self.low, self.high = math.inf, -math.inf
        self.asked: list[tuple[int, int]] = []
        self.root = PlainNode(prior=1.0)
        self.root.state = root
        self.give_children(self.root)
        for _ in range(search.simulations):
            self.visit(self.root, depth=0)

    def legal_q(self, node: PlainNode) -> list[float]:
        assert node.state is not None
        return [node.state.q[action] for action in self.legal]

    def give_children(self, node: PlainNode) -> None:
        q = self.legal_q(node)
        powers = [math.exp((x - max(q)) / self.search.temperature) for x in q]
        node.children = {a: PlainNode(power / sum(powers)) for a, power in zip(self.legal, powers, strict=True)}

    def visit(self, node: PlainNode, depth: int) -> float:
        """One simulation from a node that has children; the value it found for that node."""
        action = max(self.legal, key=lambda a: (self.score(node, node.children[a]), a))
        child = node.children[action]
        if child.children and depth + 1 < self.search.horizon:
            below = self.visit(child, depth + 1)
        else:
            below = self.try_out(node, action, child)
            self.count(child, below)
        value = child.reward + (0.0 if child.ended else self.search.gamma * below)
        self.count(node, value)
        return value

    def try_out(self, parent: PlainNode, action: int, child: PlainNode) -> float:
        """Imagine an action: the value of the state that it leads to."""
        assert parent.state is not None
        self.asked.append((parent.id, action))
        child.id = len(self.asked)
        child.state = self.imagine([(parent.state, action)])[0]
        child.reward = child.state.reward
        child.ended = self.search.use_termination and child.state.ended
        if child.ended:
            return 0.0
        self.give_children(child)
        return max(self.legal_q(child))

    def count(self, node: PlainNode, value: float) -> None:
        node.visits += 1
        node.total += value
        self.low, self.high = min(self.low, node.mean), max(self.high, node.mean)

    def worth(self, child: PlainNode) -> float:
        return child.reward + (0.0 if child.ended else self.search.gamma * child.mean)

    def score(self, node: PlainNode, child: PlainNode) -> float:
        weight = math.sqrt(node.visits) * (math.log((node.visits + 19652 + 1) / 19652) + 1.25)
        score = weight * child.prior / (child.visits + 1)
        if not child.visits:
            return score
        worth = self.worth(child)
        return score + ((worth - self.low) / (self.high - self.low) if self.high > self.low else worth)

    def measures(self) -> dict[int, float]:
        """What the search chooses by, of the actions that were tried."""
        children = {action: child for action, child in self.root.children.items() if child.visits}
        if self.search.choice == "visits":
            return {action: float(child.visits) for action, child in children.items()}
        return {a: child.mean if self.search.choice == "value" else self.worth(child) for a, child in children.items()}

    def ranked(self, actions: int) -> list[tuple[int, float]]:
        """All `actions` with their measures, best first: untried ones count as 0 by value and are last otherwise."""
        untried = 0.0 if self.search.choice == "value" else -math.inf
        measures = [self.measures().get(action, untried) for action in range(actions)]
        return sorted(enumerate(measures), key=lambda each: -each[1])
