"""Diagnostics of the world model against decoding the slow way, counting by hand and known distributions."""

from __future__ import annotations

import dataclasses
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import VOCABULARY, K, decode_slowly, make_batch, small_world_model

from jowa.evaluation.diagnostics import held_out
from jowa.evaluation.diagnostics.calibration import EDGES, reliability, wilson
from jowa.evaluation.diagnostics.codebook import codebook_use
from jowa.evaluation.diagnostics.diagnostics import Diagnostics, diagnose
from jowa.evaluation.diagnostics.discounts import Discount, discounts
from jowa.evaluation.diagnostics.horizons import GameHorizons, foresee
from jowa.evaluation.diagnostics.q_calibration import Decisions, own_play, q_calibration, realised_returns
from jowa.evaluation.diagnostics.world_model import ALL_GAMES, measure_world_model
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.evaluation.statistics.sequence_bootstrap import estimated, f1_of, resampled_sums, share_of
from jowa.games import task_id
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.config import PlannerConfig
from jowa.planning.tree_dream import TreeDream
from jowa.training.starting_point import StartingPoint

FEW = BootstrapConfig(resamples=200)
PONG, BOXING = task_id("Pong"), task_id("Boxing")


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return small_world_model()


@pytest.fixture(scope="module")
def found(model: WorldActionModel) -> Diagnostics:
    return diagnose(model, batches(), FEW)


def batches():
    return [make_batch(seed, [PONG, BOXING, PONG, BOXING], length=8) for seed in (0, 1)]


@torch.no_grad()
def test_dreams_and_single_steps_equal_decoding_without_a_cache(model):
    batch = make_batch(0, [PONG, BOXING, PONG], length=6)
    foreseen = foresee(TreeDream(model), model, batch, context=2)
    codes, actions, task = batch.codes[0], batch.actions[0], batch.tasks[0]
    dreamed = codes[:2]
    for step in range(2, 6):
        ahead = decode_slowly(model, codes[:step], actions[:step], task)
        assert torch.equal(foreseen.one_step[0, step - 2], ahead)
        dreamed = torch.cat([dreamed, decode_slowly(model, dreamed, actions[:step], task)[None]])
    assert torch.equal(foreseen.dreamed[0], dreamed[2:])
    assert not torch.equal(foreseen.dreamed, foreseen.one_step), "they part where the dream errs"
    hidden = model.hidden(dreamed[None], actions[None], task[None]).action
    assert torch.allclose(foreseen.dreamed_events.rewards[0], model.reward_logits(hidden).softmax(-1)[0], atol=1e-5)


def test_one_step_ahead_both_agree_with_the_evidence_on_imagined_frames(model):
    """With one frame more than is given, the evidence imagines that very frame."""
    short = [dataclasses.replace(batch.first_steps(5)) for batch in batches()]
    whole = [dataclasses.replace(batch, valid=torch.ones_like(batch.valid)) for batch in short]
    for horizons, evidence in zip(diagnose(model, whole, FEW).horizons, measure_world_model(model, whole), strict=True):
        (score,) = horizons.scores
        assert horizons.game == evidence.game and score.frames == evidence.imagined.frames
        for foresight in (score.dream, score.one_step):
            assert foresight.accuracy.value == pytest.approx(evidence.imagined.accuracy)
            assert foresight.accuracy_on_changed.value == pytest.approx(evidence.imagined.accuracy_on_changed)
        assert score.copy.value == pytest.approx(evidence.imagined.copy)
        assert score.changed.value == pytest.approx(evidence.imagined.changed)


@torch.no_grad()
def test_scores_by_horizon_equal_counting_by_hand(model, found):
    pooled = found.horizons[0]
    assert [one.game for one in found.horizons] == [ALL_GAMES, "Boxing", "Pong"] and pooled.context == 4
    right = {step: [] for step in range(1, 5)}
    copied, signs = {step: [] for step in right}, {step: [] for step in right}
    for batch in batches():
        for row in torch.nonzero(batch.valid.sum(1) > 4).flatten().tolist():
            one = batch[slice(row, row + 1)]
            dreamed = foresee(TreeDream(model), model, one, 4).dreamed[0]
            for step in right:
                if one.valid[0, 3 + step]:
                    right[step] += (dreamed[step - 1] == one.codes[0, 3 + step]).tolist()
                    copied[step] += (one.codes[0, 3] == one.codes[0, 3 + step]).tolist()
                if one.valid[0, 2 + step]:
                    signs[step].append(int(one.rewards[0, 2 + step].sign()))
    assert len(pooled.scores) == 4
    for score in pooled.scores:
        step = score.agent_steps
        assert score.frames == len(right[step]) // K and score.steps == len(signs[step])
        assert score.rewards == sum(sign != 0 for sign in signs[step])
        assert score.dream.accuracy.value == pytest.approx(np.mean(right[step]))
        assert score.copy.value == pytest.approx(np.mean(copied[step]))
        assert score.copy.value + score.changed.value == pytest.approx(1)
        assert score.copy.low <= score.copy.value <= score.copy.high
    first = pooled.scores[0]
    assert first.dream == first.one_step, "the first step knows nothing but true frames either way"


def test_dreamed_sequences_are_a_quarter_of_those_measured(monkeypatch):
    for name in ("encode", "measure_world_model", "recorded_q"):
        monkeypatch.setattr(held_out, name, mock.Mock())
    monkeypatch.setattr(held_out, "eventful_sequences", lambda data: np.zeros(0, np.int64))
    monkeypatch.setattr(held_out, "diagnose", found := mock.Mock())
    data = mock.MagicMock(__len__=lambda data: 5000)
    for sequences in (8, 512):
        held_out.look_at(data, mock.Mock(), sequences, FEW, {})
    assert [call.args[3] for call in found.call_args_list] == [64, 128]


def test_padding_and_short_sequences_count_nowhere(model):
    batch = make_batch(5, [0, 0, 0, 0], length=8)
    batch.valid[0, 6:] = False
    batch = dataclasses.replace(batch, rewards=batch.rewards * batch.valid, actions=batch.actions * batch.valid)
    scrambled = torch.where(batch.valid[:, :, None], batch.codes, (batch.codes + 1) % VOCABULARY)
    other = dataclasses.replace(batch, codes=scrambled, ends=batch.ends | ~batch.valid)
    assert diagnose(model, [batch], FEW) == diagnose(model, [other], FEW)
    (horizons,) = diagnose(model, [batch], FEW).horizons
    assert horizons.sequences == 2, "sequences of two and three steps leave nothing to dream after four"
    nothing = diagnose(model, [batch.first_steps(3)], FEW)
    assert nothing.horizons == () and nothing.dreamed_calibration == () and nothing.codebook


def test_what_never_happened_is_not_claimed_to_be_known(model):
    batch = make_batch(3, [0, 0, 0], length=8)
    still = dataclasses.replace(batch, rewards=0 * batch.rewards, ends=torch.zeros_like(batch.ends))
    found = diagnose(model, [still], FEW)
    assert all(one.dream.reward_macro_f1 is None and one.dream.termination_f1 is None for one in scores(found.horizons))
    for event in found.calibration[0].events:
        assert event.happened == 0 and event.error is event.brier is event.base_brier is None
        assert event.announced > 0, "what was announced is still told"


def scores(horizons: tuple[GameHorizons, ...]):
    return [score for game in horizons for score in game.scores]


def test_calibration_counts_every_step_once(model, found):
    steps = sum(int(batch.valid.sum()) for batch in batches())
    rewards = sum(int((batch.rewards != 0).sum()) for batch in batches())
    pooled, *games = found.calibration
    for number, event in enumerate(pooled.events):
        assert event.steps == steps == sum(one.steps for one in event.bins)
        assert event.happened == sum(one.happened for one in event.bins)
        assert event.steps == sum(game.events[number].steps for game in games)
    assert pooled.events[0].happened == rewards == pooled.events[1].happened + pooled.events[2].happened
    assert found.dreamed_calibration[0].agent_steps_dreamed == 3
    assert found.dreamed_calibration[0].events[0].steps == found.horizons[0].scores[-1].steps


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_reliability_holds_for_all_probabilities(pairs):
    announced, happened = np.array([p for p, _ in pairs]), np.array([h for _, h in pairs])
    found = reliability("x", announced, happened)
    assert sum(one.steps for one in found.bins) == len(pairs)
    for one in found.bins:
        assert one.low <= one.announced <= one.high + 1e-9 and one.least <= one.observed <= one.most
    if happened.any():
        assert found.brier == pytest.approx(np.mean((announced - happened) ** 2))
        assert 0 <= found.error <= 1 and found.base_brier == pytest.approx(happened.mean() * (1 - happened.mean()))


def test_reliability_by_hand():
    found = reliability("x", np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, True, True, True]))
    assert [(one.steps, one.happened) for one in found.bins] == [(2, 1), (2, 2)]
    assert found.error == pytest.approx((2 * 0.3 + 2 * 0.2) / 4) and found.brier == pytest.approx(0.76 / 4)
    assert found.base_brier == pytest.approx(0.1875)
    perfect = reliability("x", np.array([0.0, 1.0]), np.array([False, True]))
    assert perfect.error == perfect.brier == 0 and EDGES[0] == 0 and EDGES[-1] == 1
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_codebook_use_of_known_distributions(found, model):
    even, single, none = np.full(8, 9), np.array([0, 72, 0, 0, 0, 0, 0, 0]), np.array([36, 36, 0, 0, 0, 0, 0, 0])
    pooled, first, second, third = codebook_use({"Pong": even, "Boxing": single, "Alien": none}, 36)
    assert (first.used, second.used, third.used) == (8, 1, 2) and first.vocabulary == 8 and first.frames == 2
    assert (first.perplexity, second.perplexity, third.perplexity) == pytest.approx((8, 1, 2))
    assert (first.commonest, second.commonest) == pytest.approx((1 / 8, 1)) and pooled.frames == 6
    mixed = codebook_use({"Pong": np.array([3, 1])}, 4)[0]
    assert mixed.perplexity == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    codes = torch.cat([batch.codes[batch.valid].flatten() for batch in batches()])
    assert found.codebook[0].counts == tuple(torch.bincount(codes, minlength=model.vocabulary).tolist())


def test_intervals_draw_whole_sequences():
    counts = np.array([[1, 1], [0, 1], [1, 1], [0, 1]])
    sums = resampled_sums(counts, BootstrapConfig(resamples=4000), "Pong")
    assert (sums[:, 1] == 4).all() and sums[:, 0].mean() == pytest.approx(2, abs=0.1)
    one = estimated(share_of(0, 1), counts.sum(0).astype(float), sums, 0.95)
    assert one is not None and one.value == 0.5 and one.low == 0 and one.high == 1
    assert estimated(share_of(0, 1), np.zeros(2), np.zeros((5, 2)), 0.95) is None
    table = np.array([[3.0, 1, 0, 0, 5, 0, 0, 0, 0]])  # −1: 3 of 4 found; 0: all; +1 never occurs
    assert f1_of(slice(0, 9), 3, (0, 2))(table)[0] == pytest.approx(6 / 7)


def test_realised_returns_by_hand():
    returns, complete = realised_returns(np.array([0.0, 5.0, 0.0, -2.0]), True, 0.5)
    assert returns.tolist() == [0.5 * (1 + 0.5 * 0.5 * -1), 1 + 0.25 * -1, -0.5, -1.0] and complete.all()
    returns, complete = realised_returns(np.ones(6), False, 0.5)
    assert complete.tolist() == [True, True, False, False, False, False], "0.5 to the 5th is below 5 %"


def test_q_calibration_by_hand():
    played = np.array([3, 4])
    episodes = [
        Decisions(np.array([1.0, 0.5]), np.array([0.0, 3.0]), True, played),
        Decisions(np.ones(2), np.ones(2), False, played),
    ]
    half = Discount(0.5, False)
    (one,) = own_play("planning", {"Pong": episodes}, {"Pong": half})
    assert (one.episodes, one.distinct, one.decisions, one.compared) == (2, 2, 4, 2) and not one.trained_gamma
    assert (one.mean_q, one.mean_realised, one.bias) == pytest.approx((0.75, 0.75, 0.0))
    assert one.correlation == pytest.approx(-1) and one.root_mean_squared_error == pytest.approx(0.5)
    assert sum(bin_.decisions for bin_ in one.bins) == 2 and one.points == ((1.0, 0.5), (0.5, 1.0))
    (none,) = own_play("planning", {"Pong": episodes[1:]}, {"Pong": half})
    assert none.compared == 0 and none.bias is None and none.bins == () and none.points == ()


def test_episodes_played_again_are_not_distinct():
    actions, rewards = np.array([3, 4, 3]), np.array([0.0, 1.0, 0.0])
    first = Decisions(np.ones(3), rewards, True, actions)
    cut = Decisions(np.ones(2), rewards[:2], False, actions[:2])
    other = Decisions(np.ones(3), rewards, True, np.array([3, 4, 4]))
    for episodes, distinct in (([first, first], 1), ([first, cut], 1), ([first, other], 2), ([first, other, other], 2)):
        (one,) = own_play("planning", {"Pong": episodes}, {"Pong": Discount(0.5, True)})
        assert (one.episodes, one.distinct) == (len(episodes), distinct)


def test_the_discount_is_that_of_training_where_it_is_known(tmp_path):
    start = StartingPoint(mock.Mock(), tmp_path / "snapshot", tmp_path / "run", None)
    planner = PlannerConfig(gamma=0.9)
    assert discounts(start, planner, ["Pong"]) == {"Pong": Discount(0.9, False)}
    for folder, gamma in (("run", 0.7), ("snapshot", 0.8)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(f"objective:\n  gamma: {gamma}\n")
        assert discounts(start, planner, ["Pong"]) == {"Pong": Discount(gamma, True)}


def test_equal_q_values_stay_in_one_bin():
    q = np.array([1.0] * 50 + [2.0] * 50)
    discount = Discount(0.9, True)
    one = q_calibration("Pong", "recorded", discount, 1, None, q, np.arange(100.0), np.ones(100, bool))
    assert [(part.q, part.decisions) for part in one.bins] == [(1.0, 50), (2.0, 50)]
    constant = q_calibration("Pong", "recorded", discount, 1, None, np.ones(10), np.arange(10.0), np.ones(10, bool))
    assert constant.correlation is None and len(constant.bins) == 1


def test_training_mode_and_batches_without_codes_are_refused(model):
    with pytest.raises(ValueError, match="codes"):
        diagnose(model, [dataclasses.replace(make_batch(0, [0, 0, 0]), codes=None)], FEW)
    model.train()
    with pytest.raises(ValueError, match="eval"):
        diagnose(model, [], FEW)
    model.eval()
