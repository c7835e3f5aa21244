"""What a training run can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from jowa.data.order import BALANCES
from jowa.data.selection import QUALITIES
from jowa.data.sequences import PADS
from jowa.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Where the episodes are and how sequences are cut from them.

    selection: a file of `python -m jowa.data.select`, to train on no other episodes than its. transitions: agent steps
    of each game to train on, in whole episodes (the one that reaches them is the last), all if null or if there are
    fewer. quality: which episodes come first: all (any, at random), last (of the latest checkpoints) or top (of the
    highest returns). choice_seed: the same one chooses the same episodes, whatever the run's seed. stride: agent steps
    between sequences. pad: the side on which sequences reach beyond their episode: right, or left (then they end with
    it); the model sees the real steps from position 0 on either way, as it does when it plays. holdout: the fraction
    of each game's episodes never trained on. balance: proportional draws every sequence equally often, balanced every
    game.
    """

    path: str = "data"
    games: list[str] = field(default_factory=list)
    selection: str | None = None
    transitions: int | None = None
    quality: str = "all"
    choice_seed: int = 0
    stride: int = 4
    pad: str = "right"
    holdout: float = 0.02
    balance: str = "proportional"


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: what is trained, on what losses, for how long. A stage is values, not code.

    The tokenizer is trained when `tokenizer_frames` > 0 (that many frames a step, drawn from the batch) and frozen
    otherwise; the Q networks are trained when `td_weight` > 0. With a frozen tokenizer the data are cached codes.
    """

    steps: int = 0
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    tokenizer_learning_rate: float = 1e-4
    tokenizer_frames: int = 0
    world_weight: float = 1.0
    td_weight: float = 0.0
    conservative_weight: float = 0.0

    @property
    def trains_tokenizer(self) -> bool:
        return self.tokenizer_frames > 0

    @property
    def trains_q(self) -> bool:
        return self.td_weight > 0


@dataclass(frozen=True)
class ObjectiveConfig:
    """Variants of the Q losses.

    conservative: cql, combo (data actions of real sequences only) or none. random_ensemble_mixture: one random convex
    combination of the ensemble a step instead of the mean. q_shapes_backbone: whether Q gradients reach the trunk.
    """

    gamma: float = 0.99
    conservative: str = "cql"
    random_ensemble_mixture: bool = False
    q_shapes_backbone: bool = True


@dataclass(frozen=True)
class TrainingConfig:
    """How the loop runs. Steps count optimiser steps; batch_size counts sequences over all processes.

    micro_batch: sequences a process works on at once, its whole share if null; it changes memory, not results.
    precision: bf16, fp32 or auto (bf16 on a GPU). compile: whether to compile the model; null does on a GPU.
    look_first: validate, draw and play before the first step too.
    """

    batch_size: int = 512
    micro_batch: int | None = None
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    target_every: int = 1000
    precision: str = "auto"
    compile: bool | None = None
    device: str = "auto"
    threads: int | None = None
    log_every: int = 50
    look_first: bool = False
    validate_every: int = 5000
    validation_sequences: int = 512
    picture_every: int = 5000
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2
    logger: str = "none"


def check_training(config: TrainingConfig, objective: ObjectiveConfig, stages: dict[str, StageConfig]) -> None:
    """Raises UserError for settings that can't work, naming the key."""
    _finite("training", config)
    _finite("objective", objective)
    for name, stage in stages.items():
        _finite(name, stage)
    _one_of("training.precision", config.precision, ("auto", "bf16", "fp32"))
    _one_of("training.logger", config.logger, ("none", "wandb", "tensorboard"))
    _one_of("objective.conservative", objective.conservative, ("cql", "combo", "none"))
    if not 0 < objective.gamma <= 1:
        raise UserError(f"objective.gamma must lie in (0, 1], not {objective.gamma}.")
    for key in (
        "batch_size",
        "target_every",
        "log_every",
        "validate_every",
        "picture_every",
        "checkpoint_every",
        "keep_checkpoints",
        "validation_sequences",
    ):
        if getattr(config, key) < 1:
            raise UserError(f"training.{key} must be at least 1, not {getattr(config, key)}.")
    if config.weight_decay < 0 or config.gradient_clip <= 0:
        raise UserError("training.weight_decay must not be negative and training.gradient_clip must be above 0.")
    for name, stage in stages.items():
        if min(stage.steps, stage.warmup_steps, stage.tokenizer_frames) < 0:
            raise UserError(f"{name}.steps, {name}.warmup_steps and {name}.tokenizer_frames must not be negative.")
        if stage.learning_rate <= 0 or stage.tokenizer_learning_rate <= 0:
            raise UserError(f"{name}.learning_rate and {name}.tokenizer_learning_rate must be above 0.")
        if min(stage.world_weight, stage.td_weight, stage.conservative_weight) < 0:
            raise UserError(f"{name}: loss weights must not be negative.")
        if stage.world_weight == 0 and stage.td_weight == 0:
            raise UserError(f"{name} has nothing to learn: set {name}.world_weight or {name}.td_weight above 0.")
        if stage.conservative_weight > 0 and not stage.trains_q:
            raise UserError(f"{name}.conservative_weight needs Q networks that learn: set {name}.td_weight above 0.")


def check_batch(config: TrainingConfig, ranks: int, stages: dict[str, StageConfig]) -> None:
    """Raises UserError unless the batch can be shared evenly among the processes and their micro-batches."""
    if config.batch_size % ranks:
        raise UserError(
            f"training.batch_size={config.batch_size} can't be shared by {ranks} processes: take a multiple of {ranks}."
        )
    share = config.batch_size // ranks
    if config.micro_batch is not None and (config.micro_batch < 1 or share % config.micro_batch):
        raise UserError(
            f"training.micro_batch={config.micro_batch} doesn't divide the {share} sequences a process gets each step."
        )
    parts = config.batch_size // (config.micro_batch or share)
    for name, stage in stages.items():
        if 0 < stage.tokenizer_frames < parts:
            raise UserError(
                f"{name}.tokenizer_frames={stage.tokenizer_frames} can't be shared by the {parts} parts of a batch: "
                f"take {parts} or more."
            )


def check_data(config: DataConfig) -> None:
    """Raises UserError for values out of range."""
    if config.stride < 1:
        raise UserError(f"data.stride must be at least 1 agent step, not {config.stride}.")
    if not 0 <= config.holdout < 1:
        raise UserError(f"data.holdout must lie in [0, 1), not {config.holdout}.")
    if config.transitions is not None and config.transitions < 1:
        raise UserError(f"data.transitions must be at least 1 agent step, or null for all, not {config.transitions}.")
    if config.transitions is not None and config.selection is not None:
        raise UserError("data.selection says already which episodes: set data.transitions=null with it.")
    if config.choice_seed < 0:
        raise UserError(f"data.choice_seed must not be negative, but is {config.choice_seed}.")
    _one_of("data.quality", config.quality, QUALITIES)
    _one_of("data.balance", config.balance, BALANCES)
    _one_of("data.pad", config.pad, PADS)


def check_stride(config: DataConfig, blocks: int) -> None:
    """Raises UserError when sequences of `blocks` frames would leave agent steps out."""
    if config.stride > blocks:
        raise UserError(
            f"data.stride={config.stride} would skip steps between sequences of model.blocks={blocks} frames: set "
            f"data.stride to at most {blocks}."
        )


def check_ensemble(objective: ObjectiveConfig, networks: int) -> None:
    """Raises UserError for a mixture of a model that has one Q network alone."""
    if objective.random_ensemble_mixture and networks < 2:
        raise UserError(
            f"objective.random_ensemble_mixture=true mixes several Q networks, and model.q_networks is {networks}: set "
            "model.q_networks to 2 or more, or objective.random_ensemble_mixture=false."
        )


def _finite(name: str, part: TrainingConfig | ObjectiveConfig | StageConfig) -> None:
    for key, value in vars(part).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}.{key} must be a finite number, not {value}.")


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{key} must be one of {', '.join(choices)}, not '{value}'.")
