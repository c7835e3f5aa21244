"""What `pip install .` delivers: the wheel carries the presets, and its entry points run from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_preset_and_table_travels(installed: Path) -> None:
    for source, inside in (("configs", "jowa/configs"), ("jowa", "jowa")):
        kinds = (".yaml", ".json", ".html", ".css", ".js")
        for path in [path for path in (REPOSITORY / source).rglob("*") if path.suffix in kinds]:
            assert (installed / inside / path.relative_to(REPOSITORY / source)).read_bytes() == path.read_bytes()
    assert not (installed / "tests").exists()


MODULES = ["pretrain", "evaluate", "play", "data.record"]


@pytest.mark.parametrize("module", MODULES)
def test_entry_points_find_their_presets_from_another_folder(installed: Path, tmp_path: Path, module: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    code = f"import jowa.cli, jowa.{module} as m, runpy; print(jowa.cli.config_folder(), m.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert all(part.startswith(str(installed)) for part in where.stdout.split())
    shown = subprocess.run(
        [sys.executable, "-m", f"jowa.{module}", "--cfg"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert any(f"{key}: " in shown.stdout for key in ("out", "dst", "path", "port"))
