"""A game's task row: what the model adds to every token to say which game it plays (paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from jowa.models.world_action_model import WorldActionModel


@torch.no_grad()
def start_task_row(model: WorldActionModel, task: int, sources: Sequence[int]) -> None:
    """Set the rows of task id `task` to the mean of those of `sources`, if the model has task embeddings.

    One source is a copy, and the task itself leaves its rows as they are.
    """
    for table in (model.code_task_embedding, model.action_task_embedding):
        if table is not None:
            table.weight[task] = table.weight[list(sources)].mean(0)
