"""Sequences: every step covered, every window as read directly, an order that is a permutation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.data.order import batch_indices, check_batch_size, permute, rank_slice, steps_per_epoch
from jowa.data.sequences import SequenceDataset, SequenceIndex
from jowa.data.split import held_out_episodes, select_episodes
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.errors import UserError
from jowa.games import legal_actions, task_id

LENGTHS = {"Pong": [1, 8, 9, 23, 4], "Boxing": [30, 2, 12]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for game, lengths in LENGTHS.items():
        random = np.random.default_rng(task_id(game))
        with EpisodeWriter(folder, game, provenance={}) as writer:
            for number, length in enumerate(lengths):
                writer.append(
                    random.integers(1, 256, (length, 84, 84), np.uint8),
                    random.choice(np.array(legal_actions(game)[1:], np.uint8), length),
                    random.integers(1, 9, length).astype(np.float32) * 100,
                    terminated=number % 2 == 0,
                )
    return EpisodeStore(folder, ["Pong", "Boxing"])


def expected_windows(store, games, split, holdout, length, stride, pad):
    """The definition, written out: (game, first real row, real steps) of every window."""
    for game in games:
        table = store.tables[game]
        for episode in select_episodes(game, store.episode_names(game), holdout, split):
            first, steps = int(table.starts[episode]), int(table.lengths[episode])
            if pad == "right":
                for start in range(0, steps, stride):
                    yield game, first + start, min(length, steps - start)
            else:
                for end in sorted(range(steps - 1, -1, -stride)):
                    start = max(0, end - length + 1)
                    yield game, first + start, end - start + 1


@pytest.mark.parametrize("pad", ["right", "left", "left, real steps first"])
@pytest.mark.parametrize(("length", "stride"), [(8, 4), (8, 1), (8, 8), (3, 2), (1, 1)])
@pytest.mark.parametrize(("split", "holdout"), [("all", 0.0), ("training", 0.3), ("held_out", 0.3)])
def test_every_window_equals_a_direct_read(store, length, stride, split, holdout, pad):
    first = pad.endswith("first")
    pad = pad.split(",")[0]
    dataset = SequenceDataset(
        store, split=split, holdout=holdout, length=length, stride=stride, pad=pad, real_steps_first=first
    )
    expected = list(expected_windows(store, store.games, split, holdout, length, stride, pad))
    assert len(dataset) == len(expected) == sum(dataset.counts.values())
    order = np.random.default_rng(0).permutation(len(dataset))
    batch = dataset.batch(order)
    assert batch.frames.shape == (len(order), length, 1, 84, 84) and batch.frames.dtype == torch.uint8
    assert batch.actions.dtype == batch.tasks.dtype == torch.int64
    assert batch.rewards.dtype == torch.float32 and batch.ends.dtype == batch.valid.dtype == torch.bool
    for position, index in enumerate(order):
        game, row, steps = expected[index]
        direct = store.read(game, np.arange(row, row + steps))
        real = slice(0, steps) if pad == "right" or first else slice(length - steps, length)
        valid = np.zeros(length, bool)
        valid[real] = True
        assert batch.tasks[position] == task_id(game)
        assert np.array_equal(batch.valid[position].numpy(), valid)
        assert np.array_equal(batch.frames[position, real, 0].numpy(), direct.frames)
        assert np.array_equal(batch.actions[position, real].numpy(), direct.actions)
        assert np.array_equal(batch.rewards[position, real].numpy(), direct.rewards)
        assert np.array_equal(batch.ends[position, real].numpy(), direct.ends)
        for padded in (batch.frames, batch.actions, batch.rewards, batch.ends):
            assert not padded[position, ~batch.valid[position]].any()


def test_repeated_and_no_indices(store):
    dataset = SequenceDataset(store)
    batch = dataset.batch(np.array([5, 5, 0]))
    assert torch.equal(batch.frames[0], batch.frames[1])
    assert len(batch) == 3 and len(dataset.batch(np.zeros(0, np.int64))) == 0
    for outside in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset.batch(np.array([outside]))


def test_coordinates_name_episodes_and_steps(store):
    places = SequenceDataset(store, ["Pong", "Boxing"]).coordinates(np.array([0, 2, 5, 14]))
    assert places[:3] == [
        {"game": "Pong", "episode": "part-00000/0", "first_step": 0, "last_step": 0},
        {"game": "Pong", "episode": "part-00000/1", "first_step": 4, "last_step": 7},
        {"game": "Pong", "episode": "part-00000/2", "first_step": 8, "last_step": 8},
    ]
    assert places[3] == {"game": "Boxing", "episode": "part-00000/0", "first_step": 4, "last_step": 11}


def test_a_reward_that_is_no_number_is_refused(store, monkeypatch):
    rewards = store.column("Pong", "rewards").copy()
    rewards[3] = np.nan
    monkeypatch.setitem(store._columns, ("Pong", "rewards"), rewards)
    dataset = SequenceDataset(store, ["Pong"])
    dataset.batch(np.array([0]))
    with pytest.raises(UserError, match=r"^Pong in .* has a reward that is nan \(row 3\).*jowa\.data\.verify"):
        dataset.batch(np.array([1]))


def test_a_batch_can_be_replaced_by_parts(store):
    batch = SequenceDataset(store).batch(np.arange(3))
    codes = torch.zeros(3, 8, 36, dtype=torch.int64)
    assert batch.codes is None and batch.with_codes(codes).codes is codes
    assert batch.with_codes(codes).to("cpu").frames.dtype == torch.uint8
    with pytest.raises(ValueError):
        batch.with_codes(codes[:2])


def test_summary_counts(store):
    summaries = SequenceDataset(store).describe()
    assert [(summary.game, summary.transitions, summary.episodes) for summary in summaries] == [
        (game, sum(lengths), len(lengths)) for game, lengths in LENGTHS.items()
    ]
    assert [summary.sequences for summary in summaries] == [
        sum(-(-length // 4) for length in lengths) for lengths in LENGTHS.values()
    ]
    assert summaries[0].bytes == store.bytes("Pong")
    half = SequenceDataset(store, split="training", holdout=0.5).describe()[0]
    assert half.bytes == round(store.bytes("Pong") * half.transitions / store.transitions("Pong")) > 0


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    length=st.integers(1, 12),
    data=st.data(),
)
def test_windows_cover_every_step_and_nothing_else(lengths, length, data):
    stride = data.draw(st.integers(1, length))
    windows = all_windows(lengths, length, stride, "right")
    sizes = np.array(lengths)
    assert set(windows.rows[windows.valid].tolist()) == set(range(sizes.sum()))
    episode_of_row = np.repeat(np.arange(len(sizes)), sizes)[windows.rows]
    assert (episode_of_row == episode_of_row[:, :1]).all()
    assert windows.valid[:, 0].all()
    assert (np.diff(windows.valid.astype(int), axis=1) <= 0).all(), "padding on the right only"
    assert ((np.diff(windows.rows, axis=1) == 1) == windows.valid[:, 1:]).all()


def all_windows(lengths, length, stride, pad):
    """Of episodes that lie one after the other from row 0."""
    sizes = np.array(lengths, np.int64)
    index = SequenceIndex(np.cumsum(sizes) - sizes, sizes, np.zeros(len(sizes), np.int64), length, stride, pad)
    return index.locate(np.arange(len(index)))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20), length=st.integers(1, 12), data=st.data())
def test_left_padding_is_the_mirror_image(lengths, length, data):
    """The same windows as right padding has when time runs backwards, episodes and all."""
    stride = data.draw(st.integers(1, length))
    left = all_windows(lengths, length, stride, "left")
    right = all_windows(lengths[::-1], length, stride, "right")
    assert np.array_equal(left.valid, right.valid[::-1, ::-1])
    assert np.array_equal(left.rows, sum(lengths) - 1 - right.rows[::-1, ::-1])


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_at_stride_1_every_step_ends_one_left_padded_window(lengths):
    windows = all_windows(lengths, 8, 1, "left")
    assert windows.rows[:, -1].tolist() == list(range(sum(lengths)))
    steps_so_far = np.concatenate([np.arange(1, size + 1) for size in lengths])
    assert windows.valid.sum(1).tolist() == np.minimum(steps_so_far, 8).tolist()
    assert windows.valid[:, -1].all()


def test_a_left_padded_window_ends_with_its_episode(store):
    """Whatever the stride: no terminal step is ever a window's middle or missing."""
    for stride in (1, 3, 4, 8):
        batch = (data := SequenceDataset(store, stride=stride, pad="left")).batch(np.arange(len(data)))
        assert not batch.ends[:, :-1].any()
        assert int(batch.ends[:, -1].sum()) == sum(int(store.tables[game].terminated.sum()) for game in store.games)


def test_strides_that_skip_steps_are_refused():
    one = np.ones(1, np.int64)
    for stride in (0, 9):
        with pytest.raises(ValueError):
            SequenceIndex(one * 0, one, one * 0, length=8, stride=stride)
    with pytest.raises(ValueError, match="pad"):
        SequenceIndex(one * 0, one, one * 0, pad="both")


@settings(max_examples=80, deadline=None)
@given(total=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_the_order_is_a_permutation(total, seed, epoch):
    order = permute(np.arange(total), total, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(total))


@pytest.mark.parametrize("total", [*range(1, 70), 255, 256, 257, 65_535, 65_537, 1_000_003])
def test_the_order_is_a_permutation_at_awkward_sizes(total):
    order = permute(np.arange(total), total, seed=1, epoch=0)
    assert np.array_equal(np.bincount(order, minlength=total), np.ones(total))


def test_orders_look_random():
    total, seeds = 50, 2000
    first = np.array([permute(np.arange(2), total, seed, 0) for seed in range(seeds)])
    counts = np.bincount(first[:, 0], minlength=total)
    # Chi-squared with 49 degrees of freedom exceeds 100 once in 40 000 times.
    assert ((counts - seeds / total) ** 2 / (seeds / total)).sum() < 100
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.1
    large = permute(np.arange(100_000), 100_000, 0, 0)
    assert abs(np.corrcoef(large[:-1], large[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(large, np.arange(100_000))[0, 1]) < 0.02


def test_the_order_never_changes():
    """A resumed run depends on it: these numbers may not change with a version of anything."""
    assert permute(np.arange(8), 10, seed=7, epoch=3).tolist() == [5, 6, 8, 4, 9, 1, 3, 2]


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 400),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 5),
    ranks=st.sampled_from([1, 2, 3, 4]),
    data=st.data(),
)
def test_an_epoch_has_no_repeats_and_ranks_tile_each_batch(total, seed, epoch, ranks, data):
    batch_size = ranks * data.draw(st.integers(1, 1 + total // ranks))
    if total < batch_size:
        with pytest.raises(UserError, match=r"training\.batch_size"):
            batch_indices(seed, 0, batch_size, total)
        return
    steps = steps_per_epoch(batch_size, total)
    batches = [batch_indices(seed, epoch * steps + step, batch_size, total) for step in range(steps)]
    seen = np.concatenate(batches)
    assert len(seen) == len(set(seen.tolist())) == total // batch_size * batch_size
    assert seen.min() >= 0 and seen.max() < total
    for batch in batches:
        shares = [batch[rank_slice(batch_size, rank, ranks)] for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        assert np.array_equal(np.concatenate(shares), batch)


def test_epochs_and_seeds_differ():
    orders = [batch_indices(seed, step, 100, 100).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_batch_size_errors_name_the_key():
    for batch_size, total in ((9, 8), (0, 8)):
        with pytest.raises(UserError, match=r"training\.batch_size"):
            check_batch_size(batch_size, total)
    with pytest.raises(UserError, match=r"training\.batch_size"):
        rank_slice(7, 0, 2)
    check_batch_size(8, 8)


NAMES = [f"part-00000/{number}" for number in range(5000)]


@settings(max_examples=60, deadline=None)
@given(episodes=st.integers(0, 200), holdout=st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.99]))
def test_the_split_parts_the_episodes(episodes, holdout):
    names = NAMES[:episodes]
    training = select_episodes("Pong", names, holdout, "training").tolist()
    held_out = select_episodes("Pong", names, holdout, "held_out").tolist()
    assert sorted(training + held_out) == select_episodes("Pong", names, holdout, "all").tolist()
    assert sorted(training + held_out) == list(range(episodes))
    if holdout == 0:
        assert not held_out
    elif episodes >= 2:
        assert training and held_out


def test_the_split_has_the_fraction_asked_differs_by_game_and_stays():
    pong, boxing = held_out_episodes("Pong", NAMES, 0.1), held_out_episodes("Boxing", NAMES, 0.1)
    assert 0.08 < pong.mean() < 0.12 and (pong != boxing).any()
    assert np.array_equal(held_out_episodes("Pong", NAMES[:400], 0.1), pong[:400])
    earlier = [f"a-part/{number}" for number in range(100)]
    assert np.array_equal(held_out_episodes("Pong", earlier + NAMES, 0.1)[100:], pong)
    for holdout in (-0.1, 1.0):
        with pytest.raises(UserError, match=r"data\.holdout"):
            held_out_episodes("Pong", NAMES[:3], holdout)
