"""Scores as CSV, Markdown and LaTeX, and the sections of the report: the right numbers, escaped, nothing empty."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_runs import evaluation
from test_report import check

from jowa.evaluation.pages.page import number, share
from jowa.evaluation.pages.report import Exhibits, render
from jowa.evaluation.pages.score_files import HEAD, as_csv, as_latex, as_markdown, latex, write_tables
from jowa.evaluation.pages.score_tables import MEASURES, board_table
from jowa.evaluation.pages.table import score_table as terminal_table
from jowa.evaluation.results.baselines import with_comparisons
from jowa.evaluation.results.results import Results
from jowa.evaluation.results.scoreboard import board_of
from jowa.published_scores import published_means


@pytest.fixture(scope="module")
def results() -> Results:
    return with_comparisons(evaluation(["Phoenix", "Assault"], model={"name": "40M"}), None)


def lines(results: Results) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(board_of(results)))))


def test_csv_has_a_line_for_every_number(results: Results) -> None:
    every = lines(results)
    found = {(line["mode"], line["game"], line["measure"]): line for line in every}
    assert len({tuple(line.values())[:4] for line in every}) == len(every) and tuple(next(iter(lines(results)))) == HEAD
    for mode in results.modes:
        for score in mode.games:
            line = found[mode.mode, score.game, "mean_return_points"]
            assert [float(line[key]) for key in ("value", "low", "high")] == [
                score.mean.value, score.mean.low, score.mean.high
            ]  # fmt: skip
            assert (line["run"], line["episodes"], line["distinct"]) == ("demo", "16", str(score.distinct))
        assert mode.human_normalised is not None and mode.dqn_normalised is not None
        for measure in MEASURES:
            value = getattr(mode.dqn_normalised, measure)
            line = found[mode.mode, "all games", f"dqn_normalised_{measure}"]
            assert float(line["value"]) == value.value and float(line["high"]) == value.high
    published = found["published", "Phoenix", "mean_return_points"]
    assert published["run"] == "EDT_200M", "the last of the published, in one dictionary"
    assert float(published["value"]) == published_means()["EDT_200M"]["Phoenix"]
    line = found["planning", "all games", "probability_of_improvement_over EDT_200M"]
    assert float(line["value"]) == results.improvements[-1].probability.value


def test_the_table_has_a_row_a_game_and_the_summaries(results: Results) -> None:
    table = board_table(board_of(results), "demo: scores")
    assert table.head[:3] == ("Game", "Random play (game points)", "Distinct episodes")
    assert table.head[-1] == "EDT 200M (game points)" and len({len(row) for row in table.rows} | {len(table.head)}) == 1
    assert [row[0].value for row in table.rows[:2]] == ["Phoenix", "Assault"] and len(table.rows) == 2 + 2 * 5
    planning = results.modes[2]
    score = planning.games[1]
    mean = table.rows[1][5]
    assert (
        mean.value == f"{score.mean.value:,.1f}" and mean.detail == f"[{score.mean.low:,.1f}, {score.mean.high:,.1f}]"
    )
    assert table.rows[1][6].value == f"{score.distinct} of 16"
    assert planning.human_normalised is not None
    gap = table.rows[6]
    assert gap[0].value == "Optimality gap, human-normalised"
    assert gap[5].value == f"{planning.human_normalised.optimality_gap.value:.3f}"
    mean = table.rows[5]
    assert mean[0].value == "Mean of game means, human-normalised"
    assert mean[-1].value != "–" and mean[-1].detail == "", "of a published mean there is no interval"
    assert gap[-1].value == "–" and gap[-3].detail, "nor do means tell how far episodes fall short"
    (caption,) = table.text
    assert "Protocol of its own: frame skip 4, max episode frames 108000" in caption
    assert "95 % interval" in caption and "Only means were published of MGDT 200M, EDT 200M." in caption


def test_baselines_are_summed_up_over_the_same_games_only() -> None:
    one_more = with_comparisons(evaluation(model={"name": "40M"}), None)
    rows = board_table(board_of(one_more), "scores").rows
    assert rows[3][-1].value == "–" and rows[3][5].value != "–", "nothing was published of Pong"
    assert rows[2][-1].value == "–" and rows[0][-1].value == "5,320.0"


def test_the_protocol_is_named_where_it_has_a_name(results: Results) -> None:
    machado = {
        "frame_skip": 4, "repeat_action_probability": 0.25, "max_episode_frames": 108_000, "max_no_op_frames": 0,
        "random_action_probability": 0.0, "rom_dir": None,
    }  # fmt: skip
    for text in (as_markdown, as_latex):
        shown = text(board_table(board_of(replace(results, protocol=machado)), "scores"))
        assert "Protocol machado: frame skip 4" in shown


def test_files_are_written_once_each(tmp_path: Path, results: Results) -> None:
    write_tables(tmp_path, board_of(results), "demo: scores")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.md", "scores.tex"]
    markdown = (tmp_path / "scores.md").read_text()
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1 and len(rows) == 2 + 12


def test_latex_is_whole_and_escaped(results: Results) -> None:
    table = board_table(board_of(results), r"50 % of $x_1$ & #{\foo}~^−")
    text = as_latex(table)
    assert r"50 \% of \$x\_1\$ \& \#\{\textbackslash{}foo\}\textasciitilde{}\textasciicircum{}$-$" in text
    body = text.splitlines()
    assert [line.strip() for line in body if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    columns = re.search(r"begin\{tabular\}\{(l(r+))\}", text)
    assert columns is not None and len(columns[1]) == len(table.head)
    rows = [line for line in body if line.endswith(r"\\")]
    assert len(rows) == 1 + len(table.rows)
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == len(table.head) - 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert not re.search(r"(?<!\\)[%#_]", "\n".join(body[1:])), "every special character is escaped"
    assert text.isascii() and latex("a…b – c") == r"a\ldots{}b -- c"


def test_markdown_is_escaped(results: Results) -> None:
    table = board_table(board_of(results), "a|b <script> *x* _y_")
    assert as_markdown(table).startswith(r"# a\|b \<script\> \*x\* \_y\_")


def test_warnings_stand_below_the_tables_escaped(results: Results) -> None:
    warned = replace(board_of(results), differences=("a_b differ",), warnings=("50 % of <x>",))
    table = board_table(warned, "scores")
    assert as_markdown(table).endswith("\n\nNote: a\\_b differ\n\nNote: 50 % of \\<x\\>\n")
    _, below = as_latex(table).split("\\end{tabular}")
    assert r"\footnotesize Note: a\_b differ" in below and r"Note: 50 \% of \textless{}x\textgreater{}" in below
    unseen = board_of(replace(results, unseen_games=("Pong",)))
    assert unseen.warnings == ("The agent was never trained on Pong.",)


def test_a_baseline_without_any_score_is_announced() -> None:
    unknown = evaluation(["Pong"])
    sentence = "Published scores exist for 15 games; none of them is among these."
    assert sentence in render(with_comparisons(unknown, None), Exhibits())
    asked = with_comparisons(unknown, ["EDT_200M", "MGDT_200M"])
    assert asked.warnings == ("No scores of EDT 200M and MGDT 200M were published for Pong.",)
    text = check(render(asked, Exhibits())).text
    assert asked.warnings[0] in text and asked.warnings[0] in terminal_table(asked)
    assert sentence not in text and "Grey bars" not in text and "published means" not in text
    known = with_comparisons(evaluation(["Phoenix"]), ["EDT_200M"])
    assert known.warnings == () and "Published scores exist" not in render(known, Exhibits())


# The report


def test_the_figures_carry_the_numbers(results: Results) -> None:
    text = check(render(results, Exhibits())).text
    labels = re.findall(r'aria-label="([^"]*)"', render(results, Exhibits()))
    planning = results.mode("planning")
    assert planning is not None and planning.human_normalised is not None and planning.human_profile is not None
    for measure in MEASURES:
        value = getattr(planning.human_normalised, measure).value
        assert any(f"With planning {value:.3f}" in one for one in labels), measure
        assert f"{value:.3f}".replace("-", "−") in text
    half = planning.human_profile.share[planning.human_profile.thresholds.index(0.5)]
    assert f"With planning {share(half)}" in text
    for one in results.improvements:
        assert share(one.probability.value) in text
    for name in results.baselines:
        assert number(results.baselines[name]["Phoenix"]) in text
    for words in (
        "JOWA 40M, planning",
        "EDT 200M",
        "Grey bars are published means",
        "16 of 16",
        "optimality gap".capitalize(),
    ):
        assert words in text
    assert "Of MGDT 200M, EDT 200M only means were published" in text


def test_nothing_empty_is_shown() -> None:
    unknown = evaluation(["Pong"])
    text = check(render(with_comparisons(unknown, None), Exhibits())).text
    assert "published</b> means" not in text and "JOWA 150M" not in text and "Grey bars" not in text
    alone = replace(unknown, modes=unknown.modes[:1])
    text = check(render(with_comparisons(alone, None), Exhibits())).text
    assert "Who beats whom" not in text and "Performance profiles" in text
    bare = replace(alone.modes[0], human_normalised=None, dqn_normalised=None, human_profile=None, dqn_profile=None)
    text = check(render(replace(alone, modes=(bare,)), Exhibits())).text
    assert "Performance profiles" not in text and "nothing is normalised" in text


def test_the_terminal_table_counts_distinct_episodes(results: Results) -> None:
    head, _, *rows = terminal_table(results).splitlines()
    assert head.split("  ")[-1] == "above random" and " distinct " in head
    planning = results.mode("planning")
    assert planning is not None
    assert f"{planning.games[0].distinct} of 16" in rows[0]
