"""What a run would do and need, computed without doing it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from jowa.data.selection import read_selection
from jowa.data.store import EpisodeStore, NoEpisodes
from jowa.errors import UserError
from jowa.models.low_rank import low_rank_state
from jowa.models.tokenizer import Tokenizer
from jowa.models.world_action_model import WorldActionModel
from jowa.training.adaptation import AdaptationConfig, adapt, restrict
from jowa.training.config import DataConfig, StageConfig, TrainingConfig

GB = 1e9


def describe_run(
    tokenizer: Tokenizer,
    model: WorldActionModel,
    data: DataConfig,
    stages: Mapping[str, StageConfig],
    config: TrainingConfig,
    ranks: int,
    adaptation: AdaptationConfig | None = None,
) -> str:
    """A page of plain text: parameters, steps and tokens, data found or missing, disk and memory."""
    lines = ["Model", *_parameters(tokenizer, model)]
    if adaptation is not None:
        model = adapted(model, adaptation)
        lines.append(_trained(model, adaptation))
    lines += ["", "Stages"]
    for name, stage in stages.items():
        lines.append(_stage(name, stage, model, config))
    found, transitions = _data(data)
    lines += ["", f"Data in {Path(data.path).resolve()}", *found]
    lines += ["", "Disk", *_disk(tokenizer, model, transitions, config)]
    lines += ["", "Memory (estimates from shapes, not measurements)"]
    for name, stage in stages.items():
        lines.append(_memory(name, stage, tokenizer, model, config, ranks))
    return "\n".join(lines)


def count(module: nn.Module, trained_only: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)


def adapted(model: WorldActionModel, adaptation: AdaptationConfig) -> WorldActionModel:
    """A copy, frozen as the method does."""
    model = copy.deepcopy(model)
    adapt(model, adaptation, seed=0)
    restrict(model, adaptation)
    return model


def _parameters(tokenizer: Tokenizer, model: WorldActionModel) -> list[str]:
    return [
        f"  tokenizer            {count(tokenizer) / 1e6:9.3f} M parameters",
        f"  world-action model   {count(model, trained_only=True) / 1e6:9.3f} M parameters ({model.config.name})",
        f"  with the target copy {count(model) / 1e6:9.3f} M",
    ]


def _trained(model: WorldActionModel, adaptation: AdaptationConfig) -> str:
    name = ", ".join(f"{key} {value:g}" if key != "method" else value for key, value in adaptation.facts.items())
    trained = count(model, trained_only=True)
    return f"  trained of it        {trained / 1e6:9.3f} M ({name}), {8 * trained / GB:.4f} GB of optimiser state"


def _stage(name: str, stage: StageConfig, model: WorldActionModel, config: TrainingConfig) -> str:
    tokens = config.batch_size * model.positions
    trained = [
        part
        for part, on in (
            ("tokenizer", stage.trains_tokenizer),
            ("world model", stage.world_weight > 0),
            ("Q", stage.trains_q),
        )
        if on
    ]
    return (
        f"  {name}: {stage.steps:,} steps × {config.batch_size} sequences × {model.positions} tokens = "
        f"{stage.steps * tokens / 1e9:,.3f} G tokens; trains {', '.join(trained)} at {stage.learning_rate:g}"
    )


def _data(data: DataConfig) -> tuple[list[str], int]:
    lines, total = [], 0
    games: list[str] = list(data.games)
    if not games:
        try:
            games = list(EpisodeStore(data.path).games)
        except UserError as error:
            return [f"  missing: {error}"], 0
    for game in games:
        try:
            store = EpisodeStore(data.path, [game])
        except NoEpisodes:
            lines.append(f"  {game:<16} missing")
            continue
        except UserError as error:
            lines.append(f"  {game:<16} can't be used: {error}")
            continue
        total += store.transitions(game)
        lines.append(
            f"  {game:<16} found: {len(store.tables[game]):,} episodes, {store.transitions(game):,} transitions, "
            f"{store.bytes(game) / GB:.3f} GB"
        )
        if data.selection is not None:
            chosen = read_selection(data.selection, store).games[game]
            lines.append(
                f"  {'':<16} selected: {len(chosen.episodes):,} episodes ({chosen.distinct:,} different ones), "
                f"{chosen.transitions:,} transitions"
            )
    missing = sum(line.endswith(" missing") for line in lines)
    if missing:
        lines.append(f"  {missing} of {len(games)} games are missing; make them with python -m jowa.data.record")
    return lines, total


def checkpoint_bytes(tokenizer: Tokenizer, model: WorldActionModel) -> int:
    """One checkpoint at most: all weights, low-rank additions apart too, and the moments of what is trained."""
    apart = sum(tensor.numel() for tensor in low_rank_state(model).values())
    weights = 4 * (count(tokenizer) + count(model) + apart)
    return weights + 8 * (count(tokenizer) + count(model, trained_only=True))


def state_bytes(tokenizer: Tokenizer, model: WorldActionModel, stage: StageConfig) -> int:
    """A process's weights, gradients and moments."""
    tokenizers = 16 if stage.trains_tokenizer else 4
    trained = count(model, trained_only=True)
    frozen = count(model) - count(model.q_target) - trained
    return 16 * trained + 4 * frozen + tokenizers * count(tokenizer)


def _disk(tokenizer: Tokenizer, model: WorldActionModel, transitions: int, config: TrainingConfig) -> list[str]:
    frame = 2 * tokenizer.tokens_per_frame
    return [
        f"  cached codes  {transitions * frame / GB:.3f} GB ({frame} bytes a frame that is found)",
        f"  checkpoints   {checkpoint_bytes(tokenizer, model) * (config.keep_checkpoints + 1) * 2 / GB:.3f} GB at most "
        f"({config.keep_checkpoints} kept of each stage, and its best)",
    ]


def _memory(
    name: str, stage: StageConfig, tokenizer: Tokenizer, model: WorldActionModel, config: TrainingConfig, ranks: int
) -> str:
    sequences = config.micro_batch or config.batch_size // ranks
    tokens = sequences * model.positions
    # About 34 bytes a token, layer and channel in half precision without stored attention maps, twice that in float32,
    # and three float32 copies of the logits.
    activations = tokens * (model.config.layers * model.config.width * 68 + model.vocabulary * 12)
    if stage.trains_tokenizer:
        frames = stage.tokenizer_frames * sequences // config.batch_size
        maps = 6 * (tokenizer.config.encoder_blocks[0] + tokenizer.config.decoder_blocks[0]) + 4
        activations += frames * maps * 84 * 84 * tokenizer.config.widths[0] * 4
    state = state_bytes(tokenizer, model, stage)
    return (
        f"  {name}: about {state / GB:.2f} GB of weights and optimiser state and {activations / GB:.1f} GB of "
        f"activations for {sequences} sequences a process; lower training.micro_batch to need less"
    )
