"""Evidence about the world model against counting by hand, and frames decoded the slow way."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from small_world import VOCABULARY, K, decode_slowly, make_batch, small_world_model

from jowa.evaluation.diagnostics.world_model import ALL_GAMES, ClassScore, measure_world_model
from jowa.games import task_id
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.strips import dream_strips, reconstruct, strip_png
from jowa.planning.tree_dream import TreeDream


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return small_world_model()


def share(pairs: list[bool]) -> float | None:
    return sum(pairs) / len(pairs) if pairs else None


@torch.no_grad()
def test_evidence_equals_counting_by_hand(model):
    pong, boxing = task_id("Pong"), task_id("Boxing")
    batches = [make_batch(0, [pong, boxing, pong, boxing]), make_batch(1, [boxing, boxing, boxing])]
    right, copied, on_changed, imagined, imagined_changed = [], [], [], [], []
    signs, said, ended, said_end = [], [], [], []
    for batch in batches:
        hidden = model.hidden(batch.codes, batch.actions, batch.tasks)
        for b, t in torch.nonzero(batch.valid).tolist():
            signs.append(int(batch.rewards[b, t].sign()))
            said.append(int(model.reward_logits(hidden.action[b, t]).argmax()) - 1)
            ended.append(bool(batch.ends[b, t]))
            said_end.append(bool(model.end_logits(hidden.action[b, t]).argmax()))
            if t == 0:
                continue
            for k in range(K):
                state = hidden.observation[b, t, k - 1] if k else hidden.observation[b, t - 1, -1]
                guess, true, last = (
                    model.observation_logits(state).argmax(),
                    batch.codes[b, t, k],
                    batch.codes[b, t - 1, k],
                )
                right.append(bool(guess == true))
                copied.append(bool(last == true))
                if last != true:
                    on_changed.append(bool(guess == true))
        for b in range(len(batch)):
            last_step = int(batch.valid[b].sum()) - 1
            guess = decode_slowly(model, batch.codes[b, :last_step], batch.actions[b, :last_step], batch.tasks[b])
            true, last = batch.codes[b, last_step], batch.codes[b, last_step - 1]
            imagined += (guess == true).tolist()
            imagined_changed += (guess == true)[last != true].tolist()

    pooled, *games = measure_world_model(model, batches)
    assert (pooled.game, [one.game for one in games]) == (ALL_GAMES, ["Boxing", "Pong"])
    assert pooled.sequences == 7 and pooled.steps == len(signs)
    assert pooled.next_code.frames == len(right) // K and pooled.imagined.frames == 7
    assert pooled.next_code.accuracy == share(right) and pooled.next_code.copy == share(copied)
    assert pooled.next_code.accuracy_on_changed == share(on_changed)
    assert pooled.next_code.changed == pytest.approx(1 - share(copied))
    assert pooled.imagined.accuracy == share(imagined) and pooled.imagined.accuracy_on_changed == share(
        imagined_changed
    )
    scores = [by_hand([s == c for s in signs], [s == c for s in said]) for c in (-1, 0, 1)]
    for score, (precision, recall, f1) in zip(pooled.reward, scores, strict=True):
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, f1))
    assert pooled.reward_macro_f1 == pytest.approx((scores[0][2] + scores[2][2]) / 2)
    assert (pooled.termination.positives, pooled.termination.predicted) == (sum(ended), sum(said_end))
    assert sum(one.steps for one in games) == pooled.steps
    weighted = sum(one.next_code.accuracy * one.next_code.frames for one in games) / pooled.next_code.frames
    assert pooled.next_code.accuracy == pytest.approx(weighted)


def by_hand(true: list[bool], said: list[bool]) -> tuple[float, float, float]:
    hits = sum(a and b for a, b in zip(true, said, strict=True))
    precision, recall = hits / sum(said), hits / sum(true)
    return precision, recall, 2 * precision * recall / (precision + recall)


def test_what_never_occurs_has_no_score(model):
    batch = make_batch(3, [0, 0, 0])
    nothing = dataclasses.replace(batch, rewards=torch.zeros_like(batch.rewards), ends=torch.zeros_like(batch.ends))
    (evidence,) = measure_world_model(model, [nothing])
    assert evidence.game == "AirRaid", "a single game needs no pool"
    assert evidence.reward_macro_f1 is None and evidence.reward[0].f1 is None and evidence.reward[0].recall is None
    assert evidence.termination.positives == 0 and evidence.termination.f1 is None
    positive = dataclasses.replace(nothing, rewards=nothing.valid.float())
    (evidence,) = measure_world_model(model, [positive])
    assert evidence.reward_macro_f1 == evidence.reward[2].f1, "signs that never occur do not count in the mean"


def test_a_missed_class_scores_zero(model):
    batch = make_batch(4, [0, 0, 0])
    with torch.no_grad():
        head = model.end_head[-1]
        weight, bias = head.weight.clone(), head.bias.clone()
        head.weight.zero_()
        head.bias.copy_(torch.tensor([1.0, 0.0]))
        (evidence,) = measure_world_model(model, [batch])
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    assert evidence.termination == ClassScore(
        "episode ends", positives=1, predicted=0, precision=None, recall=0.0, f1=0.0
    )


def test_padding_counts_nowhere(model):
    batch = make_batch(5, [0, 0, 0])
    assert batch.codes is not None
    scrambled = torch.where(batch.valid[:, :, None], batch.codes, (batch.codes + 1) % VOCABULARY)
    rewards = torch.where(batch.valid, batch.rewards, 9.0)
    other = dataclasses.replace(batch, codes=scrambled, rewards=rewards, ends=batch.ends | ~batch.valid)
    assert measure_world_model(model, [batch]) == measure_world_model(model, [other])


def test_the_imagined_sample_is_limited_per_game(model):
    batches = [make_batch(seed, [0, 1, 1]) for seed in range(3)]
    pooled, first, second = measure_world_model(model, batches, imagined_sequences=2)
    assert (first.imagined.frames, second.imagined.frames, pooled.imagined.frames) == (2, 2, 4)
    pooled, *_ = measure_world_model(model, batches, imagined_sequences=0)
    assert pooled.imagined.accuracy is None


def test_training_mode_and_batches_without_codes_are_refused(model):
    with pytest.raises(ValueError, match="codes"):
        measure_world_model(model, [dataclasses.replace(make_batch(0, [0, 0, 0]), codes=None)])
    model.train()
    with pytest.raises(ValueError, match="eval"):
        measure_world_model(model, [])
    model.eval()


@torch.no_grad()
def test_strips_show_the_screen_its_codes_and_the_dream(model):
    torch.manual_seed(1)
    tokenizer = Tokenizer(
        TokenizerConfig(
            widths=(4, 4, 4),
            encoder_blocks=(1, 1, 1),
            decoder_blocks=(1, 1, 1),
            embedding_width=8,
            vocabulary=VOCABULARY,
        )
    ).eval()
    torch.nn.init.normal_(tokenizer.embedding.weight)
    frames = torch.randint(0, 255, (3, 5, 1, 84, 84), dtype=torch.uint8)
    batch = dataclasses.replace(make_batch(0, [7, 8, 9]), frames=frames)
    (strip,) = dream_strips(tokenizer, TreeDream(model), batch, context=2)
    assert strip.game == "BankHeist", "padded sequences are left out"
    assert np.array_equal(strip.original, frames[0, :, 0].numpy())
    again = reconstruct(tokenizer, strip.original, chunk=2)
    assert np.abs(strip.reconstructed.astype(int) - again).max() <= 1, "rounding may differ with the size of a chunk"
    assert np.array_equal(strip.dreamed[:2], strip.reconstructed[:2]), "what is given is not dreamed"
    codes = tokenizer.encode(frames[0])
    for step in range(2, 5):
        codes = torch.cat(
            [codes[:step], decode_slowly(model, codes[:step], batch.actions[0, :step], batch.tasks[0])[None]]
        )
    dreamed = (tokenizer.decode(codes)[:, 0] * 255).round().to(torch.uint8).numpy()
    assert np.abs(strip.dreamed.astype(int) - dreamed).max() <= 1
    whole, task = tokenizer.encode(frames[0]), batch.tasks[0]
    ahead = [decode_slowly(model, whole[:step], batch.actions[0, :step], task) for step in range(1, 5)]
    predicted = (tokenizer.decode(torch.stack([whole[0], *ahead]))[:, 0] * 255).round().to(torch.uint8).numpy()
    assert np.abs(strip.one_step.astype(int) - predicted).max() <= 1, "each from the true frames before it"
    assert [name for name, _ in strip.rows] == ["screen", "codes", "one step", "dream"]
    with Image.open(io.BytesIO(strip_png(strip, scale=1, gap=4))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (4 * 84 + 3 * 4, 5 * 84 + 4 * 4 + 2 * 4, 2), "four rows, and the dream a gap apart"
    for row, (_, drawn) in enumerate(strip.rows):
        assert np.array_equal(pixels[row * 88 : row * 88 + 84, :84, 0], drawn[0])
    with pytest.raises(ValueError, match="nothing"):
        dream_strips(tokenizer, TreeDream(model), batch, context=5)
