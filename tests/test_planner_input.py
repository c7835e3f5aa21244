"""What planners refuse: one clear sentence each, before anything is imagined."""

from __future__ import annotations

import pytest
import torch
from test_dream import make_model, one, random_context
from torch import Tensor
from toy_mdp import ToyDream, ToyMDP, toy_context

from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context
from jowa.planning.greedy import Greedy
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.planner import Planner
from jowa.planning.tree_dream import TreeDream

TOKENS = 4
MODEL = make_model(TOKENS)
PLANNERS = [Greedy(), BeamSearch(2, 0), BeamSearch(2, 2), MonteCarloTreeSearch(3, 2)]
ALL = torch.ones(3, 18, dtype=torch.bool)


def history(frames: int, actions: int) -> tuple[Tensor, Tensor]:
    return torch.arange(frames * TOKENS).view(frames, TOKENS) % 24, torch.arange(actions)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
def test_an_environment_without_a_legal_action_is_named(planner: Planner) -> None:
    mdp = ToyMDP.random(0, 3)
    legal = ALL.clone()
    legal[1] = False
    with pytest.raises(ValueError, match="environment 1 has no legal action"):
        planner.plan(ToyDream(mdp), toy_context(torch.tensor([0, 1, 2])), legal)


@pytest.mark.parametrize("planner", [BeamSearch(2, 3), MonteCarloTreeSearch(30, 3)], ids=["beam", "mcts"])
def test_context_and_horizon_beyond_the_models_frames(planner: Planner) -> None:
    """Eight in all: five and three are, six and three are not, in any environment of a batch."""
    dream = TreeDream(MODEL)
    planner.plan(dream, random_context(0, [5, 1, 5], [0, 1, 2], TOKENS), ALL)
    with pytest.raises(ValueError, match=r"6 frames and 3 .* longer than the 8 .* sees: give fewer frames"):
        planner.plan(dream, random_context(0, [5, 1, 6], [0, 1, 2], TOKENS), ALL)


def test_a_context_beyond_the_models_frames() -> None:
    with pytest.raises(ValueError, match=r"a path of 9 frames .* longer than the 8 frames the model sees"):
        Greedy().plan(TreeDream(MODEL), random_context(0, [9, 1, 2], [0, 1, 2], TOKENS), ALL)


def test_no_width_no_horizon() -> None:
    for width, horizon in ((0, 2), (-1, 2), (2, -1)):
        with pytest.raises(ValueError, match=f"width must be at least 1 .* not {width} and {horizon}"):
            BeamSearch(width, horizon)


@pytest.mark.parametrize(
    ("frames", "actions", "words"),
    [
        (0, 0, "environment 2's context is empty: give at least its present frame"),
        (3, 3, "environment 2's context ends with an action: 3 frames take 2 actions, the present frame's is what is"),
        (3, 1, "environment 2's context lacks actions: 3 frames take 2"),
        (5, 4, "environment 2's context has 5 frames, there is room for 4"),
    ],
)
def test_histories_that_cannot_be_planned_from(frames: int, actions: int, words: str) -> None:
    histories = [history(2, 1), history(1, 0), history(frames, actions)]
    with pytest.raises(ValueError, match=words):
        Context.of(histories, [0, 1, 2], width=4)


def test_every_history_has_its_task() -> None:
    with pytest.raises(ValueError, match="not 2 and 1"):
        Context.of([history(2, 1), history(1, 0)], [0])
    with pytest.raises(ValueError, match="not 0 and 0"):
        Context.of([], [])


@pytest.mark.parametrize("width", [None, 3, 6])
def test_histories_side_by_side(width: int | None) -> None:
    """Whatever the width, each environment's part is its own history."""
    histories, tasks = [history(2, 1), history(1, 0), history(3, 2)], [59, 0, 7]
    context = Context.of(histories, tasks, width)
    assert context.codes.shape == (3, width or 3, TOKENS)
    assert context.lengths.tolist() == [2, 1, 3] and context.tasks.tolist() == tasks
    for n, (codes, actions) in enumerate(histories):
        alone = one(context, n)
        assert torch.equal(alone.codes[0], codes) and torch.equal(alone.actions[0, :-1], actions)
    plans = [BeamSearch(2, 2).plan(TreeDream(MODEL), x, ALL).scores for x in (context, Context.of(histories, tasks))]
    assert torch.allclose(*plans, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("lengths", 0, "environment 1 has a length outside 1 … 3"),
        ("lengths", 4, "environment 1 has a length outside 1 … 3"),
        ("tasks", -1, "environment 1 has a task id outside 0 … 59"),
        ("tasks", 60, "environment 1 has a task id outside 0 … 59"),
        ("codes", -1, "environment 1 has negative codes"),
    ],
)
def test_what_the_model_cannot_read(part: str, value: int, words: str) -> None:
    good = vars(random_context(0, [2, 3, 1], [0, 59, 2], TOKENS))
    bad = {**good, part: good[part].clone()}
    bad[part].view(3, -1)[1, -1] = value
    with pytest.raises(ValueError, match=words):
        Context(**bad)


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
@pytest.mark.parametrize(
    ("part", "place", "value", "words"),
    [
        ("codes", (1, 2, 0), 24, r"environment 1's context has codes outside 0 … 23"),
        ("actions", (1, 1), 18, r"environment 1's context has actions outside 0 … 17"),
        ("actions", (1, 0), -1, r"environment 1's context has actions outside 0 … 17"),
    ],
)
def test_what_this_model_does_not_know(
    planner: Planner, part: str, place: tuple[int, ...], value: int, words: str
) -> None:
    good = vars(random_context(0, [2, 3, 1], [0, 59, 2], TOKENS))
    bad = {**good, part: good[part].clone()}
    bad[part][place] = value
    with pytest.raises(ValueError, match=words):
        planner.plan(TreeDream(MODEL), Context(**bad), ALL)


def test_frames_and_legal_actions_of_another_shape() -> None:
    context = random_context(0, [2, 3, 1], [0, 59, 2], TOKENS)
    with pytest.raises(ValueError, match="frames of 5 codes aren't the model's of 4"):
        Greedy().plan(TreeDream(MODEL), random_context(0, [2, 3, 1], [0, 59, 2], TOKENS + 1), ALL)
    for planner in PLANNERS:
        for legal in (ALL[:2], ALL.long(), ALL[0]):
            with pytest.raises(ValueError, match=r"legal must be bool of shape \(3, actions\)"):
                planner.plan(TreeDream(MODEL), context, legal)
        for actions in (6, 20):
            with pytest.raises(ValueError, match=f"legal must be of the model's 18 actions, not {actions}"):
                planner.plan(TreeDream(MODEL), context, torch.ones(3, actions, dtype=torch.bool))


@pytest.mark.parametrize("name", ["codes", "actions", "lengths", "tasks"])
@pytest.mark.parametrize("kind", [torch.uint16, torch.int32, torch.float32])
def test_numbers_of_another_kind(name: str, kind: torch.dtype) -> None:
    """The store keeps codes as uint16."""
    parts = vars(random_context(0, [2, 3, 1], [0, 59, 2], TOKENS))
    with pytest.raises(ValueError, match=f"{name} must be int64, not {kind}"):
        Context(**{**parts, name: parts[name].to(kind)})


def test_padding_may_hold_anything() -> None:
    context = random_context(0, [2, 3, 1], [0, 59, 2], TOKENS)
    for filling in (-1, 10**6):
        codes = context.codes.clone()
        codes[0, 2:] = codes[2, 1:] = filling
        actions = context.actions.clone()
        actions[0, 1:] = actions[1, 2:] = filling
        TreeDream(MODEL).reset(Context(codes, actions, context.lengths, context.tasks))
