"""Entry points in processes of their own that import nothing anew: they are forked off one that has imported it all.

They are what `launch` starts but for the start itself, which each entry point's own test proves: arguments, folder,
both outputs, exit code and signals are a process's own, and so is torchrun's company.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from unittest.mock import patch

from launch import ENVIRONMENT, ROOT
from processes import free_port

PRELOADED = [
    "pytest", "hypothesis", "jowa.evaluate", "jowa.transfer", "jowa.data.import", "jowa.data.record", "jowa.data.fetch",
]  # fmt: skip


@dataclass(frozen=True)
class Fork:
    """A running process, whose outputs go to files."""

    process: ForkServerProcess
    out: Path
    words: list[str]

    def end(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for it; it is killed when that takes longer."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(self.words, code, *(path.read_text() for path in outputs(self.out)))


def fork(out: Path, module: str, *arguments: str, cwd: Path = ROOT, before: str = "", processes: int = 1) -> list[Fork]:
    """`python -m module arguments` in that many processes of one company; they write to files beginning with `out`.

    before: Python that each runs first.
    """
    out.parent.mkdir(exist_ok=True)
    port, forks = str(free_port()), []
    for rank in range(processes):
        company = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        joined = {key: str(value) for key, value in company.items()} | address if processes > 1 else {}
        environment = {**os.environ, **joined}
        place = out.with_name(f"{out.name}-{rank}")
        process = forking().Process(target=_main, args=(module, arguments, cwd, environment, place, before))
        process.start()
        forks.append(Fork(process, place, [module, *arguments]))
    return forks


def forking() -> ForkServerContext:
    """Processes of this context are forked off the one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    return context


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
