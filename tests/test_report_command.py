"""Runs side by side from the command line: what is written, what is pointed out, what is refused."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_runs import evaluation, rescored, stored
from launch import launch
from test_report import check

from jowa import report
from jowa.cli import load_config
from jowa.errors import UserError
from jowa.evaluation.comparison.comparison import names_of, open_entries, scoreboard
from jowa.evaluation.comparison.comparison_page import render
from jowa.evaluation.comparison.differences import differences
from jowa.evaluation.pages import page, score_sections
from jowa.evaluation.pages.page import number, share
from jowa.evaluation.pages.score_figures import dashes, run_colour
from jowa.evaluation.pages.score_files import as_csv
from jowa.evaluation.results.results import Results
from jowa.evaluation.statistics.scores import BootstrapConfig

QUICK = BootstrapConfig(resamples=100)
RULES = {"frame_skip": 4, "repeat_action_probability": 0.25, "max_episode_frames": 108_000}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, b better by 400 points."""
    folder = tmp_path_factory.mktemp("runs")
    stored(folder / "a")
    stored(folder / "b", evaluation(better=400.0))
    stored(folder / "unknown", evaluation(["Pong"]))
    stored(folder / "elsewhere", evaluation(["Assault"]))
    return folder


def compare(*arguments: str) -> None:
    report.main(load_config(report.ReportConfig, "report", ["bootstrap.resamples=100", *arguments]))


def named(*results: Results) -> list[str]:
    """What is pointed out about evaluations called a, b, …"""
    mode = [one.best or one.modes[0] for one in results]
    entries = [
        report_entry(label, one, best) for label, one, best in zip("abcd", results, mode, strict=False)
    ]  # fmt: skip
    return differences(entries)


def report_entry(label: str, results: Results, mode: Any) -> Any:
    from jowa.evaluation.comparison.comparison import Entry

    return Entry(label, Path(label), None, replace(results, modes=(mode,)), mode)


def test_the_command_writes_a_page_tables_and_numbers(runs: Path, tmp_path: Path) -> None:
    done = launch("jowa.report", "runs=[a,b]", f"out={tmp_path}/new", "bootstrap.resamples=100", cwd=runs)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "new"
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.json", "report.html", "scores.csv", "scores.md", "scores.tex"
    ]  # fmt: skip
    assert f"Report: {out}/report.html" in done.stdout and "Phoenix" in done.stdout and "Note:" not in done.stdout
    text = check((out / "report.html").read_text()).text
    for words in ("a and b", "Over all games", "Performance profiles", "Who beats whom", "Training", "loss/observation",
                  "Where the numbers come from", "JOWA 150M, planning", "Grey bars"):  # fmt: skip
        assert words in text, words
    assert "Compare these scores with care" not in text, "nothing differs"
    numbers = json.loads((out / "comparison.json").read_text())
    for column in numbers["columns"]:
        assert number(column["mode"]["games"][0]["mean"]["value"]) in text
        assert f"{column['mode']['human_normalised']['optimality_gap']['value']:.3f}".replace("-", "−") in text
    better = numbers["improvements"][0]
    assert (better["ours"], better["theirs"]) == ("a", "b") and better["probability"]["value"] < 0.1
    value, low, high = (better["probability"][key] for key in ("value", "low", "high"))
    assert f"{share(value)}{share(low)} … {share(high)}" in text, "a over b"
    assert f"b{share(1 - value)}{share(1 - high)} … {share(1 - low)}–" in text, "b over a, in b's row"
    lines = list(csv.DictReader((out / "scores.csv").open()))
    assert {line["run"] for line in lines} >= {"a", "b", "EDT_200M"}
    assert {line["mode"] for line in lines if line["run"] == "a"} == {"planning"}


def test_nothing_is_overwritten(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="isn't empty: choose another out"):
        compare(f"runs=[{runs}/a]", f"out={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs=[]"], "runs is empty"),
        (["runs=[{runs}/none]"], "isn't there"),
        (["runs=[{runs}]"], "holds no finished evaluation: make one with python -m jowa.evaluate ckpt="),
        (["runs=[{runs}/a,{runs}/a/evaluations/001]"], "names an evaluation twice"),
        (["runs=[{runs}/a,{runs}/b]", "labels=[x]"], "labels must name each of the 2 runs"),
        (["runs=[{runs}/a,{runs}/b]", "labels=[x,x]"], "none alike"),
        (["runs=[{runs}/a]", "mode=plan"], "mode must be"),
        (["runs=[{runs}/a]", "baselines=[EDT]"], "did you mean 'EDT_200M'"),
        (["runs=[{runs}/a,{runs}/b]", "against=EDT_200"], "against=EDT_200 is neither .* did you mean 'EDT_200M'"),
        (["runs=[{runs}/a]", "labels=[' ']"], "an empty one says nothing: give others"),
        (["runs=[{runs}/a]", "labels=[EDT_200M]"], "EDT_200M is a published algorithm's name: give others"),
        (["runs=[{runs}/a]", "labels=['EDT 200M']"], "EDT 200M is a published algorithm's name"),
        (["runs=[{runs}/unknown]", "against=EDT_200M"], "against=EDT_200M has no scores in Pong: choose a run"),
        (["runs=[{runs}/unknown,{runs}/elsewhere]", "against=unknown"], "against=unknown has no game in common"),
        (["runs=[{runs}/a]", "bootstrap.resamples=0"], "bootstrap.resamples"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(runs: Path, tmp_path: Path, arguments, words) -> None:
    with pytest.raises(UserError, match=words):
        compare(*(argument.format(runs=runs) for argument in arguments), f"out={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_is_missing() -> None:
    with pytest.raises(UserError, match="A value is missing: give out=…"):
        load_config(report.ReportConfig, "report", ["runs=[a]"])


def test_a_way_of_playing_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    only = evaluation()
    stored(tmp_path / "a", replace(only, modes=only.modes[:1]))
    assert open_entries([str(tmp_path / "a")], [], None)[0].mode.mode == "random", "the best it has"
    with pytest.raises(UserError, match=r"holds random, not 'planning': choose another mode"):
        open_entries([str(tmp_path / "a")], [], "planning")


def test_runs_are_called_by_their_folders() -> None:
    root = Path("/runs")
    assert names_of([root / "a" / "evaluations" / "001", root / "elsewhere"]) == ["a", "elsewhere"]
    same = [root / "a" / "evaluations" / name for name in ("001", "002")]
    assert names_of(same) == ["a/001", "a/002"]
    twins = [Path("/x/a/evaluations/001"), Path("/y/a/evaluations/001")]
    assert names_of(twins) == list(map(str, twins))


def test_all_are_compared_with_one(runs: Path) -> None:
    entries = open_entries([str(runs / "a"), str(runs / "b")], ["x", "y"], None)
    board = scoreboard(entries, [], "y", QUICK)
    assert [(one.ours, one.theirs) for one in board.improvements] == [("x", "y")]
    board = scoreboard(entries, [], "EDT_200M", QUICK)
    assert [(one.ours, one.theirs, one.games) for one in board.improvements] == [
        ("x", "EDT_200M", ("Phoenix", "Assault")), ("y", "EDT_200M", ("Phoenix", "Assault"))
    ]  # fmt: skip
    text = check(render("x and y", entries, board)).text
    assert "… over EDT 200M" in text and share(board.improvements[1].probability.value) in text


def test_a_label_may_be_a_way_of_playings_name(runs: Path) -> None:
    entries = open_entries([str(runs / "a"), str(runs / "b")], ["x", "planning"], None)
    board = scoreboard(entries, [], "x", QUICK)
    (line,) = (line for line in as_csv(board).splitlines() if "improvement" in line)
    assert line.startswith("planning,planning,all games,probability_of_improvement_over x,")
    beating = score_sections.beating(scoreboard(entries, [], "planning", QUICK))
    assert "var(--run2)" in beating and "var(--run1)" not in beating


def test_the_runs_own_warnings_are_shown_once_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        stored(tmp_path / name, evaluation(["Pong"], unseen_games=("Pong",), seed=3 * (name == "a")))
    compare(f"runs=[{tmp_path}/a,{tmp_path}/b]", f"out={tmp_path}/out", "baselines=[EDT_200M]")
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert numbers["warnings"] == [
        "a and b: The agent was never trained on Pong.",
        "No scores of EDT 200M were published for Pong.",
    ]
    assert any("The seeds differ" in text for text in numbers["differences"])
    texts = [(tmp_path / "out" / name).read_text() for name in ("scores.md", "scores.tex")]
    texts += [capsys.readouterr().out, check((tmp_path / "out" / "report.html").read_text()).text]
    for text in texts:
        for sentence in (*numbers["warnings"], *numbers["differences"]):
            assert text.replace("\\", "").count(sentence) == 1, sentence


def test_many_runs_are_told_apart() -> None:
    colours = [run_colour(number) for number in range(11)]
    assert len(set(colours)) == 10 and colours[10] == colours[0] and dashes(10) != dashes(0)
    swatches = re.findall(r"<i[^>]*>", page.legend([(str(number), colour) for number, colour in enumerate(colours)]))
    assert ["class=again" in one for one in swatches] == 10 * [False] + [True]
    for colour in set(colours):
        assert page.page("", []).count(f"--{colour}: ") == 2, "in light and in dark"


def test_summaries_are_of_the_games_that_all_have(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    stored(tmp_path / "b", evaluation(["Assault", "Pong"], better=1.0))
    stored(tmp_path / "c", evaluation(["Phoenix"]))
    entries = open_entries([str(tmp_path / name) for name in "ab"], [], None)
    board = scoreboard(entries, [], None, QUICK)
    assert board.games == ("Phoenix", "Assault", "Pong") and board.improvements[0].games == ("Assault", "Pong")
    for column in board.columns:
        assert column.mode.human_normalised is not None
        assert column.mode.human_normalised.games == ("Assault", "Pong")
    (caution,) = differences(entries)
    assert "b lacks Phoenix" in caution and "of the 2 that all have: Assault, Pong." in caution
    none = open_entries([str(tmp_path / name) for name in "bc"], [], None)
    assert "are of none, since no game is in all" in differences(none)[0]
    text = check(render("b and c", none, scoreboard(none, [], None, QUICK))).text
    assert "nothing is normalised" in text and "Who beats whom" not in text


def test_other_rules_are_pointed_out_first() -> None:
    ours = evaluation(protocol={**RULES, "repeat_action_probability": 0.0}, roms={"Pong": "60e0"})
    theirs = evaluation(better=3.0, checkpoint="runs/b", protocol=RULES, roms={"Pong": "beef"}, seed=100)
    rules, roms, seeds = named(ours, theirs)
    assert rules == (
        "The rules of play differ: such scores can't be compared. "
        "repeat action probability 0.0 (a), 0.25 (b)."
    )  # fmt: skip
    assert roms == "Different ROMs of Pong were played: ROM 60e0 (a), beef (b)."
    assert "first seed 0 (a), 100 (b)" in seeds


def test_other_ways_of_playing_and_settings_are_pointed_out() -> None:
    one, other = evaluation(), evaluation(better=3.0, checkpoint="runs/b")
    (way, planner) = named(one, replace(other, modes=other.modes[:2]))
    assert way == "They don't play in the same way: way of playing planning (a), no planning (b)."
    assert planner == "The planner is set differently: name beam (a), greedy (b)."
    own = {
        "name": "beam",
        "context": 6,
        "games": {"Phoenix": {"width": 4}, "Assault": {"width": 2}, "Pong": {"width": 2}},
    }
    deeper = replace(other.modes[2], planner=own)
    (planner,) = named(one, replace(other, modes=(deeper,)))
    assert planner == "The planner is set differently: width in Phoenix 2 (a), 4 (b)."


def test_tuned_runs_beside_others_are_pointed_out() -> None:
    facts = {"first_seed": 100, "episodes": 4, "same_weights": True, "same_protocol": True}
    one, other = evaluation(tuning=facts), evaluation(better=3.0, checkpoint="runs/b")
    (sentence,) = named(one, other)
    assert sentence.startswith(
        "The planner's context, width and horizon were chosen for each game, on other episodes, "
    )
    assert "for a and not for b" in sentence
    assert named(one, replace(other, tuning=facts)) == []
    greedy = [replace(each, modes=each.modes[:2]) for each in (one, other)]
    assert named(*greedy) == [], "no planner was tuned"


def test_repeated_episodes_and_unequal_numbers_are_pointed_out() -> None:
    one = evaluation()
    assert named(one) == [] and named(one, evaluation(better=1.0, checkpoint="runs/b")) == []
    assert named(one, evaluation(better=1.0, weights="f00")) == []
    hashed = [evaluation(better=better, weights="f00", checkpoint=f"runs/{better}") for better in (0.0, 1.0)]
    assert named(*hashed) == ["a and b are evaluations of the same weights."]
    same, alike = named(one, one)
    assert same == "a and b are evaluations of the same weights."
    assert alike.startswith("a and b played 48 of their 48 common seeds alike")
    fewer = [e for e in one.modes[2].episodes if e.seed < 4]
    short = rescored(replace(one.modes[2], episodes=tuple(fewer)), one.games)
    numbers = named(one, replace(one, modes=(short,), checkpoint="runs/b"))
    assert numbers[0] == "The numbers of episodes differ: episodes a game 16 (a), 4 (b)."


def test_names_are_escaped(tmp_path: Path) -> None:
    stored(tmp_path / "a", evaluation(command="</pre><i>"))
    entries = open_entries([str(tmp_path / "a")], ["<script>&"], None)
    board = replace(scoreboard(entries, None, None, QUICK), differences=("<b>careful</b>",))
    html = render("<script>&", entries, board)
    check(html)
    for bad in ("<script>", "<b>careful", "</pre><i>"):
        assert bad not in html
