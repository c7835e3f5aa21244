"""What tests of imports share: raw files of two sources, and the entry point as a command line calls it."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from pathlib import Path

import numpy as np
from fake_dopamine import Ring, play_numbers

from jowa.cli import run
from jowa.data.sources import rlu

SAMPLES = Path(__file__).parent / "samples"
MODULE = importlib.import_module("jowa.data.import")


def import_data(*arguments: object) -> tuple[int, str, str]:
    """Run the entry point as its command line would, in this process: (exit code, stdout, stderr)."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    before = sys.argv
    try:
        sys.argv = ["jowa.import", *map(str, arguments)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            run(MODULE.main, MODULE.ImportConfig, "import")
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return code, out.getvalue(), errors.getvalue()


def assert_refused(result: tuple[int, str, str], *words: object) -> None:
    code, _, errors = result
    assert code == 2 and errors.startswith("jowa: ") and errors.count("\n") == 1, errors
    assert "Traceback" not in errors and all(str(word) in errors for word in words), errors


def raw_files(folder: Path) -> Path:
    """Two runs of both sources: RL Unplugged's with 3 checkpoints each, Dopamine's with small logs."""
    (folder / "rlu" / "Assault").mkdir(parents=True)
    for run_number in (1, 2):
        for checkpoint in range(3):
            sample = SAMPLES / "rlu" / "Assault" / rlu.file_name(1, (checkpoint + run_number) % 2)
            (folder / "rlu" / "Assault" / rlu.file_name(run_number, checkpoint)).symlink_to(sample)
        ring = Ring(folder / "dqn_replay" / "Pong" / str(run_number) / "replay_logs", 150)
        play_numbers(ring, 700, np.random.default_rng(run_number))
    return folder
