"""The player's memory: what a planner is given equals a plain history kept environment by environment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fake_environments import FakeEnvironments
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jowa.evaluation.play.player import Player, RandomPlayer
from jowa.evaluation.play.rollout import Turn, play
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.world_action_model import ModelConfig, WorldActionModel
from jowa.planning.config import PlannerConfig
from jowa.planning.dream import Context
from jowa.planning.making import make_planner
from jowa.planning.planner import Plan
from jowa.planning.tree_dream import TreeDream


class PixelTokenizer:
    """Codes are the first three pixels: step, environment, seed. Counts the frames it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, frames: Tensor) -> Tensor:
        assert frames.dtype == torch.uint8 and frames.shape[1:] == (1, 84, 84)
        self.encoded += len(frames)
        return frames[:, 0, 0, :3].long()


class Notebook:
    """A planner that chooses by step and environment and keeps what it was given."""

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.legal: list[Tensor] = []

    def plan(self, dream: object, context: Context, legal: Tensor) -> Plan:
        self.contexts.append(context)
        self.legal.append(legal)
        present = context.codes[torch.arange(len(context.tasks)), context.lengths - 1]
        actions = (present[:, 0] * 3 + present[:, 1]) % 18
        empty = torch.zeros(len(actions), 1)
        first = actions[:, None]
        return Plan(actions, empty, empty, first, first[:, :, None], *[empty[:, :, None]] * 3)


class History:
    """The specification: Python lists, one environment at a time."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.codes, self.actions = capacity, [], []

    def see(self, code: Sequence[int], begins: bool) -> None:
        if begins:
            self.codes, self.actions = [], []
        self.codes, self.actions = (
            [*self.codes, list(code)][-self.capacity :],
            self.actions[-(self.capacity - 1) or 9**9 :],
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.sampled_from([0.0, 0.4]))
def test_contexts_equal_plain_histories(count, capacity, episodes, probability):
    environments = FakeEnvironments(["Pong"] * count)
    tokenizer, planner = PixelTokenizer(), Notebook()
    player = Player(tokenizer, None, planner, capacity, environments.tasks, environments.legal)
    histories = [History(capacity) for _ in range(count)]
    seen: list[tuple[list[int], list[tuple[list, list]]]] = []

    class Watched:
        """The player, with the plain histories kept beside it."""

        def act(self, turn: Turn) -> np.ndarray:
            rows = np.flatnonzero(turn.playing).tolist()
            for row in rows:
                histories[row].see(turn.frames[row, 0, :3].tolist(), bool(turn.begins[row]))
            seen.append((rows, [(list(histories[row].codes), list(histories[row].actions)) for row in rows]))
            return player.act(turn)

        def record(self, actions: np.ndarray) -> None:
            for row in seen[-1][0]:
                histories[row].actions.append(int(actions[row]))
            player.record(actions)

    rollout = play(
        environments, Watched(), {"Pong": range(episodes)}, mode="test", random_action_probability=probability
    )
    assert tokenizer.encoded == rollout.decisions, "each screen is encoded once"
    for (rows, expected), context in zip(seen, planner.contexts, strict=True):
        assert context.tasks.tolist() == rows and len(context.codes) == len(rows)
        for n, (codes, actions) in enumerate(expected):
            length = int(context.lengths[n])
            assert length == min(len(codes), capacity)
            assert context.codes[n, :length].tolist() == codes
            assert context.actions[n, : length - 1].tolist() == actions[len(actions) - (length - 1) :]


def test_environments_that_idle_are_neither_encoded_nor_planned_for():
    environments = FakeEnvironments(["Pong", "Boxing"])
    tokenizer, planner = PixelTokenizer(), Notebook()
    legal = environments.legal.copy()
    legal[0, 5] = False
    player = Player(tokenizer, None, planner, 4, environments.tasks, legal)
    play(environments, player, {"Pong": [0], "Boxing": [4]}, mode="test")
    assert [len(context.tasks) for context in planner.contexts] == [2, 2, 2, 1, 1, 1, 1]
    assert planner.contexts[-1].tasks.tolist() == [1] and bool(planner.legal[-1].all())
    assert not bool(planner.legal[0][0, 5])


def test_a_context_holds_at_least_the_present_frame():
    with pytest.raises(ValueError, match="context of 0"):
        Player(PixelTokenizer(), None, Notebook(), 0, np.zeros(1, np.int64), np.ones((1, 18), bool))


def small_model() -> tuple[Tokenizer, WorldActionModel]:
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        TokenizerConfig(
            widths=(4, 4, 4), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1), embedding_width=8, vocabulary=32
        )
    )
    torch.nn.init.normal_(tokenizer.embedding.weight)
    model = WorldActionModel(ModelConfig(layers=1, heads=2, width=16, q_networks=1, q_width=16), 32)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return tokenizer.eval(), model.eval()


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_the_real_model_plays_legally_and_the_same_alone_or_beside_others(name):
    tokenizer, model = small_model()
    config = PlannerConfig(name=name, width=2, horizon=1, context=3)
    legal = np.zeros((2, 18), bool)
    legal[0, [0, 1, 3]] = legal[1, [2, 4, 5, 17]] = True

    def played(rows: list[int], seeds: dict[str, list[int]]) -> list[list[int]]:
        games = [("Pong", "Boxing")[row] for row in rows]
        environments = FakeEnvironments(games, legal[rows])
        environments.tasks = np.array([39, 12])[rows]
        noise = np.random.default_rng(1).integers(0, 255, (20, 84, 84), dtype=np.uint8)
        plain = environments._frames
        environments._frames = lambda: noise[plain()[:, 0, 0] + 3 * (environments.tasks == 12)]
        player = Player(
            tokenizer, TreeDream(model), make_planner(config), config.context, environments.tasks, legal[rows]
        )
        play(environments, player, seeds, mode="test")
        return environments.played

    together = played([0, 1], {"Pong": [4], "Boxing": [4]})
    assert together[0] == played([0], {"Pong": [4]})[0] and together[1] == played([1], {"Boxing": [4]})[0]
    assert all(legal[row, actions].all() for row, actions in enumerate(together))
    assert len({*together[0], *together[1]}) > 2, "its choices follow the screen"


def test_random_players_play_every_legal_action_evenly():
    legal = np.zeros((1, 18), bool)
    legal[0, [1, 7, 11]] = True
    player = RandomPlayer(legal)
    turns = [
        Turn(np.zeros((1, 84, 84), np.uint8), np.array([step == 0]), np.array([True]), np.array([3]), np.array([step]))
        for step in range(3000)
    ]
    actions = [int(player.act(turn)[0]) for turn in turns]
    assert set(actions) == {1, 7, 11} and min(actions.count(a) for a in (1, 7, 11)) > 900
