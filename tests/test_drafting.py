"""How many trunk calls drafting takes, and when it rests: what makes it pay."""

from __future__ import annotations

import pytest
import torch
from test_dream import make_model, random_context
from test_execution import LONG, MODEL, likeliest, rerun, same
from torch import Tensor
from toy_mdp import random_legal

from jowa.models.transformer import KeyValueCache
from jowa.planning.decoder import Block, BlockDecoder, Imagined
from jowa.planning.drafting import DraftingDecoder, FewDrafted
from jowa.planning.graphs import GraphedDecoder
from jowa.planning.tree_dream import TreeDream

TOKENS = 36


def test_after_a_wrong_guess_twice_as_many_tokens_are_tried() -> None:
    """With the fourth code wrong, four tokens are settled by the first call, and the second is given eight."""
    context, model = random_context(1, [4], [2], TOKENS), make_model(TOKENS)

    def imagine(dream: TreeDream) -> Tensor:
        root = dream.reset(context, room=1)
        return dream.codes(dream.expand(root.ids, torch.tensor([[3]])).ids)

    true = imagine(TreeDream(model))
    guess = true.clone()
    guess[..., 3] = (guess[..., 3] + 1) % 24
    drafting = DraftingDecoder(model)
    tokens: list[int] = []
    model.trunk.register_forward_pre_hook(lambda _, given: tokens.append(given[0].shape[1]))
    dream = TreeDream(model, decode=lambda cache, block: drafting(cache, block._replace(draft=guess)))
    assert torch.equal(imagine(dream), true)
    assert tokens[1:3] == [37, 8] and drafting.calls == len(tokens) - 1


@pytest.mark.parametrize(("calls", "rests"), [(12, False), (13, True)])
def test_more_than_a_third_of_the_calls_is_hard_to_guess(calls: int, rests: bool) -> None:
    """Of a block of 37 tokens."""
    said: list[str] = []

    class Drafting(DraftingDecoder):
        def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
            said.append("drafted")
            self.calls = calls
            return plain(cache, block)

    model = make_model(TOKENS)
    plain = TreeDream(model)._decode

    def noted(cache: KeyValueCache, block: Block) -> Imagined:
        said.append("plain")
        return plain(cache, block)

    dream = TreeDream(model, decode=FewDrafted(Drafting(model), noted, 4))
    root = dream.reset(random_context(1, [4], [2], TOKENS), room=2, depth=1).ids
    for action in (3, 4):
        dream.expand(root, torch.tensor([[action]]))
    assert said == ["drafted", "plain" if rests else "drafted"]


def test_a_long_search_that_is_recorded_is_not_drafted() -> None:
    """Its biases cover slots that are not taken yet."""
    decode = FewDrafted(DraftingDecoder(MODEL), GraphedDecoder(MODEL, BlockDecoder(MODEL, likeliest), rerun), 8)
    context, legal = random_context(0, [2, 4], [3, 8], 9), random_legal(0, 2, 6)
    plan = LONG[0].plan(TreeDream(MODEL, decode=decode, graphed=True), context, legal)
    same(plan, LONG[0].plan(TreeDream(MODEL), context, legal))
