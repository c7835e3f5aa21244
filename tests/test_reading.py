"""Results read back: equal to what was written, and anything else refused in one sentence."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fake_runs import evaluation, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.cli import load_config
from jowa.errors import UserError
from jowa.evaluate import EvaluateConfig
from jowa.evaluation.results.baselines import with_comparisons
from jowa.evaluation.results.protocol_names import PROTOCOLS, protocol_name, rules
from jowa.evaluation.results.reading import read_results, results_file
from jowa.evaluation.results.results import write_results


def test_what_was_written_is_read(tmp_path: Path) -> None:
    results = with_comparisons(evaluation(), None)
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_a_run_stands_for_its_latest_finished_evaluation(tmp_path: Path) -> None:
    folders = [stored(tmp_path / "run", number=number) for number in ("002", "010")]
    (tmp_path / "run" / "evaluations" / "011").mkdir()
    (tmp_path / "run" / "evaluations" / "notes").mkdir()
    latest = folders[1] / "results.json"
    assert results_file(tmp_path / "run") == results_file(folders[1]) == results_file(latest) == latest
    assert results_file(folders[0]) == folders[0] / "results.json"


def test_no_evaluation_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    (run / "evaluations" / "001").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no finished evaluation: make one with python -m jowa.evaluate 'ckpt="):
        results_file(run)
    with pytest.raises(UserError, match="isn't there: give a run's folder"):
        results_file(tmp_path / "absent")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "results.json"
    write_results(path, evaluation())
    return path


CHANGES: dict[str, Any] = {
    "modes is missing": lambda content: content.pop("modes"),
    "modes is dict, not list": lambda content: content.update(modes={}),
    r"modes\[1\].episodes\[0\].agent_steps is missing": lambda content: content["modes"][1]["episodes"][0].pop(
        "agent_steps"
    ),
    r"modes\[0\].games\[2\].mean.low is str, not float": lambda content: content["modes"][0]["games"][2]["mean"].update(
        low="1"
    ),
    "wall_seconds is bool, not float": lambda content: content.update(wall_seconds=True),
    "seed is float, not int": lambda content: content.update(seed=1.5),
    "bootstrap is list, not dict": lambda content: content.update(bootstrap=[]),
    "references.Phoenix.human is str, not float": lambda content: content["references"]["Phoenix"].update(human="x"),
}


def modes(content: Any) -> Any:
    return content["modes"]


CONTRADICTIONS: dict[str, Any] = {
    r"modes\[1\] has no episodes": lambda content: modes(content)[1].update(episodes=[]),
    r"modes\[1\] has a game twice": lambda content: modes(content)[1]["games"].append(modes(content)[1]["games"][0]),
    r"modes\[2\].episodes holds a game's seed twice": lambda content: modes(content)[2].update(
        episodes=2 * modes(content)[2]["episodes"]
    ),
    r"modes\[2\] has 15 episodes of Phoenix, its score is of 16": lambda content: modes(content)[2]["episodes"].pop(0),
    r"modes\[2\] has 16 episodes of Pong, its score is of 0": lambda content: modes(content)[2]["games"].pop(),
    r"modes\[1\].episodes are not all of no planning": lambda content: modes(content)[1]["episodes"][3].update(
        mode="x"
    ),
    "modes holds a way of playing twice: random, no planning, random": lambda content: modes(content)[2].update(
        mode="random"
    ),
    r"modes\[2\].planner.games is list, not dict": lambda content: modes(content)[2]["planner"].update(games=[]),
    r"modes\[2\].planner.games.Pong is int, not dict": lambda content: modes(content)[2]["planner"].update(
        games={"Pong": 3}
    ),
    "tuning.episodes is NoneType, not int": lambda content: content.update(tuning={"first_seed": 3}),
}


@pytest.mark.parametrize("words", [*CHANGES, *CONTRADICTIONS])
def test_damage_is_found_and_named(whole: Path, tmp_path: Path, words: str) -> None:
    path = tmp_path / "results.json"
    content = json.loads(whole.read_text())
    (CHANGES | CONTRADICTIONS)[words](content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"isn't the complete file of an evaluation by this version .*{words}.*again"):
        read_results(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"a": NaN}', "[" * 100_000, "\x00", '{"jowa": "0.1", "algorithms": []}']
)
def test_foreign_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError, match="isn't the complete file of an evaluation"):
        read_results(path)


def test_numbers_beyond_all_bounds_are_refused(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for huge in ("1e999", "NaN", "-Infinity"):
        path.write_text(whole.read_text().replace('"wall_seconds": 184.2', f'"wall_seconds": {huge}'))
        with pytest.raises(UserError, match="is not finite"):
            read_results(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torn") / "results.json"
    write_results(path, evaluation(["Pong"]))
    return path


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 5000))
def test_a_torn_file_is_never_half_read(file: Path, cut: int) -> None:
    torn = file.with_name("torn.json")
    torn.write_bytes(file.read_bytes()[: -1 - cut])
    with pytest.raises(UserError):
        read_results(torn)


def test_protocols_are_named_as_their_presets() -> None:
    for name, protocol in PROTOCOLS.items():
        preset = load_config(EvaluateConfig, "evaluate", ["ckpt=x", f"protocol={name}"]).protocol
        assert preset == protocol and protocol_name(asdict(preset)) == name
        assert protocol_name({**asdict(preset), "rom_dir": "roms"}) == name
        assert rules(asdict(preset)).startswith(f"Protocol {name}: frame skip 4, ")
    assert protocol_name({"frame_skip": 4}) is None
