"""Mistakes in exports: one sentence, before anything is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from export_calls import export_agent, write_evaluation
from test_cli import assert_refused

from jowa.errors import UserError
from jowa.evaluation.results.stored import read_evaluation


@pytest.fixture
def mine(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy of the smoke run."""
    return Path(shutil.copytree(smoke_run, tmp_path / "mine"))


BAD = {
    "ckpt={tmp}/none out={out}": ("no agent in", "/none"),
    "ckpt={mine} out={mine}": ("isn't empty", "choose another out"),
    "ckpt={mine} out={mine}/config.yaml": ("is a file", "choose another out"),
    "ckpt={mine} out={mine}/config.yaml/hub": ("No folder can be made", "choose another out"),
    "ckpt={mine}": ("A value is missing: give out=…",),
    "ckpt={mine} out={out} size=40M": ("of size nano, not 40M",),
    "ckpt={mine} out={out} evaluation={tmp}/none": ("holds no results.json", "finished evaluation"),
    "ckpt={mine} out={out} evaluation={mine}/evaluations/001": ("of another checkpoint", "evaluation=none"),
    "ckpt={mine} out={out} evaluation={mine}/evaluations/002": ("results.json isn't the complete", "evaluation=none"),
    "ckpt={mine} out={out}": ("results.json isn't the complete", "evaluation=none"),
    "ckpt={mine} out={out} license=MIT": ("license=MIT is no abbreviation", "apache-2.0"),
    "ckpt={mine} out={out} repo=mine": ("repo=mine can't be a model's name", "<owner>/<name>"),
    "ckpt={mine} out={out} repo=a/b/c": ("can't be a model's name",),
    "ckpt={mine} out={out} repo=me/..": ("can't be a model's name",),
    "ckpt={mine} out={out} repo=me/-agent": ("can't be a model's name",),
    "ckpt={mine} out={out} repo=me/agent.git": ("can't be a model's name",),
    "ckpt={mine} out={out} push=true": ("give repo=<owner>/<name>",),
}


@pytest.mark.parametrize("line", BAD)
def test_mistakes_are_one_sentence_and_leave_nothing(line: str, mine: Path, tmp_path: Path) -> None:
    write_evaluation(mine, 1, weights="0" * 16)
    damaged = write_evaluation(mine, 2)
    (damaged / "results.json").write_text((damaged / "results.json").read_text()[:-20])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = line.format(mine=mine, tmp=tmp_path, out=tmp_path / "out").split(" ")
    assert_refused(export_agent(*words), *BAD[line])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "list, not dict"), ("{", "Expecting property name"), ({"versions": ...}, "versions is missing"),
        ({"roms": "x"}, "roms is str, not dict"), ({"bootstrap": {"confidence": "95"}}, "bootstrap.confidence is str"),
        ({"tuning": {"first_seed": 9, "episodes": 2, "same_weights": 1}}, "tuning.same_weights is int, not bool"),
        ({"config": {"planner": 3}}, "config.planner is int, not dict"),
        ({"protocol": {"frame_skip": "x"}}, "protocol.frame_skip is str, not int"),
        ({"protocol": {"frame_skip": 0}}, "protocol.frame_skip must be at least 2, not 0"),
    ],
)  # fmt: skip
def test_damaged_results_are_refused(content: Any, reason: str, mine: Path) -> None:
    folder = write_evaluation(mine)
    path = folder / "results.json"
    if isinstance(content, dict):
        whole = json.loads(path.read_text()) | content
        content = json.dumps({key: value for key, value in whole.items() if value is not ...})
    path.write_text(content)
    with pytest.raises(UserError, match=f"results.json isn't the complete file .*{reason}.*evaluation=none"):
        read_evaluation(folder)
