"""The order over several games: proportional to their sizes or balanced, and the same for any number of processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_store import final_weights, pretrain_run, write_store

from jowa.data.order import Order, batch_indices, rank_slice, steps_per_epoch
from jowa.data.prefetch import Prefetch
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.training.config import DataConfig, StageConfig, TrainingConfig, check_data
from jowa.training.distribution import Distribution
from jowa.training.parts import parts_of_steps, step_seed

CPU = torch.device("cpu")

COUNTS = st.dictionaries(st.sampled_from(["Pong", "Boxing", "Amidar", "Zaxxon"]), st.integers(1, 60), min_size=1)


def epochs(order: Order, batch_size: int, first: int = 0, number: int = 1) -> np.ndarray:
    """The sequences of whole epochs, one batch after the other."""
    steps = steps_per_epoch(batch_size, len(order))
    return np.concatenate([order.batch(step, batch_size) for step in range(first * steps, (first + number) * steps)])


def by_game(counts: dict[str, int], sequences: np.ndarray) -> dict[str, np.ndarray]:
    """How often each sequence of each game comes."""
    often = np.bincount(sequences, minlength=sum(counts.values()))
    return dict(zip(counts, np.split(often, np.cumsum(list(counts.values()))[:-1]), strict=True))


@settings(max_examples=100, deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 2**48), epoch=st.integers(0, 50), data=st.data())
def test_a_balanced_epoch_takes_every_game_equally_often(counts, seed, epoch, data):
    order = Order(counts, seed, "balanced")
    largest = max(counts.values())
    assert len(order) == largest * len(counts)
    # A batch size that leaves nothing over, so that the epoch is whole.
    batch_size = data.draw(st.sampled_from([size for size in range(1, len(order) + 1) if not len(order) % size]))
    taken = by_game(counts, epochs(order, batch_size, epoch))
    for game, often in taken.items():
        assert often.sum() == largest, "each game as often as the largest"
        assert often.max() - often.min() <= 1, "and its sequences alike"
        assert counts[game] < largest or (often == 1).all(), "the largest game's once each"


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 2**48), number=st.integers(2, 7))
def test_sequences_stay_even_over_many_epochs(counts, seed, number):
    order = Order(counts, seed, "balanced")
    taken = by_game(counts, epochs(order, len(counts), 0, number))
    for often in taken.values():
        assert often.sum() == number * max(counts.values())
        assert often.max() - often.min() <= 1


@settings(max_examples=50, deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 2**48), batch_size=st.integers(1, 30), step=st.integers(0, 400))
def test_proportional_is_every_sequence_once_an_epoch(counts, seed, batch_size, step):
    order, total = Order(counts, seed), sum(counts.values())
    assert len(order) == total
    if batch_size > total:
        with pytest.raises(UserError, match=r"training\.batch_size"):
            order.batch(step, batch_size)
        return
    assert order.batch(step, batch_size).tolist() == batch_indices(seed, step, batch_size, total).tolist()
    assert all((often <= 1).all() for often in by_game(counts, epochs(order, batch_size)).values())
    assert all((often == 1).all() for often in by_game(counts, epochs(order, 1)).values())


@pytest.mark.parametrize("balance", ["proportional", "balanced"])
def test_processes_share_each_batch_and_change_nothing(balance):
    counts = {"Pong": 37, "Boxing": 5, "Amidar": 90}
    order = Order(counts, 3, balance)
    for step in range(60):
        batch = order.batch(step, 12)
        for ranks in (1, 2, 3, 4, 12):
            shares = [Order(counts, 3, balance).batch(step, 12)[rank_slice(12, rank, ranks)] for rank in range(ranks)]
            assert np.concatenate(shares).tolist() == batch.tolist()


def test_one_game_is_balanced_by_nature():
    once = epochs(Order({"Pong": 24}, 0, "balanced"), 8)
    assert sorted(once.tolist()) == list(range(24))


def test_games_are_mixed_within_batches_and_epochs_differ():
    counts = {"Pong": 4000, "Boxing": 100, "Amidar": 1000}
    order = Order(counts, 0, "balanced")
    first = np.array([400 * 10 - 1, 4099])
    shares = []
    for step in range(20):
        games = np.searchsorted(first, order.batch(step, 300))
        shares.append(np.bincount(games, minlength=3) / 300)
    # A third each; one batch's share has a standard deviation of 0.027, the mean of twenty 0.006.
    assert np.abs(np.array(shares) - 1 / 3).max() < 0.11
    assert np.abs(np.mean(shares, 0) - 1 / 3).max() < 0.025
    one, two = epochs(order, 300, 0), epochs(order, 300, 1)
    assert one.tolist() != two.tolist() and one.tolist() != epochs(Order(counts, 1, "balanced"), 300).tolist()
    # Within a game the order looks random: neighbours in it are no neighbours in time.
    boxing = one[(one >= 4000) & (one < 4100)]
    assert abs(np.corrcoef(boxing[:-1], boxing[1:])[0, 1]) < 0.08


def test_who_gets_the_extra_turn_changes_from_epoch_to_epoch():
    """Otherwise the same sequences would be seen twice as often as others for ever."""
    counts = {"Pong": 15, "Boxing": 10}
    order = Order(counts, 2, "balanced")
    extra = [set(np.flatnonzero(by_game(counts, epochs(order, 5, epoch))["Boxing"] == 2)) for epoch in range(2)]
    assert len(extra[0]) == len(extra[1]) == 5 and not extra[0] & extra[1]


def test_the_balanced_order_never_changes():
    """A resumed run depends on it: these numbers may not change with a version of anything."""
    order = Order({"Pong": 7, "Boxing": 3, "Amidar": 2}, 5, "balanced")
    assert [order.batch(step, 5).tolist() for step in (0, 3, 4, 11)] == [
        [6, 0, 8, 7, 11], [10, 9, 10, 10, 2], [8, 6, 9, 10, 10], [11, 11, 7, 0, 7],
    ]  # fmt: skip


def test_what_cannot_be_balanced():
    with pytest.raises(UserError, match=r"data\.balance=balanced.*Boxing has no sequences"):
        Order({"Pong": 7, "Boxing": 0}, 0, "balanced")
    assert sorted(epochs(Order({"Pong": 7, "Boxing": 0}, 0), 7).tolist()) == list(range(7))
    with pytest.raises(ValueError, match="balance"):
        Order({"Pong": 7}, 0, "fair")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Pong with ten times as many steps as Breakout."""
    folder = tmp_path_factory.mktemp("uneven")
    write_store(folder, ("Pong",), (50, 50, 60))
    write_store(folder, ("Breakout",), (9, 7))
    return EpisodeStore(folder)


def test_balanced_batches_come_through_the_prefetch_thread(uneven):
    """Reading: what the order names is what arrives, frames still uint8, each game equally often."""
    data = SequenceDataset(uneven, stride=1, balance="balanced")
    order = data.order(seed=7)
    assert data.counts == {"Breakout": 16, "Pong": 160} and len(data) == 176 and len(order) == 320
    steps = range(steps_per_epoch(16, len(order)))
    tasks: Counter[int] = Counter()
    with Prefetch(data.batch(order.batch(step, 16)) for step in steps) as batches:
        for step, batch in zip(steps, batches, strict=True):
            direct = data.batch(order.batch(step, 16))
            assert batch.frames.dtype == direct.frames.dtype and str(batch.frames.dtype) == "torch.uint8"
            assert (batch.frames == direct.frames).all() and (batch.actions == direct.actions).all()
            tasks.update(batch.tasks.tolist())
    assert sorted(tasks.values()) == [160, 160]


def test_a_batch_larger_than_an_epoch_is_refused(uneven, tmp_path: Path):
    order = SequenceDataset(uneven, stride=8, balance="balanced").order(0)
    order.batch(0, len(order))
    with pytest.raises(UserError, match=r"training\.batch_size"):
        order.batch(0, len(order) + 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"balance": "fair"}, r"data\.balance must be one of proportional, balanced"),
        ({"pad": "both"}, r"data\.pad must be one of right, left"),
    ],
)
def test_settings_that_cannot_be_trained_on(settings, words):
    with pytest.raises(UserError, match=words):
        check_data(DataConfig(**settings))


@pytest.mark.parametrize("balance", ["proportional", "balanced"])
def test_the_loop_takes_what_the_order_says_on_any_number_of_processes(uneven, balance):
    data = SequenceDataset(uneven, stride=4, balance=balance)
    config = TrainingConfig(batch_size=4)
    steps = range(3, 30)

    def taken(ranks: int) -> list[torch.Tensor]:
        """The frames of each step's sequences, all processes' shares one after the other."""
        shares = [
            parts_of_steps(data, steps, "stage1", StageConfig(), config, 5, Distribution(rank, ranks, CPU))
            for rank in range(ranks)
        ]
        steps_parts = zip(*shares, strict=True)
        return [torch.cat([part.batch.frames for parts in step for part in parts]) for step in steps_parts]

    order = data.order(step_seed(5, "stage1", 0))
    expected = [data.batch(order.batch(step, 4)).frames for step in steps]
    for ranks in (1, 2, 4):
        assert all(torch.equal(one, other) for one, other in zip(taken(ranks), expected, strict=True))


def test_a_balanced_run_resumes_to_the_same_weights_and_as_nothing_else(uneven, tmp_path: Path):
    small = ["data.balance=balanced", "data.holdout=0", "stage2.steps=0"]
    whole = pretrain_run(uneven.folder, tmp_path / "whole", *small, "stage1.steps=6")
    parts = pretrain_run(uneven.folder, tmp_path / "parts", *small, "stage1.steps=2")
    with pytest.raises(UserError, match=r"data\.balance"):
        pretrain_run(uneven.folder, parts, *small, "resume=auto", "stage1.steps=6", "data.balance=proportional")
    pretrain_run(uneven.folder, parts, *small, "resume=auto", "stage1.steps=6")
    assert final_weights(parts) == final_weights(whole)
    other = pretrain_run(uneven.folder, tmp_path / "other", *small, "stage1.steps=6", "data.balance=proportional")
    assert final_weights(other) != final_weights(whole)
