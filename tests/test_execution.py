"""However imagination is computed, the plans are the same: drafted, replayed, compiled, in buckets, in parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_dream import make_model, random_context
from torch import Tensor
from torch._dynamo.utils import counters
from toy_mdp import random_legal

from jowa.errors import UserError
from jowa.models.transformer import KeyValueCache
from jowa.planning.beam_search import BeamSearch
from jowa.planning.buckets import BucketedDream, bucket
from jowa.planning.compiled import CompiledTrunk
from jowa.planning.decoder import Block, BlockDecoder, Decoder, Imagined
from jowa.planning.drafting import PAUSE, DraftingDecoder, FewDrafted
from jowa.planning.dream import Context, Needs
from jowa.planning.execution import DRAFT_ROWS, ExecutionConfig, check_execution
from jowa.planning.graphs import MOST_GRAPHS, GraphedDecoder
from jowa.planning.greedy import Greedy
from jowa.planning.making import make_dream
from jowa.planning.mcts import MonteCarloTreeSearch
from jowa.planning.planner import Plan, Planner
from jowa.planning.tree_dream import TreeDream

MODEL = make_model(9)
LENGTHS, TASKS = [2, 5, 1, 4, 3], [0, 17, 59, 3, 8]
PLANNERS: list[Planner] = [BeamSearch(2, 3), BeamSearch(3, 2), MonteCarloTreeSearch(7, 3), Greedy()]
LONG: list[Planner] = [MonteCarloTreeSearch(50, 3), BeamSearch(6, 2)]


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def same(a: Plan, b: Plan) -> None:
    assert torch.equal(a.actions, b.actions) and torch.equal(a.first_actions, b.first_actions)
    assert torch.allclose(a.scores, b.scores, atol=1e-5) and torch.allclose(a.root_q, b.root_q, atol=1e-5)
    kept = a.scores > -torch.inf
    for part in ("future_actions", "frames", "rewards", "continuations"):
        assert torch.equal(getattr(a, part)[kept], getattr(b, part)[kept])


def rerun(compute: Callable[[], Imagined]) -> tuple[Callable[[], None], Imagined]:
    """Records on any device what a graph would: results always land in the same tensors."""
    held = Imagined(*(part.clone() for part in compute()))

    def replay() -> None:
        for own, new in zip(held, compute(), strict=True):
            own.copy_(new)
        made.append(1)

    made: list[int] = []
    return replay, held


def ways() -> dict[str, Callable[[], TreeDream | BucketedDream]]:
    plain = BlockDecoder(MODEL, likeliest)
    static = BlockDecoder(MODEL, likeliest, static=True)
    return {
        "drafted": lambda: TreeDream(MODEL, decode=DraftingDecoder(MODEL)),
        "few drafted": lambda: TreeDream(MODEL, decode=FewDrafted(DraftingDecoder(MODEL), plain, 10)),
        "static": lambda: TreeDream(MODEL, decode=static),
        "bucketed": lambda: BucketedDream(TreeDream(MODEL)),
        "graphed": lambda: BucketedDream(TreeDream(MODEL, decode=GraphedDecoder(MODEL, plain, rerun), graphed=True)),
        "as the CPU does": lambda: make_dream(MODEL, ExecutionConfig()),
    }


@pytest.mark.parametrize("way", ways())
def test_every_way_of_imagining_makes_the_same_plans(way: str) -> None:
    """One dream for all plans: batches grow and shrink, contexts change, planners ask for more and less room."""
    dream = ways()[way]()
    for seed, planner in enumerate(PLANNERS * 2):
        count = (5, 3, 4, 1)[seed % 4]
        context = random_context(seed, LENGTHS[:count], TASKS[:count], 9)
        legal = random_legal(seed, count, 6)
        same(planner.plan(dream, context, legal), planner.plan(TreeDream(MODEL), context, legal))


def expanded(dream: TreeDream, context: Context) -> Tensor:
    root = dream.reset(context, room=2)
    return dream.codes(dream.expand(root.ids.repeat(1, 2), torch.tensor([[3, 4]] * len(context.lengths))).ids)


@pytest.mark.parametrize("right", [9, 5, 0])
def test_a_draft_costs_a_call_for_every_wrong_guess(right: int) -> None:
    """With the model's own frame as the draft one call is enough; the first wrong code is mended by the next call."""
    context, model = random_context(1, [4], [2], 9), make_model(9)
    true = expanded(TreeDream(model), context)
    guess = true.clone()
    guess[:, :, right:] = (guess[:, :, right:] + 1) % 24
    drafting = DraftingDecoder(model)

    def decode(cache: KeyValueCache, block: Block) -> Imagined:
        return drafting(cache, block._replace(draft=guess))

    tokens: list[int] = []
    model.trunk.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1]))
    assert torch.equal(expanded(TreeDream(model, decode=decode), context), true)
    assert tokens[:2] == [4 * 10 - 1, 2 * 10], "the context, then the whole block of both nodes"
    assert len(tokens) == 2 if right == 9 else 3 <= len(tokens) <= 2 + 9 - right
    if right == 5:
        assert tokens[2] == 2 * 4, "what was right, and the first code that was not, are done with"


def test_a_model_hard_to_guess_is_drafted_for_now_and_then_only() -> None:
    """Frames of random weights are not like their parents: one block in seventeen is tried."""
    drafts = []

    class Noted(DraftingDecoder):
        def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
            drafts.append(blocks)
            return super().__call__(cache, block)

    dream = TreeDream(MODEL, decode=FewDrafted(Noted(MODEL), BlockDecoder(MODEL, likeliest), 2))
    root = dream.reset(random_context(1, [4], [2], 9), room=3 * PAUSE, depth=1).ids
    for blocks in range(2 * PAUSE + 3):
        dream.expand(root, torch.tensor([[blocks % 18]]))
    assert drafts == [0, PAUSE + 1, 2 * PAUSE + 2]
    dream.reset(random_context(1, [4], [2], 9), room=3)
    dream.expand(root.repeat(1, 3), root.repeat(1, 3))
    assert len(drafts) == 3, "three nodes are more than two"


def test_recordings_are_made_once_a_shape_and_dropped_when_many() -> None:
    made = []

    def record(compute: Callable[[], Imagined]) -> tuple[Callable[[], None], Imagined]:
        made.append(1)
        return rerun(compute)

    decoder = GraphedDecoder(MODEL, BlockDecoder(MODEL, likeliest), record)
    dream = BucketedDream(TreeDream(MODEL, decode=decoder))
    context, legal = random_context(0, LENGTHS, TASKS, 9), random_legal(0, 5, 6)
    BeamSearch(2, 2).plan(dream, context, legal)
    assert len(made) == 2
    for count in (5, 6, 5):
        rows = torch.arange(count) % 5
        BeamSearch(2, 2).plan(dream, context.rows(rows), legal[rows])
    assert len(made) == 2, "five and six environments share a bucket"
    small = BucketedDream(TreeDream(make_model(2), decode=decoder))
    for count in range(1, MOST_GRAPHS * 2):
        small.reset(random_context(0, [1] * bucket(count), [0] * bucket(count), 2), room=1)
    assert len(decoder._recordings) <= MOST_GRAPHS


def test_results_outlive_the_next_replay_and_a_model_that_changes_is_recorded_anew() -> None:
    model, root = make_model(9), torch.zeros(1, 1, dtype=torch.int64)
    decoder = GraphedDecoder(model, BlockDecoder(model, likeliest), rerun)
    dream = TreeDream(model, decode=decoder, graphed=True)

    def imagine(dream: TreeDream, action: int) -> Tensor:
        dream.reset(random_context(1, [4], [2], 9), room=1)
        return dream.expand(root, torch.tensor([[action]])).q

    first = imagine(dream, 3)
    kept = first.clone()
    assert not torch.equal(imagine(dream, 5), kept) and torch.equal(first, kept)
    recordings = len(decoder._recordings)
    moved = [parameter.data.clone() for parameter in model.parameters()]
    for parameter, elsewhere in zip(model.parameters(), moved, strict=True):
        parameter.data = elsewhere
    assert torch.equal(imagine(dream, 3), kept) and len(decoder._recordings) == recordings + 1
    model.float()
    assert torch.equal(imagine(dream, 3), imagine(TreeDream(model), 3)), "a cache of the old precision is not kept"


@pytest.mark.parametrize("planner", LONG, ids=lambda planner: type(planner).__name__)
def test_a_long_search_needs_few_recordings(planner: Planner) -> None:
    made = []

    def record(compute: Callable[[], Imagined]) -> tuple[Callable[[], None], Imagined]:
        made.append(1)
        return rerun(compute)

    decoder = GraphedDecoder(MODEL, BlockDecoder(MODEL, likeliest), record)
    dream = TreeDream(MODEL, decode=decoder, graphed=True)
    context, legal = random_context(0, [2, 4], [3, 8], 9), random_legal(0, 2, 6)
    same(planner.plan(dream, context, legal), planner.plan(TreeDream(MODEL), context, legal))
    assert len(made) <= 17 and len(made) < planner.needs(18).nodes


@given(st.integers(1, 5000))
def test_buckets_are_few_and_hardly_larger(count: int) -> None:
    assert count <= bucket(count) <= 1.5 * count
    assert bucket(bucket(count)) == bucket(count)


def test_actions_of_equal_worth_stay_equal_whatever_the_batch() -> None:
    """And a plan in half precision runs, with its expected Q in single precision."""
    model = make_model(9).float()
    for parameter in model.q_networks.parameters():
        torch.nn.init.zeros_(parameter)
    for count in range(1, 8):
        context = random_context(count, [2] * count, [0] * count, 9)
        plan = Greedy().plan(TreeDream(model), context, torch.ones(count, 18, dtype=torch.bool))
        assert plan.actions.tolist() == [0] * count and plan.root_q.unique().numel() == 1
    half = make_model(9).to(torch.bfloat16)
    context, legal = random_context(0, LENGTHS, TASKS, 9), random_legal(0, 5, 6)
    plan = BeamSearch(2, 2).plan(TreeDream(half), context, legal)
    assert plan.root_q.dtype == plan.scores.dtype == torch.float32
    assert not torch.equal(plan.root_q, plan.root_q.bfloat16().float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
def test_graphs_make_the_same_plans_on_a_gpu(compiled: bool) -> None:
    model = make_model(9).float().cuda()
    dream = make_dream(model, ExecutionConfig(compile=compiled))
    for seed, planner in enumerate(PLANNERS * 3):
        count = (5, 3, 4, 1)[seed % 4]
        context = random_context(seed, LENGTHS[:count], TASKS[:count], 9)
        legal = random_legal(seed, count, 6)
        plain = planner.plan(TreeDream(model), context, legal)
        graphed = planner.plan(dream, context, legal)
        assert torch.equal(plain.actions, graphed.actions)
        assert torch.allclose(plain.scores, graphed.scores, atol=1e-3)


def test_a_compiled_trunk_makes_the_same_plans_and_is_compiled_once_a_shape() -> None:
    """More shapes than torch's own limit, then other batches and context lengths of the same buckets."""
    decode = BlockDecoder(MODEL, likeliest, CompiledTrunk(MODEL, "aot_eager"), static=True)
    dream, search = BucketedDream(TreeDream(MODEL, decode=decode)), BeamSearch(2, 1)
    wide = (1, 2, 3, 4, 6, 8, 12, 16, 24)
    torch._dynamo.reset()

    def plan(count: int, lengths: list[int]) -> None:
        context = random_context(count, (lengths * count)[:count], [count] * count, 9)
        context = Context.of(
            [(context.codes[n, :length], context.actions[n, : length - 1]) for n, length in
             enumerate(context.lengths.tolist())], context.tasks.tolist(), width=4,
        )  # fmt: skip
        legal = random_legal(count, count, 6)
        same(search.plan(dream, context, legal), search.plan(TreeDream(MODEL), context, legal))

    for count in wide:
        plan(count, [3, 1])
    compiled = counters["stats"]["unique_graphs"]
    assert compiled >= len(wide) and not counters["graph_break"]
    for count in (2, 5, 7, 11, 23):
        plan(count, [2, 4, 1])
    assert counters["stats"]["unique_graphs"] == compiled


def test_samples_come_from_the_plain_decoder_only() -> None:
    with pytest.raises(ValueError, match="temperature"):
        TreeDream(MODEL, temperature=1.0, decode=DraftingDecoder(MODEL))


def test_a_copy_of_the_model_imagines_in_half_precision() -> None:
    model = make_model(9).float()
    context, legal = random_context(2, LENGTHS, TASKS, 9), random_legal(2, 5, 6)
    before = [parameter.clone() for parameter in model.parameters()]
    half = Greedy().plan(make_dream(model, ExecutionConfig(precision="bf16")), context, legal).root_q
    whole = Greedy().plan(make_dream(model, ExecutionConfig()), context, legal).root_q
    assert 0 < (half - whole).abs().max() < 0.5 and half.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"precision": "fp8"}, "execution.precision"),
        ({"draft_rows": -1}, "execution.draft_rows"),
        ({"memory": 0.0}, "execution.memory"),
        ({"memory": -2.0}, "execution.memory"),
        ({"memory": float("inf")}, "execution.memory"),
        ({"memory": float("nan")}, "execution.memory"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        check_execution(ExecutionConfig(**settings))


def test_drafting_can_be_switched_off_and_on() -> None:
    def decoder(**settings: int) -> Decoder:
        dream = make_dream(MODEL, ExecutionConfig(**settings))
        assert isinstance(dream, TreeDream)
        return dream._decode

    assert isinstance(decoder(draft_rows=0), BlockDecoder)
    default, many = decoder(), decoder(draft_rows=64)
    assert isinstance(default, FewDrafted) and default._rows == DRAFT_ROWS
    assert isinstance(many, FewDrafted) and many._rows == 64
    compiled = make_dream(MODEL, ExecutionConfig(compile=True, draft_rows=0))
    assert isinstance(compiled, BucketedDream) and isinstance(compiled._dream._decode._trunk, CompiledTrunk)
    tight = make_dream(MODEL, ExecutionConfig(memory=1e-6, draft_rows=0))
    assert tight.environments(5, 4, Needs(2, 2)) == 1
    check_execution(ExecutionConfig())
