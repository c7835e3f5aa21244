"""What an entry point does not need it does not import: commands start as fast as what they do allows."""

from __future__ import annotations

import subprocess
import sys

from launch import ENVIRONMENT

WITHOUT_TORCH = ["results", "data.record", "data.inspect", "data.verify", "data.select", "data.fetch", "data.import",
                 "data.export"]  # fmt: skip
WITH_TORCH = ["pretrain", "finetune", "transfer", "evaluate", "tune", "report", "convert", "export", "play"]
SCRIPT = """
import importlib, sys
for module in sys.argv[1].split():
    importlib.import_module("jowa." + module)
    print(module, *({"torch", "matplotlib", "scipy.stats"} & set(sys.modules)))
"""


def test_entry_points_import_no_more_than_they_need() -> None:
    """In one process, those without PyTorch first."""
    words = [sys.executable, "-c", SCRIPT, " ".join([*WITHOUT_TORCH, *WITH_TORCH])]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    found = {module: set(heavy) for module, *heavy in map(str.split, done.stdout.splitlines())}
    assert found == {module: set() for module in WITHOUT_TORCH} | {module: {"torch"} for module in WITH_TORCH}
