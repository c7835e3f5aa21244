"""The imagined sequences that are kept: bounded, the newest, and drawn alike by whoever asks."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jowa.data.batch import Batch
from jowa.training.replay import Replay, places_to_draw

CPU = torch.device("cpu")
LENGTH, TOKENS = 8, 36


@settings(max_examples=30, deadline=None)
@given(size=st.integers(3, 9), added=st.lists(st.integers(1, 3), max_size=8))
def test_the_replay_keeps_the_newest(size: int, added: list[int]) -> None:
    replay, kept, number = Replay(size, LENGTH, TOKENS, CPU), deque(maxlen=size), 60_000
    for count in added:
        batch = numbered(range(number, number + count))
        replay.add(batch)
        kept.extend(range(number, number + count))
        number += count
    assert len(replay) == len(kept)
    everything = replay.rows(torch.arange(len(replay)))
    numbers = everything.codes[:, 0, 0].tolist()
    assert sorted(numbers) == sorted(kept)
    expected = numbered(numbers)
    assert all(torch.equal(part, vars(expected)[name]) for name, part in vars(everything).items() if part is not None)
    copy = Replay(size, LENGTH, TOKENS, CPU)
    copy.load_state(replay.state(), replay.added)
    for one in (replay, copy):
        one.add(numbered([7]))
    assert all(torch.equal(part, copy.state()[name]) for name, part in replay.state().items())
    with pytest.raises(ValueError, match="no replay of"):
        copy.load_state(copy.state(), len(copy) - 1)


def numbered(numbers: Any) -> Batch:
    """Sequences that a number tells apart in every part; codes up to 65 535."""
    n = torch.tensor(list(numbers))
    rows = n[:, None].expand(-1, LENGTH)
    return Batch(
        None, rows[:, :, None].expand(-1, -1, TOKENS), rows % 18, (rows % 7).float(), rows % 2 == 0, rows % 3 > 0,
        n % 60, torch.ones_like(n, dtype=torch.bool), rows % 5 > 0,
    )  # fmt: skip


def test_draws_are_uniform_and_repeat_themselves() -> None:
    drawn = Counter(n for step in range(300) for n in places_to_draw(3, "finetune", step, 10, 16).tolist())
    assert set(drawn) == set(range(10)) and max(drawn.values()) < 1.25 * min(drawn.values())
    same = [places_to_draw(*key, 100, 16).tolist() for key in ((3, "a", 5), (3, "a", 5), (3, "a", 6), (4, "a", 5))]
    assert same[0] == same[1] and same[0] != same[2] and same[0] != same[3]
