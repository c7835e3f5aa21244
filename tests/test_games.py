"""The table of games."""

from __future__ import annotations

import ale_py
import numpy as np
import pytest

from jowa import games
from jowa.errors import UserError


def test_sixty_games_in_alphabetical_order() -> None:
    assert len(games.GAMES) == 60 and list(games.GAMES) == sorted(set(games.GAMES))
    assert (games.task_id("AirRaid"), games.task_id("Zaxxon")) == (0, 59)
    assert [games.task_id(game) for game in games.GAMES] == list(range(60))


def test_the_papers_division() -> None:
    assert len(set(games.PRETRAINING_GAMES)) == 15 and len(set(games.HELD_OUT_GAMES)) == 5
    assert not set(games.PRETRAINING_GAMES) & set(games.HELD_OUT_GAMES)
    assert set(games.PRETRAINING_GAMES + games.HELD_OUT_GAMES) <= set(games.GAMES)
    assert set(games.BORROWED_TASKS) == set(games.HELD_OUT_GAMES)
    assert set(games.BORROWED_TASKS.values()) - {"Pong"} < set(games.PRETRAINING_GAMES)


def test_action_names_are_ales() -> None:
    assert tuple(ale_py.Action(index).name for index in range(18)) == games.ACTION_NAMES


def test_legal_actions_are_minimal_sets() -> None:
    assert games.legal_actions("Skiing") == (0, 3, 4)
    assert games.legal_actions("Freeway") == (0, 2, 5)
    assert games.legal_actions("Pong") == (0, 1, 3, 4, 11, 12)
    assert games.legal_actions("Boxing") == tuple(range(18))
    mask = games.legal_mask("Freeway")
    assert mask.dtype == np.bool_ and np.flatnonzero(mask).tolist() == [0, 2, 5]


def test_every_game_has_its_own_rom() -> None:
    assert games.rom_name("MsPacman") == "ms_pacman" and games.rom_name("UpNDown") == "up_n_down"
    assert all(games.packaged_rom(game).is_file() for game in games.GAMES)
    assert len({games.rom_name(game) for game in games.GAMES}) == 60


def test_reference_scores() -> None:
    assert games.reference("Phoenix") == games.ReferenceScores(761.4, 7242.6, 4996.6)
    assert games.reference("Pooyan").human is None
    assert games.reference("AirRaid") == games.ReferenceScores(None, None, None)
    known = [game for game in games.GAMES if games.reference(game).random is not None]
    assert len(known) == 46 and set(games.PRETRAINING_GAMES + games.HELD_OUT_GAMES) <= set(known)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("Pongg", "Pong"), ("ms_pacman", "MsPacman"), ("ALE/Breakout-v5", "Breakout"), ("BoxingNoFrameskip-v4", "Boxing")],
)
def test_unknown_games_get_a_suggestion(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=rf"'game'.*'{right}'"):
        games.task_id(wrong)
    with pytest.raises(UserError, match="choose among AirRaid"):
        games.check_game("")
