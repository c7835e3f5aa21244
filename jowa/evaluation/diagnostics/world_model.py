"""Evidence that the model knows the world: its predictions against held-out episodes, beside the cheapest rival.

Most of a screen stands still, so copying the last frame's codes is already often right: that is the number to beat.
Likewise most steps bring no reward and no end, so these are judged by precision, recall and F1, not by accuracy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jowa.data.batch import Batch
from jowa.games import game_of, num_tasks
from jowa.models.world_action_model import WorldActionModel
from jowa.planning.dream import Context
from jowa.planning.tree_dream import TreeDream

ALL_GAMES = "all games"
_REWARD_SIGNS = (-1, 0, 1)


@dataclass(frozen=True)
class ClassScore:
    """How well one class is found: `positives` steps have it, `predicted` steps were said to have it.

    A share is None where nothing could be counted: recall and F1 without positives, precision without predictions.
    """

    label: str
    positives: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class CodeScore:
    """Shares of codes predicted right in `frames` frames; None where there was nothing to predict.

    `copy` is the share right when the last frame's code in the same cell is repeated. `changed` is the share of cells
    whose code differs from the last frame's, where copying is always wrong; `accuracy_on_changed` is the model's there.
    """

    frames: int
    accuracy: float | None
    copy: float | None
    changed: float | None
    accuracy_on_changed: float | None


@dataclass(frozen=True)
class WorldModelEvidence:
    """One game's evidence, or that of all games pooled; a step is an agent step.

    next_code: one step ahead, every code predicted from the true codes before it, those of its own frame included.
    imagined: one step ahead, the whole frame decoded from the model's own codes, as planning does.
    """

    game: str
    sequences: int
    steps: int
    next_code: CodeScore
    imagined: CodeScore
    reward: tuple[ClassScore, ...]
    reward_macro_f1: float | None
    termination: ClassScore


class _Counts:
    """What is counted, one row a task, so that games and their pool come from the same numbers."""

    def __init__(self, tasks: int, tokens_per_frame: int) -> None:
        self.tokens_per_frame = tokens_per_frame
        self.sequences = np.zeros(tasks, np.int64)
        self.steps = np.zeros(tasks, np.int64)
        self.next_code = np.zeros((tasks, 5), np.int64)
        self.imagined = np.zeros((tasks, 5), np.int64)
        self.reward = np.zeros((tasks, 3, 3), np.int64)
        self.end = np.zeros((tasks, 2, 2), np.int64)

    def evidence(self, rows: list[int], name: str) -> WorldModelEvidence:
        reward = _class_scores(
            self.reward[rows].sum(0), [f"reward {sign:+d}" if sign else "no reward" for sign in _REWARD_SIGNS]
        )
        f1 = [score.f1 for score, sign in zip(reward, _REWARD_SIGNS, strict=True) if sign and score.f1 is not None]
        return WorldModelEvidence(
            game=name,
            sequences=int(self.sequences[rows].sum()),
            steps=int(self.steps[rows].sum()),
            next_code=_code_score(self.next_code[rows].sum(0), self.tokens_per_frame),
            imagined=_code_score(self.imagined[rows].sum(0), self.tokens_per_frame),
            reward=reward,
            reward_macro_f1=float(np.mean(f1)) if f1 else None,
            termination=_class_scores(self.end[rows].sum(0), ["goes on", "episode ends"])[1],
        )


def measure_world_model(
    model: WorldActionModel, batches: Iterable[Batch], imagined_sequences: int = 64
) -> tuple[WorldModelEvidence, ...]:
    """Evidence over held-out batches that carry codes: all games pooled first, then each game met, if several.

    Rewards and ends are read where the action is known, the true history before it. At most `imagined_sequences`
    sequences a game are also decoded freely, one step ahead of the longest context they hold.

    Raises:
        ValueError: a batch has no codes, or the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: call eval() before measuring it")
    counts = _Counts(num_tasks(), model.tokens_per_frame)
    dream = TreeDream(model)
    imagined = np.zeros(num_tasks(), np.int64)
    for batch in batches:
        if batch.codes is None:
            raise ValueError("evidence needs batches with codes")
        batch = batch.to(model.device)
        _count_predictions(model, batch, counts)
        _count_imagined(dream, sample(batch, imagined, imagined_sequences), counts)
    met = np.flatnonzero(counts.sequences).tolist()
    pooled = counts.evidence(met, ALL_GAMES)
    if len(met) == 1:
        return (counts.evidence(met, game_of(met[0])),)
    return (pooled, *(counts.evidence([task], game_of(task)) for task in met))


@torch.no_grad()
def _count_predictions(model: WorldActionModel, batch: Batch, counts: _Counts) -> None:
    """Teacher-forced predictions: codes one step ahead, rewards and ends."""
    assert batch.codes is not None
    tasks = batch.tasks.cpu().numpy()
    hidden = model.hidden(batch.codes, batch.actions, batch.tasks)
    real = batch.valid[:, 1:]
    # A frame's first code is predicted by the action before it, its other codes by the code to their left.
    states = torch.cat((hidden.observation[:, :-1, -1:], hidden.observation[:, 1:, :-1]), dim=2)
    predicted = model.observation_logits(states[real]).argmax(-1)
    rows = np.broadcast_to(tasks[:, None], real.shape)[real.cpu().numpy()]
    np.add.at(counts.next_code, rows, _code_counts(predicted, batch.codes[:, 1:][real], batch.codes[:, :-1][real]))

    steps = np.broadcast_to(tasks[:, None], batch.valid.shape)[batch.valid.cpu().numpy()]
    at_action = hidden.action[batch.valid]
    sign = batch.rewards[batch.valid].sign().long() + 1
    end = batch.ends[batch.valid].long()
    _add_confusion(counts.reward, steps, sign, model.reward_logits(at_action).argmax(-1))
    _add_confusion(counts.end, steps, end, model.end_logits(at_action).argmax(-1))
    np.add.at(counts.sequences, tasks, 1)
    np.add.at(counts.steps, steps, 1)


def sample(batch: Batch, taken: NDArray[np.int64], limit: int, steps: int = 2) -> Batch:
    """The batch's sequences of at least so many steps, at most `limit` a task over all calls, which `taken` counts."""
    lengths = batch.valid.sum(1)
    chosen = []
    for row in torch.nonzero(lengths >= steps).flatten().tolist():
        task = int(batch.tasks[row])
        if taken[task] < limit:
            taken[task] += 1
            chosen.append(row)
    rows = torch.tensor(chosen, dtype=torch.int64, device=batch.tasks.device)
    assert batch.codes is not None
    return Batch(
        None,
        batch.codes[rows],
        batch.actions[rows],
        batch.rewards[rows],
        batch.ends[rows],
        batch.valid[rows],
        batch.tasks[rows],
    )


def _count_imagined(dream: TreeDream, batch: Batch, counts: _Counts) -> None:
    """Decodes each sequence's last real frame from all frames and actions before it."""
    if not len(batch):
        return
    assert batch.codes is not None
    row = torch.arange(len(batch), device=batch.tasks.device)
    given = batch.valid.sum(1) - 1
    root = dream.reset(Context(batch.codes[:, :-1], batch.actions[:, :-1], given, batch.tasks), room=1)
    nodes = dream.expand(root.ids, batch.actions[row, given - 1][:, None])
    predicted = dream.codes(nodes.ids)[:, 0]
    counted = _code_counts(predicted, batch.codes[row, given], batch.codes[row, given - 1])
    np.add.at(counts.imagined, batch.tasks.cpu().numpy(), counted)


def _code_counts(predicted: Tensor, actual: Tensor, last: Tensor) -> NDArray[np.int64]:
    """All (F, K) → (F, 5): codes, right ones, ones right by copying, changed ones, changed ones right."""
    right, changed = predicted == actual, last != actual
    columns = (torch.ones_like(right), right, ~changed, changed, changed & right)
    counts: NDArray[np.int64] = torch.stack([column.sum(1) for column in columns], dim=1).cpu().numpy()
    return counts


def _add_confusion(table: NDArray[np.int64], tasks: NDArray[np.int64], actual: Tensor, predicted: Tensor) -> None:
    """Adds (M,) steps to a table (tasks, actual class, predicted class)."""
    np.add.at(table, (tasks, actual.cpu().numpy(), predicted.cpu().numpy()), 1)


def _code_score(counts: NDArray[np.int64], tokens_per_frame: int) -> CodeScore:
    codes, right, copied, changed, changed_right = (int(count) for count in counts)
    return CodeScore(
        frames=codes // tokens_per_frame,
        accuracy=_share(right, codes),
        copy=_share(copied, codes),
        changed=_share(changed, codes),
        accuracy_on_changed=_share(changed_right, changed),
    )


def _class_scores(confusion: NDArray[np.int64], labels: list[str]) -> tuple[ClassScore, ...]:
    """Scores of every class from a table (actual, predicted)."""
    scores = []
    for index, label in enumerate(labels):
        positives, predicted, hits = confusion[index].sum(), confusion[:, index].sum(), confusion[index, index]
        f1 = _share(2 * int(hits), int(positives + predicted)) if positives else None
        scores.append(
            ClassScore(
                label,
                int(positives),
                int(predicted),
                _share(int(hits), int(predicted)),
                _share(int(hits), int(positives)),
                f1,
            )
        )
    return tuple(scores)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
