"""DQN-Replay's logs that are not what they should be: one sentence that names the file."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_dopamine import LOGS, SAMPLES, Ring, in_order, load, numbered, play_numbers, read_all, save

from jowa.errors import UserError


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two logs of 40 rows and a last one."""
    ring = Ring(tmp_path / "logs", 40)
    play_numbers(ring, 90, np.random.default_rng(3))
    assert ring.logs == 3
    return ring.folder


def column(folder: Path, name: str, number: int = 1) -> Path:
    return folder / (f"add_count_ckpt.{number}.gz" if name == "add_count" else f"$store$_{name}_ckpt.{number}.gz")


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        path = column(folder, name)
        save(path, change(load(path)))
        return path

    return apply


def at(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def put(array: np.ndarray) -> np.ndarray:
        array[row] = value
        return array

    return put


def cut(name: str, keep: float) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        content = column(folder, name).read_bytes()
        column(folder, name).write_bytes(content[: int(len(content) * keep)])
        return column(folder, name)

    return apply


def overwritten(name: str, content: bytes) -> Callable[[Path], Path]:
    def apply(folder: Path) -> Path:
        column(folder, name).write_bytes(content)
        return column(folder, name)

    return apply


def absurd_header() -> bytes:
    file = io.BytesIO()
    header = {"descr": "<i4", "fortran_order": False, "shape": (1 << 60,)}
    np.lib.format.write_array_header_1_0(file, header)
    return gzip.compress(file.getvalue())


TWICE = gzip.compress(gzip.decompress((SAMPLES / LOGS / "add_count_ckpt.0.gz").read_bytes()) * 2)

BAD = {
    "half an observation file": (cut("observation", 0.5), "truncated"),
    "an observation file without its checksum": (cut("observation", 0.9999), "truncated"),
    "half an action file": (cut("action", 0.5), "truncated"),
    "an empty file": (cut("reward", 0), "empty"),
    "no gzip": (overwritten("terminal", b"something else" * 9), "damaged"),
    "actions of 8 bytes": (changed("action", lambda a: a.astype("i8")), "int64 (40,), not int32"),
    "rewards of 8 bytes": (changed("reward", lambda a: a.astype("f8")), "float64 (40,), not float32"),
    "big-endian actions": (changed("action", lambda a: a.astype(">i4")), "not int32"),
    "stacked frames": (changed("observation", lambda a: np.stack([a] * 4, -1)), "(40, 84, 84, 4), not uint8"),
    "frames of floats": (changed("observation", lambda a: a.astype("f4")), "float32"),
    "larger frames": (changed("observation", lambda a: np.pad(a, ((0, 0), (0, 6), (0, 6)))), "(40, 90, 90)"),
    "frames in Fortran's order": (changed("observation", np.asfortranarray), "Fortran"),
    "fewer actions": (changed("action", lambda a: a[:-1]), "39 rows"),
    "fewer observations": (changed("observation", lambda a: a[:-1]), "39"),
    "an action beyond the set": (changed("action", at(20, 6)), "the action 6, but Pong's actions go from 0 to 5"),
    "a negative action": (changed("action", at(20, -1)), "the action -1"),
    "a reward that isn't a number": (changed("reward", at(20, np.nan)), "reward nan"),
    "an unclipped reward": (changed("reward", at(20, 3)), "reward 3.0"),
    "a terminal of 2": (changed("terminal", at(20, 2)), "value 2"),
    "a count of another run": (changed("add_count", lambda a: a + 3), "only a run's last log"),
    "a count that goes back": (changed("add_count", lambda a: a - 40), "only a run's last log"),
    "a count of no rows": (changed("add_count", lambda a: a * 0), "nothing to import"),
    "two counts": (changed("add_count", lambda a: np.array([a, a])), "not one whole number"),
    "an absurd header": (overwritten("action", absurd_header()), "promises int32 (1152921504606846976,)"),
    "pickled objects": (overwritten("add_count", gzip.compress(pickle.dumps({1: 2}))), "no gzipped .npy file"),
    "a file that goes on": (overwritten("add_count", TWICE), "goes on after its end"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_in_one_sentence(case: str, logs: Path) -> None:
    spoil, words = BAD[case]
    path = spoil(logs)
    with pytest.raises(UserError) as caught:
        read_all(logs)
    sentence = str(caught.value)
    assert words in sentence and "\n" not in sentence
    assert str(path) in sentence or case == "fewer observations", sentence


@pytest.fixture
def ended_with_log(tmp_path: Path) -> Path:
    """The first log of 40 rows ends with an episode of 36 steps; the second one, of 11, follows its padding."""
    ring = Ring(tmp_path / "ended", 40)
    for number in range(60):
        ring.add(numbered(number), 1, 0.5, number in (35, 46))
    ring.end()
    return ring.folder


def test_padding_that_is_none_is_refused(ended_with_log: Path) -> None:
    assert [len(episode.actions) for episode in in_order(read_all(ended_with_log))] == [36, 11, 13]
    frames = load(column(ended_with_log, "observation"))
    frames[13 + 1, 5, 5] = 1
    save(column(ended_with_log, "observation"), frames)
    with pytest.raises(UserError, match="isn't preceded by three black rows"):
        read_all(ended_with_log)


@pytest.mark.parametrize("rows", [(39,), (0,), (39, 0, 1)])
def test_a_seam_that_does_not_fit_is_said(rows: tuple[int, ...], ended_with_log: Path) -> None:
    """By its counts the second log continues the first, but where padding is due there is none."""
    frames = load(column(ended_with_log, "observation"))
    frames[list(rows), 5, 5] = 1
    save(column(ended_with_log, "observation"), frames)
    said: list[str] = []
    read = in_order(read_all(ended_with_log, say=said.append))
    assert said == [f"{ended_with_log}: row 39 doesn't continue the checkpoint before it."]
    black = 1 if rows == (0,) else 0
    assert [len(episode.actions) for episode in read] == [36, 11 + 3 - black, 13]
    assert read[1].info == {"stream_row": 39 + black, "after_gap": True}


def test_garbage_in_slots_that_nobody_reads_is_no_fault(logs: Path) -> None:
    """The fake leaves actions of many digits, rewards that are no numbers and such in the first log's last slot."""
    assert np.isnan(load(column(logs, "reward", 0))[-1]) and load(column(logs, "terminal", 0))[-1] == 70
    assert read_all(logs)[0]


def test_logs_of_another_capacity_are_refused(logs: Path, tmp_path: Path) -> None:
    other = Ring(tmp_path / "other", 30)
    play_numbers(other, 90, np.random.default_rng(3))
    for file in logs.glob("*_ckpt.1.gz"):
        shutil.copy(other.folder / file.name, file)
    with pytest.raises(UserError, match="has 30 rows, log 0 has 40"):
        read_all(logs)


def test_a_log_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    """The third log is the second one again."""
    ring = Ring(tmp_path / "logs", 40)
    play_numbers(ring, 160, np.random.default_rng(3))
    for file in ring.folder.glob("*_ckpt.1.gz"):
        shutil.copy(file, ring.folder / file.name.replace("ckpt.1", "ckpt.2"))
    with pytest.raises(UserError, match=r"add_count_ckpt\.2\.gz counts 79 rows, log 1 has 79"):
        read_all(ring.folder)


def test_the_first_log_is_read_to_its_end(logs: Path) -> None:
    """Though of its last slot nothing is wanted."""
    path = column(logs, "observation", 0)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="truncated"):
        read_all(logs)
