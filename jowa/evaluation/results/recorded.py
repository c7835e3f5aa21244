"""Recorded episodes of the games that are evaluated: their scores, and what the agent knows of those held out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split
from jowa.data.store import EpisodeStore, has_episodes
from jowa.errors import UserError
from jowa.evaluation.diagnostics.discounts import Discount
from jowa.evaluation.diagnostics.held_out import HeldOut, look_at
from jowa.evaluation.results.results import DataScore
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.models.agent_files import Agent


def open_recorded(data: str | None, agent: Agent, games: tuple[str, ...]) -> EpisodeStore | None:
    """The recorded data of the games played, as far as they are there: in `data`, or where the agent was trained.

    Raises UserError when `data` names a folder that has none of them, or when data are damaged.
    """
    recorded = data or agent.description["data"]
    if recorded is None:
        return None
    path = Path(recorded)
    found = [game for game in games if has_episodes(path, game)]
    if not found and data is not None:
        raise UserError(f"data={data} holds no episodes of {', '.join(games)}: set data to another folder.")
    return EpisodeStore(path, found) if found else None


def data_scores(store: EpisodeStore | None) -> dict[str, DataScore]:
    """What was recorded of each game, by whoever played it."""
    if store is None:
        return {}
    tables = {game: store.tables[game].returns for game in store.games}
    return {game: DataScore(len(r), float(np.mean(r)), float(np.max(r))) for game, r in tables.items()}


def held_out_evidence(
    agent: Agent, store: EpisodeStore | None, sequences: int, bootstrap: BootstrapConfig, gammas: Mapping[str, Discount]
) -> HeldOut:
    """What the agent knows of `sequences` of held-out episodes; nothing where there are none."""
    holdout = agent.description["holdout"]
    if store is None or sequences < 1 or holdout == 0:
        return HeldOut()
    # Of a published agent nobody knows what it was trained on; the results say so.
    split: Split = "all" if holdout is None else "held_out"
    length = agent.model.config.blocks
    data = SequenceDataset(store, split=split, holdout=holdout or 0.0, length=length, stride=length)
    if not len(data):
        return HeldOut()
    return look_at(data, agent, sequences, bootstrap, gammas)
