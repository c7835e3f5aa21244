"""Importing, from the command line on: what is there gets in once, however often it was interrupted."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fake_dopamine import LOGS
from forks import fork
from import_calls import SAMPLES, assert_refused, import_data, raw_files
from launch import launch

from jowa.data.sources import rlu
from jowa.data.store import EpisodeStore, committed_parts
from jowa.data.verification import verify_game
from jowa.games import legal_actions


class Whole(NamedTuple):
    source: str
    arguments: tuple[str, str]
    store: Path
    said: str


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_files(tmp_path / "raw")


@pytest.fixture(scope="module", params=["rlu", "dqn_replay"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A source's raw files, which nobody changes, and what is imported of them in one go."""
    folder = tmp_path_factory.mktemp("whole")
    raw_files(folder / "raw")
    arguments = (f"source={request.param}", f"path={folder / 'raw' / request.param}")
    code, text, errors = import_data(*arguments, f"out={folder / 'store'}")
    assert (code, errors) == (0, "")
    return Whole(request.param, arguments, folder / "store", text)


def fingerprints(store: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    opened = EpisodeStore(store)
    return {game: (opened.fingerprint(game), committed_parts(store, game)) for game in opened.games}


def test_the_samples_come_through_exactly(tmp_path: Path) -> None:
    for source in ("rlu", "dopamine"):
        name = "dqn_replay" if source == "dopamine" else source
        code, text, errors = import_data(
            f"source={name}", f"path={SAMPLES / source}", f"out={tmp_path}", "rom_md5=null"
        )
        assert (code, errors) == (0, "") and "missing" not in text, errors
    store = EpisodeStore(tmp_path)
    table = store.tables["Assault"]
    assert committed_parts(tmp_path, "Assault") == ("rlu-1-00000", "rlu-1-00001") and len(table) == 4
    for number, (start, length) in enumerate(zip(table.starts, table.lengths, strict=True)):
        truth = np.load(SAMPLES / "rlu" / f"truth_Assault_{number // 2}.npz")
        rows = store.read("Assault", np.arange(start, start + length))
        expected = np.array(legal_actions("Assault"))[truth[f"actions_{number % 2}"]]
        assert np.array_equal(rows.frames, truth[f"obs_{number % 2}"][:-1])
        assert np.array_equal(rows.actions, expected) and rows.ends[-1] == truth[f"terminal_{number % 2}"]
        assert np.array_equal(rows.rewards, truth[f"rewards_{number % 2}"]) and not rows.ends[:-1].any()
    truth = np.load(SAMPLES / "dopamine" / "truth.npz")
    rows = store.read("Pong", np.arange(store.transitions("Pong")))
    assert np.array_equal(rows.actions, np.array(legal_actions("Pong"))[truth["actions"]])
    assert np.array_equal(rows.rewards, truth["rewards"]) and np.array_equal(rows.ends, truth["terminals"])
    facts = [part["provenance"] for part in store.manifest("Pong")["parts"]]
    assert [fact["checkpoint"] for fact in facts] == [0, 1, 2] and facts[0]["rewards"] == "clipped"
    assert facts[0]["sticky"] is True and facts[0]["rom_md5"] is None and facts[0]["stack_padding"] is False


def test_once_is_enough_and_workers_change_nothing(whole: Whole, tmp_path: Path) -> None:
    arguments, text = whole.arguments, whole.said
    assert "already" not in text
    once = fingerprints(whole.store)
    parts = len(next(iter(once.values()))[1])
    assert import_data(*arguments, f"out={whole.store}")[:2] == (
        0, f"Nothing was added.\n{parts} parts were there already.\n"
    )  # fmt: skip
    assert fingerprints(whole.store) == once
    code, same_text, errors = import_data(*arguments, f"out={tmp_path / 'b'}", "workers=2")
    assert (code, errors, same_text) == (0, "", text)
    assert fingerprints(tmp_path / "b") == once
    # One run, one checkpoint at a time, the last first.
    for checkpoint in range(8)[::-1]:
        import_data(*arguments, f"out={tmp_path / 'c'}", "runs=[2,1]", f"checkpoints=[{checkpoint}]")
    assert fingerprints(tmp_path / "c") == once


DYING = """
import os, signal
from jowa.data.open_part import OpenPart
left = {at}
def dying(method):
    def call(*arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)
    return call
for name in ("append", "finish", "rename"):
    setattr(OpenPart, name, dying(getattr(OpenPart, name)))
"""


def test_killed_anywhere_it_goes_on(whole: Whole, tmp_path: Path) -> None:
    """At an episode, before a part is closed, before it gets its name."""
    source, arguments = whole.source, whole.arguments
    store, random = tmp_path / "killed", np.random.default_rng(5)
    kept: set[Path] = set()
    for at in random.integers(1, 9 if source == "rlu" else 60, 6):
        (dying,) = fork(tmp_path / "said", "jowa.data.import", *arguments, f"out={store}", before=DYING.format(at=at))
        process = dying.end()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        parts = set(store.glob("*/[!.]*/manifest.json"))
        assert parts >= kept and list(store.glob("*/.*.tmp"))
        kept = parts
        if parts:
            assert not verify_game(store, "Assault" if source == "rlu" else "Pong").problems
    process = launch("jowa.data.import", *arguments, f"out={store}")
    assert (process.returncode, process.stderr) == (0, "")
    assert kept and not list(store.glob("*/.*.tmp"))
    assert fingerprints(store) == fingerprints(whole.store)


def test_two_at_a_time(whole: Whole, tmp_path: Path) -> None:
    """Two imports of different runs, and two of the same."""
    for name, runs in (("apart", ("runs=[1]", "runs=[2]")), ("alike", ("workers=0", "workers=2"))):
        said = tmp_path / f"{name}-said"
        forks = [
            fork(said / str(number), "jowa.data.import", *whole.arguments, chosen, f"out={tmp_path / name}")
            for number, chosen in enumerate(runs)
        ]
        for ended in [process.end() for (process,) in forks]:
            assert ended.returncode == 0, ended.stderr
        assert fingerprints(tmp_path / name) == fingerprints(whole.store)


@pytest.mark.parametrize(("source", "above"), [("rlu", "atari_episodes_ordered"), ("dqn_replay", "dqn")])
def test_the_buckets_own_folders(source: str, above: str, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / above).symlink_to(raw / source)
    assert import_data(f"source={source}", f"path={tmp_path / 'bucket'}", f"out={tmp_path / 'a'}", "runs=[1]")[0] == 0
    assert {part.split("-")[1] for game in fingerprints(tmp_path / "a").values() for part in game[1]} == {"1"}


def test_what_is_missing_is_listed(raw: Path, tmp_path: Path) -> None:
    arguments = ("source=rlu", f"path={raw / 'rlu'}", f"out={tmp_path / 'a'}")
    result = import_data(*arguments, "games=[Assault,Pong]", "runs=[1,3]", "checkpoints=[2-3]")
    folder = raw / "rlu"
    listed = [line.removeprefix("missing: ") for line in result[1].splitlines() if line.startswith("missing")]
    assert listed == [
        *(str(folder / "Assault" / rlu.file_name(*which)) for which in ((1, 3), (3, 2), (3, 3))),
        *(str(folder / "Pong" / rlu.file_name(*which)) for which in ((1, 2), (1, 3), (3, 2), (3, 3))),
    ]
    assert_refused(result, "7 of what was asked for is missing")
    assert committed_parts(tmp_path / "a", "Assault") == ("rlu-1-00002",)
    # Again: what could be had is there, the rest is still missing.
    assert import_data(*arguments, "runs=[1]", "checkpoints=[2-3]")[0] == 2
    assert_refused(import_data(*arguments, "games=[Pong]"), "nothing to import", folder / "Pong")
    assert_refused(import_data(*arguments, "runs=[4]"), "nothing to import", "run 4")
    one_too_deep = ("source=rlu", f"path={raw / 'rlu' / 'Assault'}", f"out={tmp_path / 'a'}")
    assert_refused(import_data(*one_too_deep), "nothing to import", "<Game>/run_1-00000-of-00050")
    assert_refused(import_data(*arguments, "checkpoints=[7]"), "nothing to import", rlu.file_name(1, 7))


def test_a_log_that_lacks_a_file(raw: Path, tmp_path: Path) -> None:
    lacking = raw / "dqn_replay" / LOGS / "$store$_reward_ckpt.1.gz"
    lacking.unlink()
    arguments = ("source=dqn_replay", f"path={raw / 'dqn_replay'}", f"out={tmp_path / 'a'}", "runs=[1]")
    result = import_data(*arguments)
    assert_refused(result, "1 of what was asked for is missing")
    assert f"missing: {lacking}" in result[1] and "note: " in result[1] and "checkpoint that isn't here" in result[1]
    assert "rows of checkpoint 0 wait for the next checkpoint" in result[1]
    assert "dqn_replay-1-00001" not in committed_parts(tmp_path / "a", "Pong")


def test_a_log_that_comes_later_loses_no_episode(raw: Path, tmp_path: Path) -> None:
    arguments = ("source=dqn_replay", f"path={raw / 'dqn_replay'}", "runs=[1]")
    assert import_data(*arguments, f"out={tmp_path / 'whole'}")[0] == 0
    late = raw / "dqn_replay" / LOGS / "$store$_reward_ckpt.0.gz"
    late.rename(raw / "later")
    out = f"out={tmp_path / 'a'}"
    assert import_data(*arguments, out)[0] == import_data(*arguments, out)[0] == 2
    (raw / "later").rename(late)
    part = tmp_path / "a" / "Pong" / "dqn_replay-1-00001"
    for _ in range(2):
        assert_refused(import_data(*arguments, out), part, "log 0", "remove that folder")
    shutil.rmtree(part)
    assert import_data(*arguments, out)[0] == 0
    assert fingerprints(tmp_path / "a") == fingerprints(tmp_path / "whole")


def test_notes_say_what_waits_for_the_next_log(raw: Path, tmp_path: Path) -> None:
    arguments = ("source=dqn_replay", f"path={raw / 'dqn_replay'}", f"out={tmp_path / 'a'}", "runs=[1]")
    code, text, _ = import_data(*arguments, "checkpoints=[0]")
    assert code == 0 and "rows of checkpoint 0 wait for the next checkpoint" in text
    assert "wait for the next" not in import_data(*arguments)[1]


def test_a_home_folder_is_the_users(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(raw)
    assert import_data("source=rlu", f"path={raw / 'rlu'}", "out='~/data'", "runs=[1]")[0] == 0
    assert committed_parts(tmp_path / "home" / "data", "Assault") and not (raw / "~").exists()


def test_padding_is_kept_on_demand(raw: Path, tmp_path: Path) -> None:
    arguments = ("source=dqn_replay", f"path={raw / 'dqn_replay'}", "runs=[1]")
    import_data(*arguments, f"out={tmp_path / 'a'}")
    import_data(*arguments, f"out={tmp_path / 'b'}", "keep_stack_padding=true")
    without, padded = EpisodeStore(tmp_path / "a"), EpisodeStore(tmp_path / "b")
    longer = padded.tables["Pong"].lengths - without.tables["Pong"].lengths
    assert (longer == 3).all()
    assert not padded.read_frames("Pong", padded.tables["Pong"].starts + 2).any()
    assert_refused(import_data(*arguments, f"out={tmp_path / 'b'}"), "stack_padding True", "now False", "out")


def test_another_rom_or_stickiness(raw: Path, tmp_path: Path) -> None:
    arguments = ("source=rlu", f"path={raw / 'rlu'}", f"out={tmp_path / 'a'}", "games=[Assault]")
    facts = (f"rom_md5={'ab' * 16}", "sticky=true")
    assert import_data(*arguments, *facts, "runs=[1]")[0] == 0
    provenance = EpisodeStore(tmp_path / "a").manifest("Assault")["parts"][0]["provenance"]
    assert provenance["rom_md5"] == "ab" * 16 and provenance["sticky"] is True
    for other, words in (
        ((f"rom_md5={'cd' * 16}",), ("rom_md5", "ab" * 16, "cd" * 16, "allow_mixed=true")),
        ((facts[0], "sticky=false"), ("sticky", "True", "False", "allow_mixed=true")),
        ((), ("rom_md5", "ab" * 16, "None", "allow_mixed=true")),
    ):
        # Of another run, and of what is there already.
        assert_refused(import_data(*arguments, *other, "runs=[2]"), *words)
        assert_refused(import_data(*arguments, *other, "runs=[1]"), *words)
    before = fingerprints(tmp_path / "a")
    assert import_data(*arguments, "allow_mixed=true")[0] == 0
    assert len(before["Assault"][1]) == 3 and len(fingerprints(tmp_path / "a")["Assault"][1]) == 6
