"""The code cache: made once, whole or not at all, and never mistaken for another's."""

import errno
import fcntl
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forking import exit_codes, forking

from jowa.data.codes import CodeCache, build_codes, codes_path
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.errors import UserError

GAMES = {"Pong": [9, 30], "Boxing": [17]}


def record(folder, game, lengths, seed=0):
    random = np.random.default_rng(seed)
    with EpisodeWriter(folder, game, provenance={}, append=True) as writer:
        for length in lengths:
            writer.append(
                random.integers(1, 256, (length, 84, 84), np.uint8),
                np.zeros(length, np.uint8),
                np.zeros(length, np.float32),
                terminated=True,
            )


@pytest.fixture
def store(tmp_path):
    for game, lengths in GAMES.items():
        record(tmp_path, game, lengths)
    return EpisodeStore(tmp_path)


def encode(frames):
    """A tokenizer of four codes, each a number that needs 11 bits."""
    assert frames.dtype == torch.uint8 and frames.shape[1:] == (1, 84, 84)
    return frames[:, 0, :2, :2].reshape(-1, 4).long() * 8 + 7


def build(store, tokenizer="abc123"):
    return {game: build_codes(store, game, tokenizer, encode, chunk=7) for game in store.games}


def leftovers(store):
    return list((store.folder / "codes").rglob("*.tmp"))


def test_codes_equal_encoding_directly(store):
    paths = build(store)
    cache = CodeCache.open(store, "abc123")
    for game, lengths in GAMES.items():
        rows = np.arange(sum(lengths))
        direct = encode(torch.from_numpy(store.read_frames(game, rows)[:, None])).numpy()
        assert cache.read(game, rows).dtype == np.uint16
        assert np.array_equal(cache.read(game, rows), direct)
        windows = np.array([[0, 1, 2], [5, 6, 7]])
        assert np.array_equal(cache.read(game, windows), direct[windows])
        provenance = json.loads(paths[game].with_suffix(".json").read_text())
        assert provenance["tokenizer"] == "abc123" and provenance["data"] == store.fingerprint(game)
        assert np.load(paths[game]).dtype == np.uint16
    for outside in (-1, 39):
        with pytest.raises(IndexError):
            cache.read("Pong", np.array([outside]))


def test_batches_of_codes_equal_encoded_batches_of_frames(store):
    build(store)
    cache = CodeCache.open(store, "abc123")
    frames = SequenceDataset(store)
    codes = SequenceDataset(store, codes=cache)
    both = SequenceDataset(store, codes=cache, with_frames=True)
    indices = np.random.default_rng(0).permutation(len(frames))
    left, right = frames.batch(indices), codes.batch(indices)
    assert left.codes is None and right.frames is None
    assert right.codes.shape == (len(indices), 8, 4) and right.codes.dtype == torch.uint16
    right, second = right.to("cpu"), both.batch(indices).to("cpu")
    assert right.codes.dtype == torch.int64
    direct = encode(left.frames.flatten(0, 1)).unflatten(0, (len(indices), 8))
    assert torch.equal(right.codes[left.valid], direct[left.valid])
    assert not right.codes[~left.valid].any() and (~left.valid).any()
    assert torch.equal(second.frames, left.frames)
    assert torch.equal(second.codes, right.codes)


def test_codes_of_all_16_bits_stay_what_they_are(store):
    def large(frames):
        return 65_535 - encode(frames)

    for game in store.games:
        build_codes(store, game, "large1", large)
    batch = SequenceDataset(store, codes=CodeCache.open(store, "large1")).batch(np.arange(12)).to("cpu")
    frames = SequenceDataset(store).batch(np.arange(12)).frames
    direct = large(frames.flatten(0, 1)).unflatten(0, (12, 8))
    assert torch.equal(batch.codes[batch.valid], direct[batch.valid]) and batch.codes.max() > 60_000


def test_a_cache_is_made_once(store):
    paths = build(store)

    def refuse(frames):
        raise AssertionError("encoded again")

    for game in store.games:
        before = paths[game].stat().st_mtime_ns
        assert build_codes(store, game, "abc123", refuse) == paths[game]
        assert paths[game].stat().st_mtime_ns == before


def test_other_tokenizers_and_other_data_get_other_caches(store):
    build(store)
    with pytest.raises(UserError, match=r"data\.path"):
        CodeCache.open(store, "def456")
    before = codes_path(store, "Pong", "abc123")
    record(store.folder, "Pong", [5], seed=1)
    longer = EpisodeStore(store.folder)
    assert codes_path(longer, "Pong", "abc123") != before
    assert codes_path(longer, "Boxing", "abc123") == codes_path(store, "Boxing", "abc123")
    build(longer)
    assert len(CodeCache.open(longer, "abc123").read("Pong", np.arange(44))) == 44
    assert EpisodeStore(store.folder).games == ("Boxing", "Pong"), "the caches' folder is no game"


def test_a_failing_build_leaves_nothing(store):
    def fail(frames):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        build_codes(store, "Pong", "abc123", fail)
    assert not leftovers(store) and not list((store.folder / "codes").rglob("*.npy"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda frames: encode(frames)[:-1],
        lambda frames: encode(frames).float(),
        lambda frames: encode(frames) - 100_000,
        lambda frames: encode(frames) + 100_000,
        lambda frames: encode(frames).flatten(),
        lambda frames: encode(frames)[:, : 3 if len(frames) < 7 else 4],
    ],
)
def test_wrong_codes_are_refused(store, wrong):
    with pytest.raises(ValueError):
        build_codes(store, "Pong", "abc123", wrong, chunk=7, block=14)
    assert not codes_path(store, "Pong", "abc123").exists()


def build_and_die(folder: Path) -> None:
    """Killed at the third chunk of frames."""
    chunks = iter(range(3))

    def dying(frames):
        if next(chunks) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(frames)

    build_codes(EpisodeStore(folder), "Pong", "abc123", dying, chunk=7, block=14)


def test_a_killed_build_is_gone_on_with(store):
    assert exit_codes(build_and_die, (store.folder,)) == [-signal.SIGKILL]
    path = codes_path(store, "Pong", "abc123")
    (blocks,) = path.parent.glob("*.blocks")
    assert len(list(blocks.glob("*.npy"))) == 1 and not path.exists(), "killed in the second block"
    again = []

    def counted(frames):
        again.append(len(frames))
        return encode(frames)

    build_codes(store, "Pong", "abc123", counted, chunk=7, block=14)
    assert sum(again) == 39 - 14 and not blocks.exists() and not leftovers(store)
    assert_cached(store)


def assert_cached(store):
    direct = encode(torch.from_numpy(store.read_frames("Pong", slice(0, 39))[:, None])).numpy()
    assert np.array_equal(CodeCache.open(store, "abc123", ["Pong"]).read("Pong", np.arange(39)), direct)


def build_share(folder: Path, share: float, chunks) -> None:
    """One of several processes that build slowly; each chunk of frames is counted."""

    def slow(frames):
        time.sleep(0.1)
        with chunks.get_lock():
            chunks.value += 1
        return encode(frames)

    build_codes(EpisodeStore(folder), "Pong", "abc123", slow, chunk=7, block=7, share=share)


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.0, 0.0), (0.9, 0.3)])
def test_processes_share_the_blocks(store, shares):
    chunks = forking().Value("q", 0)
    assert exit_codes(build_share, *((store.folder, share, chunks) for share in shares)) == [0, 0]
    assert chunks.value == 6, "39 frames in chunks of 7, each once"
    assert_cached(store)


def test_blocks_of_another_size_are_not_mixed_in(store):
    """A build of large blocks died; one of small blocks comes after it, and then another of large ones."""
    path = codes_path(store, "Pong", "abc123")
    failing = iter([True, True, False])

    def dying(frames):
        if not next(failing):
            raise RuntimeError("killed")
        return encode(frames)

    with pytest.raises(RuntimeError):
        build_codes(store, "Pong", "abc123", dying, chunk=7, block=14)
    build_codes(store, "Pong", "abc123", encode, chunk=7, block=10)
    assert_cached(store)
    assert {file.name for file in path.parent.iterdir()} == {".lock", path.name, path.with_suffix(".json").name}


def test_a_block_that_is_something_else_is_refused(store):
    def fail_at_the_third(frames):
        if len(frames) == 4:
            raise RuntimeError("killed")
        return encode(frames)

    with pytest.raises(RuntimeError):
        build_codes(store, "Pong", "abc123", fail_at_the_third, chunk=7, block=7)
    (blocks,) = codes_path(store, "Pong", "abc123").parent.glob("*.blocks")
    for wrong in (np.zeros((6, 4), np.uint16), np.zeros((7, 4), np.int64)):
        np.save(blocks / "000000000007-000000000014.npy", wrong)
        with pytest.raises(UserError, match=r"delete .*000000000007-000000000014\.npy"):
            build_codes(store, "Pong", "abc123", encode, chunk=7, block=7)
    assert not codes_path(store, "Pong", "abc123").exists()


def test_blocks_that_are_left_behind_go(store):
    """Killed between joining and removing: the next one to look for the cache clears up."""
    path = build(store)["Pong"]
    left = path.with_suffix(".4096.blocks")
    left.mkdir()
    (left / "000000000000-000000000039.npy").write_bytes(b"")
    build(store)
    assert not left.exists()


def build_without_locks(folder: Path, ready) -> None:
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    fcntl.flock = none
    store = EpisodeStore(folder)
    ready.wait(60)
    build_codes(store, "Pong", "abc123", lambda frames: (time.sleep(0.01), encode(frames))[1], chunk=3, block=3)


def test_where_there_are_no_locks_work_is_done_twice_and_nothing_fails(store):
    ready = forking().Barrier(3)
    assert exit_codes(build_without_locks, *[(store.folder, ready)] * 3) == [0, 0, 0]
    assert_cached(store)
    assert not leftovers(store) and not list((store.folder / "codes").rglob("*.blocks"))


def test_a_damaged_cache_says_what_to_do(store):
    path = build(store)["Pong"]
    os.truncate(path, path.stat().st_size - 1)
    for attempt in (lambda: CodeCache.open(store, "abc123"), lambda: build(store)):
        with pytest.raises(UserError, match="delete"):
            attempt()
    np.save(path, np.zeros((3, 4), np.uint16))
    with pytest.raises(UserError, match="delete"):
        CodeCache.open(store, "abc123")
    np.save(path, np.zeros((39, 4), np.uint16))
    path.write_bytes(path.read_bytes() + b"xx")
    with pytest.raises(UserError, match="314 bytes of codes, not 312: delete"):
        CodeCache.open(store, "abc123")


def test_a_hash_cannot_lead_elsewhere(store):
    with pytest.raises(ValueError):
        codes_path(store, "Pong", "../x")
