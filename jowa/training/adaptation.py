"""What of a pretrained agent is trained: all of it, its heads alone, or its heads and low-rank additions."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from jowa.errors import UserError
from jowa.models.low_rank import add_low_rank, load_low_rank_state, low_rank_maps
from jowa.models.world_action_model import WorldActionModel
from jowa.training.config import ObjectiveConfig, StageConfig

METHODS = ("full", "heads", "lora")
ADAPTERS = "adapters.safetensors"


@dataclass(frozen=True)
class AdaptationConfig:
    """method: full trains the whole world-action model; heads its heads (observation, reward, end, Q) on the frozen
    trunk; lora the heads, the game's task row, its actions' embeddings, and low-rank additions to the frozen trunk's
    linear maps.

    rank, alpha: of the additions alone, W + (alpha / rank) B A.
    """

    method: str = "full"
    rank: int = 8
    alpha: float = 16.0

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint's description says of it."""
        return vars(self) if self.method == "lora" else {"method": self.method}


def check_adaptation(config: AdaptationConfig, objective: ObjectiveConfig, stage: StageConfig) -> None:
    """Raises UserError for settings that can't work, naming the key."""
    if config.method not in METHODS:
        close = difflib.get_close_matches(config.method, METHODS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(METHODS)}."
        raise UserError(f"There is no finetune.method '{config.method}': {hint}")
    if config.rank < 1:
        raise UserError(f"finetune.rank must be at least 1, not {config.rank}.")
    if not 0 < config.alpha < math.inf:
        raise UserError(f"finetune.alpha must be a finite number above 0, not {config.alpha}.")
    if config.method == "lora" and stage.world_weight == 0 and not objective.q_shapes_backbone:
        raise UserError(
            "finetune.method=lora has nothing to learn in the trunk, which no loss reaches: set stage.world_weight "
            "above 0 or objective.q_shapes_backbone=true, or train the heads alone by finetune.method=heads."
        )


def check_rank(config: AdaptationConfig, width: int) -> None:
    """Raises UserError when additions would have as many dimensions as the trunk's `width`, or more."""
    if config.method == "lora" and config.rank > width:
        raise UserError(f"finetune.rank={config.rank} is more than the trunk's width: set it to at most {width}.")


def adapt(model: WorldActionModel, config: AdaptationConfig, seed: int, checkpoint: Path | None = None) -> None:
    """Give a model that has its weights already what the method adds to it, from the checkpoint that is gone on from.

    Raises UserError when that can't be read from there.
    """
    if config.method != "lora":
        return
    add_low_rank(model, config.rank, config.alpha, seed)
    if checkpoint is None:
        return
    path = checkpoint / ADAPTERS
    try:
        load_low_rank_state(model, load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        reason = "is missing" if not path.is_file() else f"can't be read ({error})"
        raise UserError(
            f"{path} {reason}: put it back, or delete {checkpoint} to go on from the one before it."
        ) from error


def restrict(model: WorldActionModel, config: AdaptationConfig) -> None:
    """Freeze what the method doesn't train, and thaw nothing.

    Gradients reach the trained game's row of the task embeddings alone, and its actions', and embeddings don't decay:
    the others stay as they are.
    """
    if config.method == "full":
        return
    trained: list[nn.Module | None] = [model.observation_head, model.reward_head, model.end_head, model.q_networks]
    if config.method == "lora":
        trained += [model.code_task_embedding, model.action_task_embedding, model.action_embedding]
        trained += [module.get_submodule("parametrizations.weight.0") for _, module in low_rank_maps(model)]
    kept = {parameter for module in trained if module is not None for parameter in module.parameters()}
    for parameter in model.parameters():
        if parameter not in kept:
            parameter.requires_grad_(False)
