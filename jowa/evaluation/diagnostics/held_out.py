"""What an evaluation learns from recorded episodes that didn't train the agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from jowa.data.batch import Batch
from jowa.data.sequences import SequenceDataset
from jowa.data.store import EpisodeStore
from jowa.evaluation.diagnostics.diagnostics import Diagnostics, diagnose
from jowa.evaluation.diagnostics.discounts import Discount
from jowa.evaluation.diagnostics.q_calibration import RECORDED, Floats, QCalibration, q_calibration, realised_returns
from jowa.evaluation.diagnostics.world_model import WorldModelEvidence, measure_world_model
from jowa.evaluation.statistics.scores import BootstrapConfig
from jowa.models.agent_files import Agent
from jowa.models.world_action_model import WorldActionModel

_BATCH = 32
_LEAST_DREAMED = 64
"""Sequences a game that are dreamed along, as far as there are so many; else a quarter of those measured."""
_GAMES_PICTURED, _PICTURES_EACH, _CANDIDATES = 6, 2, 48


@dataclass(frozen=True)
class HeldOut:
    """All of it; `pictured` are a few sequences with frames, in which something happens."""

    world_model: tuple[WorldModelEvidence, ...] = ()
    diagnostics: Diagnostics | None = None
    q_calibration: tuple[QCalibration, ...] = ()
    pictured: Batch | None = None


def look_at(
    data: SequenceDataset, agent: Agent, sequences: int, bootstrap: BootstrapConfig, gammas: Mapping[str, Discount]
) -> HeldOut:
    """Measures the agent on so many of the data's sequences, evenly spread over it.

    gammas: each game's discount an agent step.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, min(sequences, len(data))).astype(np.int64))
    chosen = np.random.default_rng(0).permutation(chosen)
    batches = [encode(data.batch(chosen[start : start + _BATCH]), agent) for start in range(0, len(chosen), _BATCH)]
    pictured = eventful_sequences(data)
    return HeldOut(
        measure_world_model(agent.model, batches),
        diagnose(agent.model, batches, bootstrap, max(_LEAST_DREAMED, sequences // 4)),
        recorded_q(agent.model, data, chosen, batches, gammas),
        data.batch(pictured) if len(pictured) else None,
    )


def encode(batch: Batch, agent: Agent) -> Batch:
    """The batch on the agent's device, with codes in the place of its frames."""
    batch = batch.to(agent.model.device)
    assert batch.frames is not None, "without a code cache batches carry frames"
    codes = agent.tokenizer.encode(batch.frames.flatten(0, 1))
    return replace(batch, frames=None, codes=codes.view(*batch.actions.shape, -1))


@torch.inference_mode()
def recorded_q(
    model: WorldActionModel, data: SequenceDataset, chosen: NDArray[np.int64], batches: Sequence[Batch],
    gammas: Mapping[str, Discount],
) -> tuple[QCalibration, ...]:  # fmt: skip
    """Q of the recorded actions in the sequences `chosen`, which are encoded in `batches`, and what followed."""
    parts: dict[str, list[tuple[Floats, Floats, NDArray[np.bool_]]]] = {game: [] for game in data.games}
    returns: dict[tuple[str, int], tuple[Floats, NDArray[np.bool_]]] = {}
    places = iter(data.coordinates(chosen))
    numbers = {game: {name: n for n, name in enumerate(data.store.episode_names(game))} for game in data.games}
    for batch in batches:
        assert batch.codes is not None
        values = model.q_values(model.hidden(batch.codes, batch.actions, batch.tasks).last_code)
        taken = values.gather(2, batch.actions[..., None])[..., 0].cpu().numpy()
        for q, valid, place in zip(taken, batch.valid.cpu().numpy(), places, strict=False):
            game, steps = place["game"], slice(place["first_step"], place["last_step"] + 1)
            episode = game, numbers[game][place["episode"]]
            if episode not in returns:
                returns[episode] = _episode_returns(data.store, *episode, gammas[game].gamma)
            realised, complete = returns[episode]
            parts[game].append((q[valid].astype(np.float64), realised[steps], complete[steps]))
    met = {game: sum(name == game for name, _ in returns) for game in data.games}
    return tuple(
        q_calibration(game, RECORDED, gammas[game], met[game], None, *map(np.concatenate, zip(*own, strict=True)))
        for game, own in parts.items()
        if own
    )


def _episode_returns(store: EpisodeStore, game: str, episode: int, gamma: float) -> tuple[Floats, NDArray[np.bool_]]:
    table = store.tables[game]
    rows = slice(int(table.starts[episode]), int(table.starts[episode] + table.lengths[episode]))
    return realised_returns(store.column(game, "rewards")[rows], bool(store.column(game, "ends")[rows][-1]), gamma)


def eventful_sequences(data: SequenceDataset) -> NDArray[np.int64]:
    """Sequences without padding of the first few games in which something happens in the second half.

    Those with a reward or an end there come first, then those that move most, of some spread evenly over each game.
    """
    chosen: list[int] = []
    first = 0
    for count in list(data.counts.values())[:_GAMES_PICTURED]:
        candidates = np.unique(np.linspace(first, first + count - 1, min(count, _CANDIDATES)).astype(np.int64))
        first += count
        batch = data.batch(candidates)
        assert batch.frames is not None
        half = batch.valid.shape[1] // 2
        events = ((batch.rewards != 0) | batch.ends)[:, half - 1 : -1].any(1)
        moves = (batch.frames[:, 1:].float() - batch.frames[:, :-1].float()).abs().mean((1, 2, 3, 4))
        worth = (events * 1000 + moves).masked_fill(~batch.valid.all(1), -1.0)
        best = worth.argsort(descending=True, stable=True)[:_PICTURES_EACH]
        chosen += candidates[best[worth[best] >= 0].numpy()].tolist()
    return np.array(chosen, dtype=np.int64)
