"""Monte Carlo tree search comes to the optimum, found by brute force, as its simulations grow."""

from __future__ import annotations

import pytest
import torch
from test_beam_search import allowed, random_problem
from toy_mdp import ToyDream, ToyMDP, toy_context

from jowa.planning.greedy import Greedy
from jowa.planning.mcts import MonteCarloTreeSearch

COUNT = 64


def best_return(mdp: ToyMDP, n: int, state: int, steps: int, actions: list[int], stop: bool) -> dict[int, float]:
    """For each first action the highest return of all sequences of so many steps, a legal Q at their end."""
    returns = {}
    for action in actions:
        returns[action] = mdp.reward[n, state, action].item()
        following = int(mdp.following[n, state, action])
        if stop and mdp.end[n, state, action]:
            continue
        if steps == 1:
            below = max(mdp.q[n, following, a].item() for a in actions)
        else:
            below = max(best_return(mdp, n, following, steps - 1, actions, stop).values())
        returns[action] += 0.99 * below
    return returns


def search(simulations: int, horizon: int, choice: str, stop: bool) -> MonteCarloTreeSearch:
    """With a broad prior: a sharp one that is wrong takes more simulations to overcome."""
    return MonteCarloTreeSearch(simulations, horizon, temperature=10.0, choice=choice, use_termination=stop)


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("choice", ["return", "visits"])
def test_enough_simulations_find_the_optimum(horizon: int, choice: str, stop: bool) -> None:
    mdp, states, legal = random_problem(12, COUNT, 3)
    problem = toy_context(states), legal
    plan = search(600, horizon, choice, stop).plan(ToyDream(mdp), *problem)
    greedy = Greedy().plan(ToyDream(mdp), *problem)
    clear = corrected = 0
    for n in range(COUNT):
        returns = best_return(mdp, n, int(states[n]), horizon, allowed(legal, n), stop)
        best, second = sorted(returns, key=lambda action: -returns[action])[:2] if len(returns) > 1 else (None, None)
        if best is None or returns[best] - returns[second] < 0.5:
            continue
        clear += 1
        corrected += greedy.actions[n].item() != best
        assert plan.actions[n].item() == best
    assert clear > 15 and corrected > 5, "these problems are too easy to test with"


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("horizon", [2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_more_simulations_lose_less(seed: int, horizon: int, stop: bool) -> None:
    """What the played actions' best returns lack of the optimum, and how far off its worth is judged, on average."""
    mdp, states, legal = random_problem(seed, COUNT, 3)
    returns = [best_return(mdp, n, int(states[n]), horizon, allowed(legal, n), stop) for n in range(COUNT)]
    best = torch.tensor([max(each.values()) for each in returns])
    lacking, misjudged = [], []
    for simulations in (3, 30, 300):
        plan = search(simulations, horizon, "return", stop).plan(ToyDream(mdp), toy_context(states), legal)
        played = torch.tensor([returns[n][action] for n, action in enumerate(plan.actions.tolist())])
        lacking.append((best - played).mean().item())
        misjudged.append((best - plan.scores[:, 0]).abs().mean().item())
    assert lacking[0] > 10 * lacking[-1]
    assert misjudged == sorted(misjudged, reverse=True)
