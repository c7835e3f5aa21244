"""Verifying a store: sound data pass, and no kind of damage does."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_cli import assert_refused
from tiny_store import moving_square, write_store

from jowa.cli import run
from jowa.data import verify
from jowa.data.open_part import sha256
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.data.verification import games_in, transitions_in, verify_game
from jowa.errors import UserError
from jowa.games import legal_actions

LENGTHS = (20, 30, 14)
"""Of the episodes of each part; shards are of 32 frames, so that a part has two."""


def write_part(folder: Path, game: str, part: str, seed: int) -> None:
    with EpisodeWriter(folder, game, provenance={"source": "a test"}, part=part, shard=32, chunk=8) as writer:
        for number, length in enumerate(LENGTHS, seed):
            writer.append(*moving_square(game, number, length), terminated=number % 3 < 2)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "data"
    write_part(folder, "Pong", "a", 0)
    write_part(folder, "Pong", "b", 3)
    write_part(folder, "Boxing", "a", 0)
    return folder


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def problems(store: Path, game: str = "Pong") -> list[str]:
    return list(verify_game(store, game).problems)


def files_of(part: Path) -> list[str]:
    return sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())


FILES = ["actions.npy", "ends.npy", "episodes.jsonl", "frames/c/0/0/0", "frames/c/1/0/0", "frames/zarr.json",
         "manifest.json", "rewards.npy"]  # fmt: skip


def test_sound_data_have_no_problems(sound: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    steps: list[int] = []
    verdict = verify_game(sound, "Pong", steps.append)
    assert (verdict.parts, verdict.episodes, verdict.transitions) == (2, 6, 2 * sum(LENGTHS))
    assert verdict.problems == () == verify_game(sound, "Boxing").problems
    assert sum(steps) == verdict.transitions == transitions_in(sound, "Pong")
    assert {path: path.stat().st_mtime_ns for path in sound.rglob("*")} == before
    assert files_of(sound / "Pong" / "a") == FILES


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_bit_is_found(store: Path, name: str, where: float) -> None:
    path = store / "Pong" / "b" / name
    flip(path, int(where * path.stat().st_size))
    found = problems(store)
    assert f"{path} isn't what was committed: its sha256 has changed." in found
    assert not any("/a/" in one for one in found)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(store: Path, name: str) -> None:
    (store / "Pong" / "b" / name).unlink()
    (found,) = problems(store)
    assert str(store / "Pong" / "b" / name) in found and ("is missing" in found or "can't be read" in found)


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_shortened_or_longer_file_is_found(store: Path, name: str, change: int) -> None:
    path = store / "Pong" / "b" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"x")
    (found,) = problems(store)
    assert found == f"{path} has {len(content) + change} bytes where {len(content)} were committed."


def test_a_file_nobody_knows_is_found(store: Path) -> None:
    (store / "Pong" / "b" / "frames" / "c" / "2").write_bytes(b"x")
    (found,) = problems(store)
    assert "frames/c/2 belongs to nothing" in found


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3}', '{"files": {"actions.npy": {}}}', ""])
def test_a_manifest_that_cannot_be_read_is_found(store: Path, content: str) -> None:
    (store / "Pong" / "b" / "manifest.json").write_text(content)
    (found,) = problems(store)
    assert "b/manifest.json can't be read" in found


def reseal(part: Path, **changes: object) -> None:
    """Give a part a manifest that fits its files: the damage was there before they were sealed."""
    path = part / "manifest.json"
    manifest = json.loads(path.read_text())
    names = [name for name in files_of(part) if name != "manifest.json"]
    files = {name: {"bytes": (part / name).stat().st_size, "sha256": sha256(part / name)} for name in names}
    path.write_text(json.dumps({**manifest, "files": files, **changes}))


def change_column(name: str, row: int, value: object) -> Callable[[Path], None]:
    def change(part: Path) -> None:
        column = np.load(part / f"{name}.npy")
        column[row] = value
        np.save(part / f"{name}.npy", column)

    return change


def change_episode(number: int, key: str, value: object) -> Callable[[Path], None]:
    def change(part: Path) -> None:
        lines = (part / "episodes.jsonl").read_text().splitlines()
        lines[number] = json.dumps({**json.loads(lines[number]), key: value})
        (part / "episodes.jsonl").write_text("\n".join(lines) + "\n")

    return change


def black_shard(part: Path) -> None:
    """The second shard becomes what it would be if its frames had been zeros."""
    with EpisodeWriter(part.parents[2] / "black", "Pong", provenance={}, part="b", shard=32, chunk=8) as writer:
        frames = np.zeros((sum(LENGTHS), 84, 84), np.uint8)
        writer.append(frames, np.zeros(len(frames), np.uint8), np.zeros(len(frames), np.float32), terminated=True)
    shutil.copy(part.parents[2] / "black/Pong/b/frames/c/1/0/0", part / "frames/c/1/0/0")


def save(name: str, array: np.ndarray, allow_pickle: bool = False) -> Callable[[Path], None]:
    return lambda part: np.save(part / f"{name}.npy", array, allow_pickle=allow_pickle)


ILLEGAL = next(action for action in range(18) if action not in legal_actions("Pong"))
WHOLE = sum(LENGTHS)

NONSENSE = {
    "an illegal action": (change_column("actions", 33, ILLEGAL), f"action {ILLEGAL} at row 33 is none of Pong's"),
    "no action at all": (change_column("actions", 0, 200), "action 200 at row 0"),
    "a reward that is none": (change_column("rewards", 5, np.nan), "the reward at row 5 is nan"),
    "an endless reward": (change_column("rewards", 63, -np.inf), "the reward at row 63 is -inf"),
    "another reward": (change_column("rewards", 25, 77.0), "episode 1 has the return"),
    "another return": (change_episode(2, "return", 1234.0), "episode 2 has the return 1234.0"),
    "an end in the middle": (change_column("ends", 7, True), "row 7 should not be the end"),
    "an end that is missing": (change_column("ends", 19, False), "row 19 should be the end"),
    "an end where it was cut": (change_column("ends", 63, True), "row 63 should not be the end"),
    "a game that did not end": (change_episode(1, "terminated", False), "row 49 should not be the end"),
    "lengths that do not add up": (change_episode(1, "length", 29), "do not add up"),
    "starts that do not add up": (change_episode(1, "start", 21), "do not add up"),
    "episodes that are none": (
        lambda part: (part / "episodes.jsonl").write_text("3\n3\n3\n"), "episodes.jsonl is damaged"),
    "a column that is too short": (save("actions", np.zeros(WHOLE - 1, np.uint8)), "actions.npy is damaged"),
    "a column of another type": (save("rewards", np.zeros(WHOLE)), "rewards.npy is damaged"),
    "a column that is a program": (
        save("ends", np.array([{}] * WHOLE, object), allow_pickle=True), "ends.npy is damaged"),
    "black frames": (black_shard, "frames: shard 1, rows 32 … 63, is all black"),
    "a shard that was never there": (lambda part: (part / "frames/c/1/0/0").unlink(), "frames is damaged"),
    "frames broken before they were sealed": (lambda part: flip(part / "frames/c/0/0/0", 500), "frames is damaged"),
    "frames of another shape": (lambda part: (part / "frames/zarr.json").write_text(
        (part / "frames/zarr.json").read_text().replace("[64,84,84]", "[65,84,84]")), "its shape is (65, 84, 84)"),
    "frames that are none": (lambda part: (part / "frames/zarr.json").write_text("{}"), "frames is damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), NONSENSE.values(), ids=NONSENSE.keys())
def test_what_makes_no_sense_is_found_though_the_checksums_fit(store: Path, change: Callable, words: str) -> None:
    part = store / "Pong" / "b"
    before = {name: sha256(part / name) for name in FILES if (part / name).exists()}
    change(part)
    reseal(part)
    assert {name: sha256(part / name) for name in FILES if (part / name).exists()} != before
    found = problems(store)
    assert any(words in one for one in found), found
    assert len(found) == 1 and "/Pong/b" in found[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"game": "Boxing"}, "manifest.json is of Boxing, not of Pong"),
        ({"transitions": 63}, "do not add up"),
        ({"episodes": 4}, "do not add up"),
    ],
)
def test_a_manifest_that_says_something_else_is_found(store: Path, changes: dict, words: str) -> None:
    reseal(store / "Pong" / "b", **changes)
    (found,) = problems(store)
    assert words in found


def test_data_of_a_newer_jowa_are_left_to_it(call, store: Path) -> None:
    """Nobody is told to remove them, whatever else is wrong with this jowa's reading of them."""
    flip(store / "Pong" / "b" / "rewards.npy", 200)
    edit = store / "Pong" / "a" / "manifest.json"
    edit.write_text(json.dumps({**json.loads(edit.read_text()), "format": 99, "new": 1}))
    code, text, errors = call(f"path={store}")
    assert_refused((code, text, errors), "has format 99", "use a newer jowa")
    assert "remove" not in errors and not text
    with pytest.raises(UserError, match="use a newer jowa"):
        verify_game(store, "Pong")


def test_every_problem_of_every_part_is_listed(store: Path) -> None:
    one, other = store / "Pong" / "a", store / "Pong" / "b"
    flip(one / "actions.npy", 150)
    (one / "frames/c/1/0/0").unlink()
    change_column("rewards", 3, np.nan)(other)
    change_column("ends", 4, True)(other)
    reseal(other)
    found = problems(store)
    assert [str(one) in line for line in found].count(True) >= 2
    assert [str(other) in line for line in found].count(True) == 2


def test_what_a_killed_writer_left_is_no_problem(store: Path) -> None:
    left = store / "Pong" / ".123-abc.tmp"
    left.mkdir()
    (left / "actions.npy").write_bytes(b"half")
    (store / "codes" / "Pong").mkdir(parents=True)
    assert problems(store) == [] and games_in(store) == ["Boxing", "Pong"]


@pytest.fixture
def call(monkeypatch, capsys):
    """The entry point as its command line runs it: (exit code, stdout, stderr without the progress bar)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jowa.data.verify", *arguments])
        code = 0
        try:
            run(verify.main, verify.VerifyConfig, "verify")
        except SystemExit as end:
            code = int(end.code or 0)
        out, errors = capsys.readouterr()
        _, found, sentence = errors.rpartition("jowa: ")
        return code, out, found + sentence if found else ""

    return call


def test_the_command_says_what_is_sound(call, store: Path) -> None:
    code, text, errors = call(f"path={store}")
    assert (code, errors) == (0, "")
    assert text.splitlines() == [
        "Boxing            1 part, 3 episodes, 64 transitions: sound",
        "Pong              2 parts, 6 episodes, 128 transitions: sound",
    ]
    # What it calls sound can be read.
    assert EpisodeStore(store).read("Pong", np.arange(128)).frames.any(axis=(1, 2)).all()


def test_the_command_lists_all_problems_and_ends_with_one_sentence(call, store: Path) -> None:
    flip(store / "Pong" / "a" / "rewards.npy", 200)
    (store / "Pong" / "b" / "ends.npy").unlink()
    code, text, errors = call(f"path={store}")
    assert_refused((code, text, errors), "2 problems in Pong", "record or import them again")
    lines = text.splitlines()
    assert lines[0] == "Boxing            1 part, 3 episodes, 64 transitions: sound"
    assert lines[1].startswith("Pong ") and lines[1].endswith(": damaged")
    assert len(lines) == 4 and all(line.startswith(f"  {store}/Pong/") for line in lines[2:])
    assert call(f"path={store}", "games=[Boxing]")[0] == 0
    # The store itself refuses, or reads wrong data: what verify found mattered.
    assert_refused(call(f"path={store}", "games=[Pong]"), "2 problems")


def test_parts_that_are_not_alike_are_noted(call, tmp_path: Path) -> None:
    for part, facts in (("a", {}), ("b", {"stack_padding": False}), ("c", {"sticky": True, "rewards": "raw"})):
        with EpisodeWriter(tmp_path, "Pong", provenance=facts, part=part, allow_mixed=True) as writer:
            writer.append(*moving_square("Pong", 0, 10), terminated=True)
        code, text, errors = call(f"path={tmp_path}")
        assert (code, errors) == (0, "") and text.splitlines()[0].endswith(": sound")
        assert ("note: its parts differ in sticky, rewards" in text) == (part == "c")


def test_nothing_to_verify_is_one_sentence(call, tmp_path: Path) -> None:
    assert_refused(call(f"path={tmp_path}/nowhere"), "no recorded episodes", "path")
    assert_refused(call(f"path={tmp_path}"), "no recorded episodes")
    write_store(tmp_path, ("Pong",))
    assert_refused(call(f"path={tmp_path}", "games=[Boxing]"), "Boxing")
    assert_refused(call(f"path={tmp_path}", "games=[Boxign]"), "did you mean 'Boxing'?")
    assert_refused(call(f"path={tmp_path}", "games=[Pong,Pong]"), "games names a game twice: Pong")


def test_a_game_whose_only_part_lost_its_manifest_is_not_overlooked(call, tmp_path: Path) -> None:
    write_store(tmp_path, ("Pong",))
    (tmp_path / "Pong" / "part-00000" / "manifest.json").unlink()
    code, text, errors = call(f"path={tmp_path}")
    assert_refused((code, text, errors), "1 problem in Pong")
    assert "manifest.json can't be read (FileNotFoundError)" in text
