"""What a plan takes is what the formula says, and more environments than fit are planned for in parts."""

from __future__ import annotations

import pytest
import torch
from live_bytes import LiveBytes
from test_dream import random_context
from test_execution import LENGTHS, MODEL, PLANNERS, TASKS, likeliest, same
from toy_mdp import random_legal

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning import tree_dream
from jowa.planning.beam_search import BeamSearch
from jowa.planning.buckets import BucketedDream
from jowa.planning.decoder import Block, BlockDecoder, Imagined
from jowa.planning.drafting import DraftingDecoder
from jowa.planning.dream import Context, Needs
from jowa.planning.greedy import Greedy
from jowa.planning.memory import draft_bytes, free_bytes, plan_bytes
from jowa.planning.planner import Planner
from jowa.planning.splitting import InParts
from jowa.planning.tree_dream import TreeDream


@pytest.mark.parametrize("planner", PLANNERS, ids=lambda planner: type(planner).__name__)
@pytest.mark.parametrize("bucketed", [False, True])
def test_a_plan_in_parts_is_the_plan(planner: Planner, bucketed: bool) -> None:
    context, legal = random_context(3, LENGTHS, TASKS, 9), random_legal(3, 5, 6)
    whole = planner.plan(TreeDream(MODEL), context, legal)
    for most in (1, 2, 4, 5):
        memory = most * plan_bytes(MODEL, 5, planner.needs(18)) + 1
        tree = TreeDream(MODEL, memory=memory)
        counts = []
        reset = tree.reset

        def noted(context: Context, *others, reset=reset, counts=counts):
            counts.append(len(context.lengths))
            return reset(context, *others)

        tree.reset = noted
        same(InParts(planner).plan(BucketedDream(tree) if bucketed else tree, context, legal), whole)
        assert max(counts) <= most and (most < 5 or len(counts) == 1 or bucketed)


def test_too_little_memory_is_one_environment_at_a_time() -> None:
    assert TreeDream(MODEL, memory=1).environments(7, 4, Needs(6, 4)) == 1
    assert TreeDream(MODEL).environments(7, 4, Needs(6, 4)) == 7, "the machine's own memory is enough"
    assert free_bytes(torch.device("cpu")) > 2**20


def test_a_bucket_that_fits_is_not_split() -> None:
    needs = Needs(6, 4)
    each = plan_bytes(MODEL, 4, needs)
    for memory, count, fitting in ((6, 5, 5), (6, 6, 6), (6, 7, 6), (5, 5, 4), (4, 4, 4)):
        dream = BucketedDream(TreeDream(MODEL, memory=memory * each))
        assert dream.environments(count, 4, needs) == fitting, f"{count} where there is memory for {memory}"


WIDE, NARROW = {"heads": 8, "width": 512, "q_width": 64}, {"heads": 4, "width": 32, "q_width": 64}
SCALAR = ModelConfig(layers=1, heads=4, width=128, q_width=64, q_loss="mse")
SHAPES = [
    (ModelConfig(layers=2, **WIDE), 64, 36, 6, BeamSearch(2, 2), torch.float32, "reading the context"),
    (ModelConfig(layers=2, **WIDE), 64, 9, 1, BeamSearch(6, 2), torch.bfloat16, "the layers"),
    (ModelConfig(layers=1, **NARROW), 4096, 4, 1, BeamSearch(4, 2), torch.float32, "the next codes"),
    (ModelConfig(layers=1, q_networks=5, **NARROW), 16, 9, 1, BeamSearch(4, 2), torch.float32, "Q"),
    (ModelConfig(layers=1, q_networks=5, **NARROW), 16, 9, 1, BeamSearch(4, 2), torch.bfloat16, "Q"),
    (SCALAR, 16, 36, 1, BeamSearch(3, 4), torch.float32, "moving what is kept"),
    (ModelConfig(layers=2, **WIDE), 16, 9, 8, Greedy(), torch.float32, "reading the context"),
]


@pytest.mark.parametrize(("sizes", "vocabulary", "tokens", "frames", "planner", "dtype", "highest"), SHAPES)
def test_the_peak_is_what_the_formula_says(
    sizes: ModelConfig, vocabulary: int, tokens: int, frames: int, planner: Planner, dtype: torch.dtype, highest: str
) -> None:
    """To a percent, on tensors that hold no data; between them the cases have each part of a plan as the highest."""
    count = 16
    context = random_context(0, [frames] * count, [0] * count, tokens).to("meta")
    legal = torch.ones(count, 18, dtype=torch.bool, device="meta")
    with torch.device("meta"):
        model = WorldActionModel(sizes, vocabulary, tokens).to(dtype).eval()
    with LiveBytes() as live:
        planner.plan(TreeDream(model), context, legal)
    assert live.peak == pytest.approx(count * plan_bytes(model, frames, planner.needs(18)), rel=0.01), highest


def test_a_drafted_plan_stays_within_what_is_reckoned() -> None:
    context, legal = random_context(0, [2] * 4, [0] * 4, 9).to("meta"), torch.ones(4, 18, dtype=torch.bool)
    with torch.device("meta"):
        model = WorldActionModel(ModelConfig(layers=1, **WIDE), 64, 9).eval()
    drafting, needs = DraftingDecoder(model), BeamSearch(2, 2).needs(18)

    def decode(cache: KeyValueCache, block: Block) -> Imagined:
        with LiveBytes() as live:  # one verification of the whole block; how far it went can't be read without data
            hidden = drafting._advance(cache, block, block.draft.transpose(1, 2).clone(), 0, len(block.growth.slots))
            model.observation_logits(hidden)
        peaks.append(live.peak)
        return BlockDecoder(model, likeliest)(cache, block)

    peaks: list[int] = []
    BeamSearch(2, 2).plan(TreeDream(model, decode=decode), context, legal.to("meta"))
    assert 0.5 < max(peaks) / draft_bytes(model, 2, needs, 16) <= 1
    assert draft_bytes(model, 2, Needs(0, 0), 16) == 0


def test_a_larger_cache_takes_the_place_of_the_smaller_one() -> None:
    with torch.device("meta"):
        model = WorldActionModel(ModelConfig(layers=2, **NARROW), 16, 9).eval()
    dream = TreeDream(model)
    with LiveBytes() as live:
        for count in (20, 30):
            dream.reset(random_context(0, [1] * count, [0] * count, 9).to("meta"), room=60, depth=1)
    cache = 30 * plan_bytes(model, 1, Needs(60, 0))
    assert live.peak < 1.2 * cache


def test_what_is_free_is_shared_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine tenths of it, the last cache and what drafts take reckoned; whatever changes, a batch is split alike."""
    needs, each = Needs(6, 4), plan_bytes(MODEL, 4, Needs(6, 4))
    monkeypatch.setattr(tree_dream, "free_bytes", lambda device: 20 * each)
    dream = TreeDream(MODEL)
    assert dream.environments(99, 4, needs) == 18 and dream.environments(7, 4, needs) == 7
    monkeypatch.setattr(tree_dream, "free_bytes", lambda device: 3 * each)
    assert dream.environments(99, 4, needs) == 18
    assert TreeDream(MODEL).environments(99, 4, needs) == 2
    dream.reset(random_context(0, [4] * 30, [0] * 30, 9), room=4)
    assert dream.environments(99, 4, Needs(6, 3)) > 10
    monkeypatch.setattr(tree_dream, "free_bytes", lambda device: 20 * each + draft_bytes(MODEL, 4, needs, 8))
    assert 17 <= TreeDream(MODEL, draft_rows=8).environments(99, 4, needs) <= 18
    assert plan_bytes(MODEL, 4, needs, graphed=True) > each
