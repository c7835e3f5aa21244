"""Room for games that a model wasn't made for: further task rows, another set of actions."""

from __future__ import annotations

from dataclasses import replace

import torch

from jowa.games import action_set, num_actions
from jowa.models.world_action_model import WorldActionModel

_TASK_TABLES = ("code_task_embedding.weight", "action_task_embedding.weight")
_ACTION_TABLES = (
    "action_embedding.weight", "q_networks.weight3", "q_networks.bias3", "q_target.weight3", "q_target.bias3",
)  # fmt: skip


@torch.no_grad()
def with_room(model: WorldActionModel, tasks: int, actions_of: str | None = None) -> WorldActionModel:
    """The same model with at least so many task rows, in the mode (train or eval) it is in.

    Args:
        model: which may be used up by this.
        tasks: task rows wanted; further ones begin at random, as those of an untrained model do.
        actions_of: the game whose set of actions takes the place of the model's, their embeddings and the Q networks'
            outputs beginning at random; None keeps the model's.

    Returns:
        The model itself where nothing is to be changed.
    """
    config = replace(model.config, tasks=max(tasks, model.config.tasks))
    if actions_of is not None:
        config = replace(config, actions=num_actions(actions_of), action_set=action_set(actions_of))
    elif config == model.config:
        return model
    grown = WorldActionModel(config, model.vocabulary, model.tokens_per_frame)
    fresh, state = grown.state_dict(), model.state_dict()
    for name in _TASK_TABLES:
        if name in state:
            state[name] = torch.cat([state[name], fresh[name][len(state[name]) :]])
    if actions_of is not None:
        state |= {name: fresh[name] for name in _ACTION_TABLES}
    grown.load_state_dict(state)
    return grown.to(model.device).train(model.training)
