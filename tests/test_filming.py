"""Films: what is kept of play, that it is the play that is scored, and how plans and Q are drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_results import fake_film
from PIL import Image
from small_dreamer import dreamer

from jowa.envs.environments import make_environments
from jowa.envs.protocol import ProtocolConfig
from jowa.evaluation.films.film import Film
from jowa.evaluation.films.film_encoding import encode_film
from jowa.evaluation.films.film_pictures import FilmPictures
from jowa.evaluation.films.filming import BEYOND, Footage, Shoot, develop, shoot
from jowa.evaluation.play.modes import NO_PLANNING, PLANNING, RANDOM
from jowa.evaluation.play.player import agent_player
from jowa.evaluation.play.rollout import play
from jowa.models.agent_files import Agent
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.planning.strips import decode_frames, reconstruct

GAMES = ["Breakout", "Pong"]
PROTOCOL = ProtocolConfig(max_episode_frames=48, random_action_probability=0.3)  # 12 agent steps
BEAM = PlannerConfig(width=2, horizon=2, context=2)
GREEDY = replace(BEAM, name="greedy", width=1, horizon=0)
CHOSEN, OTHER = (143, 155, 255), (85, 179, 186)


@pytest.fixture(scope="module")
def agent() -> Agent:
    return Agent(*dreamer(), {})


def shot(agent: Agent, planner: PlannerConfig | None, mode: str = PLANNING, steps: int = 5) -> Footage:
    planners = {} if planner is None else dict.fromkeys(GAMES, planner)
    return shoot(agent, planners, GAMES, Shoot(mode, PROTOCOL, 7, steps), torch.device("cpu"))


@pytest.fixture(scope="module")
def planned(agent: Agent) -> Footage:
    return shot(agent, BEAM)


def test_what_is_filmed_is_the_episode_that_is_scored(
    agent: Agent, planned: Footage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same seeds, same chances: what is played, and so the return, is what `play` finds."""
    environments = make_environments(GAMES, PROTOCOL, [0, 0])
    player = agent_player(agent, BEAM, ExecutionConfig(), environments, torch.device("cpu"))
    seeds, played, record = {game: [7, 8] for game in GAMES}, [], player.record
    monkeypatch.setattr(player, "record", lambda actions: (played.append(actions.copy()), record(actions)))
    rollout = play(
        environments, player, seeds, mode="x", random_action_probability=PROTOCOL.random_action_probability,
    )  # fmt: skip
    environments.close()
    for game in GAMES:
        first, *_ = planned.decisions[game]
        film = next(film for film in planned.films if film.game == game)
        assert film.actions.tolist() == [actions[GAMES.index(game)] for actions in played[:5]]
        scored = next(one for one in rollout.episodes if (one.game, one.seed) == (game, 7))
        assert len(first.rewards) == scored.agent_steps == 12
        assert first.rewards.sum() == scored.episode_return and first.terminated == scored.terminated


def test_play_goes_on_behind_the_film_for_q(planned: Footage) -> None:
    for film in planned.films:
        episodes = planned.decisions[film.game]
        assert len(film.frames) == 5 and [len(one.rewards) for one in episodes] == [12, BEYOND * 5 - 12]
        assert [one.terminated for one in episodes] == [False, False], "the cap is no end, nor is stopping to look"
        thoughts = film.thoughts
        assert thoughts is not None and thoughts.frames.shape == (5, 2, 2, 84, 84)
        taken = thoughts.q[np.arange(5), film.actions]
        assert np.allclose(taken, episodes[0].q[:5])
        assert np.array_equal(film.rewards, episodes[0].rewards[:5].astype(np.float32))


def test_films_hold_what_was_planned(agent: Agent, planned: Footage) -> None:
    for film in planned.films:
        thoughts = film.thoughts
        assert thoughts is not None and thoughts.frames.dtype == np.uint8
        assert np.array_equal(film.seen, reconstruct(agent.tokenizer, film.frames))
        assert (np.diff(thoughts.scores, axis=1) <= 0).all()
        assert (thoughts.first_actions == thoughts.actions[..., 0]).all()
        assert set(film.actions.tolist()) <= set(thoughts.legal.tolist())
        assert (thoughts.first_actions[:, 0] == film.actions).any(), "what chance leaves alone is the best future's"


def test_every_imagined_frame_is_decoded_in_its_place(agent: Agent) -> None:
    film = fake_film("Pong", length=3, futures=2)
    assert film.thoughts is not None
    codes = np.random.default_rng(0).integers(0, 32, (3, 2, 2, 36))
    codes[2] = codes[0]
    developed = develop(agent.tokenizer, replace(film, thoughts=replace(film.thoughts, frames=codes)))
    assert developed.thoughts is not None
    slowly = decode_frames(agent.tokenizer, torch.from_numpy(codes.reshape(-1, 36))).reshape(3, 2, 2, 84, 84)
    assert np.abs(developed.thoughts.frames.astype(int) - slowly).max() <= 1 and slowly.std() > 1


def test_greedy_play_shows_q_alone_and_random_play_nothing(agent: Agent) -> None:
    for film in shot(agent, GREEDY, NO_PLANNING, 3).films:
        assert film.thoughts is not None and film.thoughts.frames.shape[:3] == (3, 1, 0) and film.thoughts.q.any()
        assert colours(film)[CHOSEN] and not has_tree(film)
    chance = shot(agent, None, RANDOM, 3)
    assert chance.decisions == {} and [film.thoughts for film in chance.films] == [None, None]
    assert FilmPictures(chance.films[0]).size[1] < FilmPictures(fake_film("Pong", futures=0)).size[1]


def test_no_film_no_play(agent: Agent) -> None:
    assert shot(agent, BEAM, steps=0) == Footage(PLANNING, (), {})


def test_the_action_played_is_marked_in_its_bar() -> None:
    film = fake_film("Pong", futures=0)
    pictures = FilmPictures(film)
    places = [marked_row(np.asarray(pictures.draw(step))) for step in range(3)]
    assert places[0] < places[1] < places[2] and places[2] - places[1] == places[1] - places[0]
    other = FilmPictures(replace(film, actions=(film.actions + 1) % 3))
    assert marked_row(np.asarray(other.draw(0))) == places[1], "the mark moves with the action"


def marked_row(picture: np.ndarray) -> int:
    return int(np.flatnonzero((picture == CHOSEN).all(-1).sum(1) > 1)[0])


def test_bars_are_as_long_as_q_says() -> None:
    film = fake_film("Pong", futures=0)
    assert film.thoughts is not None
    q = film.thoughts.q.copy()
    q[:, :3] = [0.0, 1.0, 3.0]
    picture = np.asarray(FilmPictures(replace(film, thoughts=replace(film.thoughts, q=q))).draw(0))
    bars = (picture == CHOSEN).all(-1) | (picture == OTHER).all(-1)
    lengths = sorted({int(row.sum()) for row in bars[300:] if row.sum() and row[92:].any()})
    assert lengths[-1] == pytest.approx(3 * lengths[-2], abs=4)


def test_the_branch_followed_is_marked_and_what_chance_played_is_not() -> None:
    film = fake_film("Pong", futures=2)
    assert has_tree(film) and film.thoughts is not None
    away = replace(film, thoughts=replace(film.thoughts, first_actions=np.full_like(film.thoughts.first_actions, 5)))
    assert colours(away)[CHOSEN] < colours(film)[CHOSEN] / 2
    dead = replace(film, thoughts=replace(film.thoughts, scores=np.full_like(film.thoughts.scores, -np.inf)))
    assert not branch(dead)


def colours(film: Film) -> dict[tuple[int, int, int], int]:
    picture = np.asarray(FilmPictures(film).draw(0))
    return {colour: int((picture == colour).all(-1).sum()) for colour in (CHOSEN, OTHER)}


def branch(film: Film) -> bool:
    """Whether a future's frame is outlined."""
    picture = np.asarray(FilmPictures(film).draw(0))
    return bool(((picture == CHOSEN).all(-1)[300:, 134:220].sum(1) > 80).any())


def has_tree(film: Film) -> bool:
    return branch(film) and FilmPictures(film).size[1] > 500


def test_many_actions_keep_a_picture_small() -> None:
    film = fake_film("Pong", futures=0)
    assert film.thoughts is not None
    many = replace(film, thoughts=replace(film.thoughts, legal=np.arange(18)))
    assert FilmPictures(many).size[1] < 560 and FilmPictures(many).draw(0).size == FilmPictures(many).size


def test_videos_can_be_read_again(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    film = fake_film("Pong", futures=2)
    path = tmp_path / "film.mp4"
    path.write_bytes(encode_film(film).data)
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    frames = [np.frombuffer(data, np.uint8).reshape(*facts["size"][::-1], 3) for data in reader]
    pictures = FilmPictures(film)
    assert len(frames) == len(pictures) == 30 and facts["size"] == pictures.size and facts["fps"] == 15
    drawn = np.asarray(pictures.draw(20)).astype(int)
    assert np.abs(frames[20].astype(int) - drawn).mean() < 4


def test_an_animated_picture_where_there_is_no_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("jowa.evaluation.films.film_encoding.find_spec", lambda name: None)
    film = fake_film("Pong", futures=2)
    path = tmp_path / "film.gif"
    path.write_bytes(encode_film(film).data)
    with Image.open(path) as picture:
        assert picture.n_frames == 10 and picture.size == FilmPictures(film).size
