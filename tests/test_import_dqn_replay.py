"""DQN-Replay's logs: every row once, in the order of play, whatever the capacity and wherever the logs were cut."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from fake_dopamine import LOGS, SAMPLES, Ring, in_order, numbered, play_numbers, read_all, same

from jowa.data.sources.dqn_replay import RunReader
from jowa.data.sources.episode import SourceEpisode
from jowa.games import legal_actions

PONG = np.array(legal_actions("Pong"), np.uint8)


def digests(frames: np.ndarray) -> np.ndarray:
    return np.array([list(hashlib.md5(frame.tobytes()).digest()[:8]) for frame in frames], np.uint8)


def assert_is_truth(episodes: list[SourceEpisode], black: int = 0) -> None:
    """The episodes are the sample's stream, `black` rows before each left aside."""
    truth = np.load(SAMPLES / "truth.npz")
    assert len(episodes) == truth["terminals"].sum() + 1
    for episode in episodes:
        assert not episode.frames[:black].any() and not episode.actions[:black].any()
    assert np.array_equal(np.concatenate([digests(episode.frames[black:]) for episode in episodes]), truth["frames"])
    assert np.array_equal(np.concatenate([episode.actions[black:] for episode in episodes]), PONG[truth["actions"]])
    assert np.array_equal(np.concatenate([episode.rewards[black:] for episode in episodes]), truth["rewards"])
    ends = np.cumsum([len(episode.actions) - black for episode in episodes]) - 1
    assert np.array_equal(ends[:-1], np.flatnonzero(truth["terminals"]))
    assert all(episode.terminated for episode in episodes[:-1]) and not episodes[-1].terminated


@pytest.fixture(scope="module")
def sample() -> list[SourceEpisode]:
    return in_order(read_all(SAMPLES / LOGS))


def recut(folder: Path, sample: list[SourceEpisode], capacity: int) -> Ring:
    """Play the sample's episodes into a buffer of another capacity."""
    ring = Ring(folder, capacity)
    index = {int(action): number for number, action in enumerate(PONG)}
    for episode in sample:
        for step, frame in enumerate(episode.frames):
            last = step == len(episode.frames) - 1
            action, reward = index[int(episode.actions[step])], episode.rewards[step]
            ring.add(frame, action, reward, episode.terminated and last)
    ring.end()
    return ring


def test_the_sample_is_read_exactly(sample: list[SourceEpisode]) -> None:
    assert_is_truth(sample)
    assert sample[1].info == {"stream_row": 3 + 824 + 3}
    assert same(in_order(read_all(SAMPLES / LOGS, resumed=True)), sample)


def test_padding_can_be_kept(sample: list[SourceEpisode]) -> None:
    kept = in_order(read_all(SAMPLES / LOGS, keep_stack_padding=True))
    assert_is_truth(kept, black=3)
    assert [episode.info for episode in kept] == [episode.info for episode in sample]


@pytest.mark.parametrize("capacity", [500, 777, 3333, 12_446, 20_000])
def test_other_capacities_give_the_same(capacity: int, sample: list[SourceEpisode], tmp_path: Path) -> None:
    """500: episodes lie in up to four logs, and some logs hold no end. 12 446 and 20 000: all is in one log or two."""
    ring = recut(tmp_path / "logs", sample, capacity)
    said: list[str] = []
    read = read_all(ring.folder, say=said.append)
    assert_is_truth(in_order(read))
    assert not said
    assert len(read) == ring.logs == 12_445 // capacity + (12_445 % capacity == capacity - 1) + 1
    again = read_all(ring.folder, resumed=True)
    assert all(same(read[number], again[number]) for number in read)


@pytest.mark.parametrize("left", [2, 1, 0])
def test_a_pass_that_was_never_logged(left: int, sample: list[SourceEpisode], tmp_path: Path) -> None:
    """The second episode's padding jumps over the first log, whose pass is lost; `left` rows of it lie behind."""
    capacity = 827 + 4 - left
    ring, said = recut(tmp_path / "logs", sample, capacity), list[str]()
    read = in_order(read_all(ring.folder, say=said.append))
    assert ring.counts[0] == 2 * capacity - 1 and "before checkpoint 0" in said[0]
    whole = sample[1]
    assert read[0].terminated and read[0].info["after_gap"] and np.array_equal(read[0].frames, whole.frames)
    assert same(read[1:], sample[2:]) and len(said) == 1


Piece = tuple[int, list[int], list[float], bool]


def expected_pieces(ring: Ring, stream: list[tuple[int, float, bool]]) -> list[Piece]:
    """From what each log holds: (checkpoint, numbers, rewards, terminated) of everything an import can know."""
    pieces: list[Piece] = []
    held: list[tuple[int, float, bool]] = []

    def close(checkpoint: int, terminated: bool) -> None:
        if held:
            pieces.append((checkpoint, [row[0] for row in held], [row[1] for row in held], terminated))
        held.clear()

    before = 0
    for checkpoint, count in enumerate(ring.counts):
        first = max(before, count - ring.capacity)
        if first > before:
            close(checkpoint, False)
        for row in stream[first:count]:
            if row[0] >= 0:
                held.append(row)
            if row[2]:
                close(checkpoint, True)
        before = count
    close(len(ring.counts) - 1, False)
    return pieces


@pytest.mark.parametrize("seed", range(40))
def test_random_runs_with_jumps(seed: int, tmp_path: Path) -> None:
    """Small buffers, in which about every tenth log is jumped over, and logs without any end."""
    random = np.random.default_rng(seed)
    ring = Ring(tmp_path / "logs", int(random.integers(20, 60)))
    stream = play_numbers(ring, int(random.integers(150, 400)), random)
    said: list[str] = []
    for resumed in (False, True):
        read = read_all(ring.folder, resumed=resumed, say=said.append)
        pieces = [
            (checkpoint, [int.from_bytes(frame[0, :4].tobytes(), "big") for frame in episode.frames],
             episode.rewards.tolist(), episode.terminated)
            for checkpoint in sorted(read) for episode in read[checkpoint]
        ]  # fmt: skip
        assert pieces == expected_pieces(ring, stream)
    lost = any(count - before > ring.capacity for before, count in zip([-1, *ring.counts], ring.counts, strict=False))
    assert bool(said) == lost


def test_a_jump_before_the_last_log_is_found_by_comparing(tmp_path: Path) -> None:
    """The last log's count is only a slot, so that two passes more look like one; the stale slots tell."""
    random = np.random.default_rng(0)
    ring = Ring(tmp_path / "logs", 60)
    for number in range(60 + 57 + 40):
        # One episode ends so that the next one's padding jumps over the second log.
        ring.add(numbered(number), int(random.integers(6)), random.uniform(-1, 1), ring.count == 60 + 56)
    ring.end()
    assert ring.counts[0] == 59 and len(ring.counts) == 2 and ring.counts[1] > 120
    said: list[str] = []
    read = read_all(ring.folder, say=said.append)
    lost = ring.counts[1] - 60 - 59
    assert len(said) == 1 and f"{lost} rows before checkpoint 1 were never logged; the episode that" in said[0]
    assert [(len(episode.actions), episode.terminated) for episode in read[1]] == [
        (56, False), (60 + 57 - 59 - lost, True), (ring.counts[1] - 120, False)
    ]  # fmt: skip


def test_without_the_log_before_the_beginning_is_left_out(sample: list[SourceEpisode], tmp_path: Path) -> None:
    for file in (SAMPLES / LOGS).glob("*_ckpt.[12].gz"):
        (tmp_path / file.name).symlink_to(file)
    said: list[str] = []
    read = read_all(tmp_path, say=said.append)
    assert same(in_order(read), sample[6:])
    # The row before the log's first slot belongs to it as well: 4 999 are in the log before.
    left_out = len(sample[5].actions) - 623
    assert len(said) == 1 and f"{left_out} rows from row 4999 on are left out" in said[0]


def test_what_goes_on_in_the_next_log_waits_for_it(sample: list[SourceEpisode]) -> None:
    reader = RunReader(SAMPLES / LOGS, "Pong")
    assert same(reader.episodes(0), sample[:5])
    assert reader.unfinished(0) == 623
    assert same(reader.episodes(1), sample[5:11])
