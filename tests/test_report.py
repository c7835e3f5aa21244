"""Results on file and the report: complete, self-contained, never overwritten, escaped."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_results import GAMES, fake_film, fake_mode, fake_results, fake_strip, write_metrics

from jowa.errors import UserError
from jowa.evaluation.films import film_encoding
from jowa.evaluation.pages.page import number
from jowa.evaluation.pages.plots import Bar, score_bars
from jowa.evaluation.pages.report import Exhibits, above_random, render, write_report
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.results.curves import meaning, read_curves, stage_spans
from jowa.evaluation.results.results import (
    installed_versions,
    write_results,
)
from jowa.planning.strips import strip_png

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Tags must match, ids must be unique, and nothing may be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert len(set(checker.ids)) == len(checker.ids)
    for address in checker.addresses:
        assert address.startswith(("data:", "#")), "the page must not fetch anything"
        assert not address.startswith("#") or address[1:] in checker.ids
    assert not re.search(r"@import|url\((?!#)", html)
    return checker


def exhibits(tmp_path) -> Exhibits:
    write_metrics(tmp_path / "metrics.jsonl")
    picture = tmp_path / "stage1_000200.png"
    picture.write_bytes(strip_png(fake_strip("Pong")))
    return Exhibits(read_curves(tmp_path / "metrics.jsonl"), [fake_film("Pong")], [fake_strip("Pong")], [picture])


def test_the_report_is_one_self_contained_page_with_every_part(tmp_path):
    results = fake_results()
    path = tmp_path / "report.html"
    write_report(path, results, exhibits(tmp_path))
    text = check(path.read_text()).text
    for expected in (
        *GAMES, "Random play", "Without planning", "With planning", "Recorded data", "Human-normalised",
        "DQN-normalised", "IQM of game means", "Above random", "held-out episodes", "95.1 %", "88.2 %",
        "Termination F1", "0.85", meaning("td"),
        "frames of the emulator", "60e0ea3cbe0913d39803477945e9e5ec", "python -m jowa.evaluate ckpt=runs/demo",
        "stage1_000200", "max episode frames",
    ):  # fmt: skip
        assert expected in text, expected
    planning = results.mode(PLANNING)
    assert planning is not None
    for score in planning.games:
        assert number(score.mean.value) in text and number(score.mean.low) in text
    assert planning.human_normalised is not None
    assert number(planning.human_normalised.interquartile_mean.value) in text
    with pytest.raises(UserError, match="not overwritten"):
        write_report(path, results)


@pytest.mark.parametrize("modes", [(RANDOM,), (RANDOM, NO_PLANNING), (PLANNING,)])
@pytest.mark.parametrize("games", [("Pooyan",), ("Pong", "Breakout")])
def test_the_report_does_with_less(modes, games):
    bare = dataclasses.replace(fake_results(modes, games), world_model=(), data={}, roms={})
    html = render(bare, Exhibits())
    text = check(html).text
    assert "Watch it play" not in text and "Does it know the world" not in text
    assert "nan" not in html.lower().replace("nano", "")


def test_names_are_escaped():
    nasty = dataclasses.replace(fake_results(), checkpoint="runs/<b>&", command="<script>", config={"a": "</pre><i>"})
    html = render(nasty, Exhibits())
    check(html)
    assert "<script>" not in html and "</pre><i>" not in html and "&lt;b&gt;&amp;" in html


def test_repeating_episodes_are_announced_in_report_and_file(tmp_path):
    results = dataclasses.replace(fake_results(), modes=(fake_mode(RANDOM), same_episode(PLANNING)))
    (warning,) = results.warnings
    expected = (
        "earlier one in return and length (planning: Pong 1 of 16 distinct, Breakout 1 of 16 distinct, Pooyan "
        "1 of 16 distinct)"
    )
    assert expected in warning
    assert warning in check(render(results, Exhibits())).text
    write_results(tmp_path / "results.json", results)
    assert json.loads((tmp_path / "results.json").read_text())["warnings"] == list(results.warnings)


def test_a_single_repetition_is_announced_more_mildly():
    pong = dataclasses.replace(fake_mode(PLANNING, ["Pong"]).games[0], repeated=1, distinct=15)
    once = dataclasses.replace(fake_mode(PLANNING, ["Pong"]), games=(pong,))
    (warning,) = dataclasses.replace(fake_results(), modes=(once,)).warnings
    assert warning.startswith("Some episodes equal") and "(planning: Pong 15 of 16 distinct)" in warning


def test_cut_episodes_are_announced():
    planning = fake_mode(PLANNING)
    episodes = tuple(
        dataclasses.replace(one, truncated=one.game == "Pong" and one.seed < 3) for one in planning.episodes
    )
    results = dataclasses.replace(fake_results(), modes=(dataclasses.replace(planning, episodes=episodes),))
    assert results.warnings == (
        "Episodes were cut at the cap on their length, the game still going on (planning: Pong 3 of 16).",
    )


def same_episode(mode: str):
    played = fake_mode(mode)
    episodes = tuple(dataclasses.replace(one, episode_return=5.0, agent_steps=100) for one in played.episodes)
    games = tuple(dataclasses.replace(score, repeated=15, distinct=1) for score in played.games)
    return dataclasses.replace(played, episodes=episodes, games=games)


def test_above_random_needs_intervals_apart():
    apart, touching = fake_results(), dataclasses.replace(fake_results(), modes=(fake_mode(RANDOM), noisy(PLANNING)))
    for results, expected in ((apart, True), (touching, False)):
        mode = results.mode(PLANNING)
        assert mode is not None and above_random(results, mode, "Pong") is expected
    mode = apart.mode(PLANNING)
    assert mode is not None and above_random(apart, mode, "Boxing") is None
    single = dataclasses.replace(apart, modes=tuple(fake_mode(name, episodes=1) for name in (RANDOM, PLANNING)))
    assert above_random(single, single.modes[1], "Pong") is None, "one episode shows nothing"
    chance = apart.mode(RANDOM)
    assert chance is not None
    alike = dataclasses.replace(apart, modes=(chance, same_episode(PLANNING)))
    assert above_random(alike, alike.modes[1], "Pong") is None, "sixteen times the same episode are one"
    still = dataclasses.replace(apart, modes=(same_episode(RANDOM), mode))
    assert above_random(still, mode, "Pong") is True, "chance may always come to the same"
    swapped = dataclasses.replace(
        apart, modes=(dataclasses.replace(mode, mode=RANDOM), dataclasses.replace(chance, mode=PLANNING))
    )
    assert above_random(swapped, swapped.modes[1], "Pong") is False, "below random with intervals apart is not above"


def noisy(mode: str):
    return fake_mode(mode, spread=300.0)


def test_results_are_written_whole_and_only_once(tmp_path):
    results = fake_results()
    path = tmp_path / "results.json"
    write_results(path, results)
    content = json.loads(path.read_text())
    assert [mode["mode"] for mode in content["modes"]] == [RANDOM, NO_PLANNING, PLANNING]
    assert len(content["modes"][2]["episodes"]) == 48 and content["modes"][2]["decisions_per_second"] > 0
    assert content["modes"][0]["games"][0]["mean"]["low"] < content["modes"][0]["games"][0]["mean"]["high"]
    assert (
        content["references"]["Pooyan"]["human"] is None and content["modes"][2]["games"][2]["human_normalised"] is None
    )
    assert content["versions"] and content["roms"]["Pong"] and content["seed"] == 0 and content["command"]
    before = path.read_bytes()
    with pytest.raises(UserError, match="not overwritten"):
        write_results(path, results)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path], "no temporary file is left"


def test_a_number_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_results(tmp_path / "results.json", dataclasses.replace(fake_results(), wall_seconds=float("nan")))
    assert not list(tmp_path.iterdir())


def test_curves_survive_torn_lines_and_keep_the_later_of_two_values(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"stage": "1", "step": step, "loss": float(step), "name": "x", "flag": True} for step in (1, 2, 3)]
    lines += [{"stage": "1", "step": 2, "loss": 7.0}, {"stage": "2", "step": 1, "loss": 5}, {"loss": 1.0}]
    path.write_text(
        "\n".join(json.dumps(line) for line in lines) + '\n[1]\n{"stage": "2", "step": 2, "loss": NaN}\n{"st'
    )
    first, second = read_curves(path)
    assert (first.name, first.stage, first.values.tolist()) == ("loss", "1", [1.0, 7.0, 3.0])
    assert (second.stage, second.steps.tolist(), second.values.tolist()) == ("2", [1.0], [5.0])
    assert read_curves(tmp_path / "absent.jsonl") == []


def test_stages_follow_one_another_and_held_out_measurements_join_their_loss(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl")
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert stage_spans(curves) == {"stage1": (0, 598), "stage2": (598, 598 + 898)}
    td = [curve for curve in curves if curve.subject == "td"]
    assert [(curve.stage, curve.held_out) for curve in td] == [("stage2", False), ("stage2", True)]
    text = check(render(fake_results(), Exhibits(curves))).text
    assert text.count(meaning("td")) == 1 and "held-out episodes" in text


def test_long_curves_are_thinned_to_averages(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(json.dumps({"stage": "1", "step": step, "loss": step % 2}) for step in range(1000)))
    (curve,) = read_curves(path)
    assert len(curve.steps) == 200 and curve.values.mean() == pytest.approx(0.5) and curve.steps.mean() == 499.5
    assert stage_spans([curve]) == {"1": (0, 999)}, "the stage is as long as it was, whatever thinning averages"


def test_films_become_videos_or_animated_pictures(monkeypatch):
    clip = film_encoding.encode_film(fake_film("Pong"))
    assert clip.media_type == "video/mp4" and b"ftyp" in clip.data[:12]
    monkeypatch.setattr(film_encoding, "find_spec", lambda name: None)
    for seen in (True, False):
        clip = film_encoding.encode_film(fake_film("Pong", seen=seen))
        assert clip.media_type == "image/gif" and clip.data.startswith(b"GIF89a")


def test_figures_take_the_pages_colours():
    svg = score_bars(
        "Pong", [Bar("Random play", "random", -20.0), Bar("With planning", "planning", 3.0, None, [1.0, 5.0])]
    )
    assert "var(--planning)" in svg and "var(--random)" in svg and "#0101" not in svg
    assert "Random play" in svg, "text stays text"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (-0.001, "0.00"),
        (-20.44, "−20.4"),
        (0.847, "0.85"),
        (999.96, "1,000.0"),
        (2841262.5, "2,841,262"),
    ],
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_versions_name_what_decides_results():
    assert {"python", "torch", "numpy", "ale-py"} <= installed_versions().keys()
    assert np.__version__ == installed_versions()["numpy"]


def test_only_atari_games_are_said_to_be_such_and_to_have_a_speed():
    own = fake_results(games=["Pong"])
    grid = dataclasses.replace(
        own,
        modes=tuple(
            dataclasses.replace(mode, games=tuple(dataclasses.replace(one, game="Grid-v0") for one in mode.games))
            for mode in own.modes
        ),
    )
    both = dataclasses.replace(own, modes=(own.modes[0], grid.modes[1]))
    texts = {
        name: check(render(results, Exhibits(films=[fake_film(game) for game in results.games]))).text
        for name, results in (("own", own), ("grid", grid), ("both", both))
    }
    assert "plays 1 Atari game," in texts["own"] and "At the game's own speed: 15 agent" in texts["own"]
    assert "plays 1 game," in texts["grid"] and "plays 2 games," in texts["both"]
    for words in ("60 a second", "60 frames", "Atari", "emulator", "30 agent steps ("):
        assert words not in texts["grid"], words
    assert "Grid-v0, planning: 30 agent steps, " in texts["grid"] and "held for as many environment" in texts["grid"]
    for words in ("Atari games at their speed: 15", "in games that aren't Atari's, as many", "Pong, planning: 30 agent "
                  "steps (2 s), "):  # fmt: skip
        assert words in texts["both"], words


def test_the_page_says_what_was_played_before_an_interruption():
    results = fake_results()
    mode = results.modes[0]
    steps = sum(one.agent_steps for one in mode.episodes)
    some, none = (dataclasses.replace(mode, decisions=decisions, seconds=1.0) for decisions in (100, 0))
    html = render(dataclasses.replace(results, modes=(some, *results.modes[1:])), Exhibits())
    assert f"100 decisions in 1 s; {steps - 100:,} had been made before an interruption" in html
    html = render(dataclasses.replace(results, modes=(none, *results.modes[1:])), Exhibits())
    assert f"all {steps:,} decisions had been made before an interruption" in html
    assert "before an interruption" not in render(results, Exhibits())
