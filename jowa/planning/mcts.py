"""Monte Carlo tree search over the dream, for N environments at once.

The planner that JOWA compares beam search with (arXiv 2410.00564, appendix). Its rule of selection is PUCT (Silver et
al., AlphaZero) with the bounds on values of MuZero (Schrittwieser et al., arXiv 1911.08265); expected Q takes the place
of both the policy (a softmax of it) and the value (its maximum).

All environments simulate in lock-step: what they know lies on the edges (node, action) of preallocated arrays, node
s + 1 being what simulation s saw. A path that is complete before the others' is masked, so every environment runs the
same operations and nothing waits for the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from jowa.planning.config import CHOICES
from jowa.planning.dream import Context, Dream, Needs, Nodes
from jowa.planning.planner import Plan, check_legal, legal_q

# The weight of exploration and how it grows with visits: AlphaZero's and MuZero's constants.
_EXPLORATION = 1.25
_EXPLORATION_GROWTH = 19652


class _Step(NamedTuple):
    """One step of N descents: node and action (N,) int64, and taken (N,) bool, false where the path was complete."""

    node: Tensor
    action: Tensor
    taken: Tensor


@dataclass(frozen=True)
class _Trees:
    """N trees with room for M nodes; the arrays are written in place. Node 0 is the root.

    Attributes:
        row: (N,) int64, the trees' own numbers, to index with.
        ids: (N, M) int64, the dream's names of the nodes.
        prior: (N, M, A), each action's probability before any visit; 0 for illegal ones.
        child: (N, M, A) int64, the node an edge led to when it was last tried; 0 if never.
        visits: (N, M, A), whole numbers.
        total: (N, M, A), sum of the values backed up to the edge's child.
        reward: (N, M, A)
        continuation: (N, M, A), 0 after a predicted end (always 1 where ends are ignored).
        root_total: (N,), sum of the values backed up to the root.
        low: (N,), lowest mean value that any node had after an update; +inf before the first.
        high: (N,), highest one; -inf before the first.
    """

    row: Tensor
    ids: Tensor
    prior: Tensor
    child: Tensor
    visits: Tensor
    total: Tensor
    reward: Tensor
    continuation: Tensor
    root_total: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, root: Nodes, room: int) -> _Trees:
        """Trees of nothing but their roots, with room for so many nodes."""
        count, _, actions = root.q.shape
        none = torch.zeros_like(root.q[:, 0, 0])

        def edges() -> Tensor:
            return root.q.new_zeros(count, room, actions)

        return cls(
            row=torch.arange(count, device=root.q.device),
            ids=root.ids.repeat(1, room),
            prior=edges(),
            child=torch.zeros_like(edges(), dtype=torch.int64),
            visits=edges(),
            total=edges(),
            reward=edges(),
            continuation=edges(),
            root_total=none,
            low=none + float("inf"),
            high=none - float("inf"),
        )

    def mean_values(self, node: Tensor) -> Tensor:
        """Mean values (N, A) of the children of nodes (N,); 0 for those never visited."""
        return self.total[self.row, node] / self.visits[self.row, node].clamp(min=1)

    def returns(self, node: Tensor, gamma: float) -> Tensor:
        """What the actions (N, A) in nodes (N,) are worth: the reward and what follows it; 0 for those never tried."""
        discount = gamma * self.continuation[self.row, node]
        return self.reward[self.row, node] + discount * self.mean_values(node)

    def bound(self, means: Tensor, where: Tensor) -> None:
        """Widen the bounds by nodes' mean values (N,), where (N,) bool they were updated."""
        self.low.copy_(torch.where(where, torch.minimum(self.low, means), self.low))
        self.high.copy_(torch.where(where, torch.maximum(self.high, means), self.high))

    def normalised(self, values: Tensor) -> Tensor:
        """Values (N, A) on the scale on which the bounds are 0 and 1; as they are while the bounds span nothing."""
        low, span = self.low[:, None], (self.high - self.low)[:, None]
        return torch.where(span > 0, (values - low) / span, values)


class MonteCarloTreeSearch:
    """Tries `simulations` imagined steps, each where the tree so far promises most, and plays the best first action.

    A simulation descends from the root by the highest PUCT score (the highest action of equal ones) until it comes to
    an action never tried, a predicted end, or `horizon` steps. It imagines that last action, also if it was imagined
    before, values the state it leads to by the highest legal Q there, and backs up v <- r + gamma v along its path.
    Priors are the softmax of legal expected Q over `temperature`. The horizon is imagined steps, as in the other
    planners; the paper's authors count the root too, so that their horizon H is H - 1 here.

    With `use_termination` a node that is predicted to end the episode is worth 0 and nothing is imagined after it.
    Without, predicted ends are ignored, as the paper's authors do.

    `choice` says which first action is played, the lowest of equal ones:
        return: the visited one of highest reward + gamma * mean value of the state it leads to.
        value: the one to the state of highest mean value, where states never visited count as 0. This is what the
            paper's authors do. It overlooks the first reward, and where values are negative it prefers what it never
            tried: the action may even be illegal.
        visits: the most visited one.
    """

    def __init__(self, simulations: int, horizon: int, temperature: float = 0.9, gamma: float = 0.99,
                 choice: str = "return", use_termination: bool = True) -> None:  # fmt: skip
        if simulations < 1 or horizon < 1:
            raise ValueError(f"simulations and horizon must be at least 1, not {simulations} and {horizon}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if choice not in CHOICES:
            raise ValueError(f"choice must be one of {', '.join(CHOICES)}, not {choice}")
        self.simulations = simulations
        self.horizon = horizon
        self.temperature = temperature
        self.gamma = gamma
        self.choice = choice
        self.use_termination = use_termination

    def needs(self, actions: int) -> Needs:
        """A node a simulation, and no node is ever done with."""
        return Needs(self.simulations, 1)

    @torch.inference_mode()
    def plan(self, dream: Dream, context: Context, legal: Tensor) -> Plan:
        """Plan from the context's present frames; legal (N, A) bool, at least one action each."""
        check_legal(legal, context)
        root = dream.reset(context, self.simulations, self.horizon)
        legal = legal.to(root.q.device)
        trees = _Trees.around(root, self.simulations + 1)
        trees.prior[:, 0] = self._prior(root, legal)
        for simulation in range(self.simulations):
            path = self._descend(trees, legal, simulation)
            value = self._expand(trees, dream, legal, path[-1], simulation + 1)
            self._back_up(trees, path, value, simulation + 1)
        return self._plan(trees, dream, root)

    def _prior(self, nodes: Nodes, legal: Tensor) -> Tensor:
        """Probabilities (N, A) of the actions at nodes (N, 1)."""
        return (legal_q(nodes.q[:, 0], legal) / self.temperature).softmax(dim=-1)

    def _descend(self, trees: _Trees, legal: Tensor, simulation: int) -> list[_Step]:
        """The steps from the roots to the actions that this simulation imagines, which are the last step's."""
        node = torch.zeros_like(trees.row)
        visits = torch.full_like(trees.root_total, simulation)
        taken = torch.ones_like(node, dtype=torch.bool)
        path: list[_Step] = []
        # No path of this simulation has more nodes than the earlier ones have left, so short searches stay cheap.
        for _ in range(min(self.horizon, simulation + 1)):
            action = _last_of_highest(self._selection_scores(trees, node, visits, legal))
            path.append(_Step(node, action, taken))
            edge = trees.row, node, action
            taken = taken & (trees.visits[edge] > 0) & (trees.continuation[edge] > 0)
            # A complete path stays at its last node, where it would choose the same action again.
            node = torch.where(taken, trees.child[edge], node)
            visits = torch.where(taken, trees.visits[edge], visits)
        return path

    def _selection_scores(self, trees: _Trees, node: Tensor, visits: Tensor, legal: Tensor) -> Tensor:
        """PUCT scores (N, A) of the actions in nodes (N,) that were visited (N,) times; -inf for illegal ones."""
        weight = visits.sqrt() * (((visits + _EXPLORATION_GROWTH + 1) / _EXPLORATION_GROWTH).log() + _EXPLORATION)
        edge_visits = trees.visits[trees.row, node]
        exploration = weight[:, None] * trees.prior[trees.row, node] / (edge_visits + 1)
        worth = trees.normalised(trees.returns(node, self.gamma))
        scores = exploration + worth.masked_fill(edge_visits == 0, 0.0)
        return scores.masked_fill(~legal, float("-inf"))

    def _expand(self, trees: _Trees, dream: Dream, legal: Tensor, step: _Step, new: int) -> Tensor:
        """Imagine a step's actions, note the states they lead to as node `new`, and return their values (N,)."""
        parent = trees.ids[trees.row, step.node]
        nodes = dream.expand(parent[:, None], step.action[:, None])
        reward, continuation = (part[:, 0].to(nodes.q.dtype) for part in (nodes.reward, nodes.continuation))
        if not self.use_termination:
            continuation = torch.ones_like(continuation)
        trees.ids[:, new] = nodes.ids[:, 0]
        trees.prior[:, new] = self._prior(nodes, legal)
        edge = trees.row, step.node, step.action
        trees.child[edge] = torch.full_like(trees.row, new)
        trees.reward[edge] = reward
        trees.continuation[edge] = continuation
        return continuation * legal_q(nodes.q[:, 0], legal).amax(dim=-1)

    def _back_up(self, trees: _Trees, path: list[_Step], value: Tensor, simulations: int) -> None:
        """Count values (N,) of the last states of N paths in all that lie on them; the root has had so many visits."""
        for step in reversed(path):
            edge = trees.row, step.node, step.action
            trees.visits[edge] += step.taken
            trees.total[edge] += value * step.taken
            trees.bound(trees.total[edge] / trees.visits[edge], step.taken)
            backed_up = trees.reward[edge] + self.gamma * trees.continuation[edge] * value
            value = torch.where(step.taken, backed_up, value)
        trees.root_total.add_(value)
        trees.bound(trees.root_total / simulations, torch.ones_like(path[0].taken))

    def _plan(self, trees: _Trees, dream: Dream, root: Nodes) -> Plan:
        """The first actions ranked by the choice's criterion."""
        at_root = torch.zeros_like(trees.row)
        never = trees.visits[:, 0] == 0
        if self.choice == "value":
            worth = trees.mean_values(at_root)
        elif self.choice == "return":
            worth = trees.returns(at_root, self.gamma).masked_fill(never, float("-inf"))
        else:
            worth = trees.visits[:, 0].masked_fill(never, float("-inf"))
        scores, order = worth.sort(dim=-1, descending=True, stable=True)
        ids = trees.ids.gather(1, trees.child[:, 0].gather(1, order))
        rewards, continuations = (part[:, 0].gather(1, order) for part in (trees.reward, trees.continuation))
        continuations = continuations.masked_fill(never.gather(1, order), 1.0)
        return Plan(
            order[:, 0], root.q[:, 0], scores, order, order[:, :, None], dream.codes(ids)[:, :, None],
            rewards[:, :, None], continuations[:, :, None],
        )  # fmt: skip


def _last_of_highest(scores: Tensor) -> Tensor:
    """The highest index (N,) of several equal largest scores (N, A)."""
    # argmax promises nothing about which of several equal values it returns.
    index = torch.arange(scores.shape[1], device=scores.device)
    return index.masked_fill(scores < scores.amax(dim=1, keepdim=True), -1).amax(dim=1)
