"""Recording agents: what is stored is what was played, and how many play side by side decides nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_environments import FakeEnvironments
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa import pretrain
from jowa.cli import load_config, run
from jowa.data.record import check, main, record
from jowa.data.sources.episode import SourceEpisode
from jowa.data.store import EpisodeStore
from jowa.envs.atari import AtariEnvironments
from jowa.envs.protocol import ProtocolConfig, episode_seed
from jowa.envs.single import SingleAtari
from jowa.errors import UserError
from jowa.evaluation.play.player import Player, agent_player
from jowa.evaluation.play.rollout import Turn, play
from jowa.games import PRETRAINING_GAMES, legal_actions
from jowa.planning.config import PlannerConfig
from jowa.planning.execution import ExecutionConfig
from jowa.recording.config import GAME_SETS, RecordConfig, games_of
from jowa.recording.side_by_side import LEVELS, Share, record_policy, shares
from jowa.training.distribution import choose_device
from jowa.training.starting_point import open_agent

SHORT = ProtocolConfig(max_episode_frames=240)
GREEDY = PlannerConfig("greedy", width=1, horizon=0, context=8)


def config(out: Path, agent: Path, **changes: object) -> RecordConfig:
    wanted = RecordConfig(
        game=["Breakout"], steps=150, policy=str(agent), epsilon=0.3, environments=3, out=str(out), protocol=SHORT,
        device="cpu", threads=1,
    )  # fmt: skip
    return replace(wanted, **changes)


def contents(out: Path, game: str) -> list[np.ndarray]:
    store = EpisodeStore(out, [game])
    rows = store.read(game, np.arange(store.transitions(game)))
    table = store.tables[game]
    return [rows.frames, rows.actions, rows.rewards, rows.ends, table.starts, [info["seed"] for info in table.info]]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_replaying_the_stored_actions_gives_the_stored_rows(smoke_run: Path, tmp_path: Path) -> None:
    (recorded,) = record(config(tmp_path, smoke_run))
    store = EpisodeStore(tmp_path)
    table = store.tables["Breakout"]
    rows = store.read("Breakout", np.arange(store.transitions("Breakout")))
    assert recorded.transitions == len(rows.actions) and recorded.episodes == len(table) == 3, "60 steps each"
    for start, length, terminated, info in zip(table.starts, table.lengths, table.terminated, table.info, strict=True):
        env = SingleAtari("Breakout", SHORT, info["seed"])
        frame = env.reset()
        for row in range(start, start + length):
            assert np.array_equal(frame, rows.frames[row])
            step = env.step(int(rows.actions[row]))
            assert step.reward == rows.rewards[row] and step.terminated == rows.ends[row]
            frame = step.frame
        assert step.terminated == terminated and (step.terminated or step.truncated)
    assert len(set(rows.actions)) > 1 and set(rows.actions) <= set(legal_actions("Breakout"))


class Watched:
    """Remembers what the only environment showed and was given."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.frames: list[np.ndarray] = []
        self.actions: list[int] = []

    def act(self, turn: Turn) -> np.ndarray:
        self.frames.append(turn.frames[0].copy())
        return self.player.act(turn)

    def record(self, actions: np.ndarray) -> None:
        self.actions.append(int(actions[0]))
        self.player.record(actions)


@pytest.mark.parametrize("planner", [GREEDY, PlannerConfig("beam", width=2, horizon=1, context=2)])
def test_without_chance_it_plays_as_in_an_evaluation(smoke_run: Path, tmp_path: Path, planner: PlannerConfig) -> None:
    protocol = ProtocolConfig(max_episode_frames=80)
    record(config(tmp_path, smoke_run, steps=1, epsilon=0.0, planner=planner, protocol=protocol))
    frames, actions, rewards, _, _, seeds = contents(tmp_path, "Breakout")
    environments = AtariEnvironments(["Breakout"], protocol, [0])
    agent, cpu = open_agent(str(smoke_run)).agent, choose_device("cpu", "device")
    player = agent_player(agent, planner, ExecutionConfig(), environments, cpu)
    watched = Watched(player)
    rollout = play(environments, watched, {"Breakout": seeds}, mode="test")
    assert len(seeds) == 1 and rollout.episodes[0].agent_steps == len(actions) == 20
    assert same([np.array(watched.frames), np.array(watched.actions)], [frames, actions])
    assert rollout.episodes[0].episode_return == rewards.sum()
    environments.close()


@pytest.mark.parametrize("schedule", ["constant", "rising"])
def test_company_workers_and_numbers_decide_nothing_but_the_seed(
    smoke_run: Path, tmp_path: Path, schedule: str
) -> None:
    protocol = ProtocolConfig(max_episode_frames=40, repeat_action_probability=0.25)
    alone = config(tmp_path / "a", smoke_run, steps=35, environments=1, schedule=schedule, protocol=protocol)
    record(alone)
    record(replace(alone, out=str(tmp_path / "b"), environments=5, game=["Boxing", "Breakout"]))
    record(replace(alone, out=str(tmp_path / "c"), seed=1))
    first, second, third = (contents(tmp_path / out, "Breakout") for out in "abc")
    assert same(first, second) and not same(first, third)
    if schedule == "constant":
        record(replace(alone, out=str(tmp_path / "d"), environments=2, game=["Boxing", "Breakout"], workers=2))
        assert same(contents(tmp_path / "d", "Boxing"), contents(tmp_path / "b", "Boxing"))
        assert same(contents(tmp_path / "d", "Breakout"), first)


def test_appending_goes_on_with_other_episodes(smoke_run: Path, tmp_path: Path) -> None:
    record(config(tmp_path, smoke_run))
    again = config(tmp_path, smoke_run, append=True)
    check(again)
    record(again)
    seeds = contents(tmp_path, "Breakout")[-1]
    assert len(set(seeds)) == 6
    sticky = replace(again, protocol=ProtocolConfig(repeat_action_probability=0.25, max_episode_frames=240))
    with pytest.raises(UserError, match="sticky"):
        check(sticky)
    check(replace(sticky, allow_mixed=True))


def test_manifest_and_facts(smoke_run: Path, tmp_path: Path) -> None:
    protocol = ProtocolConfig(repeat_action_probability=0.25, max_episode_frames=80)
    wanted = config(tmp_path, smoke_run, schedule="rising", steps=200, epsilon=0.1, protocol=protocol)
    record(wanted)
    store = EpisodeStore(tmp_path)
    facts = store.parts("Breakout")[0].provenance
    assert facts["policy"] == "jowa" and facts["agent"] == str(open_agent(str(smoke_run)).checkpoint)
    assert facts["planner"]["name"] == "greedy" and facts["schedule"] == "rising" and facts["sticky"] is True
    table = store.tables["Breakout"]
    epsilons = [info["epsilon"] for info in table.info]
    assert epsilons == [pytest.approx(1 - 0.1 * level) for level in range(10)], "twenty steps make an episode"
    assert [info["raw_return"] for info in table.info] == table.returns.tolist()
    assert {info["policy"] for info in table.info} == {"jowa"}


class Constant:
    """Always plays one action; looks at nothing, and notes what it is told."""

    def __init__(self, count: int, action: int) -> None:
        self.actions = np.full(count, action, np.int64)
        self.told: list[list[int]] = []

    def act(self, turn: Turn) -> np.ndarray:
        return self.actions

    def record(self, actions: np.ndarray) -> None:
        self.told.append(actions.tolist())


def recorded_from_toys(games: list[str], wanted: dict[str, list[Share]]) -> tuple[dict[str, list[SourceEpisode]], int]:
    """What is stored of toy games, and what the progress bar was told."""
    stored: dict[str, list[SourceEpisode]] = {game: [] for game in wanted}
    told: list[int] = []
    stores = {game: episodes.append for game, episodes in stored.items()}
    record_policy(FakeEnvironments(games), Constant(len(games), 1), wanted, stores, told.append)
    assert min(told) >= 0
    return stored, sum(told)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 90),
    st.integers(0, 99),
    st.sampled_from(["constant", "rising"]),
)
def test_as_many_episodes_as_it_takes_in_their_order(
    pongs: int, boxings: int, steps: int, seed: int, schedule: str
) -> None:
    wanted = {"Pong": shares(steps, seed, schedule, 0.2), "Boxing": shares(50, seed + 1, "constant", 0.0)}
    stored, told = recorded_from_toys(["Pong"] * pongs + ["Boxing"] * boxings, wanted)
    assert told == sum(share.steps for parts in wanted.values() for share in parts)
    for game, parts in wanted.items():
        expected = []
        for share in parts:
            played, number = 0, 0
            while played < share.steps:
                expected.append((episode_seed(share.seed, number), share.epsilon))
                played += 3 + expected[-1][0] % 5
                number += 1
        assert [(one.info["seed"], one.info["epsilon"]) for one in stored[game]] == expected
        for one in stored[game]:
            length = 3 + one.info["seed"] % 5
            assert one.frames[:, 0, 0].tolist() == list(range(length)), "the frame after the last action isn't stored"
            assert set(one.frames[:, 0, 2]) == {one.info["seed"] % 256}
            assert one.rewards.tolist() == (one.actions + 1).tolist() and one.terminated


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_chance_plays_the_share_it_is_given(epsilon: float) -> None:
    stored, _ = recorded_from_toys(["Pong"] * 20, {"Pong": shares(6000, 0, "constant", epsilon)})
    played = np.concatenate([one.actions for one in stored["Pong"]])
    assert np.mean(played != 1) == pytest.approx(epsilon * 17 / 18, abs=0.02)
    assert len(set(played)) == (1 if epsilon == 0 else 18)


def test_the_policy_is_told_what_was_played_in_its_place() -> None:
    environments, policy, stored = FakeEnvironments(["Pong"]), Constant(1, 1), []
    wanted = {"Pong": shares(200, 0, "constant", 0.5)}
    record_policy(environments, policy, wanted, {"Pong": stored.append}, lambda steps: None)
    played = np.concatenate([one.actions for one in stored]).tolist()
    assert [actions for (actions,) in policy.told] == environments.played[0] == played


def test_quality_rises_in_equal_stairs() -> None:
    parts = shares(1001, 0, "rising", 0.1)
    assert len(parts) == LEVELS and {share.steps for share in parts} == {101}
    assert [share.epsilon for share in parts] == pytest.approx(np.linspace(1, 0.1, LEVELS))
    assert len({share.seed for share in parts}) == LEVELS
    assert [share.epsilon for share in shares(1001, 0, "constant", 0.1)] == [0.1]


def test_names_of_several_games() -> None:
    assert games_of(RecordConfig(game="atari15")) == list(PRETRAINING_GAMES)
    assert games_of(RecordConfig(game="Pong")) == ["Pong"]
    assert games_of(RecordConfig(game=["heldout5", "Boxing"])) == [*GAME_SETS["heldout5"], "Boxing"]
    assert len(games_of(RecordConfig(game="all"))) == 60
    for wrong in ([], ["atari15", "Phoenix"], ["Pong", "Pong"], [["Pong"]], None, "atari16"):
        with pytest.raises(UserError, match="game"):
            games_of(RecordConfig(game=wrong))


def test_one_command_records_what_the_papers_preset_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["game=atari15", "policy=lookahead", "steps=3", f"out={tmp_path}", "protocol.max_episode_frames=12"]
    main(load_config(RecordConfig, "record", line))
    assert capsys.readouterr().out.count("\n") == 16
    plan = ["+exp=atari15", "model=nano", f"data.path={tmp_path}", "dry_run=true"]
    pretrain.main(load_config(pretrain.PretrainConfig, "pretrain", plan))
    text = capsys.readouterr().out
    assert text.count(" found: ") == 15 and "missing" not in text


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run the command line and return the one sentence it ends with, nothing being written."""

    def refused(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["record", f"out={tmp_path / 'out'}", "game=Pong", "device=cpu", *arguments])
        with pytest.raises(SystemExit) as end:
            run(main, RecordConfig, "record")
        errors = capsys.readouterr().err
        assert end.value.code == 2 and errors.startswith("jowa: ") and errors.count("\n") == 1, errors
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        return errors

    return refused


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("policy=lokahead", ("'lokahead'", "'policy'", "did you mean 'lookahead'?")),
        ("policy=", ("Unknown policy ''", "choose among random")),
        ("policy=mixture", ("did you mean 'mix'?",)),
        ("policy=xyzw", ("choose among random", "sb3", "JOWA")),
        ("policy=runs/none", ("no agent in", "runs/none")),
        ("policy=none.pt", ("no agent in", "none.pt")),
        ("policy=lookahead schedule=falling", ("'falling'", "'schedule'", "constant, rising")),
        ("policy=random schedule=rising", ("policy=random", "schedule at constant")),
        ("policy=mix epsilon=0.1", ("policy=mix", "epsilon at 0")),
        ("policy={run} planner=beam planner.horizon=8", ("planner.horizon=8 leaves no context",)),
        ("policy={run} execution.draft_rows=-2", ("execution.draft_rows",)),
        ("policy={run} planner=published", ("planner=published has no settings for Pong",)),
        ("policy={run} environments=0", ("environments must be at least 1",)),
        ("policy={run} device=tpu", ("device=tpu",)),
        ("policy={run} threads=0", ("threads",)),
        ("policy=sb3 sb3.algorithm=A2C", ("sb3.algorithm=A2C", "DQN or PPO")),
        ("policy=sb3 sb3.buffer=0", ("sb3.buffer",)),
        ("policy=sb3 schedule=rising", ("policy=sb3", "schedule at constant")),
        ("policy=sb3 resume=true", ("can't be resumed", "resume")),
        ("policy=sb3 steps=1 environments=1", ("steps must be at least 2 to train in 1 environments",)),
        ("policy=sb3 steps=15 sb3.algorithm=PPO", ("steps must be at least 16",)),
        ("policy=sb3 sb3.buffer=15", ("sb3.buffer must be at least 16",)),
        ("out=", ("out must name a folder",)),
        ("policy=sb3 sb3.load=nowhere.zip", ("no file nowhere.zip", "sb3.load")),
    ],
)
def test_mistakes_are_one_sentence(
    line: str, words: tuple[str, ...], refused: Callable[..., str], smoke_run: Path
) -> None:
    if line.startswith("policy=sb3"):
        pytest.importorskip("stable_baselines3")
    errors = refused(*line.format(run=smoke_run).split(" "))
    for word in words:
        assert word in errors


def test_without_stable_baselines3_there_is_a_sentence(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    assert "pip install 'jowa[sb3]'" in refused("policy=sb3")
