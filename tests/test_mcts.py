"""Monte Carlo tree search against a plain recursive one and against brute force, on batches of random small MDPs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from plain_planner import PlainSearch, ToyWorld
from test_beam_search import OperationCount, allowed, random_problem
from test_dream import MODEL, one, random_context
from torch import Tensor
from toy_mdp import ACTIONS, ToyDream, ToyMDP, random_legal, toy_context

from jowa.errors import UserError
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.dream import Context, Nodes
from jowa.planning.making import make_planner
from jowa.planning.mcts import CHOICES, MonteCarloTreeSearch
from jowa.planning.tree_dream import TreeDream

seeds = st.integers(0, 10**6)
choices = st.sampled_from(CHOICES)


class Diary(ToyDream):
    """A dream that remembers what it was asked to imagine: (parent, action), each (N, B)."""

    def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
        self.asked: list[tuple[Tensor, Tensor]] = []
        return super().reset(context, room, depth)

    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        self.asked.append((parent, action))
        return super().expand(parent, action)


@settings(max_examples=120, deadline=None)
@given(
    seed=seeds,
    simulations=st.sampled_from([1, 2, 7, 40]),
    horizon=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 0.9, 10.0]),
    gamma=st.sampled_from([1.0, 0.99, 0.5]),
    choice=choices,
    stop=st.booleans(),
    grid=st.sampled_from([None, 0.5]),
    most=st.sampled_from([1, 3, 18]),
)
def test_the_search_is_the_plain_one_ties_included(
    seed: int, simulations: int, horizon: int, temperature: float, gamma: float, choice: str, stop: bool,
    grid: float | None, most: int,
) -> None:  # fmt: skip
    """The same steps imagined in the same order, and from them the same visits, values and choices."""
    mdp, states, legal = random_problem(seed, 4, most, grid)
    search = MonteCarloTreeSearch(simulations, horizon, temperature, gamma, choice, stop)
    dream = Diary(mdp)
    plan = search.plan(dream, toy_context(states), legal)
    for n in range(4):
        world = ToyWorld(mdp, n)
        plain = PlainSearch(world.imagine, world.root(int(states[n])), allowed(legal, n), search)
        assert [(parent[n].item(), action[n].item()) for parent, action in dream.asked] == plain.asked
        ranked, measures = zip(*plain.ranked(ACTIONS), strict=True)
        assert plan.actions[n].item() == ranked[0]
        assert plan.first_actions[n].tolist() == list(ranked)
        assert plan.scores[n].tolist() == list(measures)
        children = plain.root.children
        first = [children[action].id if action in children else 0 for action in ranked]
        assert plan.frames[n, :, 0, 0].tolist() == dream.states[n, first].tolist()
        assert torch.equal(plan.root_q[n], mdp.q[n, states[n]])


@settings(max_examples=20, deadline=None)
@given(seed=seeds, simulations=st.integers(1, 20), horizon=st.integers(1, 3), choice=choices, stop=st.booleans())
def test_many_at_once_is_one_by_one(seed: int, simulations: int, horizon: int, choice: str, stop: bool) -> None:
    mdp, states, legal = random_problem(seed, 6, 18, grid=0.5)
    search = MonteCarloTreeSearch(simulations, horizon, choice=choice, use_termination=stop)
    together = search.plan(ToyDream(mdp), toy_context(states), legal)
    for n in range(6):
        alone = search.plan(ToyDream(mdp.one(n)), toy_context(states[n : n + 1]), legal[n : n + 1])
        for name, part in vars(together).items():
            assert torch.equal(part[n : n + 1], getattr(alone, name)), name


def test_an_end_changes_the_choice_only_when_respected() -> None:
    """Action 0 promises a high value behind an end, action 1 a small one without."""
    shape = (1, 2, ACTIONS)
    q = torch.zeros(shape, dtype=torch.float64)
    q[0, 0, :2] = torch.tensor([1.0, 0.5])
    q[0, 1, :2] = torch.tensor([10.0, 9.0])
    following = torch.ones(shape, dtype=torch.int64)
    following[0, 0, 1] = 0
    end = torch.zeros(shape, dtype=torch.bool)
    end[0, 0, 0] = True
    mdp = ToyMDP(following, torch.zeros_like(q), end, q)
    problem = toy_context(torch.tensor([0])), torch.arange(ACTIONS)[None] < 2
    for choice in CHOICES:
        published, sound = (
            MonteCarloTreeSearch(12, 2, choice=choice, use_termination=stop).plan(ToyDream(mdp), *problem)
            for stop in (False, True)
        )
        assert published.actions.tolist() == [0]
        assert sound.actions.tolist() == [1]


def test_nothing_is_imagined_after_an_end() -> None:
    """Every action ends: each simulation tries an action of the root, tried before or not."""
    mdp, states, legal = random_problem(3, 8, 4, ends=1.0)
    dream = Diary(mdp)
    plan = MonteCarloTreeSearch(9, 3).plan(dream, toy_context(states), legal)
    assert all((parent == 0).all() for parent, _ in dream.asked)
    for n in range(8):
        first = plan.first_actions[n][plan.scores[n] > -torch.inf]
        assert plan.scores[n, : len(first)].tolist() == mdp.reward[n, states[n], first].tolist()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, simulations=st.integers(1, 12), choice=st.sampled_from(["return", "visits"]), stop=st.booleans())
def test_a_sound_choice_was_tried_and_is_legal(seed: int, simulations: int, choice: str, stop: bool) -> None:
    mdp, states, legal = random_problem(seed, 5, 18, grid=0.5)
    dream = Diary(mdp)
    search = MonteCarloTreeSearch(simulations, 3, choice=choice, use_termination=stop)
    plan = search.plan(dream, toy_context(states), legal)
    for n in range(5):
        tried = {action[n].item() for parent, action in dream.asked if parent[n] == 0}
        possible = plan.first_actions[n][plan.scores[n] > -torch.inf].tolist()
        assert tried == set(possible) <= set(allowed(legal, n))
        assert plan.actions[n].item() in tried
        reached = mdp.following[n, states[n], plan.first_actions[n, : len(tried)]]
        assert torch.equal(plan.frames[n, : len(tried), 0, 0], reached)
        assert (plan.frames[n, len(tried) :] == states[n]).all()
        assert (plan.rewards[n, len(tried) :] == 0).all() and (plan.continuations[n, len(tried) :] == 1).all()


def test_the_published_choice_prefers_what_it_never_tried_to_a_loss() -> None:
    mdp, states, _ = random_problem(0, 1, 1)
    losing = ToyMDP(mdp.following, torch.zeros_like(mdp.reward), torch.zeros_like(mdp.end), -mdp.q.abs() - 1)
    legal = (torch.arange(ACTIONS) >= 3)[None]
    plans = {
        choice: MonteCarloTreeSearch(2, 2, choice=choice).plan(ToyDream(losing), toy_context(states), legal)
        for choice in CHOICES
    }
    assert plans["value"].actions.tolist() == [0]  # illegal
    assert plans["value"].scores[0, 0] == 0
    for choice in ("return", "visits"):
        assert legal[0, plans[choice].actions[0]]
        assert plans[choice].frames[0, 0, 0, 0] == mdp.following[0, states[0], plans[choice].actions[0]]


def test_every_simulation_imagines_one_step_in_all_environments() -> None:
    mdp, states, legal = random_problem(1, 6, 18)
    for horizon in (1, 3):
        dream = Diary(mdp)
        MonteCarloTreeSearch(11, horizon).plan(dream, toy_context(states), legal)
        assert dream.expansions == 11
        assert {parent.shape for parent, _ in dream.asked} == {(6, 1)}


class Tripling(ToyDream):
    """A dream that numbers its nodes by threes."""

    def expand(self, parent: Tensor, action: Tensor) -> Nodes:
        nodes = super().expand(parent // 3, action)
        return replace(nodes, ids=3 * nodes.ids)

    def codes(self, ids: Tensor) -> Tensor:
        return super().codes(ids // 3)


def test_nodes_are_known_by_the_dreams_own_ids() -> None:
    mdp, states, legal = random_problem(2, 6, 5)
    search, problem = MonteCarloTreeSearch(20, 3), (toy_context(states), legal)
    plain, tripled = (search.plan(dream, *problem) for dream in (ToyDream(mdp), Tripling(mdp)))
    assert torch.equal(plain.scores, tripled.scores)
    assert torch.equal(plain.frames, tripled.frames)


def operations(count: int) -> int:
    mdp, states, legal = random_problem(0, count, 5)
    context, dream = toy_context(states), ToyDream(mdp)
    with OperationCount() as counted:
        MonteCarloTreeSearch(6, 2).plan(dream, context, legal)
    return counted.count


def test_more_environments_are_not_more_operations() -> None:
    # From two on: at one, torch's own indexed writes take a few more views.
    assert operations(2) == operations(17)


@pytest.mark.parametrize("choice", CHOICES)
def test_planning_never_waits_for_the_host(choice: str) -> None:
    """Meta tensors hold no data: reading a value, or a shape that depends on one, raises."""
    mdp, states, legal = random_problem(0, 4, 5)
    search = MonteCarloTreeSearch(5, 3, choice=choice)
    plan = search.plan(ToyDream(mdp.to("meta")), toy_context(states).to("meta"), legal.to("meta"))
    assert plan.actions.is_meta and plan.actions.shape == (4,)
    assert plan.scores.shape == plan.first_actions.shape == plan.frames.shape[:2] == (4, ACTIONS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_search_works_in_the_precision_of_q(dtype: torch.dtype) -> None:
    mdp, states, legal = random_problem(0, 4, 5)
    coarse = ToyMDP(mdp.following, mdp.reward, mdp.end, mdp.q.to(dtype))
    for choice in CHOICES:
        plan = MonteCarloTreeSearch(9, 3, choice=choice).plan(ToyDream(coarse), toy_context(states), legal)
        assert plan.scores.dtype == plan.root_q.dtype == dtype


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("choice", CHOICES)
def test_searching_a_model_for_many_at_once_is_one_by_one(seed: int, choice: str) -> None:
    """Contexts of different lengths and games, up to the longest path the model sees."""
    lengths = [2, 5, 1, 4]
    context = random_context(seed, lengths, [(7 * seed + 11 * n) % 60 for n in range(4)])
    legal = random_legal(seed, 4, 6)
    search = MonteCarloTreeSearch(10, 3, choice=choice, use_termination=seed % 2 == 0)
    dream = TreeDream(MODEL)
    together = search.plan(dream, context, legal)
    for n in range(4):
        alone = search.plan(dream, one(context, n), legal[n : n + 1])
        assert alone.actions[0] == together.actions[n]
        assert torch.allclose(alone.root_q[0], together.root_q[n], atol=1e-4)
        assert torch.allclose(alone.scores[0], together.scores[n], atol=1e-4)
        assert torch.equal(alone.first_actions[0], together.first_actions[n])
        assert torch.equal(alone.frames[0], together.frames[n])


@pytest.mark.parametrize(
    ("settings_", "key"),
    [
        ({"simulations": 0}, "planner.simulations=0"),
        ({"temperature": 0.0}, "planner.temperature=0.0"),
        ({"temperature": math.nan}, "planner.temperature=nan"),
        ({"choice": "best"}, "planner.choice=best is unknown: choose one of return, value, visits"),
        ({"horizon": 0}, "planner.horizon=0 .* planner=greedy"),
        ({"horizon": -1}, "planner.horizon=-1"),
        ({"tie_tolerance": 0.1}, "planner.tie_tolerance=0.1 .* set it to 0"),
        ({"horizon": 8, "context": 1}, "planner.horizon=8"),
        ({"horizon": 3, "context": 6}, "planner.context=6"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings_: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_planner(PlannerConfig("mcts", **settings_), blocks=8)


@pytest.mark.parametrize(
    "arguments",
    [{"simulations": 0}, {"horizon": 0}, {"temperature": 0.0}, {"choice": "best"}],
)
def test_misuse_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MonteCarloTreeSearch(**{"simulations": 1, "horizon": 1, **arguments})


def test_the_preset_and_its_settings_make_the_search() -> None:
    preset = OmegaConf.load(Path(__file__).parents[1] / "configs" / "planner" / "mcts.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PlannerConfig), preset))
    assert config == PlannerConfig("mcts")
    check_planner(config, blocks=8)
    check_planner(PlannerConfig("mcts", horizon=7, context=1), blocks=8)
    search = make_planner(PlannerConfig("mcts", 2, 3, 5, 0.9, False, 0.0, 12, 0.5, "visits"))
    assert isinstance(search, MonteCarloTreeSearch)
    assert (search.simulations, search.horizon, search.temperature, search.gamma) == (12, 3, 0.5, 0.9)
    assert (search.choice, search.use_termination) == ("visits", False)
