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


MODULES = {
    "pretrain": "out", "finetune": "out", "transfer": "out", "evaluate": "out", "tune": "out", "report": "out",
    "results": "out", "convert": "dst", "export": "out", "play": "port", "data.record": "out", "data.fetch": "out",
    "data.import": "out", "data.export": "out", "data.select": "out", "data.inspect": "out", "data.verify": "path",
}  # fmt: skip
"""A key of each entry point."""

ALL_AT_ONCE = """
import runpy, sys
print(__import__("jowa.cli").cli.config_folder())
for module in sys.argv[1].split():
    sys.argv = [module, "--cfg"]
    sys.modules.pop(f"jowa.{module}", None)  # another may have imported it already
    print("module", module, runpy.run_module(f"jowa.{module}", run_name="__main__", alter_sys=True)["__file__"])
"""


def test_entry_points_find_their_presets_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """Two as a user starts them, one of them without PyTorch, and all of them in one process."""

    def shown(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(installed)}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    for module in ("transfer", "data.record"):
        assert f"\n{MODULES[module]}: " in "\n" + shown("-m", f"jowa.{module}", "--cfg")
    where, _, text = shown("-c", ALL_AT_ONCE, " ".join(MODULES)).partition("\n")
    assert where == str(installed / "jowa" / "configs")
    for module, key in MODULES.items():
        configuration, _, text = text.partition(f"module {module} ")
        file, _, text = text.partition("\n")
        assert f"\n{key}: " in f"\n{configuration}" and Path(file).is_relative_to(installed / "jowa")
    assert not text
