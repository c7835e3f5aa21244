"""The report's parts about what the model knows: what they show, say, leave out, and never claim."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from fake_results import fake_film, fake_results, fake_strip, write_metrics
from matplotlib.figure import Figure
from PIL import Image
from small_world import make_batch, small_world_model
from test_report import check

from jowa.evaluation.diagnostics.calibration import Calibration, Reliability, reliability
from jowa.evaluation.diagnostics.codebook import codebook_use
from jowa.evaluation.diagnostics.diagnostics import Diagnostics, diagnose
from jowa.evaluation.diagnostics.discounts import Discount
from jowa.evaluation.diagnostics.q_calibration import Decisions, own_play
from jowa.evaluation.pages import curve_section, diagnostic_plots
from jowa.evaluation.pages.calibration_sections import calibration, q_calibration
from jowa.evaluation.pages.codebook_section import codebook
from jowa.evaluation.pages.curve_section import themed, training
from jowa.evaluation.pages.diagnostic_plots import reliability_diagram, usage_strip
from jowa.evaluation.pages.horizon_section import horizons
from jowa.evaluation.pages.report import Exhibits, render
from jowa.evaluation.results.curves import Curve, meaning, read_curves
from jowa.evaluation.results.results import write_results
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.games import task_id


@pytest.fixture(scope="module")
def found() -> Diagnostics:
    model = small_world_model()
    tasks = [task_id("Pong"), task_id("Boxing"), task_id("Pong"), task_id("Boxing")]
    return diagnose(model, [make_batch(0, tasks, length=8)], BootstrapConfig(resamples=100))


def q_of(correlated: bool):
    random = np.random.default_rng(0)
    rewards = (random.random(400) < 0.1).astype(float)
    q = random.normal(size=400) if not correlated else np.convolve(rewards[::-1], 0.9 ** np.arange(60))[:400][::-1]
    return own_play("planning", {"Pong": [Decisions(q, rewards, True, np.arange(400))]}, {"Pong": Discount(0.9, True)})


def test_the_report_shows_every_part_and_the_file_holds_its_numbers(found, tmp_path):
    results = dataclasses.replace(fake_results(), diagnostics=found, q_calibration=q_of(True))
    exhibits = Exhibits(films=[fake_film("Pong", futures=2)], strips=[fake_strip("Pong")])
    html = render(results, exhibits)
    text = check(html).text
    for expected in (
        "How far ahead does it see?", "Does it mean what it announces?", "Does Q come true?",
        "How much of the codebook is used?", "copying", "one step ahead", "Calibration error", "Brier score",
        "Perplexity", "Pong, own play, planning", "futures that the planner imagined", "One step", "Dream",
    ):  # fmt: skip
        assert expected in text, expected
    assert "nan" not in text.lower().replace("nano", "")
    first = found.horizons[0].scores[-1]
    assert f"{100 * first.dream.accuracy.value:.1f} %" in text and f"{100 * first.copy.value:.1f} %" in text
    write_results(tmp_path / "results.json", results)
    held = json.loads((tmp_path / "results.json").read_text())
    assert held["diagnostics"]["horizons"][0]["scores"][-1]["dream"]["accuracy"]["value"] == first.dream.accuracy.value
    assert held["diagnostics"]["codebook"][0]["perplexity"] == found.codebook[0].perplexity
    assert held["q_calibration"][0]["bias"] == results.q_calibration[0].bias


def test_what_was_not_measured_has_no_section(found):
    text = check(render(fake_results(), Exhibits())).text
    for absent in ("How far ahead", "announces?", "Does Q come true", "codebook"):
        assert absent not in text
    assert horizons(()) == calibration((), ()) == codebook(()) == q_calibration(()) == training(()) == ""


def test_no_skill_is_said_to_be_none(found):
    game = found.horizons[1]
    level = tuple(
        dataclasses.replace(
            one, dream=dataclasses.replace(one.dream, accuracy=one.copy, reward_macro_f1=None, termination_f1=None)
        )
        for one in game.scores
    )
    said = horizons([dataclasses.replace(game, scores=level)])
    assert "no more codes right than copying does, at any distance; no reward occurred" in said
    eventful = tuple(dataclasses.replace(one, ends=1, rewards=1) for one in level)
    assert "occurred at the steps dreamed" not in horizons([dataclasses.replace(game, scores=eventful)])
    endless = tuple(dataclasses.replace(one, ends=0) for one in eventful)
    said = horizons([dataclasses.replace(game, scores=endless, sequences=128)])
    assert "No end occurred at the steps dreamed in these 128 sequences" in said and "no reward occurred at" not in said
    better = dataclasses.replace(level[0].copy, value=1.1)
    above = tuple(dataclasses.replace(one, dream=dataclasses.replace(one.dream, accuracy=better)) for one in level)
    assert "more codes right than copying at every distance" in horizons([dataclasses.replace(game, scores=above)])
    some = horizons([dataclasses.replace(game, scores=(above[0], *level[1:]))])
    assert "than copying 1 agent step ahead, not elsewhere" in some
    assert "does not in 1 of 1 comparisons (correlation below 0.1): Pong (own play, planning)" in q_calibration(
        q_of(False)
    )
    assert "comparisons" not in q_calibration(q_of(True))


def test_q_says_whose_discount_and_how_many_episodes_differ():
    (one,) = q_of(True)
    shown = q_calibration([one])
    assert "in 1 episode, 1 distinct" in shown and "the planner's was taken" not in shown
    foreign = q_calibration([dataclasses.replace(one, trained_gamma=False)])
    assert "The discount that Q was trained with is not known here" in foreign and "s, an agent step" in foreign


def test_announcements_are_judged_by_the_base_rate():
    happened = np.arange(100) % 10 == 0
    constant = reliability("positive reward", np.full(100, 0.2), happened)
    sure = reliability("episode ends", np.where(happened, 0.9, 0.05), happened)
    never = reliability("negative reward", np.full(100, 0.01), np.zeros(100, bool))
    html = calibration([given(constant, never, sure)], [])
    assert "better than the base rate: episode ends; no better than the base rate: positive reward." in html
    assert html.count('role="img"') == 2 and "Negative reward, after" not in html, "nothing to draw where none was"
    nothing = calibration([given(never)], [])
    assert "neither rewards nor ends occurred" in nothing and "better than" not in nothing


def test_labels_of_dots_close_together_do_not_cover_each_other():
    close = np.repeat([0.0101, 0.0299, 0.0301, 0.04, 0.9], 200)
    event = reliability("episode ends", close, np.arange(1000) % 50 == 0)
    counts = (11, 22, 33, 44, 55)
    crowded = dataclasses.replace(event, bins=tuple(dataclasses.replace(event.bins[0], steps=n) for n in counts))
    drawn = reliability_diagram("x", crowded, "y")
    assert [f"of {n}" in drawn for n in counts] == [True] * 4 + [False], "right and left, above and below, and no more"
    assert "of 200" in reliability_diagram("x", event, "y")


NO_ROOM = ((0.0008, 0.0003), (0.0009, 0.0005))
"""The first one's label would lie below the axes, or left of them."""
BESIDE = ((0.011, 0.011), (0.013, 0.02), (0.02, 0.013), (0.013, 0.006), (0.9, 0.9))


@pytest.mark.parametrize(("places", "count"), [(NO_ROOM, 1), *((((0.009, 0.009), other), 2) for other in BESIDE)])
def test_labels_cover_no_dot_and_nothing_outside(
    places: tuple[tuple[float, float], ...], count: int, monkeypatch: pytest.MonkeyPatch
):
    event = reliability("episode ends", np.full(2000, 0.009), np.arange(2000) % 110 == 0)
    bins = tuple(dataclasses.replace(event.bins[0], announced=x, observed=y, least=y, most=y) for x, y in places)
    drawn = []

    def extents(figure: Figure, *_: str) -> str:
        (axes,) = figure.axes
        labels = [text.get_window_extent() for text in axes.texts]
        drawn.append((axes.get_window_extent(), [axes.transData.transform(place) for place in places], labels))
        return ""

    monkeypatch.setattr(diagnostic_plots, "svg", extents)
    reliability_diagram("x", dataclasses.replace(event, bins=bins), "y")
    ((inside, dots, labels),) = drawn
    assert len(labels) == count and not any(label.contains(*dot) for label in labels for dot in dots)
    assert not labels[0].overlaps(labels[-1]) or count == 1
    assert all(label.y0 > inside.y0 for label in labels)


def test_intervals_of_announcements_are_said_to_be_too_narrow():
    event = reliability("episode ends", np.array([0.5, 0.5]), np.array([True, False]))
    assert "rather too narrow" in calibration([given(event)], [])


def given(*events: Reliability) -> Calibration:
    return Calibration("Pong", 0, events)


def test_codes_have_the_same_place_in_every_strip():
    counts = {"Pong": np.array([0, 5, 1, 0]), "Boxing": np.array([0, 0, 9, 0])}
    html = codebook(codebook_use(counts, 1))
    assert html.count("<img") == 3 and "Boxing: 1 codes" in html
    with Image.open(io.BytesIO(usage_strip([0, 5, 1, 0], [2, 1, 0, 3], scale=1))) as picture:
        alpha = np.asarray(picture)[0, :, 3]
    assert alpha[1] == 255 > alpha[0] > alpha[2] == alpha[3] > 0


def test_names_of_games_are_escaped(found):
    game = dataclasses.replace(found.horizons[1], game="<b>")
    event = reliability("positive reward", np.array([0.5, 0.5]), np.array([True, False]))
    one = dataclasses.replace(q_of(False)[0], game="<b>")
    pages = (
        horizons([found.horizons[0], game]),
        calibration([given(event), dataclasses.replace(given(event), game="<b>")], []),
        q_calibration([one]),
        codebook([dataclasses.replace(found.codebook[0], game="<b>")]),
    )
    for html in pages:
        check(html)
        assert ">&lt;b&gt;" in html or ("&lt;b&gt;" in html and "<b>," not in html)


def test_curves_stand_in_their_themes(tmp_path):
    names = ["game/Pong/q_data", "speed/step_seconds", "loss/td", "held_out/world/code_accuracy", "loss/reward",
             "evaluation/score", "loss/total", "gradient_norm/model", "held_out/total",
             "world/code_accuracy"]  # fmt: skip
    curves = [Curve(name, "stage1", np.array([1.0, 2.0]), np.array([1.0, 2.0]), 2.0) for name in names]
    groups = {theme.title: subjects for theme, subjects in themed(curves)}
    assert [list(subjects) for subjects in groups.values()] == [
        ["total", "reward"], ["td"], ["world/code_accuracy"], ["evaluation/score"], ["game/Pong/q_data"],
        ["speed/step_seconds"], ["gradient_norm/model"],
    ]  # fmt: skip
    assert [curve.held_out for curve in groups["Codes, rewards and ends"]["world/code_accuracy"]] == [False, True]
    html = training(curves)
    assert html.count("<details>") == 3 and html.index("Losses of Q") < html.index("<details>")
    assert meaning("world/code_accuracy") in check(html).text
    write_metrics(tmp_path / "metrics.jsonl")
    assert "Losses of Q" in training(read_curves(tmp_path / "metrics.jsonl"))


def test_a_fold_of_many_games_says_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(curve_section, "_MOST", 2)
    curves = [Curve(f"game/{n}/q_data", "s", np.array([1.0]), np.array([1.0]), 1.0) for n in range(3)]
    html = training(curves)
    assert "first 2 of 3 metrics" in html and html.count('role="img"') == 2
    assert "the rest are in" not in training(curves[:2])


def test_films_say_what_they_show():
    planned = render(fake_results(), Exhibits(films=[fake_film("Pong", futures=2)]))
    greedy = render(fake_results(), Exhibits(films=[fake_film("Pong", futures=0)]))
    chance = render(fake_results(), Exhibits(films=[fake_film("Pong")]))
    assert "that the planner imagined" in planned and "bars are Q" in planned
    assert "that the planner imagined" not in greedy and "bars are Q" in greedy and "bars are Q" not in chance
