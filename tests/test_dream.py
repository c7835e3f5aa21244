"""The tree dream against the plain causal model on whole sequences, and one environment against many."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_mdp import random_legal

from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning.beam_search import BeamSearch
from jowa.planning.dream import Context, Nodes
from jowa.planning.greedy import Greedy
from jowa.planning.tree_dream import TreeDream

VOCABULARY = 24
CODES = 36


def make_model(codes: int = CODES, blocks: int = 8) -> WorldActionModel:
    """A tiny model in float64 with weights large enough that actions and codes matter to its predictions."""
    torch.manual_seed(0)
    sizes = ModelConfig(layers=2, heads=2, width=16, q_networks=2, q_width=12, blocks=blocks)
    model = WorldActionModel(sizes, VOCABULARY, codes)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.6)
    model.synchronise_target()
    model.double().eval()
    model.support = model.support.float()  # expected Q is always computed in float32
    return model


MODEL = make_model()


def random_context(seed: int, lengths: list[int], tasks: list[int], tokens: int = CODES) -> Context:
    random = torch.Generator().manual_seed(seed)
    count, frames = len(lengths), max(lengths)
    codes = torch.randint(VOCABULARY, (count, frames, tokens), generator=random)
    actions = torch.randint(18, (count, frames), generator=random)
    given_frames = torch.arange(frames) < torch.tensor(lengths)[:, None]
    codes[~given_frames] = 10**6  # padding may hold anything
    actions[~given_frames] = -1
    return Context(codes, actions, torch.tensor(lengths), torch.tensor(tasks))


def one(context: Context, n: int) -> Context:
    """Environment n alone, without its padding."""
    frames = int(context.lengths[n])
    part = slice(n, n + 1)
    return Context(
        context.codes[part, :frames], context.actions[part, :frames], context.lengths[part], context.tasks[part]
    )


class Recorded:
    """A tree dream that remembers every node and the path of actions that leads to it, per environment."""

    def __init__(self, context: Context, model: WorldActionModel = MODEL, room: int = 9, depth: int = 0) -> None:
        self.context, self.model = context, model
        self.dream = TreeDream(model)
        self.nodes = self.dream.reset(context, room, depth)
        self.paths: list[list[list[int]]] = [[[]] for _ in context.lengths]
        self.parents: list[list[int]] = [[-1] for _ in context.lengths]

    def expand(self, parent: Tensor, action: Tensor) -> None:
        new = self.dream.expand(parent, action)
        assert new.ids[0, 0] == self.nodes.ids.shape[1]
        parts = ("ids", "reward", "continuation", "q")
        self.nodes = Nodes(*(torch.cat((getattr(self.nodes, x), getattr(new, x)), dim=1) for x in parts))
        for n in range(parent.shape[0]):
            for up, act in zip(parent[n].tolist(), action[n].tolist(), strict=True):
                self.paths[n].append([*self.paths[n][up], act])
                self.parents[n].append(up)

    def ancestors(self, n: int, node: int) -> list[int]:
        """Node ids from the root's child to the node."""
        return [] if node == 0 else [*self.ancestors(n, self.parents[n][node]), node]


@torch.no_grad()
def check_against_full_sequence(tree: Recorded, n: int, node: int) -> None:
    """Feed a node's whole past through the plain causal model and compare everything the dream said of it."""
    real = one(tree.context, n)
    path = tree.ancestors(n, node)
    imagined = tree.dream.codes(torch.tensor([path] * len(tree.paths), dtype=torch.int64))[n : n + 1]
    codes = torch.cat((real.codes, imagined), dim=1)
    actions = torch.cat((real.actions[:, :-1], torch.tensor([[*tree.paths[n][node], 0]])), dim=1)
    model = tree.model
    hidden = model.hidden(codes, actions, real.tasks)
    assert torch.allclose(tree.nodes.q[n, node], model.q_values(hidden.last_code)[0, -1], atol=1e-5)
    if node == 0:
        return
    step = codes.shape[1] - 2  # the frame in which the node's action is taken
    reward = model.reward_logits(hidden.action[0, step]).argmax() - 1
    end = model.end_logits(hidden.action[0, step]).argmax()
    assert tree.nodes.reward[n, node] == reward
    assert tree.nodes.continuation[n, node] == 1 - end
    observation = model.observation_logits(hidden.observation).argmax(dim=-1)
    assert codes[0, -1, 0] == observation[0, step, -1]
    assert codes[0, -1, 1:].tolist() == observation[0, step + 1, :-1].tolist()


@pytest.mark.parametrize(("tokens", "blocks"), [(36, 8), (9, 12)])
def test_a_tree_is_a_full_recompute_of_every_path(tokens: int, blocks: int) -> None:
    """Nodes of different depths in one call, repeated parents, contexts of different lengths and games."""
    context = random_context(1, [2, blocks - 3, 1], [0, 17, 59], tokens)
    tree = Recorded(context, make_model(tokens, blocks))
    random = torch.Generator().manual_seed(2)
    for children in (3, 2, 4):
        present = tree.nodes.ids.shape[1]
        parent = torch.randint(present, (3, children), generator=random)
        tree.expand(parent, torch.randint(18, (3, children), generator=random))
    for n in range(3):
        for node in range(tree.nodes.ids.shape[1]):
            check_against_full_sequence(tree, n, node)
    assert tree.nodes.reward.unique().numel() > 1, "this model predicts too little to test with"
    assert tree.nodes.continuation.unique().numel() == 2
    assert tree.dream.codes(tree.nodes.ids).unique().numel() > 5
    assert torch.equal(tree.dream.codes(torch.zeros(3, 1, dtype=torch.int64))[1, 0], context.codes[1, blocks - 4])


@pytest.mark.parametrize(("tokens", "blocks"), [(36, 8), (49, 4), (9, 9)])
def test_the_longest_path_is_a_full_recompute(tokens: int, blocks: int) -> None:
    tree = Recorded(random_context(3, [1], [5], tokens), make_model(tokens, blocks))
    last = blocks - 1
    for depth in range(last):
        tree.expand(torch.tensor([[depth]]), torch.tensor([[2 * depth]]))
    check_against_full_sequence(tree, 0, last)
    with pytest.raises(ValueError, match=f"{blocks} frames"):
        tree.expand(torch.tensor([[last]]), torch.tensor([[0]]))
    tree.expand(torch.tensor([[last - 1]]), torch.tensor([[3]]))
    check_against_full_sequence(tree, 0, blocks)


def test_a_search_within_the_models_frames() -> None:
    """A model of four frames: two of context and two imagined steps, no third of either."""
    dream, legal = TreeDream(make_model(9, 4)), random_legal(0, 1, 6)
    assert BeamSearch(2, 2).plan(dream, random_context(0, [2], [0], 9), legal).scores.shape == (1, 2)
    for length, horizon in ((3, 2), (2, 3)):
        with pytest.raises(ValueError, match="4 frames"):
            BeamSearch(2, horizon).plan(dream, random_context(0, [length], [0], 9), legal)


def test_a_refused_path_leaves_the_trees_as_they_were() -> None:
    """One environment's context is full, so the other may not go deeper in the same call either."""
    tree = Recorded(random_context(4, [8, 3], [1, 2]))
    with pytest.raises(ValueError, match="8 frames"):
        tree.expand(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))
    check_against_full_sequence(tree, 0, 0)
    check_against_full_sequence(tree, 1, 0)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_what_is_kept_stays_what_it_was(kept: int) -> None:
    """Three rounds, between them all but a few leaves are let go: the rest are still a full recompute."""
    context = random_context(5, [2, 4, 1], [3, 17, 59], 9)
    room = 4 + 2 * kept
    tree = Recorded(context, make_model(9), room)
    random = torch.Generator().manual_seed(kept)
    leaves = torch.zeros(3, 1, dtype=torch.int64)
    for step in range(3):
        tree.expand(leaves.repeat(1, 4)[:, :4], torch.randint(18, (3, 4), generator=random))
        new = tree.nodes.ids.shape[1] - 4 + torch.rand(3, 4, generator=random).argsort(dim=1)
        leaves = new[:, :kept]
        if step < 2:
            tree.dream.keep(leaves)
    for n in range(3):
        for node in range(tree.nodes.ids.shape[1]):
            check_against_full_sequence(tree, n, node)
    taken = 4 + 2 * kept
    with pytest.raises(ValueError, match=f"room for {room} .* {taken} are taken"):
        tree.expand(leaves, leaves)


@pytest.mark.parametrize(("width", "horizon"), [(1, 1), (1, 4), (2, 2), (3, 3), (4, 4), (20, 2)])
def test_a_beam_asks_for_as_much_room_as_it_takes(width: int, horizon: int) -> None:
    class Stingy(TreeDream):
        def reset(self, context: Context, room: int = 0, depth: int | None = None) -> Nodes:
            return super().reset(context, room - less, depth)

    search, dream = BeamSearch(width, horizon), Stingy(make_model(4))
    for less in (0, 1):
        expected = nullcontext() if less == 0 else pytest.raises(ValueError, match="more room")
        with expected:
            search.plan(dream, random_context(0, [2, 4], [0, 3], 4), random_legal(0, 2, 18))


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="reset"):
        TreeDream(MODEL).expand(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="9 frames"):
        TreeDream(MODEL).reset(random_context(0, [9], [0]))
    with pytest.raises(ValueError, match="temperature"):
        TreeDream(MODEL, temperature=-1.0)
    with pytest.raises(ValueError, match="lengths"):
        Context(torch.zeros(2, 1, CODES), torch.zeros(2, 1), torch.ones(1), torch.zeros(2))
    MODEL.train()
    try:
        with pytest.raises(ValueError, match="eval"):
            TreeDream(MODEL).reset(random_context(0, [1], [0]))
    finally:
        MODEL.eval()


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    width=st.integers(1, 3),
    respect=st.booleans(),
)
def test_planning_many_at_once_is_one_by_one(seed: int, lengths: list[int], width: int, respect: bool) -> None:
    context = random_context(seed, lengths, [(7 * seed + 11 * n) % 60 for n in range(len(lengths))])
    legal = random_legal(seed, len(lengths), 6)
    search = BeamSearch(width, 2, 0.99, respect)
    dream = TreeDream(MODEL)
    together = search.plan(dream, context, legal)
    assert legal.gather(1, together.actions[:, None]).all()
    for n in range(len(lengths)):
        alone = search.plan(dream, one(context, n), legal[n : n + 1])
        kept = together.scores[n] > -torch.inf
        assert alone.actions[0] == together.actions[n]
        assert torch.allclose(alone.root_q[0], together.root_q[n], atol=1e-4)
        assert torch.allclose(alone.scores[0], together.scores[n], atol=1e-4)
        assert torch.equal(alone.first_actions[0, kept], together.first_actions[n, kept])
        assert torch.equal(alone.frames[0, kept], together.frames[n, kept])


def test_greedy_is_the_best_legal_q_of_the_plain_model() -> None:
    context = random_context(6, [8, 3], [9, 30])
    legal = random_legal(6, 2, 5)
    plan = Greedy().plan(TreeDream(MODEL), context, legal)
    for n in range(2):
        real = one(context, n)
        with torch.no_grad():
            q = MODEL.q_values(MODEL.hidden(real.codes, real.actions, real.tasks).last_code)[0, -1]
        assert plan.actions[n] == max(legal[n].nonzero()[:, 0].tolist(), key=lambda a: q[a].item())


def test_what_follows_the_context_is_ignored() -> None:
    context = random_context(7, [4], [3])
    wide = Context(
        torch.cat((context.codes, torch.full((1, 2, CODES), 3)), dim=1),
        torch.cat((context.actions[:, :3], torch.full((1, 3), 7)), dim=1),
        context.lengths,
        context.tasks,
    )
    zero, action = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[4]])
    narrow_dream, wide_dream = TreeDream(MODEL), TreeDream(MODEL)
    assert torch.allclose(narrow_dream.reset(context, 1).q, wide_dream.reset(wide, 1).q, atol=1e-5)
    a, b = narrow_dream.expand(zero, action), wide_dream.expand(zero, action)
    assert torch.equal(narrow_dream.codes(a.ids), wide_dream.codes(b.ids))
    assert torch.allclose(a.q, b.q, atol=1e-5)


def test_sampled_codes_follow_the_models_distribution() -> None:
    """The first code of many samples against its softmax; a seed repeats them, and no temperature means the mode."""
    context, temperature, samples = random_context(8, [2], [4]), 3.0, 400
    copies = Context(*(part.expand(samples // 2, *part.shape[1:]) for part in vars(context).values()))
    roots = torch.zeros(samples // 2, 2, dtype=torch.int64)

    def sample(seed: int) -> Tensor:
        dream = TreeDream(MODEL, temperature, torch.Generator().manual_seed(seed))
        dream.reset(copies, 2)
        return dream.codes(dream.expand(roots, roots + 11).ids).flatten(0, 1)

    drawn = sample(0)
    assert torch.equal(drawn, sample(0))
    assert not torch.equal(drawn, sample(1))
    actions = torch.cat((context.actions[:, :1], torch.tensor([[11]])), dim=1)
    with torch.no_grad():
        hidden = MODEL.hidden(context.codes, actions, context.tasks).observation[0, 1, -1]
        expected = (MODEL.observation_logits(hidden) / temperature).softmax(dim=-1)
    frequency = torch.bincount(drawn[:, 0], minlength=VOCABULARY) / samples
    assert (frequency - expected).abs().max() < 4 * (0.25 / samples) ** 0.5
    assert frequency.max() < 0.9, "this distribution is too sharp to test with"


def test_imagination_never_waits_for_the_host() -> None:
    """Meta tensors hold no data: reading a value, or a shape that depends on one, raises."""
    model = WorldActionModel(ModelConfig(layers=1, heads=2, width=8, q_width=8), VOCABULARY).to("meta").eval()
    context = random_context(9, [6, 4, 1], [0, 1, 2]).to("meta")
    for temperature in (0.0, 1.0):
        plan = BeamSearch(2, 2).plan(TreeDream(model, temperature), context, random_legal(9, 3, 4).to("meta"))
        assert plan.scores.shape == (3, 2)
