"""Dreams that go on: where they start, and that a step is the tree dream's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from small_dreamer import dreamer

import jowa.dreaming.starts
from jowa.data.split import held_out_episodes
from jowa.data.store import EpisodeStore
from jowa.dreaming.dreams import Dreams
from jowa.dreaming.starts import EmulatorStarts, RecordedStarts, Start
from jowa.envs.protocol import ProtocolConfig
from jowa.envs.single import SingleAtari, SingleStep
from jowa.games import legal_actions, task_id
from jowa.planning.dream import Context
from jowa.planning.tree_dream import TreeDream

LEGAL = legal_actions("Pong")


class Given:
    """Starts that are handed out in turn."""

    def __init__(self, starts: list[Start]) -> None:
        self._left = list(starts)

    def draw(self, random: np.random.Generator) -> Start:
        return self._left.pop(0)


def test_a_step_is_the_tree_dreams_on_the_last_frames() -> None:
    tokenizer, model = dreamer()
    random, lengths, context = np.random.default_rng(1), (1, 3, 2), 3
    starts = [
        Start(random.integers(0, 256, (n, 84, 84)).astype(np.uint8), random.integers(0, 18, n - 1)) for n in lengths
    ]
    dreams = Dreams(tokenizer, model, Given(starts), "Pong", 3, context)
    dreams.begin(range(3), [random] * 3)
    codes = [tokenizer.encode(torch.from_numpy(start.frames[:, None])) for start in starts]
    played = [start.actions.tolist() for start in starts]
    assert np.array_equal(dreams.codes(), np.stack([own[-1] for own in codes]))
    dream, seen = TreeDream(model), []
    for _ in range(6):
        choices = random.integers(0, len(LEGAL), 3)
        dreamed = dreams.step(choices)
        for n, choice in enumerate(choices):
            given = torch.tensor([[*played[n], 0]])[:, -context:]
            last = codes[n][None, -context:]
            root = dream.reset(Context(last, given, torch.tensor([last.shape[1]]), torch.tensor([task_id("Pong")])), 1)
            node = dream.expand(root.ids, torch.tensor([[LEGAL[choice]]]))
            codes[n] = torch.cat((codes[n], dream.codes(node.ids)[0]))
            played[n].append(LEGAL[choice])
            assert np.array_equal(dreams.codes()[n], codes[n][-1])
            assert (dreamed.rewards[n], dreamed.ended[n]) == (node.reward.item(), node.continuation.item() == 0)
            seen.append((dreamed.rewards[n], dreamed.ended[n]))
        decoded = tokenizer.decode(torch.stack([own[-1] for own in codes]))[:, 0] * 255
        assert np.abs(dreams.frames() - decoded.numpy()).max() <= 0.51, "to the nearest grey"
    assert len(set(seen)) > 1 and len({tuple(own[-1].tolist()) for own in codes}) == 3, "else this shows little"


def test_recorded_starts_are_the_steps_of_held_out_episodes(tiny_data: Path) -> None:
    store = EpisodeStore(tiny_data, ["Pong"])
    table, columns = store.tables["Pong"], store.read("Pong", np.arange(store.transitions("Pong")))
    held_out = np.flatnonzero(held_out_episodes("Pong", store.episode_names("Pong"), 0.3))
    assert 0 < len(held_out) < len(table)
    starts, found, random = RecordedStarts(store, "Pong", 4, "held_out", 0.3), set(), np.random.default_rng(0)
    for _ in range(500):
        start = starts.draw(random)
        assert columns.frames is not None
        (present,) = np.flatnonzero((columns.frames == start.frames[-1]).all((1, 2)))
        (episode,) = (e for e in held_out if 0 <= present - table.starts[e] < table.lengths[e])
        first = max(int(table.starts[episode]), int(present) - 3)
        assert np.array_equal(start.frames, columns.frames[first : present + 1])
        assert np.array_equal(start.actions, columns.actions[first:present])
        found.add(int(present))
    assert len(found) == table.lengths[held_out].sum(), "every one of their steps"


class OverAfterTwo:
    """A game that is over with every second step and shows how many steps it has been played for."""

    def __init__(self, game: str, protocol: ProtocolConfig, seed: int) -> None:
        self.legal, self.steps = (0, 1), 0

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.steps = 0
        return np.full((84, 84), 0, np.uint8)

    def step(self, action: int) -> SingleStep:
        self.steps += 1
        return SingleStep(np.full((84, 84), self.steps, np.uint8), 0.0, self.steps == 2, False)


def test_emulator_starts_reach_back_to_no_earlier_game(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jowa.dreaming.starts, "open_single", OverAfterTwo)
    starts, seen = EmulatorStarts("Pong", 5), set()
    for seed in range(20):
        start = starts.draw(np.random.default_rng(seed))
        seen.add((*start.frames[:, 0, 0].tolist(), len(start.actions)))
    assert seen == {(0, 0), (0, 1, 1)}


def test_emulator_starts_are_the_real_game() -> None:
    drawn = [EmulatorStarts("Pong", 3).draw(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert data_equivalence(vars(drawn[0]), vars(drawn[1]), exact=True)
    assert not np.array_equal(drawn[0].frames, drawn[2].frames)
    for start in drawn:
        assert start.frames.shape == (3, 84, 84) and set(start.actions.tolist()) <= set(LEGAL)
    random = np.random.default_rng(0)
    emulator = SingleAtari("Pong", ProtocolConfig(), 0)
    frames = [emulator.reset(int(random.integers(2**31)))]
    actions = random.choice(LEGAL, int(random.integers(101)))
    frames += [emulator.step(int(action)).frame for action in actions]
    assert np.array_equal(drawn[0].frames, frames[-3:]) and np.array_equal(drawn[0].actions, actions[-2:])
