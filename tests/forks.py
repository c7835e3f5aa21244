"""Entry points in processes of their own that import nothing anew: they are forked off one that has imported it all.

Arguments, folder, environment, both outputs, exit code and signals are a process's own, as with `launch`, and so is
torchrun's company. Two things are not: the start itself, and the seed of Python's hashes, which is one for all.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from forking import end, forking
from launch import CHANGES, ROOT
from processes import company, free_port


@dataclass(frozen=True)
class Fork:
    """A running process, whose outputs go to files."""

    process: ForkServerProcess
    out: Path
    words: list[str]

    def end(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for it; it is killed when that takes longer."""
        self.process.join(timeout)
        end([self.process])
        code = self.process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(self.words, code, *(path.read_text() for path in outputs(self.out)))


def fork(out: Path, module: str, *arguments: str, cwd: Path = ROOT, before: str = "", processes: int = 1) -> list[Fork]:
    """`python -m module arguments` in that many processes of one company; they write to files beginning with `out`.

    before: Python that each runs first.
    """
    out.parent.mkdir(exist_ok=True)
    port, forks = free_port(), []
    for rank in range(processes):
        joined = company(rank, processes, port) if processes > 1 else {}
        environment = {**os.environ, **CHANGES, **joined}
        place = out.with_name(f"{out.name}-{rank}")
        process = forking().Process(target=_main, args=(module, arguments, cwd, environment, place, before))
        process.start()
        forks.append(Fork(process, place, [module, *arguments]))
    return forks


def outputs(out: Path) -> tuple[Path, Path]:
    """The files of stdout and stderr."""
    return out.with_name(f"{out.name}.out"), out.with_name(f"{out.name}.err")


def _main(
    module: str, arguments: tuple[str, ...], cwd: Path, environment: dict[str, str], out: Path, before: str
) -> None:
    for stream, path in zip((sys.stdout, sys.stderr), outputs(out), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    exec(before, {})
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
