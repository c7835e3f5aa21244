"""The dream as a Gymnasium environment: it is one, and what happens in it is what the model imagines."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from small_dreamer import dreamer, rigged, save_dreamer

import jowa.dream_env
from jowa.data.split import held_out_episodes
from jowa.data.store import EpisodeStore
from jowa.errors import UserError
from jowa.games import legal_actions

LEGAL = legal_actions("Pong")
Env = gymnasium.Env[Any, Any]


@pytest.fixture(scope="session")
def agent(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dreamer(tmp_path_factory.mktemp("dreamer"), tiny_data, *dreamer())


def make(ckpt: Path, **settings: Any) -> Env:
    return gymnasium.make("jowa/Dream-v0", **{"ckpt": ckpt, "game": "Pong", "device": "cpu"} | settings)


def make_vec(ckpt: Path, **settings: Any) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    return gymnasium.make_vec("jowa/Dream-v0", **{"ckpt": ckpt, "game": "Pong", "device": "cpu"} | settings)


def play(envs: Any, steps: int, seed: int = 5, columns: slice = slice(None)) -> Iterator[tuple[Any, ...]]:
    """The reset and steps with actions that are drawn for three environments, of which `columns` are played."""
    actions = np.random.default_rng(0).integers(len(LEGAL), size=(steps, 3))[:, columns]
    yield envs.reset(seed=seed)
    for row in actions:
        yield envs.step(row if isinstance(envs, gymnasium.vector.VectorEnv) else row[0])


@pytest.mark.parametrize(
    "settings",
    [{}, {"observation": "codes", "context": 2}, {"temperature": 1.0}, {"start": "emulator"}],
    ids=["frames", "codes", "sampled", "emulator"],
)
def test_gymnasiums_checker_has_nothing_to_say(agent: Path, settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(agent, **settings).unwrapped)
        make(agent, render_mode="rgb_array", **settings).close()


@pytest.mark.parametrize("observation", ["frame", "codes"])
def test_the_vector_environment_keeps_gymnasiums_promises(agent: Path, observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = make_vec(agent, num_envs=3, observation=observation, max_episode_steps=2, temperature=1.0)
    assert envs.num_envs == 3 and envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.single_action_space == gymnasium.spaces.Discrete(len(LEGAL)) and envs.spec is not None
    one = make(agent, observation=observation)
    assert (one.observation_space, one.action_space) == (envs.single_observation_space, envs.single_action_space)
    kept = []
    for observations, *results, infos in play(envs, 5):
        assert observations in envs.observation_space and observations.dtype == envs.single_observation_space.dtype
        assert all(observation in envs.single_observation_space for observation in observations)
        kept += [observations, *results, *(part for part in infos.values() if isinstance(part, np.ndarray))]
        if results:
            assert [part.shape for part in results] == [(3,)] * 3
            assert [part.dtype for part in results] == [np.float64, np.bool_, np.bool_]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i]), "all of it is the caller's"
    envs.close()
    envs.close()


def test_steps_that_make_no_sense_are_errors(agent: Path) -> None:
    envs = make_vec(agent, num_envs=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        envs.step(np.zeros(2, np.int64))
    envs.reset()
    for actions in ([0], [0, -1], [0, len(LEGAL)], [0.5, 1.0], [True, False], [np.nan, 0]):
        with pytest.raises(ValueError, match=r"actions must be 2 integers in 0…5"):
            envs.step(np.array(actions))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_seeds_repeat(agent: Path, temperature: float) -> None:
    envs = make_vec(agent, num_envs=3, temperature=temperature, observation="codes", max_episode_steps=3)
    first, again = list(play(envs, 8)), list(play(envs, 8))
    anew = list(play(make_vec(agent, num_envs=3, temperature=temperature, observation="codes", max_episode_steps=3), 8))
    assert data_equivalence(first, again, exact=True) and data_equivalence(first, anew, exact=True)
    assert not data_equivalence(first, list(play(envs, 8, seed=6)))
    assert not np.array_equal(envs.reset()[0], envs.reset()[0]), "without a seed it goes on"


def test_sampling_differs_from_the_likeliest(agent: Path) -> None:
    likeliest, sampled = (list(play(make(agent, temperature=t), 1, columns=slice(1))) for t in (0.0, 1.0))
    assert data_equivalence(likeliest[0], sampled[0], exact=True), "starts are the same"
    assert not np.array_equal(likeliest[1][0], sampled[1][0])


def test_no_dream_depends_on_the_others(agent: Path) -> None:
    settings = {"max_episode_steps": 4, "observation": "codes"}
    together = list(play(make_vec(agent, num_envs=3, **settings), 10))
    assert sum(part[1].any() for part in together[1:]) > 0, "something is rewarded"
    for n in range(3):
        alone = list(play(make_vec(agent, num_envs=1, **settings), 10, seed=5 + n, columns=slice(n, n + 1)))
        for ours, theirs in zip(alone, together, strict=True):
            assert all(np.array_equal(a, b[n : n + 1]) for a, b in zip(ours[:-1], theirs[:-1], strict=False) if len(a))
    single = make(agent, observation="codes")
    for n in range(3):
        for ours, theirs in zip(play(single, 4, 5 + n, slice(n, n + 1)), together[:4], strict=False):
            ended = len(theirs) > 2 and bool(theirs[2][n] or theirs[3][n])
            assert np.array_equal(ours[0], theirs[-1]["final_obs"][n] if ended else theirs[0][n])
            assert len(ours) == 2 or ours[1:4] == tuple(part[n] for part in theirs[1:4])
            if ended:
                break


def test_truncated_dreams_begin_anew_in_the_same_step(tiny_data: Path, tmp_path: Path) -> None:
    ckpt = rigged(tmp_path, tiny_data, reward=-1, ends=False)
    endless = list(play(make_vec(ckpt, num_envs=3, max_episode_steps=-1), 8))
    assert not any((step[2] | step[3]).any() for step in endless[1:])
    assert endless[-1][-1]["imagined"].tolist() == [8] * 3
    envs = RecordEpisodeStatistics(make_vec(ckpt, num_envs=3, max_episode_steps=3))
    truncated = list(play(envs, 7))
    assert [step[3].tolist() for step in truncated[1:]] == [[t in (3, 6)] * 3 for t in range(1, 8)]
    assert not any(step[2].any() for step in truncated[1:])
    assert [step[-1]["imagined"].tolist() for step in truncated] == [[t % 3] * 3 for t in range(8)]
    for t in (1, 2):
        assert np.array_equal(truncated[t][0], endless[t][0])
    *_, infos = truncated[3]
    assert np.array_equal(np.stack(infos["final_obs"]), endless[3][0]) and infos["_final_obs"].all()
    assert infos["final_info"]["imagined"].tolist() == [3] * 3
    assert not np.array_equal(truncated[3][0], endless[3][0])
    assert infos["episode"]["r"].tolist() == [-3.0] * 3, "what CleanRL's loops read"
    envs.reset(seed=5)
    assert np.array_equal(truncated[3][0], envs.reset()[0]), "the next start, as if reset by hand"


def test_one_that_ends_alone_leaves_the_others_dreaming(agent: Path) -> None:
    dreamed = list(play(make_vec(agent, num_envs=3, max_episode_steps=-1, observation="codes"), 30))
    assert any(0 < step[2].sum() < 3 for step in dreamed[1:]), "else this shows nothing"
    for before, step in itertools.pairwise(dreamed):
        expected = np.where(step[2], 0, before[-1]["imagined"] + 1)
        assert step[-1]["imagined"].tolist() == expected.tolist()
        finals = step[-1].get("final_obs", [None] * 3)
        assert [final is not None for final in finals] == step[2].tolist()
        assert not any(np.array_equal(final, seen) for final, seen in zip(finals, step[0], strict=True))


def test_a_predicted_end_terminates(tiny_data: Path, tmp_path: Path) -> None:
    ckpt = rigged(tmp_path, tiny_data, reward=1, ends=True)
    env = make(ckpt)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"imagined": 1})
    envs = make_vec(ckpt, num_envs=2)
    envs.reset(seed=0)
    _, rewards, ends, cuts, infos = envs.step(np.zeros(2, np.int64))
    assert (rewards.tolist(), ends.tolist(), cuts.tolist()) == ([1.0, 1.0], [True] * 2, [False] * 2)
    assert infos["imagined"].tolist() == [0, 0] and infos["final_info"]["imagined"].tolist() == [1, 1]


def test_gymnasium_make_truncates_after_fifteen_steps_unless_told_otherwise(tiny_data: Path, tmp_path: Path) -> None:
    ckpt = rigged(tmp_path, tiny_data, reward=0, ends=False)
    for settings, most in (({}, 15), ({"max_episode_steps": 4}, 4)):
        env, envs = make(ckpt, **settings), make_vec(ckpt, num_envs=1, **settings)
        env.reset()
        envs.reset()
        for step in range(1, most + 1):
            assert env.step(0)[3] == envs.step(np.zeros(1, np.int64))[3][0] == (step == most)


def test_rendering_shows_the_present_frame(agent: Path) -> None:
    env = make(agent, render_mode="rgb_array")
    envs = make_vec(agent, num_envs=3, render_mode="rgb_array")
    for (frame, *_), (frames, *_) in zip(play(env, 3), play(envs, 3), strict=True):
        pictures = [env.render(), *envs.render()]
        for picture, seen in zip(pictures, [frame, *frames], strict=True):
            assert picture.shape == (252, 252, 3) and picture.dtype == np.uint8
            assert all(np.array_equal(picture[1::3, 2::3, colour], seen) for colour in range(3))
    assert make_vec(agent, num_envs=1).render() is None


def test_importing_jowa_is_enough_and_light() -> None:
    code = (
        "import sys, jowa, gymnasium; assert not {'torch', 'ale_py'} & set(sys.modules); "
        "spec = gymnasium.spec('jowa/Dream-v0'); from gymnasium.envs.registration import load_env_creator as load; "
        "print(load(spec.entry_point).__name__, load(spec.vector_entry_point).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("DreamEnv DreamVectorEnv\n", "")


def test_readmes_example_trains_stable_baselines3(tiny_data: Path, agent: Path, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    from jowa.recording.sb3_player import load_agent

    text = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import gymnasium\n.*?)```", text, re.DOTALL)
    for said, meant in {
        'ckpt="runs/demo"': f'ckpt={str(agent)!r}, device="cpu"', "Freeway": "Pong", "100_000": "256",
        '"dreamer.zip"': repr(str(tmp_path / "dreamer.zip")),
    }.items():  # fmt: skip
        assert said in code
        code = code.replace(said, meant)
    names: dict[str, Any] = {}
    exec(code.replace("n_steps=128", "n_steps=128, seed=0, n_epochs=1"), names)
    learner = names["agent"]
    assert learner.num_timesteps == 256 and all(np.isfinite(episode["r"]) for episode in learner.ep_info_buffer)
    assert {episode["l"] for episode in learner.ep_info_buffer} <= set(range(1, 16)) and learner.ep_info_buffer
    assert learner.logger.name_to_value["train/n_updates"] == 2
    load_agent(str(tmp_path / "dreamer.zip"), "PPO", ["Pong"], torch.device("cpu"))


def test_dreams_start_from_held_out_episodes(tiny_data: Path, agent: Path) -> None:
    store, (tokenizer, _) = EpisodeStore(tiny_data, ["Pong"]), dreamer()
    held_out = held_out_episodes("Pong", store.episode_names("Pong"), 0.3).repeat(store.tables["Pong"].lengths)
    frames = torch.from_numpy(store.read_frames("Pong", np.arange(len(held_out))))[:, None]
    codes = {tuple(own) for own in tokenizer.encode(frames[held_out]).tolist()}
    started = {tuple(make_vec(agent, observation="codes").reset(seed=seed)[0][0].tolist()) for seed in range(12)}
    assert started <= codes and len(started) > 3


def test_a_game_the_agent_never_saw_is_dreamed_with_a_warning(agent: Path) -> None:
    with pytest.warns(UserWarning, match=r"never trained on Freeway \(only on Pong\): its dreams of it mean little"):
        make(agent, game="Freeway", start="emulator").reset(seed=0)


def refuse_to_open(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be opened")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, or -1"),
        ({"context": 0}, "context=0 gives the model no frame to see"),
        ({"temperature": -1.0}, "temperature=-1.0 is no temperature"),
        ({"temperature": float("nan")}, "temperature=nan is no temperature"),
        ({"observation": "pixels"}, "observation must be 'frame' or 'codes', not 'pixels'"),
        ({"start": "nowhere"}, "start must be 'data' or 'emulator', not 'nowhere'"),
        ({"render_mode": "human"}, "render_mode must be 'rgb_array' or None, not 'human'"),
        ({"contxt": 3}, "no key 'contxt': did you mean 'context'"),
        ({"num_envs": "4"}, "num_envs must be a whole number, not '4'"),
        ({"num_envs": True}, "num_envs must be a whole number, not True"),
        ({"max_episode_steps": 2.5}, r"max_episode_steps must be a whole number, not 2\.5"),
        ({"context": 2.5}, r"context=2\.5 is no value for jowa/Dream-v0's context: give it as int or None"),
        ({"temperature": "1"}, "temperature='1' is no value for jowa/Dream-v0's temperature: give it as float or int"),
        ({"device": None}, "device=None is no value for jowa/Dream-v0's device: give it as str"),
        ({"data": 5}, "data=5 is no value for jowa/Dream-v0's data: give it as str or None"),
    ],
)
def test_mistakes_are_refused_before_anything_is_opened(
    agent: Path, settings: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jowa.dream_env, "open_agent", refuse_to_open)
    with pytest.raises(UserError, match=sentence):
        make_vec(agent, **settings)


def test_what_is_missing_is_named(tiny_data: Path, agent: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give jowa/Dream-v0 ckpt=… and game=…"):
        gymnasium.make("jowa/Dream-v0")
    with pytest.raises(UserError, match=r"Unknown game 'Pongg'.*did you mean 'Pong'"):
        make(agent, game="Pongg")
    with pytest.raises(UserError, match="ckpt is empty: give a run's folder"):
        make("")
    with pytest.raises(UserError, match=r"There is no agent in .*nothing"):
        make(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"the model sees 8 frames in all, set context to at most 7"):
        make(agent, context=8)
    for settings in ({"game": "Freeway"}, {"data": str(tmp_path)}):
        with pytest.raises(UserError, match=r"no episodes of \w+ in .*: set data to .*, or start='emulator'"):
            make(agent, **settings)
    published = save_dreamer(tmp_path, None, *dreamer())
    with pytest.raises(UserError, match="no episodes of Pong that the agent names"):
        make(published)
    make(published, data=str(tiny_data)).reset()
    make(published, start="emulator").reset()
