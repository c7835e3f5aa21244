"""Recording environments: the command that is advised, and what a recording that fails leaves behind."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import fork
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa import games
from jowa.cli import load_config
from jowa.data import record
from jowa.data.codes import codes_path
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.envs.gymnasium_environments import register_environment
from jowa.errors import UserError
from jowa.games import RESERVED_NAMES, CustomGame, custom_game
from jowa.overrides import assignment
from jowa.recording.config import RecordConfig
from jowa.training.new_game import open_episodes

ODD = "odd_environments:Odd-v0"
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cc", "Cs")), max_size=8)
ODD_TEXTS = ("", "null", "True", "1e5", ".5", "nan", "${x}", "\\${x}", 'a"', "b\\", 'c\\"', "it's", "$HOME", "a:b")
# Hydra knows no quotes around keys: those that look like another kind can't be written.
KEYS = st.from_regex(r"k[a-z ,:{}]*[a-z]", fullmatch=True)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(ODD_TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "_registered", {})


def advised(path: Path, game: str, blocks: int = 8) -> list[str]:
    """The words that a shell makes of the command in the error."""
    with pytest.raises(UserError) as error:
        open_episodes(str(path), game, blocks)
    (command,) = re.findall("`(python -m jowa.data.record .*?)`", str(error.value))
    return shlex.split(command)


def record_by(words: list[str], *changes: str) -> None:
    config = load_config(RecordConfig, "record", [*words[3:], "steps=10", *changes])
    record.check(config)
    record.record(config)


@settings(max_examples=25, deadline=None)
@given(VALUES)
def test_a_value_survives_the_shell_and_hydra(value: Any) -> None:
    word = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {assignment('environment.kwargs', {'note': value})}"],
        capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    assert load_config(RecordConfig, "record", [word]).environment.kwargs == {"note": value}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"name": "mine"},
        {"kwargs": {"actions": 18}, "layers": "frames"},
        {
            "name": "all.of-them", "actions": ["UP", "NOOP", "LEFT"], "observation": "eyes/left", "frame_skip": 2,
            "max_pool": True, "crop": [1, 2, 3, 4], "interpolation": "nearest",
            "kwargs": {"show": "nested", "note": {"what": ["it's a test of $HOME", None, 1.5, "7", True]}},
        },
    ],
)  # fmt: skip
def test_the_advised_command_records_the_game_that_is_meant(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "the data"
    game = register_environment(ODD, EnvironmentConfig(**settings))
    meant = custom_game(game)
    words = advised(out, game)
    # In a process that knows nothing of it.
    monkeypatch.setattr(games, "_registered", {})
    record_by(words)
    assert EpisodeStore(out).games == (game,) and custom_game(game) == meant
    # With too few there, the command adds to them.
    record_by(advised(out, game, 10_000))
    assert open_episodes(str(out), game, 20).transitions(game) >= 20


def test_only_what_was_set_is_advised(tmp_path: Path) -> None:
    game = register_environment(ODD, EnvironmentConfig(frame_skip=2))
    words = advised(tmp_path, game)
    assert words[3:] == [f"env={ODD}", "environment.frame_skip=2", "policy=random", "steps=10000", f"out={tmp_path}"]
    assert advised(tmp_path / "a b", "Skiing")[3:] == ["game=Skiing", "steps=10000", f'out="{tmp_path / "a b"}"']


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_without_an_episode_leaves_no_folder(workers: int, tmp_path: Path) -> None:
    line = [f"env={ODD}", "environment.kwargs={odd: step}", "policy=random", "steps=10", f"out={tmp_path}"]
    config = load_config(RecordConfig, "record", [*line, f"workers={workers}"])
    for there in (False, True):
        if there:
            (tmp_path / "Odd-v0").mkdir()
        record.check(config)
        with pytest.raises(UserError, match="broken"):
            record.record(config)
        assert (tmp_path / "Odd-v0").exists() == there


def test_a_recording_that_ends_well_keeps_its_folder(tmp_path: Path) -> None:
    record_by(["", "", "", f"env={ODD}", "policy=random", f"out={tmp_path}"])
    assert EpisodeStore(tmp_path).games == ("Odd-v0",)


def test_arguments_that_json_cant_hold_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    line = [f"env={ODD}", "environment.kwargs={note: inf}", f"out={tmp_path}/x"]
    done = fork(tmp_path / "said", "jowa.data.record", *line)[0].end()
    assert done.returncode == 2 and "environment.kwargs" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_stores_own_folders_are_reserved(tmp_path: Path) -> None:
    game = CustomGame("Mine", (0, 1, 2), 3, {"id": "x", "actions": "fresh"})
    games.register(game)
    with EpisodeWriter(tmp_path, "Mine", provenance={"environment": game.spec()}) as writer:
        writer.append(np.zeros((2, 84, 84), np.uint8), np.zeros(2, np.uint8), np.zeros(2, np.float32), True)
    assert codes_path(EpisodeStore(tmp_path), "Mine", "a1").relative_to(tmp_path).parts[0] in RESERVED_NAMES
