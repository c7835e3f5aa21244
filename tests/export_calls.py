"""What tests of exports share: the command line without a network, and evaluations to export."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from fake_results import fake_results

from jowa import export
from jowa.cli import run
from jowa.evaluation.results.results import plain
from jowa.export import ExportConfig
from jowa.models.agent_files import weights_hash
from jowa.training.starting_point import open_agent

HOME = "/home/alice"


def export_agent(*arguments: str) -> tuple[int, str, str]:
    """Run the entry point as its command line would: (exit code, stdout, stderr). No connection can be made."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    refusal = AssertionError("a network was asked for")
    with contextlib.ExitStack() as patches:
        for place, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
            patches.enter_context(mock.patch.object(place, name, side_effect=refusal))
        patches.enter_context(mock.patch.object(sys, "argv", ["export", *arguments]))
        patches.enter_context(contextlib.redirect_stdout(out))
        patches.enter_context(contextlib.redirect_stderr(errors))
        try:
            run(export.main, ExportConfig, "export")
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), errors.getvalue()


def write_evaluation(run: Path, number: int = 1, weights: str | None = None, **changes: Any) -> Path:
    """A finished evaluation of the run's agent (or of one with other `weights`) with a page that shows its paths."""
    folder = run / "evaluations" / f"{number:03d}"
    folder.mkdir(parents=True)
    results = plain(fake_results(("random", "no planning", "planning"), ("Pong", "Breakout")))
    for score in (score for mode in results["modes"] for score in mode["games"]):
        score["repeated"] = 3
    results |= {"weights": weights or weights_hash(open_agent(str(run)).agent)}
    results["unseen_games"] = ["Breakout"]
    results |= {
        "checkpoint": f"{HOME}/a b/runs/mine/checkpoints/stage2-00000004",
        "command": f"python -m jowa.evaluate ckpt={HOME}/mine data=[{HOME}/data,other] protocol.rom_dir=~/roms",
        "protocol": results["protocol"] | {"max_no_op_frames": 0, "repeat_action_probability": 0.0, "rom_dir": HOME},
    } | changes  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    picture = f'<img src="data:image/png;base64,{HOME}/x=="></img>'
    shown = f"<p>{results['checkpoint']}</p><pre>{json.dumps(results['command'])}</pre>{picture} {HOME}/more/pictures"
    (folder / "report.html").write_text(shown)
    (folder / "scores.csv").write_text(f"run,value\n{HOME}/mine,1\n")
    return folder
