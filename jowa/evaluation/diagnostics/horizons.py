"""How far ahead the world model can be trusted: dreams along recorded actions, judged step by step.

Each dream starts from the same number of real frames and is told nothing but the recorded actions. Beside it stand the
same predictions made one step ahead, all frames before being the true ones, and copying the last frame given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.data.batch import Batch
from jowa.evaluation.diagnostics.world_model import ALL_GAMES
from jowa.evaluation.statistics.scores import BootstrapConfig, Estimate
from jowa.evaluation.statistics.sequence_bootstrap import Floats, estimated, f1_of, resampled_sums, share_of
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.continuation import free_running, one_step_ahead
from jowa.planning.tree_dream import TreeDream

CONTEXT = 4
"""Real frames given, as far as the model's blocks leave room for a dream."""

_FRAMES, _CODES, _COPY, _CHANGED, _DREAM, _DREAM_CHANGED, _STEP, _STEP_CHANGED = range(8)
_DREAM_REWARD, _STEP_REWARD = slice(8, 17), slice(17, 26)
_DREAM_END, _STEP_END = slice(26, 30), slice(30, 34)
COLUMNS = 34


class Events(NamedTuple):
    """Probabilities at B sequences' actions: rewards (B, L, 3) of the signs −1, 0, 1; ends (B, L) that it ends."""

    rewards: Tensor
    ends: Tensor


class Foreseen(NamedTuple):
    """What a model foresees in B sequences after their first C frames: codes (B, L − C, K), and events (B, L).

    dreamed: from the frames given and its own later ones; one_step: from all true frames before.
    """

    dreamed: Tensor
    one_step: Tensor
    dreamed_events: Events
    true_events: Events


@dataclass(frozen=True)
class Foresight:
    """How well something so many steps ahead is known; None where there was nothing to know.

    The reward's F1 is the mean over those signs that occur.
    """

    accuracy: Estimate | None
    accuracy_on_changed: Estimate | None
    reward_macro_f1: Estimate | None
    termination_f1: Estimate | None


@dataclass(frozen=True)
class HorizonScore:
    """What is known `agent_steps` ahead, in `frames` frames and of `steps` rewards and ends.

    `rewards` of the steps bring one, `ends` end the episode. `copy` is the share of codes that equal the last given
    frame's; `changed` cells are the others, so that copying is never right there.
    """

    agent_steps: int
    frames: int
    steps: int
    rewards: int
    ends: int
    copy: Estimate | None
    changed: Estimate | None
    dream: Foresight
    one_step: Foresight


@dataclass(frozen=True)
class GameHorizons:
    """One game's scores by horizon, or those of all games pooled; `context` real frames were given."""

    game: str
    sequences: int
    context: int
    scores: tuple[HorizonScore, ...]


def context_of(blocks: int) -> int:
    """How many real frames a model that sees so many is given."""
    return min(CONTEXT, blocks - 1)


@torch.inference_mode()
def foresee(dream: TreeDream, model: WorldActionModel, batch: Batch, context: int) -> Foreseen:
    """Lets the model loose on sequences with codes of more than `context` valid steps each."""
    assert batch.codes is not None
    given = batch.codes, batch.actions, batch.tasks
    dreamed = free_running(dream, *given, context)
    imagined = torch.cat((batch.codes[:, :context], dreamed), dim=1)
    return Foreseen(
        dreamed,
        one_step_ahead(dream, *given, context),
        read_events(model, imagined, batch.actions, batch.tasks),
        read_events(model, *given),
    )


@torch.inference_mode()
def read_events(model: WorldActionModel, codes: Tensor, actions: Tensor, tasks: Tensor) -> Events:
    """What the model expects of every action, given the frames (B, L, K) and actions up to it."""
    hidden = model.hidden(codes, actions, tasks).action
    rewards = model.reward_logits(hidden).float().softmax(-1)
    return Events(rewards, model.end_logits(hidden).float().softmax(-1)[..., 1])


def count_by_horizon(batch: Batch, foreseen: Foreseen, context: int) -> NDArray[np.int64]:
    """What is to be counted of each sequence and horizon, (B, H, COLUMNS); padding counts nothing."""
    assert batch.codes is not None
    frames = batch.valid[:, context:, None]
    true, last = batch.codes[:, context:], batch.codes[:, context - 1 : context]
    changed = true != last
    cells = [torch.ones_like(changed), ~changed, changed]
    for predicted in (foreseen.dreamed, foreseen.one_step):
        cells += [predicted == true, (predicted == true) & changed]
    codes = torch.stack([frames[..., 0], *((cell & frames).sum(-1) for cell in cells)], dim=-1)
    # The step to the first frame dreamed is that of the last frame given.
    at = slice(context - 1, -1)
    steps = batch.valid[:, at]
    both = (foreseen.dreamed_events, foreseen.true_events)
    signs, ends = batch.rewards[:, at].sign().long() + 1, batch.ends[:, at].long()
    rewards = [_confusion(signs, events.rewards[:, at].argmax(-1), steps, 3) for events in both]
    ended = [_confusion(ends, (events.ends[:, at] > 0.5).long(), steps, 2) for events in both]
    counts: NDArray[np.int64] = torch.cat([codes, *rewards, *ended], dim=-1).cpu().numpy()
    return counts


def _confusion(actual: Tensor, predicted: Tensor, counted: Tensor, classes: int) -> Tensor:
    """(B, H) each → (B, H, classes²), row by row a table (actual, predicted) of one step."""
    cell = torch.nn.functional.one_hot(actual * classes + predicted, classes**2)
    return cell * counted[..., None]


def horizon_scores(
    counts: Mapping[str, NDArray[np.int64]], context: int, bootstrap: BootstrapConfig
) -> tuple[GameHorizons, ...]:
    """Scores from each game's counts (S, H, COLUMNS): all games pooled first, if several, then each.

    Intervals draw each game's sequences anew.
    """
    scores: list[GameHorizons] = []
    every: tuple[Floats, Floats] | None = None
    for game, own in counts.items():
        sums, resampled = own.sum(0).astype(np.float64), resampled_sums(own, bootstrap, game)
        scores.append(_game(game, len(own), context, sums, resampled, bootstrap.confidence))
        every = (sums, resampled) if every is None else (every[0] + sums, every[1] + resampled)
    if every is not None and len(scores) > 1:
        sequences = sum(map(len, counts.values()))
        scores.insert(0, _game(ALL_GAMES, sequences, context, *every, bootstrap.confidence))
    return tuple(scores)


def _game(name: str, sequences: int, context: int, sums: Floats, resampled: Floats, confidence: float) -> GameHorizons:
    """sums (H, COLUMNS), resampled (R, H, COLUMNS)."""
    rows = (_score(step + 1, sums[step], resampled[:, step], confidence) for step in range(len(sums)))
    return GameHorizons(name, sequences, context, tuple(row for row in rows if row.steps))


def _score(step: int, sums: Floats, resampled: Floats, confidence: float) -> HorizonScore:
    def share(part: int, whole: int = _CODES) -> Estimate | None:
        return estimated(share_of(part, whole), sums, resampled, confidence)

    def f1(confusion: slice, classes: int, labels: tuple[int, ...]) -> Estimate | None:
        return estimated(f1_of(confusion, classes, labels), sums, resampled, confidence)

    reward, end = sums[_STEP_REWARD].reshape(3, 3).sum(1), sums[_STEP_END].reshape(2, 2).sum(1)
    return HorizonScore(
        agent_steps=step,
        frames=int(sums[_FRAMES]),
        steps=int(reward.sum()),
        rewards=int(reward[0] + reward[2]),
        ends=int(end[1]),
        copy=share(_COPY),
        changed=share(_CHANGED),
        dream=Foresight(
            share(_DREAM), share(_DREAM_CHANGED, _CHANGED), f1(_DREAM_REWARD, 3, (0, 2)), f1(_DREAM_END, 2, (1,))
        ),
        one_step=Foresight(
            share(_STEP), share(_STEP_CHANGED, _CHANGED), f1(_STEP_REWARD, 3, (0, 2)), f1(_STEP_END, 2, (1,))
        ),
    )
