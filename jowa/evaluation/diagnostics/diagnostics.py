"""The world model taken apart on held-out sequences: by horizon, by what it announces, by the codes it is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jowa.data.batch import Batch
from jowa.evaluation.diagnostics.calibration import Calibration, calibration
from jowa.evaluation.diagnostics.codebook import CodebookUse, codebook_use
from jowa.evaluation.diagnostics.horizons import (
    Events,
    GameHorizons,
    context_of,
    count_by_horizon,
    foresee,
    horizon_scores,
    read_events,
)
from jowa.evaluation.diagnostics.world_model import ALL_GAMES, sample
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.games import game_of, num_tasks
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.tree_dream import TreeDream


@dataclass(frozen=True)
class Diagnostics:
    """What held-out sequences say of a world model; in each part all games pooled come first, if there are several.

    `calibration` is given all true frames; `dreamed_calibration` is at the longest dream, whose frames are its own.
    """

    horizons: tuple[GameHorizons, ...]
    calibration: tuple[Calibration, ...]
    dreamed_calibration: tuple[Calibration, ...]
    codebook: tuple[CodebookUse, ...]


class _Announced:
    """Announced probabilities and what happened, step by step."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.floating], ...]] = []

    def add(self, batch: Batch, events: Events, steps: slice) -> None:
        """The valid ones among the `steps` of a batch."""
        valid = batch.valid[:, steps]
        tasks = batch.tasks[:, None].expand(-1, valid.shape[1])
        columns = (
            tasks,
            events.rewards[:, steps],
            batch.rewards[:, steps].sign(),
            events.ends[:, steps],
            batch.ends[:, steps],
        )
        self._parts.append(tuple(column[valid].cpu().numpy() for column in columns))

    def by_game(self, dreamed: int) -> tuple[Calibration, ...]:
        if not sum(len(part[0]) for part in self._parts):
            return ()
        tasks, *columns = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        met = np.unique(tasks).tolist()
        games = [(game_of(task), tasks == task) for task in met]
        pooled = [(ALL_GAMES, np.ones(len(tasks), bool))] if len(met) > 1 else []
        return tuple(
            calibration(game, dreamed, *(column[rows] for column in columns)) for game, rows in (*pooled, *games)
        )


def diagnose(
    model: WorldActionModel, batches: Iterable[Batch], bootstrap: BootstrapConfig, dreamed_sequences: int = 64
) -> Diagnostics:
    """Diagnostics over held-out batches that carry codes; at most `dreamed_sequences` a game are dreamed along.

    Raises:
        ValueError: a batch has no codes, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: call eval() before measuring it")
    context, dream = context_of(model.config.blocks), TreeDream(model)
    taken = np.zeros(num_tasks(), np.int64)
    codes = np.zeros((num_tasks(), model.vocabulary), np.int64)
    counts: dict[int, list[NDArray[np.int64]]] = {}
    announced, dreamed = _Announced(), _Announced()
    for batch in (batch.to(model.device) for batch in batches):
        if batch.codes is None:
            raise ValueError("diagnostics need batches with codes")
        _count_codes(batch, codes)
        announced.add(batch, read_events(model, batch.codes, batch.actions, batch.tasks), slice(None))
        chosen = sample(batch, taken, dreamed_sequences, context + 1)
        if len(chosen):
            foreseen = foresee(dream, model, chosen, context)
            dreamed.add(chosen, foreseen.dreamed_events, slice(-2, -1))
            rows = count_by_horizon(chosen, foreseen, context)
            for task, row in zip(chosen.tasks.tolist(), rows, strict=True):
                counts.setdefault(task, []).append(row)
    by_game = {game_of(task): np.stack(counts[task]) for task in sorted(counts)}
    used = {game_of(task): codes[task] for task in np.flatnonzero(codes.any(1)).tolist()}
    return Diagnostics(
        horizon_scores(by_game, context, bootstrap),
        announced.by_game(0),
        dreamed.by_game(model.config.blocks - context - 1),
        codebook_use(used, model.tokens_per_frame),
    )


def _count_codes(batch: Batch, counts: NDArray[np.int64]) -> None:
    assert batch.codes is not None
    tasks = batch.tasks[:, None].expand_as(batch.valid)[batch.valid].cpu().numpy()
    np.add.at(counts, (tasks[:, None], batch.codes[batch.valid].cpu().numpy()), 1)
