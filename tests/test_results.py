"""The published tables from the raw scores: equal to what was published, pooled soundly, shown alike everywhere."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from launch import launch
from test_pooled_scores import iqm
from test_report import check

from jowa import results
from jowa.cli import run
from jowa.evaluation.pages.published_formats import as_html, as_markdown, as_text
from jowa.evaluation.pages.published_report import cautions
from jowa.evaluation.results.published import (
    ALGORITHMS,
    FROM_MEANS,
    ROUNDING,
    PublishedTables,
    algorithm_rows,
    game_rows,
    published_tables,
)
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.games import PRETRAINING_GAMES, reference
from jowa.published_scores import PUBLISHED_SIZES, official_evaluation, published_means

QUICK = BootstrapConfig(resamples=500)
SPECIFIED = {
    "JOWA 150M, planning": (0.847, 0.585, 1.195),
    "JOWA 70M, planning": (0.802, 0.570, 0.952),
    "JOWA 40M, planning": (0.664, 0.439, 0.772),
    "JOWA 150M, no planning": (0.524, 0.591, 0.613),
    "JOWA 70M, no planning": (0.461, 0.241, 0.637),
    "JOWA 40M, no planning": (0.271, 0.353, 0.433),
    "EDT 200M": (0.501, 0.400, 0.836),
    "MGDT 200M": (0.490, 0.391, 1.058),
    "Scaled QL 80M": (0.390, 0.400, 0.660),
    "MTBC 120M": (0.326, 0.197, 0.278),
}
"""IQM HNS, median HNS and IQM DNS as the specification has them (section 9), in its order."""


@pytest.fixture(scope="module")
def tables() -> PublishedTables:
    return published_tables(QUICK)


# The published table


def test_the_specified_rows_come_out_to_three_decimals(tables: PublishedTables) -> None:
    rows = tables.algorithms[: len(SPECIFIED)]
    assert [row.label for row in rows] == list(SPECIFIED)
    for row in rows:
        numbers = (row.human_iqm, row.human_median, row.dqn_iqm)
        assert numbers == pytest.approx(SPECIFIED[row.label], abs=5e-4), row.label
        assert [f"{number:.3f}" for number in numbers] == [f"{number:.3f}" for number in SPECIFIED[row.label]]


def test_every_published_algorithm_has_its_row_and_says_what_it_is_from(tables: PublishedTables) -> None:
    assert sorted(ALGORITHMS) == sorted(published_means())
    assert [row.label for row in tables.algorithms[10:]] == ["MGDT 40M", "MTBC 65M", "MTBC 34M"]
    assert [row.source for row in tables.algorithms] == ["16 episodes a game"] * 3 + [FROM_MEANS] * 10


def test_rows_with_episodes_are_computed_from_them_not_from_the_means() -> None:
    references = {game: reference(game) for game in PRETRAINING_GAMES}
    means = {name: dict(games) for name, games in published_means().items()}
    evaluations = {size: official_evaluation(size) for size in PUBLISHED_SIZES}
    before = algorithm_rows(means, evaluations, references)
    for games in means.values():
        games.update(dict.fromkeys(games, 0.0))
    after = algorithm_rows(means, evaluations, references)
    assert after[:3] == before[:3] and all(new != old for new, old in zip(after[3:], before[3:], strict=True))


def test_the_episodes_means_are_the_published_means_but_for_rounding(tables: PublishedTables) -> None:
    assert len(tables.games) == 45 and not tables.disagreements
    for row in tables.games:
        returns = official_evaluation(row.size)[row.game].returns
        assert len(returns) == row.episodes == 16
        assert row.mean == sum(returns) / 16
        assert abs(row.mean - published_means()[f"JOWA_{row.size}_with_planning"][row.game]) <= 0.05 + 1e-6


def test_a_mean_that_disagrees_is_shown(tables: PublishedTables) -> None:
    evaluation = official_evaluation("150M")
    references = {game: reference(game) for game in evaluation}
    published = dict(published_means()["JOWA_150M_with_planning"])
    published["Phoenix"] += 1.5 * ROUNDING
    rows = game_rows("150M", evaluation, published, references)
    assert [row.game for row in rows if not row.agrees] == ["Phoenix"]
    wrong = dataclasses.replace(tables, games=rows)
    assert wrong.disagreements == (rows[[row.game for row in rows].index("Phoenix")],)
    for shown in (as_text(wrong), as_markdown(wrong), as_html(wrong)):
        plain = " ".join(shown.split())
        assert "the episodes' mean is NOT" in plain or "the episodes&#x27; mean is NOT" in plain
        assert "150M Phoenix: 5,230.00 from the episodes, 5,230.075 published" in plain
        assert "5,230.075 (differs)" in shown and shown.count("(differs)") == 1
    for shown in (as_text(tables), as_markdown(tables), as_html(tables)):
        assert "NOT" not in shown and "(differs)" not in shown


def test_games_carry_their_normalised_scores_and_planner(tables: PublishedTables) -> None:
    rows = {(row.size, row.game): row for row in tables.games}
    assert [model.size for model in tables.models] == ["150M", "70M", "40M"]
    beam_rider = rows["150M", "BeamRider"]
    assert (beam_rider.context, beam_rider.width, beam_rider.horizon) == (6, 2, 2)
    assert beam_rider.human_normalised == pytest.approx((2927.0 - 363.9) / (16926.5 - 363.9))
    assert beam_rider.dqn_normalised == pytest.approx((2927.0 - 363.9) / (5852.4 - 363.9))
    for size in PUBLISHED_SIZES:
        human = [row.human_normalised for row in tables.of(size)]
        (model,) = (model for model in tables.models if model.size == size)
        assert model.human.over_games.value == pytest.approx(iqm(human))


# Pooled episodes


@pytest.mark.parametrize(
    ("size", "human", "dqn"), [("150M", 0.730, 1.220), ("70M", 0.638, 0.955), ("40M", 0.500, 0.732)]
)
def test_pooled_scores_are_those_of_plain_python(tables: PublishedTables, size: str, human: float, dqn: float) -> None:
    (model,) = (model for model in tables.models if model.size == size)
    for kind, one, expected in (("human", model.human, human), ("dqn", model.dqn, dqn)):
        episodes, means = [], []
        for game, evaluation in official_evaluation(size).items():
            scores = reference(game)
            gap = getattr(scores, kind) - scores.random
            normalised = [(value - scores.random) / gap for value in evaluation.returns]
            episodes += normalised
            means += [sum(normalised) / 16] * 16
        assert one.pooled.value == pytest.approx(iqm(episodes)) == pytest.approx(expected, abs=5e-4)
        assert one.pooled_game_means == pytest.approx(iqm(means))
        assert one.pooled.low < one.pooled.value < one.pooled.high
    assert model.episodes == 240


def test_the_headline_interval_is_that_of_a_plain_bootstrap() -> None:
    games = []
    for game, evaluation in official_evaluation("150M").items():
        scores = reference(game)
        assert scores.random is not None and scores.human is not None
        games.append([(value - scores.random) / (scores.human - scores.random) for value in evaluation.returns])
    draw = random.Random(1)
    resampled = sorted(iqm([value for game in games for value in draw.choices(game, k=16)]) for _ in range(4000))
    interval = published_tables(BootstrapConfig()).models[0].human.pooled
    assert (interval.low, interval.high) == pytest.approx((resampled[100], resampled[-101]), abs=0.005)


def test_intervals_are_those_of_their_seed_and_confidence(tables: PublishedTables) -> None:
    assert published_tables(QUICK) == tables
    other = published_tables(dataclasses.replace(QUICK, seed=1)).models[0].human
    wide = published_tables(dataclasses.replace(QUICK, confidence=0.99)).models[0].human
    ours = tables.models[0].human
    for kind in ("over_games", "pooled"):
        mine = getattr(ours, kind)
        assert getattr(other, kind).value == mine.value and getattr(other, kind) != mine
        assert getattr(wide, kind).low < mine.low < mine.high < getattr(wide, kind).high


# Repeated episodes


def test_most_games_of_the_largest_model_have_one_main_score(tables: PublishedTables) -> None:
    found = {}
    for size in PUBLISHED_SIZES:
        counts = [max(Counter(one.returns).values()) for one in official_evaluation(size).values()]
        found[size] = sum(count >= 9 for count in counts)
    assert found == {"150M": 13, "70M": 13, "40M": 12}
    assert {model.size: model.one_score_games for model in tables.models} == found
    assert all(model.majority == 9 for model in tables.models)
    (claim,) = (text for text in cautions(tables) if text.startswith("Episodes repeat."))
    assert "in 13 of 15 games at least 9 of the 16 episodes have the same score (70M: in 13, 40M: in 12)" in claim


# What is shown, and the command line


def test_text_markdown_and_page_show_the_same_numbers(tables: PublishedTables) -> None:
    html = as_html(tables)
    page = check(html).text
    assert "http" not in html.replace("http://www.w3.org/", "")
    for shown in (as_text(tables), as_markdown(tables), page):
        for row in tables.algorithms:
            assert row.label in shown and f"{row.dqn_iqm:.3f}" in shown
        for model in tables.models:
            assert f"[{model.dqn.pooled.low:.3f}, {model.dqn.pooled.high:.3f}]" in shown
            assert f"{model.repeated} of 240" in shown
        for expected in ("0.730", "0.763", "16 of 16", "2,841,262.5", "−0.004", "(models × games)"):
            assert expected in shown, expected
    assert max(map(len, as_text(tables).splitlines())) <= 110


def test_markdown_tables_have_as_many_cells_in_every_row(tables: PublishedTables) -> None:
    blocks = [block for block in as_markdown(tables).split("\n\n") if block.startswith("|")]
    assert [block.count("\n") - 1 for block in blocks] == [13, 6, 15, 15, 15]
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`python -m jowa.results arguments` in an empty folder: (exit code, stdout, stderr)."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jowa.results", *arguments])
        code = 0
        try:
            run(results.main, results.ResultsConfig, "results")
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def test_without_out_it_prints_and_writes_nothing(call) -> None:
    code, text, errors = call("bootstrap.resamples=200")
    assert (code, errors) == (0, "") and not list(Path.cwd().iterdir())
    assert "JOWA 150M, planning" in text and "(200 resamples, seed 0)" in text
    assert text.rstrip().splitlines()[-1].endswith("python -m jowa.results out=<new folder>")


def test_with_out_it_writes_three_files_and_the_same_again(call, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("deep/new", "empty"):
        code, text, errors = call(f"out={tmp_path / folder}", "bootstrap.resamples=200")
        assert (code, errors) == (0, "") and str(tmp_path / folder / "report.html") in text
    names = ["report.html", "results.json", "results.md"]
    for folder in ("deep/new", "empty"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    assert all(
        (tmp_path / "deep/new" / name).read_bytes() == (tmp_path / "empty" / name).read_bytes() for name in names
    )
    content = json.loads((tmp_path / "empty" / "results.json").read_text())
    assert content["bootstrap"] == {"confidence": 0.95, "resamples": 200, "seed": 0}
    assert content["models"][0]["human"]["pooled"]["value"] == pytest.approx(0.730, abs=5e-4)
    assert (len(content["algorithms"]), len(content["models"]), len(content["games"])) == (13, 3, 45)
    check((tmp_path / "empty" / "report.html").read_text())
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["out={full}"], ("out=", "isn't empty", "another out")),
        (["out={full}/file"], ("cannot write", "set out to")),
        (["bootstrap.resamples=0"], ("bootstrap.resamples", "at least 1")),
        (["bootstrap.confidence=1"], ("bootstrap.confidence", "between 0 and 1")),
        (["bootstrap.seed=-1"], ("bootstrap.seed", "negative")),
        (["out={new}", "bootstrap.resamples=0"], ("bootstrap.resamples",)),
        (["bootstrap.resample=5"], ("'bootstrap.resample'", "did you mean 'bootstrap.resamples'?")),
        (["output=x"], ("'output'", "did you mean 'out'?")),
    ],
)
def test_a_mistake_is_one_sentence(call, tmp_path: Path, arguments: list[str], words: tuple[str, ...]) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    code, text, errors = call(*(argument.format(full=full, new=tmp_path / "new") for argument in arguments))
    assert (code, text) == (2, "") and errors.startswith("jowa: ") and errors.count("\n") == 1, errors
    assert all(word in errors for word in words), errors
    assert [path.name for path in full.iterdir()] == ["file"] and (full / "file").read_text() == "mine"
    assert not (tmp_path / "new").exists() and not list(Path.cwd().iterdir())


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    done = launch("jowa.results", "bootstrap.resamples=50", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and not list(tmp_path.iterdir())
    assert "MTBC 34M" in done.stdout
    assert "Prints the tables." in launch("jowa.results", "--help", cwd=tmp_path).stdout
