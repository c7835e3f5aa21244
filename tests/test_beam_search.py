"""Beam search against brute force and against an independent reference, on batches of random small MDPs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from plain_planner import ToyWorld, beam_search
from torch.utils._python_dispatch import TorchDispatchMode
from toy_mdp import ACTIONS, ToyDream, ToyMDP, random_legal, toy_context

from jowa.errors import UserError
from jowa.models.world_action_model import ModelConfig
from jowa.planning.beam_search import Beam, BeamSearch
from jowa.planning.config import PlannerConfig, check_planner
from jowa.planning.greedy import Greedy
from jowa.planning.making import make_planner
from jowa.planning.planner import Plan

seeds = st.integers(0, 10**6)


def random_problem(seed: int, count: int, most: int, grid: float | None = None, ends: float = 0.25):
    mdp = ToyMDP.random(seed, count, grid=grid, ends=ends)
    states = torch.randint(mdp.q.shape[1], (count,), generator=torch.Generator().manual_seed(seed))
    return mdp, states, random_legal(seed, count, most)


def allowed(legal: torch.Tensor, environment: int) -> list[int]:
    return legal[environment].nonzero()[:, 0].tolist()


def brute_force(mdp: ToyMDP, n: int, state: int, actions: list[int], search: BeamSearch) -> dict[tuple, float]:
    """The worth of all sequences of actions, cut at the end that ends them: rewards, and the best Q where they lead."""
    worth = {}
    for sequence in itertools.product(actions, repeat=search.horizon):
        here, total, played = state, 0.0, 0
        for action in sequence:
            total += search.gamma**played * mdp.reward[n, here, action].item()
            played += 1
            if search.use_termination and mdp.end[n, here, action]:
                break
            here = mdp.following[n, here, action].item()
        else:
            total += search.gamma**search.horizon * max(mdp.q[n, here, a].item() for a in actions)
        worth[sequence[:played]] = total
    return worth


@settings(max_examples=40, deadline=None)
@given(seed=seeds, horizon=st.integers(0, 4), stop=st.booleans(), gamma=st.sampled_from([1.0, 0.99, 0.5]))
def test_a_beam_that_prunes_nothing_is_brute_force(seed: int, horizon: int, stop: bool, gamma: float) -> None:
    most = 3 if horizon < 4 else 2
    mdp, states, legal = random_problem(seed, 4, most)
    search = BeamSearch(most**horizon, horizon, gamma, stop)
    plan = search.plan(ToyDream(mdp), toy_context(states), legal)
    for n in range(4):
        worth = brute_force(mdp, n, states[n].item(), allowed(legal, n), search)
        kept = plan.scores[n][plan.scores[n] > -torch.inf]
        assert torch.allclose(kept, torch.tensor(sorted(worth.values(), reverse=True), dtype=torch.float64))
        if horizon:
            best = max(worth.values())
            assert plan.actions[n].item() in {sequence[0] for sequence, x in worth.items() if x >= best - 1e-12}


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    width=st.integers(1, 6),
    horizon=st.integers(1, 4),
    stop=st.booleans(),
    gamma=st.sampled_from([1.0, 0.99, 0.5]),
    grid=st.sampled_from([None, 0.5]),
    most=st.sampled_from([1, 2, 4, 18]),
    tolerance=st.sampled_from([0.0, 0.3]),
)
def test_a_narrow_beam_is_the_plain_one_ties_included(
    seed: int, width: int, horizon: int, stop: bool, gamma: float, grid: float | None, most: int, tolerance: float
) -> None:
    mdp, states, legal = random_problem(seed, 3, most, grid)
    search = BeamSearch(width, horizon, gamma, stop, tolerance)
    dream = ToyDream(mdp)
    plan = search.plan(dream, toy_context(states), legal)
    assert dream.expansions == horizon
    for n in range(3):
        world = ToyWorld(mdp, n)
        beam = beam_search(world.imagine, world.root(int(states[n])), allowed(legal, n), search)
        assert plan.actions[n].item() == beam[0].actions[0]
        assert plan.scores[n, : len(beam)].tolist() == [future.score for future in beam]
        for row, future in enumerate(beam):
            imagined = future.states[: future.matters]
            part = n, row, slice(future.matters)
            assert plan.future_actions[part].tolist() == list(future.actions[: future.matters])
            assert plan.frames[part][:, 0].tolist() == [state.place for state in imagined]
            assert plan.rewards[part].tolist() == [state.reward for state in imagined]
            assert plan.continuations[part].tolist() == [1.0 - state.ended for state in imagined]
        assert (plan.scores[n, len(beam) :] == -torch.inf).all()


@settings(max_examples=20, deadline=None)
@given(seed=seeds, width=st.integers(1, 5), horizon=st.integers(0, 3), stop=st.booleans())
def test_many_at_once_is_one_by_one(seed: int, width: int, horizon: int, stop: bool) -> None:
    mdp, states, legal = random_problem(seed, 6, 5, grid=0.5)
    search = BeamSearch(width, horizon, 0.99, stop)
    together = search.plan(ToyDream(mdp), toy_context(states), legal)
    for n in range(6):
        alone = search.plan(ToyDream(mdp.one(n)), toy_context(states[n : n + 1]), legal[n : n + 1])
        for name, part in vars(together).items():
            assert torch.equal(part[n : n + 1], getattr(alone, name)), name


@given(seed=seeds, planner=st.sampled_from([Greedy(), BeamSearch(3, 0)]))
@settings(max_examples=20, deadline=None)
def test_no_horizon_is_the_best_legal_action(seed: int, planner: Greedy | BeamSearch) -> None:
    mdp, states, legal = random_problem(seed, 5, 18, grid=0.5)
    dream = ToyDream(mdp)
    plan = planner.plan(dream, toy_context(states), legal)
    assert dream.expansions == 0
    for n in range(5):
        q = mdp.q[n, states[n]]
        best = max(q[a].item() for a in allowed(legal, n))
        assert plan.actions[n].item() == min(a for a in allowed(legal, n) if q[a].item() == best)
        assert plan.scores[n].tolist() == [best]
        assert torch.equal(plan.root_q[n], q)
    assert torch.equal(plan.first_actions[:, 0], plan.actions) and plan.future_actions.shape == (5, 1, 0)


def test_termination_changes_the_choice_only_when_respected() -> None:
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
    legal = torch.arange(ACTIONS)[None] < 2
    context = toy_context(torch.tensor([0]))
    published, sound = (
        BeamSearch(2, 1, use_termination=stop).plan(ToyDream(mdp), context, legal) for stop in (False, True)
    )
    assert published.actions.tolist() == [0]
    assert sound.actions.tolist() == [1]
    assert sound.scores[0].tolist() == pytest.approx([0.99, 0.0])


def test_an_ended_future_takes_one_row() -> None:
    mdp, states, legal = random_problem(3, 8, 4, ends=1.0)
    plan = BeamSearch(4, 3).plan(ToyDream(mdp), toy_context(states), legal)
    for n in range(8):
        first = plan.first_actions[n][plan.scores[n] > -torch.inf].tolist()
        assert sorted(first) == allowed(legal, n)


class OperationCount(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(count: int) -> int:
    mdp, states, legal = random_problem(0, count, 5)
    context, dream = toy_context(states), ToyDream(mdp)
    with OperationCount() as counted:
        BeamSearch(3, 2).plan(dream, context, legal)
    return counted.count


def test_more_environments_are_not_more_operations() -> None:
    assert operations(1) == operations(17)


def test_planning_never_waits_for_the_host() -> None:
    """Meta tensors hold no data: reading a value, or a shape that depends on one, raises."""
    mdp, states, legal = random_problem(0, 4, 5)
    for planner in (BeamSearch(3, 2), Greedy()):
        plan: Plan = planner.plan(ToyDream(mdp.to("meta")), toy_context(states).to("meta"), legal.to("meta"))
        assert plan.actions.shape == (4,)
        assert plan.actions.is_meta


@pytest.mark.parametrize(
    ("settings_", "key"),
    [
        ({"name": "mcst"}, "planner.name"),
        ({"width": 0}, "planner.width"),
        ({"horizon": -1}, "planner.horizon"),
        ({"gamma": 0.0}, "planner.gamma"),
        ({"tie_tolerance": -0.1}, "planner.tie_tolerance"),
        ({"gamma": 1.01}, "planner.gamma"),
        ({"context": 0}, "planner.context"),
        ({"context": 9, "horizon": 0}, "planner.context"),
        ({"horizon": 8, "context": 1}, "planner.horizon"),
        ({"horizon": 3, "context": 6}, "planner.horizon"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings_: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_planner(PlannerConfig(**settings_), blocks=8)


@pytest.mark.parametrize("name", ["beam", "mcts"])
@pytest.mark.parametrize("blocks", [4, 8, 12])
def test_context_and_horizon_fit_the_models_frames(name: str, blocks: int) -> None:
    model = ModelConfig(blocks=blocks)
    longest = PlannerConfig(name, horizon=2, context=blocks - 2)
    assert longest.for_game(model, "Pong") == longest
    assert PlannerConfig("greedy", context=blocks).for_game(model, "Pong").context == blocks
    for horizon, context, message in (
        (3, blocks - 2, f"exceed the {blocks} frames .* planner.context to at most {blocks - 3}"),
        (0 if name == "beam" else 1, blocks + 1, f"planner.context={blocks + 1} .* 1 to {blocks} frames"),
        (blocks, 1, f"planner.horizon={blocks} .* at most {blocks - 1}"),
    ):
        config = PlannerConfig(name, horizon=horizon, context=context)
        check_planner(config)
        with pytest.raises(UserError, match=message):
            config.for_game(model, "Pong")


@pytest.mark.parametrize("name", ["greedy", "beam", "demo"])
def test_presets_are_possible_settings(name: str) -> None:
    preset = OmegaConf.load(Path(__file__).parents[1] / "configs" / "planner" / f"{name}.yaml")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PlannerConfig), preset))
    assert isinstance(config, PlannerConfig)
    assert config.name == (name if name == "greedy" else "beam")
    check_planner(config, ModelConfig().blocks)


def test_possible_settings_make_their_planner() -> None:
    for config in (PlannerConfig(), PlannerConfig(horizon=7, context=1), PlannerConfig("greedy", context=8)):
        check_planner(config, blocks=8)
    assert isinstance(make_planner(PlannerConfig("greedy")), Greedy)
    search = make_planner(PlannerConfig("beam", 4, 3, gamma=0.9, use_termination=False))
    assert isinstance(search, BeamSearch)
    assert (search.width, search.horizon, search.gamma, search.use_termination) == (4, 3, 0.9, False)


@given(seed=seeds, horizon=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_within_the_tolerance_q_decides(seed: int, horizon: int) -> None:
    mdp, states, legal = random_problem(seed, 5, 4)
    problem = toy_context(states), legal
    exact = BeamSearch(3, horizon).plan(ToyDream(mdp), *problem)
    same = BeamSearch(3, horizon, tie_tolerance=0.0).plan(ToyDream(mdp), *problem)
    assert torch.equal(exact.actions, same.actions) and torch.equal(exact.scores, same.scores)
    blind = BeamSearch(3, horizon, tie_tolerance=1e6).plan(ToyDream(mdp), *problem)
    assert torch.equal(blind.actions, Greedy().plan(ToyDream(mdp), *problem).actions)


def test_only_the_best_future_spreads_its_tolerance() -> None:
    scores = torch.tensor([[1.0, 1.45, 1.5, 0.96, float("-inf")]])
    ids = torch.arange(5)[None]
    steps = torch.zeros(1, 5, 1)
    beam = Beam(ids[:, :, None], torch.zeros(1, 5, 2), scores, scores, scores, ids[:, :, None], steps, steps)
    assert beam.best(4, 0.1).actions[:, :, 0].tolist() == [[1, 2, 0, 3]]
    assert beam.best(4, 0.0).actions[:, :, 0].tolist() == [[2, 1, 0, 3]]
    assert beam.best(1, 0.5).scores.tolist() == [[1.0]], "just within counts, and came first"
    assert beam.best(2, 0.1).scores.tolist() == [[scores[0, 1].item(), 1.5]]
