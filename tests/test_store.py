"""The episode store: what goes in comes out, and no way of dying takes what was committed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.errors import UserError
from jowa.files import replacing, require_writable_folder, write_json

PROVENANCE = {"rom_md5": "0" * 32, "sticky": False}


def episode(length, seed):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 84, 84), np.uint8)
    return frames, random.integers(0, 18, length, np.uint8), random.normal(size=length).astype(np.float32) * 10


def write(folder, game, lengths, first_seed=0, append=False, **options):
    with EpisodeWriter(folder, game, provenance=PROVENANCE, append=append, **options) as writer:
        for number, length in enumerate(lengths, first_seed):
            writer.append(*episode(length, number), terminated=number % 2 == 0, info={"seed": number})


def assert_holds(store, game, lengths):
    table = store.tables[game]
    assert table.lengths.tolist() == lengths
    for number, (start, length) in enumerate(zip(table.starts, lengths, strict=True)):
        frames, actions, rewards = episode(length, number)
        rows = store.read(game, np.arange(start, start + length))
        assert np.array_equal(rows.frames, frames)
        assert np.array_equal(rows.actions, actions)
        assert rows.rewards.tobytes() == rewards.tobytes()
        assert rows.ends.tolist() == [False] * (length - 1) + [number % 2 == 0]
        assert table.terminated[number] == (number % 2 == 0)
        assert table.returns[number] == pytest.approx(rewards.astype(np.float64).sum())
        assert table.info[number] == {"seed": number}


@settings(max_examples=15, deadline=None)
@given(
    first=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    second=st.lists(st.integers(1, 12), max_size=4),
    commit_every=st.integers(1, 30),
)
def test_round_trip_is_bitwise_also_after_appending(first, second, commit_every):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, "Pong", first, commit_every=commit_every)
        assert_holds(EpisodeStore(folder), "Pong", first)
        write(folder, "Pong", second, first_seed=len(first), append=True, commit_every=commit_every)
        store = EpisodeStore(folder)
        assert_holds(store, "Pong", first + second)
        store.verify("Pong")
        manifest = store.manifest("Pong")
        assert manifest["transitions"] == sum(first + second)
        assert manifest["episodes"] == len(first + second)
        assert manifest["mean_return"] == pytest.approx(store.tables["Pong"].returns.mean())
        assert sum(recording["episodes"] for recording in manifest["recordings"]) == len(first + second)
        assert all(recording["provenance"] == PROVENANCE for recording in manifest["recordings"])


def test_reads_windows_of_any_shape(tmp_path):
    write(tmp_path, "Pong", [30])
    store = EpisodeStore(tmp_path)
    starts = np.array([[3, 0], [22, 7]])
    rows = starts[..., None] + np.arange(8)
    windows = store.read("Pong", rows)
    frames, actions, _ = episode(30, 0)
    assert windows.frames.shape == (2, 2, 8, 84, 84)
    assert np.array_equal(windows.frames, frames[rows])
    assert np.array_equal(windows.actions, actions[rows])
    assert store.read("Pong", rows, frames=False).frames is None
    for outside in (-1, 30):
        with pytest.raises(IndexError):
            store.read("Pong", np.array([0, outside]))


def test_several_games_in_the_order_asked(tmp_path):
    write(tmp_path, "Pong", [4])
    write(tmp_path, "Boxing", [5, 6])
    assert EpisodeStore(tmp_path).games == ("Boxing", "Pong")
    assert EpisodeStore(tmp_path, ["Pong", "Boxing"]).games == ("Pong", "Boxing")
    assert EpisodeStore(tmp_path, ["Pong"]).games == ("Pong",)


def test_fingerprint_follows_the_data(tmp_path):
    write(tmp_path / "a", "Pong", [4, 5])
    write(tmp_path / "b", "Pong", [4, 5])
    before = EpisodeStore(tmp_path / "a").fingerprint("Pong")
    assert EpisodeStore(tmp_path / "b").fingerprint("Pong") == before
    write(tmp_path / "a", "Pong", [3], first_seed=2, append=True)
    assert EpisodeStore(tmp_path / "a").fingerprint("Pong") != before


def test_existing_episodes_are_not_touched_without_append(tmp_path):
    write(tmp_path, "Pong", [4])
    with pytest.raises(UserError, match="append"):
        EpisodeWriter(tmp_path, "Pong", provenance={})
    assert_holds(EpisodeStore(tmp_path), "Pong", [4])


def test_only_one_writer_a_game(tmp_path):
    with (
        EpisodeWriter(tmp_path, "Pong", provenance={}),
        pytest.raises(UserError, match="another process"),
    ):
        EpisodeWriter(tmp_path, "Pong", provenance={})
    EpisodeWriter(tmp_path, "Pong", provenance={}).close()


@pytest.mark.parametrize("change", [
    {"frames": np.zeros((3, 84, 84), np.float32)},
    {"frames": np.zeros((3, 1, 84, 84), np.uint8)},
    {"frames": np.zeros((4, 84, 84), np.uint8)},
    {"actions": np.zeros(3, np.int64)},
    {"actions": np.array([0, 18, 0], np.uint8)},
    {"rewards": np.zeros(3)},
    {"rewards": np.array([0, np.nan, 0], np.float32)},
    {"rewards": [0.0, 0.0, 0.0]},
    {"frames": np.zeros((0, 84, 84), np.uint8), "actions": np.zeros(0, np.uint8), "rewards": np.zeros(0, np.float32)},
    {"info": {"score": float("nan")}},
])
def test_a_wrong_episode_is_refused_and_leaves_no_trace(tmp_path, change):
    good = {"frames": np.zeros((3, 84, 84), np.uint8), "actions": np.zeros(3, np.uint8),
            "rewards": np.zeros(3, np.float32), "terminated": True, "info": {}}
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE) as writer:
        writer.append(*episode(2, 0), terminated=True, info={"seed": 0})
        with pytest.raises(ValueError):
            writer.append(**{**good, **change})
        writer.append(*episode(5, 1), terminated=False, info={"seed": 1})
    store = EpisodeStore(tmp_path)
    assert_holds(store, "Pong", [2, 5])
    store.verify("Pong")


KILLED_RECORDER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_store import PROVENANCE, episode
from jowa.data.store import EpisodeWriter
writer = EpisodeWriter({folder!r}, "Pong", provenance=PROVENANCE, commit_every=10)
for number in range(4):
    writer.append(*episode(6, number), terminated=number % 2 == 0, info={{"seed": number}})
writer.append(*episode(3, 4), terminated=True, info={{"seed": 4}})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_recorder_leaves_the_committed_episodes(tmp_path):
    script = KILLED_RECORDER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
    # Two commits of two episodes each; the fifth episode's rows lie on disk, but nothing counts them.
    assert (tmp_path / "Pong" / "frames.u8").stat().st_size == 27 * 84 * 84
    store = EpisodeStore(tmp_path)
    assert_holds(store, "Pong", [6, 6, 6, 6])
    store.verify("Pong")
    write(tmp_path, "Pong", [2], first_seed=4, append=True)
    assert_holds(EpisodeStore(tmp_path), "Pong", [6, 6, 6, 6, 2])
    assert (tmp_path / "Pong" / "frames.u8").stat().st_size == 26 * 84 * 84


def test_killed_before_the_first_commit_starts_afresh(tmp_path):
    folder = tmp_path / "Pong"
    folder.mkdir()
    (folder / "frames.u8").write_bytes(b"x" * 10_000)
    with pytest.raises(UserError, match="record"):
        EpisodeStore(tmp_path)
    write(tmp_path, "Pong", [3])
    assert_holds(EpisodeStore(tmp_path), "Pong", [3])


def test_a_reader_is_not_disturbed_by_a_writer(tmp_path):
    write(tmp_path, "Pong", [4])
    store = EpisodeStore(tmp_path)
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, append=True) as writer:
        writer.append(*episode(7, 1), terminated=False, info={"seed": 1})
        assert_holds(store, "Pong", [4])
        assert_holds(EpisodeStore(tmp_path), "Pong", [4])
        writer.commit()
        assert_holds(EpisodeStore(tmp_path), "Pong", [4, 7])


@pytest.mark.parametrize("folder", ["nowhere", "."])
@pytest.mark.parametrize("games", [None, ["Pong"]])
def test_missing_data_says_how_to_make_it(tmp_path, folder, games):
    with pytest.raises(UserError) as error:
        EpisodeStore(tmp_path / folder, games)
    assert "data.path" in str(error.value) and "python -m jowa.data.record" in str(error.value)


def test_a_missing_game_is_named(tmp_path):
    write(tmp_path, "Pong", [3])
    with pytest.raises(UserError, match=r"Boxing.*python -m jowa\.data\.record"):
        EpisodeStore(tmp_path, ["Pong", "Boxing"])


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def edit_manifest(path, **changes):
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize("damage", [
    lambda folder: cut(folder / "frames.u8"),
    lambda folder: cut(folder / "rewards.f4"),
    lambda folder: (folder / "actions.u8").unlink(),
    lambda folder: (folder / "episodes.jsonl").write_text("{" * 1000),
    lambda folder: (folder / "episodes.jsonl").unlink(),
    lambda folder: (folder / "manifest.json").write_text("{"),
    lambda folder: (folder / "manifest.json").write_text("[]"),
    lambda folder: edit_manifest(folder / "manifest.json", transitions=8),
    lambda folder: edit_manifest(folder / "manifest.json", episodes=1),
    lambda folder: edit_manifest(folder / "manifest.json", files={}),
    lambda folder: edit_manifest(folder / "manifest.json", format=99, new=1),
])
def test_damage_is_a_clear_error(tmp_path, damage):
    write(tmp_path, "Pong", [3, 4])
    damage(tmp_path / "Pong")
    with pytest.raises(UserError, match=r"data\.path"):
        EpisodeStore(tmp_path)
    with pytest.raises(UserError, match=r"data\.path"):
        EpisodeWriter(tmp_path, "Pong", provenance={}, append=True)


def test_flipped_bits_are_found_by_verify_and_before_appending(tmp_path):
    write(tmp_path, "Pong", [3])
    path = tmp_path / "Pong" / "frames.u8"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        EpisodeStore(tmp_path).verify("Pong")
    with pytest.raises(UserError, match="damaged"):
        EpisodeWriter(tmp_path, "Pong", provenance={}, append=True)


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_unwritable_folder_names_the_key(tmp_path):
    assert require_writable_folder(tmp_path / "a" / "b", "run.folder").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.folder"):
        require_writable_folder(tmp_path / "file" / "folder", "run.folder")
