"""One imagined block, guessed and verified: several positions a trunk call instead of one.

Decoding is greedy, so a guess of the next frame that the model itself would have made is as good as decoding it code by
code, and the parent's frame is a good guess: from step to step most codes stay. All tokens of a guess are fed at once;
up to the first code at which the model differs they are right, and so is the model's own code there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.models.transformer import KeyValueCache
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.decoder import Block, Decoder, Imagined, at_least_float32
from jowa.planning.tree import Growth

PAUSE = 16
"""Blocks decoded plainly after one that was hard to guess."""


class DraftingDecoder:
    """Decodes blocks as `BlockDecoder` does, greedily, in as many trunk calls as there are wrong guesses, or more.

    All rows go on together from the first wrong code of any, so it pays for few rows. After a wrong guess twice as many
    tokens are tried as were right before it: with a bad guess it comes near to decoding code by code. The host reads
    how far each guess went, so a GPU is waited for.

    Attributes:
        calls: trunk calls of the last block.
    """

    def __init__(self, model: WorldActionModel) -> None:
        self._model = model
        self.calls = 0

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
        model, growth = self._model, block.growth
        self.calls = 0
        tokens = len(growth.slots)
        guess = block.draft.transpose(1, 2).clone()  # (N, K, B): the code that token t predicts, which is token t + 1
        start, length = 0, tokens
        while True:
            stop = min(start + length, tokens)
            hidden = self._advance(cache, block, guess, start, stop)  # (N, T, B, D)
            self.calls += 1
            if start == 0:
                rewards = model.reward_logits(hidden[:, 0]).argmax(dim=-1) - 1
                ends = model.end_logits(hidden[:, 0]).argmax(dim=-1)
            judged = slice(start, min(stop, tokens - 1))
            codes = model.observation_logits(hidden[:, : judged.stop - start]).argmax(dim=-1)
            right = _leading((codes == guess[:, judged]).all(dim=2).all(dim=0))
            guess[:, judged] = codes
            if right == codes.shape[1] and stop == tokens:
                break
            settled = min(right + 1, stop - start)
            start, length = start + settled, 2 * settled
        q = at_least_float32(model.q_values(hidden[:, -1]))
        return Imagined(rewards.to(q.dtype), (1 - ends).to(q.dtype), guess.transpose(1, 2).contiguous(), q)

    def _advance(self, cache: KeyValueCache, block: Block, guess: Tensor, start: int, stop: int) -> Tensor:
        """Hidden states (N, T, B, D) of tokens start … stop − 1, fed at once."""
        model, growth = self._model, block.growth
        count, children = block.actions.shape
        positions = growth.positions[start:stop].transpose(0, 1)  # (N, T, B)
        parts = []
        if start == 0:
            parts.append(model.embed_actions(block.actions, positions[:, 0], block.tasks))
            start, positions = 1, positions[:, 1:]
        fed = guess[:, start - 1 : stop - 1]
        parts.append(model.embed_codes(fed.flatten(1), positions.flatten(1), block.tasks))
        start = stop - positions.shape[1] - (len(parts) - 1)
        slots = growth.slots[start:stop].flatten()
        hidden = model.trunk(torch.cat(parts, dim=1), cache, slots, _open(growth, start, stop))
        return hidden.view(count, stop - start, children, -1)


class FewDrafted:
    """Drafts where at most `rows` nodes are imagined at once, all environments together, and else decodes plainly.

    Blocks of a long search that is recorded have padded biases, which drafts can't have: they are decoded plainly too.
    A model whose frames are hard to guess is found out: after a block that took more than a third of the calls plain
    decoding takes, the next `PAUSE` are decoded plainly before it is tried again.
    """

    def __init__(self, drafting: DraftingDecoder, plain: Decoder, rows: int) -> None:
        self._drafting, self._plain, self._rows = drafting, plain, rows
        self._pause = 0

    def __call__(self, cache: KeyValueCache, block: Block) -> Imagined:
        if block.actions.numel() > self._rows or block.growth.padded:
            return self._plain(cache, block)
        if self._pause:
            self._pause -= 1
            return self._plain(cache, block)
        imagined = self._drafting(cache, block)
        if 3 * self._drafting.calls > len(block.growth.slots):
            self._pause = PAUSE
        return imagined


def _open(growth: Growth, start: int, stop: int) -> Tensor:
    """The bias (N, 1, T * B, S) of tokens start … stop − 1: each sees its path, and its own block up to itself."""
    assert not growth.padded, "drafts are for shapes that may change"
    tokens, children = growth.slots.shape
    count, _, _, slots = growth.bias.shape
    own = tokens * children
    device = growth.bias.device
    bias = growth.bias[..., : slots - (tokens - stop) * children].expand(-1, stop - start, -1, -1)
    token = torch.arange(stop * children, device=device) // children
    later = token > torch.arange(start, stop, device=device)[:, None, None]  # (T, 1, own slots so far)
    path, block = bias.split([slots - own, stop * children], dim=3)
    return torch.cat((path, block.masked_fill(later, float("-inf"))), dim=3).view(count, 1, -1, bias.shape[3])


def _leading(flags: Tensor) -> int:
    """How many of flags (T,) bool are true before the first that is not."""
    return int(flags.long().cumprod(dim=0).sum())
