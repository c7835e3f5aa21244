"""Minari data sets: what the store exports comes back as it was; raw screens are made grey and shrunk."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from launch import ROOT

from jowa.data.export import ExportConfig
from jowa.data.export import main as export
from jowa.data.importing import ImportConfig
from jowa.data.open_part import TemporaryFolder
from jowa.data.sources import minari as source
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.errors import UserError
from jowa.games import legal_actions

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
import_data = importlib.import_module("jowa.data.import").main
SCREENS = Box(0, 255, (210, 160, 3), np.uint8)
PONG = np.array(legal_actions("Pong"), np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two parts of Pong: terminated and truncated episodes, one of them of a single step."""
    random = np.random.default_rng(0)
    for part, lengths in (("a", (70, 1)), ("b", (33,))):
        facts = {"source": "recorded", "rom_md5": "0" * 32, "sticky": True, "rewards": "raw", "part": part}
        with EpisodeWriter(tmp_path / "store", "Pong", provenance=facts, part=part) as writer:
            for length in lengths:
                frames = random.integers(0, 256, (length, 84, 84), np.uint8)
                actions, rewards = random.choice(PONG, length), random.normal(size=length)
                writer.append(frames, actions, rewards.astype(np.float32), length != 33)
    return tmp_path / "store"


def config(tmp_path: Path, path: object, **changes: Any) -> ImportConfig:
    return ImportConfig(**{"source": "minari", "path": str(path), "out": str(tmp_path / "again"), **changes})


def contents(store: Path, game: str = "Pong") -> list[Any]:
    opened = EpisodeStore(store, [game])
    rows = opened.read(game, np.arange(opened.transitions(game)))
    table = opened.tables[game]
    return [rows.frames, rows.actions, rows.rewards, rows.ends, table.starts, table.terminated, table.returns]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))


def exported(tmp_path: Path, store: Path) -> Path:
    export(ExportConfig(path=str(store), game="Pong", dataset="jowa/pong-v0", out=str(tmp_path / "minari")))
    return tmp_path / "minari" / "jowa" / "pong-v0"


def test_an_export_comes_back_exactly(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = exported(tmp_path, store)
    assert "3 episodes, 104 transitions of Pong" in capsys.readouterr().out
    import_data(config(tmp_path, folder))
    assert same(contents(tmp_path / "again"), contents(store))
    (part,) = EpisodeStore(tmp_path / "again").manifest("Pong")["parts"]
    assert part["name"] == "minari-jowa-pong-v0"
    facts = part["provenance"]
    assert (facts["source"], facts["rom_md5"], facts["sticky"], facts["rewards"]) == ("minari", "0" * 32, True, "raw")
    import_data(config(tmp_path, folder))
    assert "1 parts were there already" in capsys.readouterr().out


def test_minari_itself_reads_the_export(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(tmp_path, store)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    data = minari.load_dataset("jowa/pong-v0")
    assert list(minari.list_local_datasets()) == ["jowa/pong-v0"]
    assert (data.total_episodes, data.total_steps, data.action_space) == (3, 104, Discrete(18))
    frames, _, _, _, starts, *_ = contents(store)
    for number, episode in enumerate(data):
        start = starts[number]
        assert np.array_equal(episode.observations[:-1], frames[start : start + len(episode)])
        assert np.array_equal(episode.observations[-1], episode.observations[-2])
        assert episode.terminations.tolist() == [False] * (len(episode) - 1) + [number != 2]
        assert episode.truncations.tolist() == [False] * (len(episode) - 1) + [number == 2]
    import_data(config(tmp_path, "jowa/pong-v0"))
    assert same(contents(tmp_path / "again"), contents(store))


def test_several_data_sets_below_a_folder(store: Path, tmp_path: Path) -> None:
    exported(tmp_path, store)
    with EpisodeWriter(store, "Boxing", provenance={}, part="c") as writer:
        writer.append(np.zeros((5, 84, 84), np.uint8), np.zeros(5, np.uint8), np.ones(5, np.float32), True)
    export(ExportConfig(path=str(store), game="Boxing", dataset="boxing-v3", out=str(tmp_path / "minari")))
    import_data(config(tmp_path, tmp_path / "minari", workers=2))
    assert EpisodeStore(tmp_path / "again").games == ("Boxing", "Pong")
    import_data(config(tmp_path, tmp_path / "minari", games=["Boxing"], out=str(tmp_path / "one")))
    assert EpisodeStore(tmp_path / "one").games == ("Boxing",)
    with pytest.raises(UserError, match="1 of what was asked for is missing"):
        import_data(config(tmp_path, tmp_path / "minari", games=["Boxing", "Alien"]))


def played(game: str = "Pong", steps: int = 25, **options: Any) -> tuple[Any, Any, np.ndarray]:
    """Raw screens as Farama's data sets hold them; the same as ALE itself makes them grey, shrunk."""
    gymnasium.register_envs(ale_py)
    env = gymnasium.make(f"ALE/{game}-v5", frameskip=4, repeat_action_probability=0.0, **options)
    screens = [env.reset(seed=0)[0]]
    grey = [env.unwrapped.ale.getScreenGrayscale()]
    actions = np.random.default_rng(1).integers(0, len(legal_actions(game)), steps)
    if options.get("full_action_space"):
        actions = np.array(legal_actions(game))[actions]
    rewards = []
    for action in actions:
        screen, reward, *_ = env.step(int(action))
        screens.append(screen)
        rewards.append(reward)
        grey.append(env.unwrapped.ale.getScreenGrayscale())
    ended = np.arange(steps) == steps - 1
    buffer = minari.data_collector.EpisodeBuffer(
        observations=np.array(screens), actions=actions, rewards=np.array(rewards), terminations=ended & False,
        truncations=ended,
    )  # fmt: skip
    shrunk = [cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA) for frame in grey[:-1]]
    return env.spec, buffer, np.array(shrunk)


def collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Any, buffer: Any, name: str = "atari/pong/expert-v0",
    jpeg: bool = False, screens: Box = SCREENS, actions: Discrete | None = None,
) -> Path:  # fmt: skip
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "farama"))
    minari.create_dataset_from_buffers(
        name, [buffer], env=spec, observation_space=screens, action_space=actions or Discrete(6),
        algorithm_name="PPO", jpeg_encoding=jpeg,
    )  # fmt: skip
    return tmp_path / "farama" / name


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_raw_screens(full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, buffer, shrunk = played(full_action_space=full)
    folder = collected(tmp_path, monkeypatch, spec, buffer, actions=Discrete(18 if full else 6))
    import_data(config(tmp_path, folder))
    frames, actions, rewards, ends, *_ = contents(tmp_path / "again")
    assert np.array_equal(frames, shrunk)
    assert np.array_equal(actions, buffer.actions if full else np.array(legal_actions("Pong"))[buffer.actions])
    assert np.array_equal(rewards, buffer.rewards) and not ends.any()
    facts = EpisodeStore(tmp_path / "again").manifest("Pong")["parts"][0]["provenance"]
    assert facts["sticky"] is False and facts["frameskip"] == 4 and facts["dataset"] == "atari/pong/expert-v0"
    assert "no maximum" in facts["preprocessing"] and facts["algorithm"] == "PPO"


@pytest.mark.filterwarnings("ignore")
def test_lossy_pictures_are_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Farama publishes them, and as Minari stores by default."""
    spec, buffer, shrunk = played()
    import_data(config(tmp_path, collected(tmp_path, monkeypatch, spec, buffer, jpeg=True)))
    assert np.abs(contents(tmp_path / "again")[0].astype(int) - shrunk).mean() < 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "spec", "game"),
    [
        ("atari/mspacman/expert-v0", None, "MsPacman"),
        ("mine/ms_pacman-v1", None, "MsPacman"),
        ("mine-v0", "ALE/MsPacman-v5", "MsPacman"),
        ("atari/surround/expert-v0", None, None),
        ("mine-v0", None, None),
    ],
)
def test_which_game_it_is(
    name: str, spec: str | None, game: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gymnasium.register_envs(ale_py)
    buffer = played(steps=2)[1]
    folder = collected(tmp_path, monkeypatch, gymnasium.spec(spec) if spec else None, buffer, name, actions=Discrete(9))
    assert [found.game for found in source.find(str(folder))] == [game]
    if game is None:
        with pytest.raises(UserError, match="doesn't say of which game"):
            import_data(config(tmp_path, folder))
        import_data(config(tmp_path, folder, games=["MsPacman"]))
    else:
        import_data(config(tmp_path, folder, games=[game]))
        with pytest.raises(UserError, match="nothing to import"):
            import_data(config(tmp_path, folder, games=["Boxing"]))
    assert EpisodeStore(tmp_path / "again").games == ("MsPacman",)


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a set of 7 actions": ({}, {"actions": Discrete(7)}, "action space Discrete(7), but Pong has 6 actions"),
    "actions from 1": ({}, {"actions": Discrete(6, start=1)}, "action space"),
    "an action beyond the set": ({"actions": np.full(25, 6)}, {}, "action 6, but Pong's actions go from 0 to 5"),
    "a negative action": ({"actions": np.full(25, -1)}, {}, "no numbers from 0 to 17"),
    "an action of other games": ({"actions": np.full(25, 2)}, {"actions": Discrete(18)}, "action 2, which Pong hasn't"),
    "a reward that isn't a number": ({"rewards": np.full(25, np.nan)}, {}, "rewards that are not finite"),
    "one observation too few": ({"rewards": np.zeros(26)}, {}, "one observation more than rewards (26)"),
    "an end in the midst": ({"terminations": np.arange(25) == 7}, {}, "terminates before its last step"),
    "other observations": (
        {"observations": np.zeros((26, 96, 96, 3), np.uint8)},
        {"screens": Box(0, 255, (96, 96, 3), np.uint8)},
        "observations uint8 (96, 96, 3), neither",
    ),
    "observations of floats": (
        {"observations": np.zeros((26, 84, 84))}, {"screens": Box(0, 1, (84, 84))}, "observations float64 (84, 84)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore")
def test_bad_data_sets_are_named_in_one_sentence(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, options, words = BAD[case]
    spec, buffer, _ = played()
    assert_refused(tmp_path, collected(tmp_path, monkeypatch, spec, replace(buffer, **changes), **options), words)


@pytest.mark.filterwarnings("ignore")
def test_every_frame_is_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, buffer, _ = played()
    spec.kwargs["frameskip"] = 1
    assert_refused(tmp_path, collected(tmp_path, monkeypatch, spec, buffer), "frameskip=1")


def test_broken_files_are_named_in_one_sentence(store: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path, store)
    metadata, data = folder / "data" / "metadata.json", folder / "data" / "main_data.hdf5"
    good, content = metadata.read_text(), data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    assert_refused(tmp_path, folder, "")
    data.unlink()
    assert_refused(tmp_path, folder, "can't be opened")
    metadata.write_text(json.dumps({**json.loads(good), "data_format": "papyrus"}))
    assert_refused(tmp_path, folder, "can't be opened")
    for text in ("{", "[]", "{}", json.dumps({**json.loads(good), "jowa": [1]})):
        metadata.write_text(text)
        assert_refused(tmp_path, folder, "can't be read")
    settings = json.dumps({"kwargs": {"game": "pong", "repeat_action_probability": "x"}})
    metadata.write_text(json.dumps({**json.loads(good), "env_spec": settings}))
    assert_refused(tmp_path, folder, "'x' as its repeat_action_probability")
    metadata.unlink()
    assert_refused(tmp_path, folder, "no Minari data set")


@pytest.mark.parametrize("workers", [0, 2])
def test_two_names_of_one_part_are_told_apart(store: Path, tmp_path: Path, workers: int) -> None:
    for name in ("a/b-v0", "a-b-v0"):
        export(ExportConfig(path=str(store), game="Pong", dataset=name, out=str(tmp_path / "minari")))
    with pytest.raises(UserError, match=r"minari-a-b-v0 holds the data set a.b-v0, not a.b-v0, whose part.*out"):
        import_data(config(tmp_path, tmp_path / "minari", workers=workers))
    assert same(contents(tmp_path / "again"), contents(store))


def assert_refused(tmp_path: Path, folder: Path, words: str) -> None:
    with pytest.raises(UserError) as caught:
        import_data(config(tmp_path, folder))
    sentence = str(caught.value)
    assert words in sentence and str(folder) in sentence and "\n" not in sentence, sentence
    assert not list((tmp_path / "again").rglob("manifest.json"))


def test_exports_that_are_refused(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ExportConfig(path=str(store), game="Pong", dataset="jowa/pong-v0", out=str(tmp_path / "minari"))
    for key, value, words in (
        ("to", "papyrus", "to must be minari"),
        ("dataset", "pong", "with a version"),
        ("dataset", "../p-v0", "dataset"),
        ("game", "Pongg", "did you mean 'Pong'"),
        ("game", "Alien", "Alien"),
        ("out", "/proc/nothing", "out"),
    ):
        with pytest.raises(UserError, match=words):
            export(replace(wanted, **{key: value}))
    assert not list(tmp_path.rglob("metadata.json"))
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"will take 1 MB.* 0 MB are free.*out"):
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))
        export(wanted)
    assert not list((tmp_path / "minari").rglob("*.*"))


def test_nothing_stays_of_an_export_that_failed(store: Path, tmp_path: Path) -> None:
    shard = next((store / "Pong" / "b").rglob("c/0/0/0"))
    content = shard.read_bytes()
    shard.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    with pytest.raises(UserError, match="damaged"):
        exported(tmp_path, store)
    assert not list((tmp_path / "minari").rglob("*.*"))
    shard.write_bytes(content)
    # What a killed one left is swept away, what a living one is writing isn't.
    alive = TemporaryFolder(tmp_path / "minari" / "jowa", "pong-v0.")
    dead = tmp_path / "minari" / "jowa" / ".pong-v0.1-abc.tmp"
    dead.mkdir()
    exported(tmp_path, store)
    assert alive.path.exists() and not dead.exists()
    alive.discard()
    assert [path.name for path in (tmp_path / "minari" / "jowa").iterdir()] == ["pong-v0"]
    with pytest.raises(UserError, match="is there already"):
        exported(tmp_path, store)


def test_a_full_disk_ends_an_export_with_one_sentence(store: Path, tmp_path: Path) -> None:
    """Here a file mustn't become larger than 300 kB, which ends h5py's process."""
    limits = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
    script = f"{limits} runpy.run_module('jowa.data.export', run_name='__main__')"
    line = [sys.executable, "-c", script, f"path={store}", "game=Pong", "dataset=jowa/pong-v0", f"out={tmp_path / 'm'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2 and process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("jowa: ")
    assert "probably since the disk is full: make room" in process.stderr
    assert not list((tmp_path / "m").rglob("*.*"))


def test_without_the_package_it_says_what_to_install(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(tmp_path, store)
    monkeypatch.setitem(sys.modules, "minari", None)
    for path in (folder, "atari/pong/expert-v0"):
        with pytest.raises(UserError, match=r"pip install 'jowa\[minari\]'"):
            import_data(config(tmp_path, path))
    with pytest.raises(UserError, match=r"pip install 'jowa\[minari\]'"):
        exported(tmp_path, store)
