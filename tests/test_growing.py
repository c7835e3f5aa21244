"""Room for further games in a model: what is new begins at random, everything else stays bit for bit."""

from __future__ import annotations

import pytest
import torch

from jowa import games
from jowa.games import CustomGame, register
from jowa.models.growing import with_room
from jowa.models.world_action_model import ModelConfig, WorldActionModel


@pytest.fixture(autouse=True)
def no_games(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "_registered", {})


ACTIONS_ONLY = {"action_embedding.weight", "q_networks.weight3", "q_networks.bias3", "q_target.weight3",
                "q_target.bias3"}  # fmt: skip


def model(q_loss: str = "c51", task_embedding: bool = True) -> WorldActionModel:
    torch.manual_seed(0)
    config = ModelConfig("t", 1, 1, 8, 2, 4, q_loss, task_embedding=task_embedding)
    return WorldActionModel(config, vocabulary=8, tokens_per_frame=4).eval()


@pytest.mark.parametrize("q_loss", ["c51", "mse"])
@pytest.mark.parametrize("fresh", [None, 5, 18, 30])
@pytest.mark.parametrize("tasks", [60, 62])
def test_only_what_is_new_begins_at_random(q_loss: str, fresh: int | None, tasks: int) -> None:
    old = model(q_loss)
    before = {name: tensor.clone() for name, tensor in old.state_dict().items()}
    if fresh:
        register(CustomGame("New", tuple(range(fresh)), fresh, {"actions": "fresh"}))
    grown = with_room(old, tasks, "New" if fresh else None)
    assert (grown.config.tasks, grown.config.actions) == (tasks, fresh or 18) and not grown.training
    assert grown.config.action_set == ("New" if fresh else "ALE")
    for name, tensor in grown.state_dict().items():
        if "task_embedding" in name:
            assert tensor.shape[0] == tasks and torch.equal(tensor[:60], before[name])
            assert all(0 < row.std() < 0.06 for row in tensor[60:])
        elif name in ACTIONS_ONLY and fresh is not None:
            assert tensor.shape != before[name].shape or not torch.equal(tensor, before[name]) or not tensor.any()
        else:
            assert torch.equal(tensor, before[name]), name
    targets = {name.removeprefix("q_target."): t for name, t in grown.state_dict().items() if name[:8] == "q_target"}
    assert all(torch.equal(t, grown.state_dict()[f"q_networks.{name}"]) for name, t in targets.items())


def test_without_task_embeddings_and_with_nothing_to_change() -> None:
    bare = model(task_embedding=False)
    assert with_room(bare, 61).code_task_embedding is None
    same = model()
    assert with_room(same, 60) is same and with_room(with_room(same, 62), 61).config.tasks == 62


def test_the_old_games_are_played_as_before() -> None:
    old = model()
    codes, actions, tasks = torch.randint(0, 8, (2, 3, 4)), torch.randint(0, 18, (2, 3)), torch.tensor([3, 40])
    with torch.no_grad():
        wanted = old.q_values(old.hidden(codes, actions, tasks).last_code)
        grown = with_room(old, 63)
        assert torch.equal(grown.q_values(grown.hidden(codes, actions, tasks).last_code), wanted)
