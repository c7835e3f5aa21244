"""The episode store: what goes in comes out, and no way of dying takes what was committed."""

import contextlib
import errno
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from forking import exit_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.data.frames import FrameWriter
from jowa.data.store import EpisodeStore, EpisodeWriter, committed_parts
from jowa.data.verification import verify_game
from jowa.errors import UserError
from jowa.files import replacing, require_writable_folder, write_json
from jowa.games import legal_actions

PROVENANCE = {"rom_md5": "0" * 32, "sticky": False}


def episode(length, seed):
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (length, 84, 84), np.uint8)
    actions = random.choice(np.array(legal_actions("Pong"), np.uint8), length)
    return frames, actions, random.normal(size=length).astype(np.float32) * 10


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
        manifest = store.manifest("Pong")
        assert manifest["transitions"] == sum(first + second)
        assert manifest["episodes"] == len(first + second)
        assert manifest["mean_return"] == pytest.approx(store.tables["Pong"].returns.mean())
        assert sum(part["episodes"] for part in manifest["parts"]) == len(first + second)
        assert all(part["provenance"] == PROVENANCE for part in manifest["parts"])
        assert store.bytes("Pong") == sum(
            path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and path.name != "manifest.json"
        )


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


@pytest.mark.parametrize("named", [False, True])
def test_writers_beside_each_other_make_parts_of_their_own(tmp_path, named):
    parts = ("b", "a") if named else (None, None)
    options = {"provenance": PROVENANCE, "commit_every": 10, "append": True}
    with (
        EpisodeWriter(tmp_path, "Pong", part=parts[0], **options) as first,
        EpisodeWriter(tmp_path, "Pong", part=parts[1], **options) as second,
    ):
        for number in range(8):
            (first, second)[number % 2].append(*episode(6, number), terminated=True, info={"seed": number})
    store = EpisodeStore(tmp_path)
    assert sorted(info["seed"] for info in store.tables["Pong"].info) == list(range(8))
    assert_episodes_are_themselves(store)
    assert len(store.parts("Pong")) == (2 if named else 4)
    assert [part.name for part in store.parts("Pong")] == sorted(part.name for part in store.parts("Pong"))
    if named:
        assert [info["seed"] for info in store.tables["Pong"].info] == [1, 3, 5, 7, 0, 2, 4, 6]


def assert_episodes_are_themselves(store):
    table = store.tables["Pong"]
    for start, length, info in zip(table.starts, table.lengths, table.info, strict=True):
        rows = store.read("Pong", np.arange(start, start + length))
        frames, actions, rewards = episode(length, info["seed"])
        assert np.array_equal(rows.frames, frames) and np.array_equal(rows.actions, actions)
        assert rows.rewards.tobytes() == rewards.tobytes()


def test_the_same_part_is_made_once(tmp_path):
    first = EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part="run")
    second = EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part="run")
    first.append(*episode(4, 0), terminated=True, info={"seed": 0})
    second.append(*episode(4, 0), terminated=True, info={"seed": 0})
    second.close()
    with pytest.raises(UserError, match="by another process in the meantime"):
        first.close()
    with pytest.raises(UserError, match="is there already"):
        EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part="run")
    assert_holds(EpisodeStore(tmp_path), "Pong", [4])
    assert [path.name for path in (tmp_path / "Pong").iterdir() if path.is_dir()] == ["run"]


def test_a_named_part_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part="run") as writer:
        writer.append(*episode(4, 0), terminated=True)
        raise RuntimeError
    assert not list((tmp_path / "Pong").iterdir())


def test_sources_of_different_games_are_not_mixed_unasked(tmp_path):
    write(tmp_path, "Pong", [4])
    for other in ({**PROVENANCE, "sticky": True}, {**PROVENANCE, "rom_md5": "1" * 32}, {"sticky": False}):
        for options in ({"append": True}, {"part": "run"}):
            with pytest.raises(UserError, match=r"(sticky|rom_md5) .*allow_mixed=true"):
                EpisodeWriter(tmp_path, "Pong", provenance=other, **options)
    with EpisodeWriter(tmp_path, "Pong", provenance={"sticky": True}, part="run", allow_mixed=True) as writer:
        writer.append(*episode(6, 1), terminated=False, info={"seed": 1})
    assert_holds(EpisodeStore(tmp_path), "Pong", [4, 6])


def test_episodes_that_are_not_alike_do_not_meet_at_the_end_either(tmp_path):
    """Two writers that began before either had committed anything."""
    first = EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, append=True)
    second = EpisodeWriter(tmp_path, "Pong", provenance={**PROVENANCE, "sticky": True}, append=True)
    both = EpisodeWriter(tmp_path, "Pong", provenance={**PROVENANCE, "rom_md5": "1"}, append=True, allow_mixed=True)
    for number, writer in enumerate((first, second, both)):
        writer.append(*episode(4 + 2 * number, number), terminated=number % 2 == 0, info={"seed": number})
    first.close()
    with pytest.raises(UserError, match=r"part-00000 has sticky False, .* True.*allow_mixed=true"):
        second.close()
    assert_holds(EpisodeStore(tmp_path), "Pong", [4])
    both.close()
    assert committed_parts(tmp_path, "Pong") == ("part-00000", "part-00001")
    assert not list((tmp_path / "Pong").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("facts", "others", "fact"),
    [
        ({"rewards": "raw"}, {"rewards": "clipped"}, "rewards"),
        ({}, {"stack_padding": True}, "stack_padding"),
        ({"stack_padding": True}, {"stack_padding": False}, "stack_padding"),
        ({}, {"stack_padding": False}, None),
    ],
)
def test_rewards_and_padding_are_not_mixed_either(tmp_path, facts, others, fact):
    with EpisodeWriter(tmp_path, "Pong", provenance={**PROVENANCE, **facts}) as writer:
        writer.append(*episode(4, 0), terminated=True)
    options = {"provenance": {**PROVENANCE, **others}, "part": "other"}
    if fact is None:
        EpisodeWriter(tmp_path, "Pong", **options).close()
        return
    with pytest.raises(UserError, match=rf"{fact} .*allow_mixed=true"):
        EpisodeWriter(tmp_path, "Pong", **options)


def test_a_file_in_a_parts_place_is_no_part(tmp_path):
    (tmp_path / "Pong").mkdir()
    for name in ("part-00000", "run"):
        (tmp_path / "Pong" / name).write_text("mine")
    write(tmp_path, "Pong", [4])
    assert committed_parts(tmp_path, "Pong") == ("part-00001",)
    with pytest.raises(UserError, match="Pong/run is in the way"):
        EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part="run")
    assert (tmp_path / "Pong" / "run").read_text() == (tmp_path / "Pong" / "part-00000").read_text() == "mine"


def test_parts_are_committed_by_time_too(tmp_path):
    write(tmp_path, "Pong", [4, 6, 2], commit_seconds=0.0)
    write(tmp_path, "Boxing", [4, 6, 2], commit_seconds=3600.0)
    store = EpisodeStore(tmp_path)
    assert [part.episodes for part in store.parts("Pong")] == [1, 1, 1] and len(store.parts("Boxing")) == 1
    assert_holds(store, "Pong", [4, 6, 2])


def test_facts_can_be_noted_later(tmp_path):
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE) as writer:
        for number in range(3):
            writer.append(*episode(4, number), terminated=True)
            writer.note({"checkpoint": number})
            if number:
                writer.commit()
    facts = [part.provenance for part in EpisodeStore(tmp_path).parts("Pong")]
    assert facts == [{**PROVENANCE, "checkpoint": 1}, {**PROVENANCE, "checkpoint": 2}]
    assert "checkpoint" not in PROVENANCE


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    shard=st.sampled_from([8, 16, 24]),
    chunk=st.sampled_from([1, 4, 8]),
    seed=st.integers(0, 99),
)
def test_any_shards_hold_the_same(lengths, shard, chunk, seed):
    with tempfile.TemporaryDirectory() as folder:
        write(folder, "Pong", lengths, shard=shard, chunk=chunk, commit_every=50)
        store = EpisodeStore(folder)
        assert_holds(store, "Pong", lengths)
        whole = store.read_frames("Pong", slice(None))
        rows = np.random.default_rng(seed).integers(0, sum(lengths), (5, 3))
        assert np.array_equal(store.read_frames("Pong", rows), whole[rows])
        files = list(Path(folder).rglob("c/*/0/0"))
        assert len(files) == sum(-(-part.transitions // (-(-shard // chunk) * chunk)) for part in store.parts("Pong"))


def test_black_frames_are_data(tmp_path):
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, shard=16) as writer:
        writer.append(np.zeros((40, 84, 84), np.uint8), np.zeros(40, np.uint8), np.zeros(40, np.float32), True)
    store = EpisodeStore(tmp_path)
    assert not store.read_frames("Pong", slice(None)).any()
    shard = next(iter(tmp_path.rglob("c/1/0/0")))
    shard.unlink()
    with pytest.raises(UserError, match="damaged"):
        store.read_frames("Pong", np.array([20]))


def test_the_frames_are_plain_zarr(tmp_path):
    """Any Zarr library reads them: the metadata name nothing but standard codecs."""
    write(tmp_path, "Pong", [3])
    (description,) = tmp_path.rglob("zarr.json")
    metadata = json.loads(description.read_text())
    assert metadata["zarr_format"] == 3 and metadata["shape"] == [3, 84, 84] and metadata["data_type"] == "uint8"
    (sharding,) = metadata["codecs"]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "zstd", "crc32c"]
    assert sharding["configuration"]["chunk_shape"] == [16, 84, 84]


@pytest.mark.parametrize(
    "change",
    [
        {"frames": np.zeros((3, 84, 84), np.float32)},
        {"frames": np.zeros((3, 1, 84, 84), np.uint8)},
        {"frames": np.zeros((4, 84, 84), np.uint8)},
        {"actions": np.zeros(3, np.int64)},
        {"actions": np.array([0, 18, 0], np.uint8)},
        {"actions": np.array([0, 2, 0], np.uint8)},
        {"rewards": np.zeros(3)},
        {"rewards": np.array([0, np.nan, 0], np.float32)},
        {"rewards": [0.0, 0.0, 0.0]},
        {
            "frames": np.zeros((0, 84, 84), np.uint8),
            "actions": np.zeros(0, np.uint8),
            "rewards": np.zeros(0, np.float32),
        },
        {"info": {"score": float("nan")}},
    ],
)
def test_a_wrong_episode_is_refused_and_leaves_no_trace(tmp_path, change):
    good = {
        "frames": np.zeros((3, 84, 84), np.uint8),
        "actions": np.zeros(3, np.uint8),
        "rewards": np.zeros(3, np.float32),
        "terminated": True,
        "info": {},
    }
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE) as writer:
        writer.append(*episode(2, 0), terminated=True, info={"seed": 0})
        with pytest.raises(ValueError):
            writer.append(**{**good, **change})
        writer.append(*episode(5, 1), terminated=False, info={"seed": 1})
    store = EpisodeStore(tmp_path)
    assert_holds(store, "Pong", [2, 5])


def record_and_die(folder):
    writer = EpisodeWriter(folder, "Pong", provenance=PROVENANCE, commit_every=10)
    for number in range(4):
        writer.append(*episode(6, number), terminated=number % 2 == 0, info={"seed": number})
    writer.append(*episode(3, 4), terminated=True, info={"seed": 4})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_recorder_leaves_the_committed_episodes(tmp_path):
    assert exit_codes(record_and_die, (tmp_path,)) == [-signal.SIGKILL]
    # Two commits of two episodes each; the fifth episode's rows lie in a part without a name, which nobody reads.
    assert len(list((tmp_path / "Pong").glob(".*.tmp"))) == 1
    assert_holds(EpisodeStore(tmp_path), "Pong", [6, 6, 6, 6])
    write(tmp_path, "Pong", [2], first_seed=4, append=True)
    assert_holds(EpisodeStore(tmp_path), "Pong", [6, 6, 6, 6, 2])
    assert not list((tmp_path / "Pong").glob(".*.tmp"))


def test_what_a_living_writer_holds_is_not_swept_away(tmp_path):
    with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE) as writer:
        writer.append(*episode(4, 0), terminated=True, info={"seed": 0})
        EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE).close()
        assert len(list((tmp_path / "Pong").glob(".*.tmp"))) == 1
    assert_holds(EpisodeStore(tmp_path), "Pong", [4])


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    write(tmp_path, "Pong", [4])
    before = EpisodeStore(tmp_path).fingerprint("Pong")
    writer = EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, append=True)
    writer.append(*episode(5, 1), terminated=True)

    def full(self, count):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")

    monkeypatch.setattr("jowa.data.frames.FrameWriter.close", full)
    with pytest.raises(UserError, match="The disk is full"):
        writer.close()
    assert EpisodeStore(tmp_path).fingerprint("Pong") == before
    assert [path.name for path in (tmp_path / "Pong").iterdir() if path.is_dir()] == ["part-00000"]


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    fails_at=st.integers(1, 5),
    expanded=st.booleans(),
)
def test_a_disk_that_is_full_for_a_while_leaves_whole_episodes_only(lengths, fails_at, expanded):
    """The shard that could not be written, or only the array's size was, and there is space again at the end."""
    writes = 0

    def failing(self):
        nonlocal writes
        writes += 1
        if writes == fails_at:
            if expanded:
                self._array = self._array.resize(exclusive_max=[self._written + 16, 84, 84]).result()
            raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")
        write_frames(self)

    write_frames = FrameWriter._write
    added = 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameWriter, "_write", failing)
        with contextlib.suppress(UserError), EpisodeWriter(folder, "Pong", provenance=PROVENANCE, shard=16) as writer:
            for number, length in enumerate(lengths):
                writer.append(*episode(length, number), terminated=number % 2 == 0, info={"seed": number})
                added += 1
        if committed_parts(folder, "Pong"):
            assert_holds(EpisodeStore(folder), "Pong", lengths[:added])
            assert not verify_game(Path(folder), "Pong").problems
        else:
            assert added in (0, len(lengths)), "the last shard of all could not be written"
        assert not list(Path(folder).glob("Pong/.*.tmp"))


def test_after_half_an_episode_none_is_added(tmp_path, monkeypatch):
    """An interruption between an episode's frames and its row in the table."""
    writer = EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE)
    writer.append(*episode(4, 0), terminated=True, info={"seed": 0})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FrameWriter, "append", interrupted_after(FrameWriter.append))
        writer.append(*episode(7, 1), terminated=True)
    with pytest.raises(ValueError, match="only half added"):
        writer.append(*episode(5, 1), terminated=True)
    writer.close()
    assert_holds(EpisodeStore(tmp_path), "Pong", [4])
    assert not verify_game(tmp_path, "Pong").problems


def interrupted_after(method):
    def call(*arguments):
        method(*arguments)
        raise KeyboardInterrupt

    return call


def test_an_older_format_is_refused(tmp_path):
    (tmp_path / "Pong").mkdir()
    (tmp_path / "Pong" / "manifest.json").write_text('{"format": 1}')
    for attempt in (lambda: EpisodeStore(tmp_path), lambda: EpisodeWriter(tmp_path, "Pong", provenance={})):
        with pytest.raises(UserError, match="has format 1, this jowa reads format 2: record or import"):
            attempt()


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(next(folder.rglob("c/0/0/0"))),
        lambda folder: next(folder.rglob("c/0/0/0")).unlink(),
        lambda folder: cut(folder / "rewards.npy"),
        lambda folder: (folder / "actions.npy").unlink(),
        lambda folder: (folder / "episodes.jsonl").write_text("{" * 1000),
        lambda folder: (folder / "episodes.jsonl").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: edit_manifest(folder / "manifest.json", transitions=8),
        lambda folder: edit_manifest(folder / "manifest.json", episodes=1),
        lambda folder: edit_manifest(folder / "manifest.json", files={}),
        lambda folder: edit_manifest(folder / "manifest.json", format=99, new=1),
    ],
)
def test_damage_is_a_clear_error(tmp_path, damage):
    write(tmp_path, "Pong", [3, 4])
    damage(tmp_path / "Pong" / "part-00000")
    with pytest.raises(UserError, match=r"record or import it again|use a newer jowa"):
        EpisodeStore(tmp_path)
    with pytest.raises(UserError):
        EpisodeWriter(tmp_path, "Pong", provenance={}, append=True)


@pytest.mark.parametrize("part", ["b", "a"])
def test_a_part_without_a_manifest_is_not_left_out(tmp_path, part):
    for number, name in enumerate(("a", "b")):
        with EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part=name) as writer:
            writer.append(*episode(4, number), terminated=True)
    (tmp_path / "Pong" / part / "manifest.json").unlink()
    for attempt in (
        lambda: EpisodeStore(tmp_path),
        lambda: EpisodeStore(tmp_path, ["Pong"]),
        lambda: EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, append=True),
        lambda: EpisodeWriter(tmp_path, "Pong", provenance=PROVENANCE, part=part),
    ):
        with pytest.raises(UserError, match=f"Pong/{part}/manifest.json is damaged .*: remove that part's folder"):
            attempt()


def test_what_bears_no_games_name_is_no_game(tmp_path):
    write(tmp_path, "Pong", [4])
    for other in ("Pong.bak", "assault", ".Pong"):
        shutil.copytree(tmp_path / "Pong", tmp_path / other)
    assert EpisodeStore(tmp_path).games == ("Pong",)
    with pytest.raises(UserError, match=r"no recorded episodes in"):
        EpisodeStore(tmp_path / "Pong.bak")


def test_a_damaged_game_does_not_keep_another_from_being_read(tmp_path):
    for game in ("Pong", "Boxing"):
        write(tmp_path, game, [4])
    next((tmp_path / "Boxing").rglob("manifest.json")).unlink()
    assert EpisodeStore(tmp_path, ["Pong"]).games == ("Pong",)


def test_flipped_bits_are_found_when_they_are_read(tmp_path):
    write(tmp_path, "Pong", [300])
    path = next(tmp_path.rglob("c/0/0/0"))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        EpisodeStore(tmp_path).read_frames("Pong", slice(0, 16))


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


def no_locks(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.mark.parametrize("locks", [True, False])
def test_replacing_the_same_file_at_once_the_last_wins(tmp_path, locks, monkeypatch):
    if not locks:
        monkeypatch.setattr("fcntl.flock", no_locks)
    path = tmp_path / "file"
    with replacing(path) as slow:
        slow.write_text("slow")
        with replacing(path) as quick:
            quick.write_text("quick")
        assert path.read_text() == "quick" and slow.read_text() == "slow"
    assert path.read_text() == "slow"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def write_half_and_die(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_left_of_a_file_is_overwritten(tmp_path):
    for _ in range(2):
        assert exit_codes(write_half_and_die, (tmp_path / "file",)) == [-signal.SIGKILL]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".file.lock", ".file.tmp"]
    write_json(tmp_path / "file", "whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence_for_any_file(tmp_path, monkeypatch, number):
    def full(path, content):
        path.touch()
        raise OSError(number, os.strerror(number))

    write_json(tmp_path / "file", "old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=f"^The disk is full while writing {tmp_path}/file: make room"):
        write_json(tmp_path / "file", "new")
    assert json.loads((tmp_path / "file").read_text()) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_unwritable_folder_names_the_key(tmp_path):
    assert require_writable_folder(tmp_path / "a" / "b", "run.folder").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.folder"):
        require_writable_folder(tmp_path / "file" / "folder", "run.folder")
