"""What is imagined while training, and what the losses make of it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Any

import pytest
import torch
from host_syncs import HostSyncs
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_planner import History, ModelWorld, beam_search
from small_learner import one_part, padded_batch, small_learner

from jowa.data.batch import Batch
from jowa.planning.beam_search import BeamSearch
from jowa.planning.planner import Plan
from jowa.training.config import ObjectiveConfig, StageConfig
from jowa.training.distribution import Distribution
from jowa.training.imagination import Imagination
from jowa.training.imagination_config import ImaginationConfig
from jowa.training.imagined_sequences import Future, sequences_along
from jowa.training.learner import Learner
from jowa.training.parts import Part
from jowa.training.replay import Replay, places_to_draw

ALONE = Distribution(0, 1, torch.device("cpu"))
LENGTH, TOKENS = 8, 36


def random_plan(count: int, horizon: int, seed: int) -> Plan:
    """A plan of three futures an environment, of which the first one is the best; every third step ends."""
    random = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, (count, 3, horizon, *shape), generator=random)

    actions, nothing = draw(18), torch.zeros(count, 3)
    continuations = (draw(3) > 0).float()
    return Plan(
        actions[:, 0, 0], nothing, nothing, actions[:, :, 0], actions, draw(32, TOKENS), draw(3) - 1.0, continuations
    )


def starts_of(lengths: list[int], horizon: int, seed: int = 0) -> Batch:
    return padded_batch(lengths, codes=True, seed=seed).first_steps(LENGTH - horizon)


def by_hand(prefix: Batch, plan: Plan, n: int, respect: bool) -> list[tuple[list[int], int, float, bool, bool]]:
    """The rows (codes, action, reward, end, taken) that sequence n should have."""
    given = int(prefix.valid[n].sum())
    rows = [
        (prefix.codes[n, t].tolist(), prefix.actions[n, t].item(), prefix.rewards[n, t].item(), False, True)
        for t in range(given - 1)
    ]
    frame = prefix.codes[n, given - 1].tolist()
    for h in range(plan.rewards.shape[2]):
        end = respect and plan.continuations[n, 0, h].item() == 0
        rows.append((frame, plan.future_actions[n, 0, h].item(), plan.rewards[n, 0, h].item(), end, True))
        if end:
            return rows
        frame = plan.frames[n, 0, h].tolist()
    return [*rows, (frame, 0, 0.0, False, False)]


@settings(max_examples=60, deadline=None)
@given(
    horizon=st.integers(1, 7), lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5), respect=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_sequence_is_a_prefix_and_the_best_future(horizon: int, lengths: list[int], respect: bool, seed: int) -> None:
    prefixes, plan = starts_of(lengths, horizon, seed), random_plan(len(lengths), horizon, seed)
    made = sequences_along(prefixes, Future.best(plan, respect), LENGTH)
    assert made.actions.shape == (len(lengths), LENGTH) and bool(made.imagined.all())
    assert torch.equal(made.tasks, prefixes.tasks) and made.frames is None
    for n in range(len(lengths)):
        rows = by_hand(prefixes, plan, n, respect)
        assert made.valid[n].tolist() == [t < len(rows) for t in range(LENGTH)]
        columns = (made.codes, made.actions, made.rewards, made.ends, made.taken)
        found = zip(*(part[n].tolist() for part in columns), strict=True)
        padding = ([0] * TOKENS, 0, 0.0, False, False)
        assert list(found) == rows + [padding] * (LENGTH - len(rows))


def test_what_is_imagined_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two futures of three steps: one ends after its second, both have a reward at each step."""
    future = Future.best(replace_plan(random_plan(2, 3, 0)), use_termination=True)
    assert future.taken.tolist() == [[True, True, False], [True] * 3]
    assert future.ends.tolist() == [[False, True, False], [False] * 3]
    assert future.discounted(0.5).tolist() == [1.5, 1.75]
    imagination = Imagination(ImaginationConfig(0, horizon=3), small_learner(ObjectiveConfig(gamma=0.5)), ALONE)
    assert imagination.read() == {}
    monkeypatch.setattr(imagination, "plan", lambda prefixes: replace_plan(random_plan(2, 3, 0)))
    imagination.imagine([starts_of([5, 2], 3)])
    told = imagination.read()
    assert told.pop("imagination/sequences_per_second") > 0
    assert told == {"imagination/steps": 2.5, "imagination/ended": 0.5, "imagination/return": 1.625}
    assert imagination.read() == {}


def replace_plan(plan: Plan) -> Plan:
    continuations = torch.ones(2, 3, 3)
    continuations[0, :, 1] = 0
    return replace(plan, rewards=torch.ones(2, 3, 3), continuations=continuations)


def learner_with_ends(seed: int, **changes: Any) -> Learner:
    """In double precision; other legal actions for every task; some ends foreseen."""
    learner = small_learner(ObjectiveConfig(gamma=0.9), **changes).double()
    random = torch.Generator().manual_seed(seed)
    learner.legal = torch.rand(60, 18, generator=random) < 0.3
    learner.legal[:, 4] = True
    for parameter in learner.model.end_head.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=random))
    return learner


@pytest.mark.parametrize(("width", "horizon", "respect"), [(2, 2, True), (3, 1, True), (2, 3, False), (1, 2, True)])
def test_what_is_imagined_is_the_plain_search(width: int, horizon: int, respect: bool) -> None:
    """Prefixes of all lengths in one batch, each against a search without cache, batch and tree."""
    learner = learner_with_ends(0)
    config = ImaginationConfig(0, width, horizon, use_termination=respect)
    search = BeamSearch(width, horizon, 0.9, respect)
    lengths = [8, 1, 3, 5, 2, 8]
    starts = starts_of(lengths, horizon)
    imagination = Imagination(config, learner, ALONE)
    made = imagination.imagine([starts[:2], starts[2:]])
    assert made.ends.any(1).unique().tolist() == ([False, True] if respect else [False])
    learner.eval()
    worth = imagination.plan(starts).scores[:, 0].tolist()
    for n, length in enumerate(lengths):
        given, task = min(length, LENGTH - horizon), int(starts.tasks[n])
        world = ModelWorld(learner.model, task)
        root = world.root(History(starts.codes[n, :given].tolist(), starts.actions[n, : given - 1].tolist()))
        legal = learner.legal[task].nonzero().flatten().tolist()
        best = beam_search(world.imagine, root, legal, search)[0]
        assert worth[n] == pytest.approx(best.score, abs=1e-4)
        steps, actions = best.matters, list(best.actions)[: best.matters]
        taken = range(given - 1, given - 1 + steps)
        assert made.actions[n, list(taken)].tolist() == actions and set(actions) <= set(legal)
        assert made.rewards[n, list(taken)].tolist() == [state.reward for state in best.states[:steps]]
        assert made.ends[n].tolist() == [t == taken[-1] and best.ended for t in range(LENGTH)]
        frames = [state.frame for state in best.states[: steps - best.ended]]
        assert made.codes[n, given : given + len(frames)].tolist() == frames
        assert made.valid[n].sum() == given + len(frames) and made.taken[n].sum() == given - 1 + steps
        # Played again one after the other, the actions lead to these frames.
        state = root
        for action, frame in zip(actions, frames, strict=False):
            state = world.imagine([(state, action)])[0]
            assert state.frame == frame


def test_the_tokenizer_reads_the_starts() -> None:
    learner = small_learner()
    starts = padded_batch([8, 2, 5]).first_steps(6)
    codes = learner.tokenizer.encode(starts.frames.flatten(0, 1)).view(3, 6, TOKENS)
    config = ImaginationConfig(0)
    ours = Imagination(config, learner, ALONE).imagine([starts[:1], starts[1:]])
    theirs = Imagination(config, learner, ALONE).imagine([starts.with_codes(codes)])
    assert all(torch.equal(part, vars(theirs)[name]) for name, part in vars(ours).items() if part is not None)


def test_imagining_leaves_training_as_it_was() -> None:
    """Its random numbers, its mode, and what is remembered for gradients; and weights are read anew each time."""
    learner = small_learner(dropout=0.5, attention_dropout=0.5)
    learner.train()
    imagination, starts = Imagination(ImaginationConfig(0), learner, ALONE), starts_of([8, 2, 5, 3], 2)
    state = torch.get_rng_state()
    before = imagination.imagine([starts])
    assert torch.equal(torch.get_rng_state(), state)
    assert learner.training and learner.model.trunk.training and not learner.model.q_target.training
    assert not any(part.is_inference() for part in vars(before).values() if part is not None)
    assert torch.equal(imagination.imagine([starts]).codes, before.codes)
    for parameter in learner.model.parameters():
        parameter.data.mul_(-1.5)
    after = imagination.imagine([starts])
    fresh = Imagination(ImaginationConfig(0), learner, ALONE).imagine([starts])
    assert torch.equal(after.codes, fresh.codes) and not torch.equal(after.codes, before.codes)


VARIANTS = [(loss, penalty) for loss in ("c51", "mse") for penalty in ("cql", "combo")]


def gradients(learner: Learner, part: Part) -> dict[str, torch.Tensor]:
    """Of the loss with the part's own counts, and the loss itself."""
    learner.zero_grad()
    loss, _ = learner(part, learner.counts(part))
    loss.backward()
    found = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def imagined_part(frames: int = 0) -> Part:
    """Four real sequences and five imagined, two of which do not end and so have a last step not taken."""
    future = Future.best(random_plan(5, 2, seed=2), use_termination=True)
    made = sequences_along(starts_of([8, 3, 1, 6, 2], 2, seed=5), future, LENGTH)
    assert (made.valid & ~made.taken).sum(1).tolist() == (~made.ends.any(1)).tolist() and made.ends.sum() == 3
    return one_part(padded_batch([8, 4, 2, 7], codes=not frames), frames)._replace(imagined=made)


def changed(part: Part, places: torch.Tensor, name: str) -> Part:
    """Another action, reward or end at some steps (B, L) bool of the imagined sequences."""
    old = getattr(part.imagined, name)
    changes = {"actions": lambda: (old + 3) % 6, "rewards": lambda: 1 - 2 * (old > 0).float(), "ends": lambda: ~old}
    new = changes[name]()
    return part._replace(imagined=replace(part.imagined, **{name: torch.where(places, new, old)}))


@pytest.mark.parametrize("name", ["actions", "rewards", "ends"])
@pytest.mark.parametrize(("q_loss", "conservative"), VARIANTS)
def test_a_step_not_taken_changes_no_gradient(q_loss: str, conservative: str, name: str) -> None:
    learner = small_learner(ObjectiveConfig(conservative=conservative), q_loss=q_loss)
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1, world_weight=0.5))
    learner.train()
    part = imagined_part()
    dummies = part.imagined.valid & ~part.imagined.taken
    expected = gradients(learner, part)
    found = gradients(learner, changed(part, dummies, name))
    assert found.keys() == expected.keys() and "model.action_embedding.weight" in found
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    moved = gradients(learner, changed(part, dummies.roll(-1, 1), name))
    for key in ("model.q_networks.weight3", "model.code_embedding.weight", "loss"):
        assert not torch.equal(moved[key], expected[key]), key


@pytest.mark.parametrize(("q_loss", "conservative"), VARIANTS)
def test_imagined_sequences_enter_the_q_losses_alone(q_loss: str, conservative: str) -> None:
    """Against the two halves one by one: sums and places add up, and COMBO's data are the real half's."""
    learner = small_learner(ObjectiveConfig(conservative=conservative), q_loss=q_loss)
    learner.begin(StageConfig(td_weight=1.0, conservative_weight=0.1, world_weight=0.5, tokenizer_frames=8))
    part = imagined_part(frames=8)
    alone, dreamed = part._replace(imagined=None), Part(part.imagined, part.frame_index[:0], part.frame_weight[:0])
    counts = {name: torch.ones(()) for name in learner.loss_weights()}
    learner.stage = replace(learner.stage, tokenizer_frames=0)
    of_dreams = learner(dreamed, counts)[1]
    learner.stage = replace(learner.stage, tokenizer_frames=8)
    of_all, of_real = (learner(p, counts)[1] for p in (part, alone))
    assert of_all.keys() == of_real.keys()
    q_losses = {"td", "conservative_all", "conservative_data"}
    for name in learner.loss_weights():
        for kind in (f"tally/losses/{name}", f"tally/places/{name}"):
            more = of_dreams[kind] if name in q_losses else 0
            torch.testing.assert_close(of_all[kind], of_real[kind] + more, rtol=1e-5, atol=1e-5)
        assert (of_all[f"tally/places/{name}"].sum() > of_real[f"tally/places/{name}"].sum()) == (
            name in q_losses and (name, conservative) != ("conservative_data", "combo")
        )
    for name in ("tally/q_data", "tally/q_steps", "tally/code_use", "tally/codes_counted"):
        torch.testing.assert_close(of_all[name], of_real[name])


@settings(max_examples=30, deadline=None)
@given(size=st.integers(3, 9), added=st.lists(st.integers(1, 3), max_size=8))
def test_the_replay_keeps_the_newest(size: int, added: list[int]) -> None:
    replay, kept, number = Replay(size, LENGTH, TOKENS, ALONE.device), deque(maxlen=size), 60_000
    for count in added:
        batch = numbered(range(number, number + count))
        replay.add(batch)
        kept.extend(range(number, number + count))
        number += count
    assert len(replay) == len(kept)
    everything = replay.rows(torch.arange(len(replay)))
    numbers = everything.codes[:, 0, 0].tolist()
    assert sorted(numbers) == sorted(kept)
    expected = numbered(numbers)
    assert all(torch.equal(part, vars(expected)[name]) for name, part in vars(everything).items() if part is not None)
    copy = Replay(size, LENGTH, TOKENS, ALONE.device)
    copy.load_state(replay.state(), replay.added)
    for one in (replay, copy):
        one.add(numbered([7]))
    assert all(torch.equal(part, copy.state()[name]) for name, part in replay.state().items())
    with pytest.raises(ValueError, match="no replay of"):
        copy.load_state(copy.state(), len(copy) - 1)


def numbered(numbers: Any) -> Batch:
    """Sequences that a number tells apart in every part; codes up to 65 535."""
    n = torch.tensor(list(numbers))
    rows = n[:, None].expand(-1, LENGTH)
    return Batch(
        None, rows[:, :, None].expand(-1, -1, TOKENS), rows % 18, (rows % 7).float(), rows % 2 == 0, rows % 3 > 0,
        n % 60, torch.ones_like(n, dtype=torch.bool), rows % 5 > 0,
    )  # fmt: skip


def test_draws_are_uniform_and_repeat_themselves() -> None:
    drawn = Counter(n for step in range(300) for n in places_to_draw(3, "finetune", step, 10, 16).tolist())
    assert set(drawn) == set(range(10)) and max(drawn.values()) < 1.25 * min(drawn.values())
    same = [places_to_draw(*key, 100, 16).tolist() for key in ((3, "a", 5), (3, "a", 5), (3, "a", 6), (4, "a", 5))]
    assert same[0] == same[1] and same[0] != same[2] and same[0] != same[3]


def test_no_step_of_it_waits_for_a_gpu() -> None:
    """But for the planner, which has tests of its own."""
    starts, replay = starts_of([8, 3, 1], 2), Replay(8, LENGTH, TOKENS, ALONE.device)
    with HostSyncs() as waits:
        future = Future.best(random_plan(3, 2, 0), use_termination=True)
        replay.add(sequences_along(starts, future, LENGTH))
        replay.rows(torch.tensor([0, 2]))
        future.discounted(0.99)
    assert not waits.found
