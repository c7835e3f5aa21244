"""What can't be imported: one clear sentence, exit code 2, and nothing of the part stays."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_dopamine import load, save
from import_calls import MODULE, assert_refused, import_data, raw_files

from jowa.data.store import committed_parts


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_files(tmp_path / "raw")


SPOILED: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "truncated": ("dqn_replay", "$store$_action", lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated"),
    "truncated frames": (
        "dqn_replay", "$store$_observation", lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated"
    ),
    "of another type": ("dqn_replay", "$store$_reward", lambda path: save(path, load(path).astype("f8")), "float64"),
    "of another shape": ("dqn_replay", "$store$_observation", lambda path: save(path, load(path)[:, :80]), "80, 84"),
    "of another length": ("dqn_replay", "$store$_terminal", lambda path: save(path, load(path)[:-3]), "147 rows"),
    "actions outside": ("dqn_replay", "$store$_action", lambda path: save(path, load(path) + 6), "go from 0 to 5"),
    "rewards NaN": ("dqn_replay", "$store$_reward", lambda path: save(path, load(path) * np.nan), "reward nan"),
    "no data": ("dqn_replay", "add_count", lambda path: path.write_bytes(b""), "empty"),
    "a folder": ("dqn_replay", "$store$_reward", lambda path: (path.unlink(), path.mkdir()), ""),
    "truncated episodes": ("rlu", "run_1", lambda path: path.write_bytes(path.read_bytes()[:-20]), "truncated"),
    "no episodes": ("rlu", "run_1", lambda path: path.write_bytes(gzip.compress(b"x" * 50)), "checksum"),
    "no file": ("rlu", "run_1", lambda path: path.write_bytes(b""), "empty"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "workers"), [*((case, 0) for case in SPOILED), ("truncated", 2), ("truncated episodes", 2)]
)
def test_a_bad_file_is_one_sentence_and_no_part(case: str, workers: int, raw: Path, tmp_path: Path) -> None:
    source, stem, spoil, words = SPOILED[case]
    paths = [path for path in raw.rglob(f"{stem}*") if path.name.endswith(("_ckpt.1.gz", "-00001-of-00050"))]
    path = min(paths)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    spoil(path)
    arguments = (f"source={source}", f"path={raw / source}", f"out={tmp_path / 'a'}", f"workers={workers}")
    result = import_data(*arguments, "checkpoints=[0-1]")
    game = "Pong" if source == "dqn_replay" else "Assault"
    if case == "a folder":
        assert_refused(result, "missing")
    else:
        assert_refused(result, path if case != "of another length" else path.parent, words)
    assert f"{source}-1-00000" in committed_parts(tmp_path / "a", game)
    assert f"{source}-1-00001" not in committed_parts(tmp_path / "a", game)
    assert not list((tmp_path / "a").glob("*/.*.tmp"))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.write_bytes(content)
    assert import_data(*arguments, "checkpoints=[0-1]")[0] == 0


MISTAKES = {
    "source=papyrus path={raw}/rlu": ("source must be one of rlu, dqn_replay, minari",),
    "path={raw}/rlu": ("A value is missing: give source=…",),
    "source=rlu": ("give path=…",),
    "source=rlu path={raw}/none": ("path=", "is no folder"),
    "source=dqn_replay path={raw}/file": ("path=", "is no folder"),
    "source=minari path={raw}/none": ("path=", "neither a folder nor the id"),
    "source=minari path={raw}/rlu": ("no Minari data set",),
    "source=minari path={raw}/rlu runs=[1]": ("neither runs nor checkpoints",),
    "source=rlu path={raw}/dqn_replay": ("nothing to import", "Pong"),
    "source=rlu path={raw}/rlu games=[Asault]": ("did you mean 'Assault'?",),
    "source=rlu path={raw}/rlu games=[]": ("games must name",),
    "source=rlu path={raw}/rlu games=[Assault,Assault]": ("none twice",),
    "source=rlu path={raw}/rlu runs=[]": ("runs must name",),
    "source=rlu path={raw}/rlu runs=[one]": ("runs must hold numbers", "one"),
    "source=rlu path={raw}/rlu checkpoints=[3-1]": ("checkpoints must hold numbers", "3-1"),
    "source=rlu path={raw}/rlu checkpoints=[-1]": ("checkpoints must hold numbers",),
    "source=rlu path={raw}/rlu workers=-1": ("workers must not be negative",),
    "source=rlu path={raw}/rlu rom_md5=12": ("rom_md5 must be 32",),
    f"source=rlu path={{raw}}/rlu rom_md5={'ab' * 16}": ("rom_md5 is that of one game",),
    "source=rlu path={raw}/rlu sticky=perhaps": ("'sticky'",),
    "source=rlu path={raw}/rlu out={raw}/file/x": ("cannot write", "set out to"),
    "source=rlu path={raw}/rlu game=[Assault]": ("'game'", "did you mean 'games'?"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line: str, raw: Path, tmp_path: Path) -> None:
    if "source=minari" in line:
        pytest.importorskip("minari")
    (raw / "file").write_text("here is a file")
    arguments = line.format(raw=raw).split(" ")
    arguments += [] if "out=" in line else [f"out={tmp_path / 'out'}"]
    assert_refused(import_data(*arguments), *MISTAKES[line])
    assert not (tmp_path / "out").exists()


def test_help_and_configuration_can_be_asked_for() -> None:
    assert "source=rlu" in import_data("--help")[1]
    code, text, _ = import_data("--cfg")
    assert code == 0 and {line.split(":")[0] for line in text.split()} >= {
        field.name for field in dataclasses.fields(MODULE.ImportConfig) if field.name not in ("source", "path")
    }  # fmt: skip
