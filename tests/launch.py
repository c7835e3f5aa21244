"""Running entry points as a user does: in processes of their own, from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is printed for users to run says python and torchrun: those that run the tests.
PATHS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CHANGES = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PATH": PATHS}
ENVIRONMENT = {**os.environ, **CHANGES}


def command(module: str, *arguments: str, processes: int = 1) -> list[str]:
    """`python -m module arguments`, or the same under torchrun with several processes."""
    runner = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *runner, "-m", module, *arguments]


def launch(module: str, *arguments: str, processes: int = 1, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return execute(command(module, *arguments, processes=processes), cwd)


def execute(words: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def start(words: list[str], cwd: Path = ROOT) -> subprocess.Popen[str]:
    """The same without waiting for the end."""
    return subprocess.Popen(words, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
