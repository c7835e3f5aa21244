"""RL Unplugged's files: the samples exactly as they were recorded, everything else refused in one sentence."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import google_crc32c
import numpy as np
import pytest

from jowa.data.sources import rlu
from jowa.errors import UserError
from jowa.games import GAMES, legal_actions

SAMPLES = Path(__file__).parent / "samples" / "rlu"
ASSAULT = np.array(legal_actions("Assault"), np.uint8)


@pytest.mark.parametrize("checkpoint", [0, 1])
def test_the_samples_are_read_exactly(checkpoint: int) -> None:
    episodes = list(rlu.episodes(SAMPLES / "Assault" / rlu.file_name(1, checkpoint), "Assault"))
    truth = np.load(SAMPLES / f"truth_Assault_{checkpoint}.npz")
    assert len(episodes) == 2 and [episode.terminated for episode in episodes] == [checkpoint == 0, False]
    for number, episode in enumerate(episodes):
        assert np.array_equal(episode.frames, truth[f"obs_{number}"][:-1]) and episode.frames.dtype == np.uint8
        assert np.array_equal(episode.actions, ASSAULT[truth[f"actions_{number}"]])
        assert episode.actions.dtype == np.uint8 and episode.actions.max() > 6
        assert np.array_equal(episode.rewards, truth[f"rewards_{number}"]) and episode.rewards.max() == 21
        assert episode.terminated == truth[f"terminal_{number}"]
        assert episode.info == {"checkpoint_idx": checkpoint, "episode_idx": number}


def test_names() -> None:
    assert rlu.file_name(1, 3) == "run_1-00003-of-00050"
    assert rlu.part_name(1, 3) == "rlu-1-00003"
    assert len(rlu.GAMES) == 46 and set(rlu.GAMES) < set(GAMES) and "Berzerk" not in rlu.GAMES
    facts = rlu.provenance("Pong", 2, 7)
    assert (facts["game"], facts["run"], facts["checkpoint"], facts["sticky"]) == ("Pong", 2, 7, True)


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, list[Any]]) -> bytes:
    """A tf.train.Example, put together by hand."""
    entries = b""
    for name, values in features.items():
        if isinstance(values[0], bytes):
            kind, content = 1, b"".join(field(1, value) for value in values)
        elif isinstance(values[0], float):
            kind, content = 2, field(1, struct.pack(f"<{len(values)}f", *values))
        else:
            kind, content = 3, field(1, b"".join(map(varint, values)))
        entries += field(1, field(1, name.encode()) + field(2, field(kind, content)))
    return field(1, entries)


def record(content: bytes) -> bytes:
    def checksum(of: bytes) -> bytes:
        crc = google_crc32c.value(of)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(content))
    return length + checksum(length) + content + checksum(content)


def png(frame: np.ndarray) -> bytes:
    return cv2.imencode(".png", frame)[1].tobytes()


def episode(**changes: Any) -> dict[str, list[Any]]:
    """Three transitions; what belongs to the fourth frame means nothing."""
    features: dict[str, list[Any]] = {
        "checkpoint_idx": [4],
        "episode_idx": [7],
        "episode_return": [5.0],
        "clipped_episode_return": [0.0],
        "observations": [png(np.full((84, 84), number, np.uint8)) for number in range(4)],
        "actions": [0, 6, 2, -5],
        "unclipped_rewards": [7.0, -2.0, 0.0, float("nan")],
        "clipped_rewards": [1.0, -1.0, 0.0, 9.0],
        "discounts": [1.0, 1.0, 1.0, 0.0],
    }
    return {name: values for name, values in (features | changes).items() if values is not None}


def written(tmp_path: Path, content: bytes, compress: Callable[[bytes], bytes] = gzip.compress) -> Path:
    path = tmp_path / "run_1-00000-of-00050"
    path.write_bytes(compress(content))
    return path


def read(path: Path) -> list[Any]:
    return list(rlu.episodes(path, "Assault"))


def test_the_last_entry_means_nothing(tmp_path: Path) -> None:
    (got,) = read(written(tmp_path, record(example(episode()))))
    assert got.frames[:, 0, 0].tolist() == [0, 1, 2] and got.actions.tolist() == [0, 12, 2]
    assert got.rewards.tolist() == [7, -2, 0] and got.terminated
    assert got.info == {"checkpoint_idx": 4, "episode_idx": 7}


def test_contradictions_are_said(tmp_path: Path) -> None:
    """The file is called checkpoint 0's; all episodes but the second say 4, all but the first have another return."""
    others = [episode(checkpoint_idx=[0]), episode(episode_return=[6.0]), episode(episode_return=[float("nan")])]
    content = b"".join(record(example(one)) for one in (episode(), *others))
    path, said = written(tmp_path, content), []
    assert len(list(rlu.episodes(path, "Assault", said.append))) == 4
    assert said == [
        f"{path}: 3 of 4 episodes name another checkpoint than the file's name, the first 4.",
        f"{path}: 2 of 4 episodes state another return than their rewards sum to, the first 6 and not 5.",
    ]
    for checkpoint in (0, 1):
        sample = SAMPLES / "Assault" / rlu.file_name(1, checkpoint)
        assert list(rlu.episodes(sample, "Assault", said.append)) and len(said) == 2
    odd = written(tmp_path, record(example(episode(episode_return=[b"5"], checkpoint_idx=[0]))))
    assert list(rlu.episodes(odd, "Assault", said.append)) and len(said) == 2


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    one = record(example(episode()))
    assert len(read(written(tmp_path, one, lambda content: gzip.compress(content) * 2))) == 2


def test_the_file_is_read_one_episode_at_a_time(tmp_path: Path) -> None:
    path = written(tmp_path, record(example(episode())) + b"what can't be read")
    reading = rlu.episodes(path, "Assault")
    assert len(next(reading).actions) == 3
    with pytest.raises(UserError):
        next(reading)


BAD = {
    "no observations": (episode(observations=None), "no observations"),
    "no discounts": (episode(discounts=None), "no discounts"),
    "fewer actions": (episode(actions=[0, 1]), "actions 2"),
    "fewer rewards": (episode(unclipped_rewards=[1.0] * 3), "unclipped_rewards 3"),
    "one frame": (
        episode(observations=[b"x"], actions=[0], unclipped_rewards=[0.0], clipped_rewards=[0.0], discounts=[1.0]),
        "two frames",
    ),
    "an action beyond the set": (episode(actions=[0, 7, 2, 0]), "action 7, but Assault's actions go from 0 to 6"),
    "a negative action": (episode(actions=[0, -1, 2, 0]), "action -1"),
    "actions that are text": (episode(actions=[b"a"] * 4), "no numbers"),
    "a reward that isn't a number": (episode(unclipped_rewards=[0.0, float("nan"), 0.0, 0.0]), "not finite"),
    "clipped otherwise": (episode(clipped_rewards=[1.0, 1.0, 0.0, 0.0]), "at step 1 the reward is -2.0, but 1.0"),
    "an end in the midst": (episode(discounts=[1.0, 0.0, 1.0, 1.0]), "ends the game before"),
    "an undecodable frame": (episode(observations=[b"no picture"] * 4), "frame 0 is no picture"),
    "a larger frame": (episode(observations=[png(np.zeros((84, 85), np.uint8))] * 4), "(84, 85)"),
    "a frame in colour": (episode(observations=[png(np.zeros((84, 84, 3), np.uint8))] * 4), "(84, 84, 3)"),
    "a frame of 16 bits": (episode(observations=[png(np.zeros((84, 84), np.uint16))] * 4), "uint16"),
    "frames that are numbers": (episode(observations=[1, 2, 3, 4]), "frame 0 is no picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_episodes_are_named_in_one_sentence(case: str, tmp_path: Path) -> None:
    features, words = BAD[case]
    assert_refused(written(tmp_path, record(example(episode())) + record(example(features))), words, "episode 2")


def broken(change: Callable[[bytearray], Any]) -> bytes:
    content = bytearray(record(example(episode())))
    change(content)
    return bytes(content)


BROKEN: dict[str, tuple[bytes, Callable[[bytes], bytes], str]] = {
    "a byte of the content": (broken(lambda c: c.__setitem__(40, c[40] ^ 1)), gzip.compress, "checksum"),
    "a byte of the length": (broken(lambda c: c.__setitem__(0, c[0] ^ 1)), gzip.compress, "checksum"),
    "a byte of the checksum": (broken(lambda c: c.__setitem__(-1, c[-1] ^ 1)), gzip.compress, "checksum"),
    "half a record": (broken(lambda c: c.__delitem__(slice(200, None))), gzip.compress, "too early"),
    "half a length": (b"\1\2\3", gzip.compress, "too early"),
    "a cut file": (record(example(episode())) * 9, lambda c: gzip.compress(c)[:-20], "truncated"),
    "a file without its checksum": (record(example(episode())), lambda c: gzip.compress(c)[:-8], "truncated"),
    "a wrong checksum": (record(example(episode())), lambda c: gzip.compress(c)[:-8] + bytes(8), "damaged"),
    "no compression": (record(example(episode())), bytes, "damaged"),
    "no message": (record(b"\xff" * 30), gzip.compress, "no tf.train.Example"),
    "an empty message": (record(b""), gzip.compress, "has no checkpoint_idx"),
    "no episode": (b"", gzip.compress, "no episode"),
    "nothing at all": (b"", bytes, "is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_in_one_sentence(case: str, tmp_path: Path) -> None:
    content, compress, words = BROKEN[case]
    assert_refused(written(tmp_path, content, compress), words)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "can't be read")
    assert_refused(tmp_path, "can't be read")


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path)
    sentence = str(caught.value)
    assert "\n" not in sentence and str(path) in sentence, sentence
    assert all(word in sentence for word in words), sentence


def test_the_standard_library_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the faster isal."""
    from jowa.data.sources import streams

    path = SAMPLES / "Assault" / rlu.file_name(1, 1)
    expected = read(path)
    monkeypatch.setattr(streams, "_open", gzip.open)
    got = read(path)
    assert all(np.array_equal(one.frames, other.frames) for one, other in zip(got, expected, strict=True))
