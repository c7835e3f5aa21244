"""What the model gets right and what Q says, counted while it trains.

Tallies are sums that add up over micro-batches, processes and steps; `summarise` turns them into what is logged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from jowa.games import game_of, num_tasks
from jowa.objectives.world import observation_targets, reward_classes

REWARDS = 3
ENDS = 2


def by_game(values: Tensor, tasks: Tensor) -> Tensor:
    """values (n,) of games `tasks` (n,) → (games,) their sums by game."""
    values = values.detach().float()
    return values.new_zeros(num_tasks()).index_add(0, tasks, values)


def confusion(predicted: Tensor, labels: Tensor, mask: Tensor, classes: int) -> Tensor:
    """predicted, labels and mask (B, L) → (classes, classes): how often a label (row) was predicted as what."""
    cells, weight = (labels * classes + predicted).flatten(), mask.flatten().float()
    return weight.new_zeros(classes * classes).index_add(0, cells, weight).view(classes, classes)


@torch.no_grad()
def world_tallies(
    observation: Tensor, reward: Tensor, end: Tensor, codes: Tensor, rewards: Tensor, ends: Tensor, valid: Tensor
) -> dict[str, Tensor]:
    """Codes predicted rightly and in all, and confusions of rewards and ends; arguments as in `world_losses`."""
    labels, mask = observation_targets(codes, valid)
    return {
        "codes_right": ((observation.argmax(-1) == labels) & mask).sum().float(),
        "codes_counted": mask.sum().float(),
        "reward_confusion": confusion(reward.argmax(-1), reward_classes(rewards), valid, REWARDS),
        "end_confusion": confusion(end.argmax(-1), ends.long(), valid, ENDS),
    }


@torch.no_grad()
def code_tallies(codes: Tensor, valid: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """How often each code stands in the valid frames: codes (B, L, K), valid (B, L) → (V,)."""
    weight = valid[:, :, None].expand_as(codes).flatten().float()
    return {"code_use": weight.new_zeros(vocabulary).index_add(0, codes.flatten(), weight)}


@torch.no_grad()
def q_tallies(q: Tensor, actions: Tensor, valid: Tensor, tasks: Tensor, legal: Tensor) -> dict[str, Tensor]:
    """Expected Q of the data's actions and of the best legal ones, by game.

    q (B, L, A), actions and valid (B, L), tasks (B,), legal (B, A) → sums (games,) each.
    """
    taken = q.gather(2, actions[..., None])[..., 0]
    best = q.masked_fill(~legal[:, None], -torch.inf).amax(-1)
    return {
        "q_data": by_game((taken * valid).sum(1), tasks),
        "q_argmax": by_game((best * valid).sum(1), tasks),
        "q_steps": by_game(valid.sum(1), tasks),
    }


def summarise(tallies: Mapping[str, Tensor]) -> dict[str, float]:
    """Accuracies, F1, codebook use, and each game's losses and mean Q; what could not be counted is left out.

    tallies: on the CPU; `losses/<name>` and `places/<name>` (games,) are sums of a loss and of what it sums over.
    """
    values: dict[str, float] = {}
    if "codes_counted" in tallies and tallies["codes_counted"] > 0:
        values["world/code_accuracy"] = float(tallies["codes_right"] / tallies["codes_counted"])
        rewards = [f1(tallies["reward_confusion"], sign) for sign in (0, 2)]
        known = [score for score in rewards if score is not None]
        if known:
            values["world/reward_f1"] = sum(known) / len(known)
        ends = f1(tallies["end_confusion"], 1)
        if ends is not None:
            values["world/end_f1"] = ends
    if "code_use" in tallies:
        share = tallies["code_use"] / tallies["code_use"].sum().clamp(min=1)
        values["codes/used"] = float((share > 0).float().mean())
        values["codes/perplexity"] = float(torch.exp(torch.special.entr(share).sum()))
    return values | by_game_values(tallies)


def by_game_values(tallies: Mapping[str, Tensor]) -> dict[str, float]:
    """game/<Game>/loss/<name>, game/<Game>/q_data and game/<Game>/q_argmax of the games that were seen."""
    pairs = {f"loss/{key.removeprefix('losses/')}": (key, key.replace("losses/", "places/", 1))
             for key in tallies if key.startswith("losses/")}  # fmt: skip
    if "q_steps" in tallies:
        pairs |= {name: (name, "q_steps") for name in ("q_data", "q_argmax")}
    values = {}
    for name, (sums, counts) in pairs.items():
        for task in tallies[counts].nonzero().flatten().tolist():
            values[f"game/{game_of(task)}/{name}"] = float(tallies[sums][task] / tallies[counts][task])
    return values


def f1(counts: Tensor, label: int) -> float | None:
    """The F1 of one class in a confusion matrix; None where the class did not occur."""
    hits, positives, predicted = counts[label, label], counts[label].sum(), counts[:, label].sum()
    return float(2 * hits / (positives + predicted)) if positives > 0 else None
