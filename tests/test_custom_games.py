"""Games that aren't Atari's, from recording to play: known by what a recording or an agent says of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_learner import MODEL, TOKENIZER, small_model
from tiny_store import finetune_run

from jowa import evaluate, games, pretrain
from jowa.cli import load_config
from jowa.data import inspect, record, select, verify
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore, EpisodeWriter
from jowa.dream_env import DreamConfig, open_dreams
from jowa.envs.environment_spec import EnvironmentConfig
from jowa.envs.environments import make_environments
from jowa.envs.gymnasium_environments import register_environment
from jowa.envs.protocol import ProtocolConfig
from jowa.errors import UserError
from jowa.games import CustomGame, game_of, num_tasks, register, register_rows, task_id
from jowa.models.agent_files import DESCRIPTION, load_agent, save_agent
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import ModelConfig, WorldActionModel, check_game_fits, with_games
from jowa.recording.config import RecordConfig
from jowa.training.session import legal_table

TOY = "toy_environments:Toy-v0"
FRESH = CustomGame("Fresh", (0, 1, 2), 3, {"id": "x"})
MAPPED = CustomGame("Mapped", (0, 4), 18, {"id": "x"})


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(games, "_registered", {})


def recorded(out: Path, *changes: str, env: str = TOY) -> str:
    config = load_config(RecordConfig, "record", [f"env={env}", "policy=random", "steps=60", f"out={out}", *changes])
    (row,) = record.record(config) if record.check(config) is None else ()
    return row.game


def saved_agent(folder: Path, store: Path, **changes: Any) -> Path:
    """An agent that knows the games of a store, with random weights."""
    opened = EpisodeStore(store)
    tokenizer = Tokenizer(TOKENIZER).eval()
    sizes = with_games(MODEL, opened.games)
    model = small_model(tasks=sizes.tasks, actions=sizes.actions, action_set=sizes.action_set).eval()
    folder.mkdir()
    facts = {"games": list(opened.games), "data": str(store), "holdout": 0.25, "stage": "stage2"}
    save_agent(folder, tokenizer, model, facts | changes)
    return folder


def test_games_get_ids_in_the_order_in_which_they_come() -> None:
    assert (num_tasks(), register(FRESH), register(MAPPED), register(replace(FRESH))) == (60, 60, 61, 60)
    assert [game_of(task) for task in (0, 59, 60, 61)] == ["AirRaid", "Zaxxon", "Fresh", "Mapped"] and num_tasks() == 62
    assert games.registered() == (FRESH, MAPPED) and task_id("Mapped") == 61
    assert games.legal_mask("Fresh").tolist() == [True] * 3 and games.legal_actions("Mapped") == (0, 4)
    assert games.action_names("Fresh") == ("0", "1", "2") and games.action_names("Mapped") == games.ACTION_NAMES
    assert games.reference("Fresh") == games.ReferenceScores(None, None, None)
    with pytest.raises(UserError, match="did you mean 'Fresh'"):
        games.check_game("Fresch")


@pytest.mark.parametrize(
    ("game", "sentence"),
    [
        (replace(FRESH, actions=4), "two different environments here: actions is 3 in one and 4 in the other"),
        (replace(FRESH, environment={"id": "y"}), "id is x in one and y in the other"),
        (replace(FRESH, name="Pong"), "Pong is the name of an Atari game: set environment.name"),
        (replace(FRESH, name="Big", actions=257), "257 actions: there must be 1 to 256"),
        (replace(FRESH, name="Few", actions=2), "2 actions"),
    ],
)
def test_what_a_name_cant_stand_for_is_refused(game: CustomGame, sentence: str) -> None:
    register(FRESH)
    with pytest.raises(UserError, match=sentence):
        register(game)
    assert games.registered() == (FRESH,)


def test_two_agents_cant_have_one_row_for_two_games() -> None:
    register_rows([FRESH.spec()])
    register_rows([FRESH.spec(), MAPPED.spec()])
    register_rows([FRESH.spec()])
    with pytest.raises(UserError, match=r"disagree about a task row: here it is Fresh's, .* for Mapped"):
        register_rows([MAPPED.spec()])
    with pytest.raises(UserError, match="description of an environment is damaged"):
        register_rows([{"name": "Fresh"}])
    assert games.registered() == (FRESH, MAPPED)


def test_a_description_survives_its_file() -> None:
    assert CustomGame.of(json.loads(json.dumps(FRESH.spec()))) == FRESH


def test_a_model_has_the_rows_and_the_actions_of_its_games() -> None:
    register(FRESH)
    register(MAPPED)
    assert with_games(ModelConfig(), ["Pong"]) == ModelConfig()
    assert with_games(ModelConfig(), ["Fresh"]) == ModelConfig(tasks=61, actions=3, action_set="Fresh")
    assert with_games(ModelConfig(), ["Pong", "Mapped"]) == ModelConfig(tasks=62)
    model = WorldActionModel(replace(MODEL, tasks=61, actions=3, action_set="Fresh"), 8, 4)
    assert model.action_embedding.weight.shape[0] == 3
    for table in (model.code_task_embedding, model.action_task_embedding):
        assert table is not None and len(table.weight) == 61
    assert model.q_values(model.support.new_zeros(2, MODEL.width)).shape == (2, 3)
    table = legal_table(("Fresh",), model.config)
    assert table.shape == (62, 3) and table.all()
    assert legal_table(("Mapped", "Pong"), ModelConfig(tasks=62))[61].nonzero().flatten().tolist() == [0, 4]
    for config, sentence in ((ModelConfig(), "knows 60 games, and Fresh is none"), (
        ModelConfig(tasks=62), "The model has 18 actions, those of ALE, and Fresh has 3 others"
    )):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            check_game_fits(config, "Fresh")
        with pytest.raises(UserError, match=sentence):
            legal_table(("Fresh",), config)
    with pytest.raises(UserError, match="ALE's actions and others, Fresh,ALE, can't be one set"):
        with_games(ModelConfig(), ["Fresh", "Pong"])


@pytest.mark.parametrize("change", ["model.tasks=59", "model.actions=0", "model.actions=257"])
def test_impossible_tables_are_refused(change: str, tmp_path: Path) -> None:
    config = load_config(pretrain.PretrainConfig, "pretrain", ["+exp=smoke", f"out={tmp_path}", change])
    with pytest.raises(UserError, match=r"model\.tasks must be at least 60"):
        pretrain.check(config)


def test_a_store_says_what_its_games_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = recorded(tmp_path)
    assert game == "Toy-v0"
    (ours,) = games.registered()
    forget(monkeypatch)
    store = EpisodeStore(tmp_path)
    assert store.games == (game,) and games.registered() == (ours,)
    facts = store.parts(game)[0].provenance
    assert facts["environment"] == ours.spec() and set(facts["versions"]) == {"gymnasium"}
    assert "rom_md5" not in facts and "frame_skip" not in facts["protocol"]
    batch = SequenceDataset(store, split="all", holdout=0.0, length=4, stride=4).batch(np.arange(2))
    assert batch.tasks.tolist() == [60, 60] and batch.actions.max() <= 2
    # A copy under another name is no game, and a folder of other things neither.
    (tmp_path / game).rename(tmp_path / "other")
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="no recorded episodes in"):
        EpisodeStore(tmp_path)


def test_what_was_recorded_is_what_was_played(tmp_path: Path) -> None:
    game = recorded(tmp_path, "environments=3")
    store = EpisodeStore(tmp_path)
    table = store.tables[game]
    rows = store.read(game, np.arange(store.transitions(game)))
    assert store.transitions(game) >= 60 and set(rows.actions.tolist()) == {0, 1, 2} and rows.frames is not None
    envs = make_environments([game], ProtocolConfig(), [0])
    for episode in range(len(table)):
        frames = envs.reset(None, [table.info[episode]["seed"]])
        for row in range(table.starts[episode], table.starts[episode] + table.lengths[episode]):
            assert np.array_equal(frames[0], rows.frames[row])
            result = envs.step(rows.actions[row : row + 1])
            assert result.rewards[0] == rows.rewards[row] and result.terminated[0] == rows.ends[row]
            frames = result.frames
        assert rows.ends[row]


def test_a_recording_doesnt_depend_on_how_many_play_side_by_side_or_on_workers(tmp_path: Path) -> None:
    for name, change in (("one", "environments=1"), ("many", "environments=5"), ("apart", "workers=1")):
        recorded(tmp_path / name, change)
    one, *others = (EpisodeStore(tmp_path / name).fingerprint("Toy-v0") for name in ("one", "many", "apart"))
    assert others == [one, one]


def test_a_recording_is_resumed_and_added_to_but_not_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path)
    before = EpisodeStore(tmp_path).transitions("Toy-v0")
    recorded(tmp_path, "resume=true", "steps=150")
    recorded(tmp_path, "append=true")
    assert EpisodeStore(tmp_path).transitions("Toy-v0") >= max(150, before) + 60
    for change in ("environment.frame_skip=2", "environment.actions=[UP,DOWN,LEFT]"):
        forget(monkeypatch)
        with pytest.raises(UserError, match=r"two different environments here.*environment\.name"):
            recorded(tmp_path, "append=true", "allow_mixed=true", change)
    forget(monkeypatch)
    with pytest.raises(UserError, match="already holds episodes"):
        recorded(tmp_path)
    assert len(EpisodeStore(tmp_path).parts("Toy-v0")) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["policy=mix"], "policy=mix plays Atari games only: record Toy-v0 with policy=random"),
        (["policy=lookahead"], "policy=lookahead plays Atari games only"),
        (["policy=scripted"], "policy=scripted plays Atari games only"),
        (["policy=sb3"], "policy=sb3 plays Atari games only"),
        (["policy=randm"], "Unknown policy 'randm'.*did you mean 'random'"),
        (["policy=json:loadz"], r"policy=json:loadz can't be imported \(AttributeError"),
        (["policy=no_such_module:play"], r"can't be imported \(ModuleNotFoundError"),
        (["policy=json:__name__"], "is no function"),
        (["game=Boxing"], "are two things to record: give one of them"),
        (["environment.kwargs={take: continuous}"], "has continuous actions"),
        (["protocol.max_no_op_frames=3"], r"protocol\.max_no_op_frames needs an action that does nothing"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(changes: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        recorded(tmp_path / "out", *changes)
    assert not (tmp_path / "out").exists()


PLAYERS = """
def last(frame, random, legal):
    assert frame.shape == (84, 84) and frame.dtype == "uint8"
    frame[:] = 0
    return legal[-1]

def chance(frame, random, legal):
    return int(random.choice(legal))

def wrong(frame, random, legal):
    return 17

def broken(frame, random, legal):
    raise KeyError("oh")
"""


def test_a_function_of_the_users_plays_any_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_players.py").write_text(PLAYERS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    recorded(tmp_path / "last", "policy=my_players:last")
    store = EpisodeStore(tmp_path / "last")
    assert set(store.column("Toy-v0", "actions").tolist()) == {2} and store.read_frames("Toy-v0", slice(None)).any()
    assert store.tables["Toy-v0"].info[0]["policy"] == "my_players:last"
    for name in ("one", "many"):
        recorded(tmp_path / name, "policy=my_players:chance", f"environments={ {'one': 1, 'many': 4}[name] }")
    one, many = (EpisodeStore(tmp_path / name) for name in ("one", "many"))
    assert one.fingerprint("Toy-v0") == many.fingerprint("Toy-v0")
    assert set(one.column("Toy-v0", "actions").tolist()) == {0, 1, 2}
    atari = ["game=Freeway", "policy=my_players:last", "steps=5", "protocol.max_episode_frames=40"]
    record.main(load_config(RecordConfig, "record", [*atari, f"out={tmp_path / 'atari'}"]))
    assert set(EpisodeStore(tmp_path / "atari").column("Freeway", "actions").tolist()) == {5}
    for name, sentence in (("wrong", "returned 17, none of the actions"), ("broken", r"failed \(KeyError: 'oh'\)")):
        with pytest.raises(UserError, match=f"policy=my_players:{name} {sentence}"):
            recorded(tmp_path / name, f"policy=my_players:{name}")
    del sys.modules["my_players"]


def test_the_data_commands_know_the_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    game = recorded(data, "environment.name=A-rather-long-name-of-a-game")
    for wanted in ([], [game]):
        forget(monkeypatch)
        verify.main(verify.VerifyConfig(str(data), wanted))
        forget(monkeypatch)
        inspect.main(inspect.InspectConfig(str(data), wanted, str(tmp_path / f"look{len(wanted)}")))
        forget(monkeypatch)
        out = str(tmp_path / f"{len(wanted)}.json")
        select.main(select.SelectConfig(runs=None, transitions=20, path=str(data), games=wanted, out=out))
    printed = capsys.readouterr().out
    assert f"{game} 1 part" in printed and "sound" in printed
    page = (tmp_path / "look0" / "data.html").read_text(encoding="utf-8")
    assert TOY in page and "environment" in page
    with pytest.raises(UserError, match="Unknown game"):
        inspect.main(inspect.InspectConfig(str(data), ["Toy"]))


def test_the_writer_and_verification_hold_the_game_to_its_actions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(FRESH)
    frames, rewards = np.ones((2, 84, 84), np.uint8), np.zeros(2, np.float32)
    with EpisodeWriter(tmp_path, "Fresh", provenance={"environment": FRESH.spec()}) as writer:
        writer.append(frames, np.array([2, 0], np.uint8), rewards, True)
        with pytest.raises(ValueError, match="actions must lie below 3, not 3"):
            writer.append(frames, np.array([3, 0], np.uint8), rewards, True)
    assert not verify.verify_game(tmp_path, "Fresh").problems
    many = CustomGame("Many", tuple(range(200)), 200, {"id": "z"})
    register(many)
    with EpisodeWriter(tmp_path, "Many", provenance={"environment": many.spec()}) as writer:
        writer.append(frames, np.array([199, 0], np.uint8), rewards, True)
    assert not verify.verify_game(tmp_path, "Many").problems
    # Written by somebody who didn't say what the game is, but in the provenance.
    forget(monkeypatch)
    with EpisodeWriter(tmp_path / "odd", "Fresh", provenance={"environment": FRESH.spec()}) as writer:
        writer.append(frames, np.array([5, 0], np.uint8), rewards, True)
    with pytest.raises(UserError, match="1 problem in Fresh"):
        verify.main(verify.VerifyConfig(str(tmp_path / "odd")))
    assert "action 5 at row 0 is none of Fresh's" in capsys.readouterr().out


def test_an_agent_knows_its_games_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    game = recorded(tmp_path / "data")
    agent = saved_agent(tmp_path / "agent", tmp_path / "data")
    description = json.loads((agent / DESCRIPTION).read_text(encoding="utf-8"))
    assert description["environments"] == [one.spec() for one in games.registered()]
    forget(monkeypatch)
    assert load_agent(agent).model.config.tasks == 61 and task_id(game) == 60
    forget(monkeypatch)
    register(FRESH)
    with pytest.raises(UserError, match=r"disagree about a task row: here it is Fresh's"):
        load_agent(agent)


def test_agents_of_the_sixty_games_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(FRESH)
    save_agent(tmp_path, Tokenizer(TOKENIZER).eval(), small_model().eval(), {})
    description = json.loads((tmp_path / DESCRIPTION).read_text(encoding="utf-8"))
    assert description["environments"] == []
    # As agents were described before there were other games.
    del description["environments"], description["model"]["tasks"], description["model"]["actions"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    forget(monkeypatch)
    assert asdict(load_agent(tmp_path).model.config) == asdict(replace(MODEL, tasks=60, actions=18))


def test_pretraining_evaluation_and_recording_work_by_the_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    game = recorded(data, "steps=120")
    forget(monkeypatch)
    given = ["+exp=smoke", f"data.path={data}", f"out={run}", "evaluation.every=4", "evaluation.episodes=1"]
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", given))
    forget(monkeypatch)
    given = [f"ckpt={run}", f"games=[{game}]", "episodes=2", "world_model_sequences=8", "film_agent_steps=4"]
    evaluate.main(load_config(evaluate.EvaluateConfig, "evaluate", given))
    results = json.loads((run / "evaluations" / "001" / "results.json").read_text(encoding="utf-8"))
    assert [len(mode["episodes"]) for mode in results["modes"]] == [2, 2, 2] and results["roms"] == {}
    assert results["environments"][game]["environment"]["environment"]["id"] == TOY
    assert results["world_model"][0]["game"] == game and results["data"][game]["episodes"] > 5
    forget(monkeypatch)
    given = [f"game={game}", f"policy={run}", "steps=20", f"out={tmp_path / 'played'}", "device=cpu"]
    record.main(load_config(RecordConfig, "record", given))
    assert EpisodeStore(tmp_path / "played").transitions(game) >= 20
    forget(monkeypatch)
    for start in ("data", "emulator"):
        assert open_dreams(DreamConfig(str(run), game, start=start, device="cpu"), 2).actions == (0, 1, 2)
    with pytest.raises(UserError, match="The model has 3 actions, those of Toy-v0, and Pong has 18 others"):
        open_dreams(DreamConfig(str(run), "Pong", device="cpu"), 2)
    with pytest.raises(UserError, match="The model has 3 actions, those of Toy-v0, and Pong has 18 others"):
        evaluate.main(load_config(evaluate.EvaluateConfig, "evaluate", [f"ckpt={run}", "games=[Pong]"]))


def test_an_agent_whose_package_is_missing_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "data")
    agent = saved_agent(tmp_path / "agent", tmp_path / "data")
    description = json.loads((agent / DESCRIPTION).read_text(encoding="utf-8"))
    description["environments"][0]["environment"]["id"] = "toys_not_there:Toy-v0"
    (agent / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    forget(monkeypatch)
    with pytest.raises(UserError, match="env=toys_not_there:Toy-v0 needs the Python module toys_not_there"):
        evaluate.main(load_config(evaluate.EvaluateConfig, "evaluate", [f"ckpt={agent}", "device=cpu"]))
    assert not (agent / "evaluations").exists()


def test_an_environment_from_a_package_end_to_end(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minigrid")
    data = tmp_path / "data"
    given = "environment.observation=render", "environment.kwargs={max_steps: 20}"
    game = recorded(data, *given, env="minigrid:MiniGrid-Empty-5x5-v0")
    assert game == "MiniGrid-Empty-5x5-v0" and games.num_actions(game) == 7
    store = EpisodeStore(data)
    assert set(store.parts(game)[0].provenance["versions"]) == {"gymnasium", "minigrid"}
    assert len(np.unique(store.read_frames(game, np.arange(20)), axis=0)) > 3
    forget(monkeypatch)
    agent = finetune_run(data, tmp_path / "agent", smoke_run, f"game={game}")
    forget(monkeypatch)
    given = [f"ckpt={agent}", "episodes=1", "device=cpu", "planner=beam", "film_agent_steps=4"]
    evaluate.main(load_config(evaluate.EvaluateConfig, "evaluate", given))
    results = json.loads((agent / "evaluations" / "001" / "results.json").read_text(encoding="utf-8"))
    assert [mode["episodes"][0]["agent_steps"] <= 20 for mode in results["modes"]] == [True] * 3
    forget(monkeypatch)
    with pytest.raises(UserError, match=r"image uint8 \(7, 7, 3\).*environment\.observation=render"):
        register_environment("minigrid:MiniGrid-Empty-5x5-v0", EnvironmentConfig())
