"""The fast planners against plain ones that recompute every sequence, one environment at a time, in float32.

Random models, every context length and real games with 3 to 18 legal actions side by side. A decision may hang on a
difference that float32 rounds away: such a disagreement must be gone in float64, and be rare.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from plain_planner import Future, History, ModelWorld, PlainSearch, State, beam_search, greedy
from torch import Tensor

from jowa.games import NUM_ACTIONS, legal_actions, task_id
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.execution import ExecutionConfig
from jowa.planning.greedy import Greedy
from jowa.planning.making import make_dream
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.planner import Plan, Planner
from jowa.planning.splitting import InParts

VOCABULARY = 24
BLOCKS = 8
GAMES = (
    "Freeway", "Seaquest", "Breakout", "JourneyEscape", "Pong", "Assault", "KungFuMaster", "Gopher",
    "Asterix", "Skiing", "Amidar", "Zaxxon", "Atlantis", "Asteroids", "Phoenix", "MsPacman",
)  # fmt: skip


def random_model(seed: int, tokens: int = 4, layers: int = 1) -> WorldActionModel:
    """A tiny model with weights large enough that actions and codes matter to its predictions."""
    torch.manual_seed(seed)
    sizes = ModelConfig(layers=layers, heads=2, width=16, q_networks=2, q_width=12, atoms=21, blocks=BLOCKS)
    model = WorldActionModel(sizes, VOCABULARY, tokens)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.6)
    return model.eval()


def in_double(model: WorldActionModel) -> WorldActionModel:
    """The same model in float64; expected Q is always computed in float32."""
    exact = copy.deepcopy(model).double()
    exact.support = exact.support.float()
    return exact


@dataclass(frozen=True)
class Problem:
    """A model, and one environment a game: what was seen and done."""

    model: WorldActionModel
    histories: list[History]

    @classmethod
    def random(cls, seed: int, model: WorldActionModel, lengths: Sequence[int]) -> Problem:
        random = torch.Generator().manual_seed(seed)
        return cls(model, [
            History(
                torch.randint(VOCABULARY, (length, model.tokens_per_frame), generator=random).tolist(),
                torch.randint(NUM_ACTIONS, (length - 1,), generator=random).tolist(),
            )
            for length in lengths
        ])  # fmt: skip

    def exactly(self) -> Problem:
        return Problem(in_double(self.model), self.histories)

    def world(self, n: int) -> ModelWorld:
        return ModelWorld(self.model, task_id(GAMES[n]))

    def plan(self, planner: Planner, rows: Sequence[int]) -> Plan:
        """The fast planner's plan for some environments side by side."""
        context = Context.of(
            [
                (torch.tensor(self.histories[n].frames), torch.tensor(self.histories[n].actions, dtype=torch.int64))
                for n in rows
            ],
            [task_id(GAMES[n]) for n in rows],
        )
        legal = torch.zeros(len(rows), NUM_ACTIONS, dtype=torch.bool)
        for row, n in enumerate(rows):
            legal[row, list(legal_actions(GAMES[n]))] = True
        return InParts(planner).plan(make_dream(self.model, ExecutionConfig()), context, legal)


Judge = Callable[[Plan, int], bool]
"""Whether a row of a plan is what the plain planner chooses."""


def check(
    problem: Problem, planner: Planner, judge: Callable[[Problem, int], Judge], batches: Sequence[Sequence[int]]
) -> None:
    """Plans for batches of a problem's environments, at most one of these being near a tie."""
    judges = {n: judge(problem, n) for batch in batches for n in batch}
    near_ties = set()
    for batch in batches:
        plan = problem.plan(planner, batch)
        for row, n in enumerate(batch):
            if not judges[n](plan, row):
                exact = problem.exactly()
                agreed = judge(exact, n)(exact.plan(planner, batch), row)
                assert agreed, f"environment {n} of {list(batch)} differs, and not by rounding"
                near_ties.add(n)
    assert len(near_ties) <= 1


def beam_judge(search: BeamSearch) -> Callable[[Problem, int], Judge]:
    def judge(problem: Problem, n: int) -> Judge:
        world = problem.world(n)
        beam = beam_search(world.imagine, world.root(problem.histories[n]), list(legal_actions(GAMES[n])), search)
        return lambda plan, row: is_beam(plan, row, beam)

    return judge


def is_beam(plan: Plan, row: int, beam: list[Future]) -> bool:
    """Whether a row of a plan has a beam's futures and no others, each as far as it matters."""
    kept, none = plan.scores[row, : len(beam)], plan.scores[row, len(beam) :]
    return (
        plan.actions[row].item() == beam[0].actions[0]
        and plan.first_actions[row, : len(beam)].tolist() == [future.actions[0] for future in beam]
        and close(kept, [future.score for future in beam])
        and bool((none == -torch.inf).all())
        and all(is_told(plan, row, i, future.states[: future.matters]) for i, future in enumerate(beam))
    )


def is_told(plan: Plan, row: int, future: int, states: Sequence[State]) -> bool:
    """Whether a plan's future begins with these states."""
    steps = row, future, slice(len(states))
    return (
        plan.frames[steps].tolist() == [state.frame for state in states]
        and plan.rewards[steps].tolist() == [state.reward for state in states]
        and plan.continuations[steps].tolist() == [1.0 - state.ended for state in states]
    )


def close(ours: Tensor, theirs: Sequence[float]) -> bool:
    return torch.allclose(ours.double(), torch.tensor(theirs, dtype=torch.float64), rtol=0.0, atol=1e-4)


def mixed_lengths(count: int, horizon: int) -> list[int]:
    """Of contexts, each length that leaves room for the horizon."""
    return [1 + n % (BLOCKS - horizon) for n in range(count)]


@pytest.mark.parametrize("use_termination", [True, False])
@pytest.mark.parametrize("horizon", range(1, 5))
@pytest.mark.parametrize("width", range(1, 5))
def test_beams_are_the_plain_ones(width: int, horizon: int, use_termination: bool) -> None:
    """Sixteen, three and one environments at once, one with every length of context; each case has its own model."""
    seed = 100 * use_termination + 10 * width + horizon
    model = random_model(seed, tokens=9 if seed % 3 == 0 else 4, layers=1 + seed % 2)
    problem = Problem.random(seed, model, mixed_lengths(16, horizon))
    search = BeamSearch(width, horizon, use_termination=use_termination)
    alone = [[n] for n in range(BLOCKS - horizon)]
    check(problem, search, beam_judge(search), [range(16), range(3), range(5, 8), range(13, 16), *alone])


@pytest.mark.parametrize(("width", "horizon"), [(4, 2), (2, 3), (1, 4)])
def test_beams_over_whole_frames_are_the_plain_ones(width: int, horizon: int) -> None:
    """The paper's 36 codes a frame."""
    problem = Problem.random(width, random_model(width, tokens=36), [1, BLOCKS - horizon, 3])
    search = BeamSearch(width, horizon)
    check(problem, search, beam_judge(search), [range(3), [1]])


@pytest.mark.parametrize("use_termination", [True, False])
@pytest.mark.parametrize(
    ("simulations", "horizon", "choice"),
    [(1, 1, "visits"), (6, 2, "return"), (6, 2, "value"), (12, 3, "return"), (12, 3, "visits"), (20, 4, "return")],
)
def test_tree_searches_are_the_plain_ones(simulations: int, horizon: int, choice: str, use_termination: bool) -> None:
    problem = Problem.random(simulations, random_model(simulations), mixed_lengths(16, horizon))
    search = MonteCarloTreeSearch(simulations, horizon, choice=choice, use_termination=use_termination)

    def judge(problem: Problem, n: int) -> Judge:
        world = problem.world(n)
        root = world.root(problem.histories[n])
        plain = PlainSearch(world.imagine, root, list(legal_actions(GAMES[n])), search)
        return lambda plan, row: is_tree(plan, row, plain)

    check(problem, search, judge, [range(16), range(3), [15]])


def is_tree(plan: Plan, row: int, plain: PlainSearch) -> bool:
    """Whether a row of a plan ranks the first actions as the plain search does, and tells where those tried lead."""
    ranked, measures = zip(*plain.ranked(NUM_ACTIONS), strict=True)
    tried = [(i, plain.root.children[action]) for i, action in enumerate(ranked) if action in plain.measures()]
    return (
        plan.actions[row].item() == ranked[0]
        and plan.first_actions[row].tolist() == plan.future_actions[row, :, 0].tolist() == list(ranked)
        and close(plan.scores[row], measures)
        and all(
            plan.frames[row, i, 0].tolist() == child.state.frame and plan.rewards[row, i, 0].item() == child.reward
            for i, child in tried
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_greedy_play_is_the_plain_one(seed: int) -> None:
    problem = Problem.random(seed, random_model(seed, tokens=(4, 36)[seed % 2]), mixed_lengths(16, 0))

    def judge(problem: Problem, n: int) -> Judge:
        root, legal = problem.world(n).root(problem.histories[n]), list(legal_actions(GAMES[n]))
        best = greedy(root, legal)
        return lambda plan, row: plan.actions[row].item() == best and close(plan.scores[row], [root.q[best]])

    check(problem, Greedy(), judge, [range(16), range(3), *([n] for n in range(8))])


def test_these_models_are_worth_testing_with() -> None:
    """Looking ahead changes the choice, and so do ends; Q tells actions apart; rewards and codes are of all kinds."""
    changed = ended = 0
    rewards, codes = set(), set()
    for seed in range(12, 45, 4):
        problem = Problem.random(seed, random_model(seed), mixed_lengths(16, 3))
        sound, published = (problem.plan(BeamSearch(4, 3, use_termination=stop), range(16)) for stop in (True, False))
        assert sound.root_q.std(dim=1).min() > 0.5
        changed += int((published.actions != problem.plan(Greedy(), range(16)).actions).sum())
        ended += int((published.actions != sound.actions).sum())
        rewards |= set(published.rewards.flatten().tolist())
        codes |= set(published.frames.flatten().tolist())
    assert changed > 40 and ended > 10 and rewards == {-1.0, 0.0, 1.0} and len(codes) > VOCABULARY // 2
