"""A tuned result says on what its planner was tuned, and what is doubtful about it."""

import dataclasses

import pytest
from fake_results import fake_results
from test_report import check

from jowa.evaluation.pages import sections
from jowa.evaluation.results.scoreboard import board_of
from jowa.evaluation.results.tuning_notes import how_tuned

TUNED = {"first_seed": 1000, "episodes": 4, "same_weights": True, "same_protocol": True}


def test_a_tuned_result_says_on_what_its_settings_were_chosen():
    results = dataclasses.replace(fake_results(games=["Pong"]), tuning=TUNED)
    sentence = how_tuned(TUNED)
    assert (
        "context, width and horizon were chosen for each game on 4 other episodes of it, seeds 1000 to 1003."
        in sentence
    )
    assert how_tuned({**TUNED, "episodes": 1}).endswith("1 other episode of it, seed 1000.")
    assert sentence in check(sections.conditions(results)).text and sentence in board_of(results).conditions
    assert results.warnings == ()
    unplanned = dataclasses.replace(results, modes=results.modes[:2])
    assert sentence not in sections.conditions(unplanned) + board_of(unplanned).conditions


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"same_weights": False}, "for other weights than"),
        ({"same_protocol": False}, "under other rules of play than"),
        ({"repeated_episodes": 1}, "1 reported episode equals one that the settings were chosen on: "),
        ({"repeated_episodes": 3}, "3 reported episodes equal one that"),
    ],
)
def test_settings_that_were_chosen_elsewhere_or_on_the_same_play_are_announced(facts, words):
    results = dataclasses.replace(fake_results(games=["Pong"]), tuning=TUNED | facts)
    (warning,) = results.warnings
    assert words in warning
    assert dataclasses.replace(results, modes=results.modes[:2]).warnings == ()
