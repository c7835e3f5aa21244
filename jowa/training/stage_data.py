"""The sequences a stage trains on: frames while the tokenizer learns, cached codes once it is frozen."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.data.codes import CodeCache, build_codes
from jowa.data.selection import Rules, Selection, choose, read_selection
from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split, select_episodes
from jowa.data.store import EpisodeStore
from jowa.models.agent_files import tokenizer_hash
from jowa.models.tokenizer import Tokenizer
from jowa.training.config import DataConfig, StageConfig
from jowa.training.distribution import Distribution


def stage_data(
    store: EpisodeStore,
    config: DataConfig,
    selection: Selection | None,
    stage: StageConfig,
    tokenizer: Tokenizer,
    length: int,
    distribution: Distribution,
) -> tuple[SequenceDataset, SequenceDataset]:
    """(training, held-out) sequences of one stage. Codes are made where they are missing, the games shared by ranks."""
    cache = None if stage.trains_tokenizer else code_cache(store, tokenizer, distribution)
    return (
        sequences(store, config, length, "training", selection, cache),
        sequences(store, config, length, "held_out", selection, cache),
    )


def sequences(
    store: EpisodeStore,
    config: DataConfig,
    length: int,
    split: Split,
    selection: Selection | None = None,
    codes: CodeCache | None = None,
) -> SequenceDataset:
    """The sequences of `length` frames that a run's configuration means, with frames unless there are codes."""
    return SequenceDataset(
        store,
        split=split,
        holdout=config.holdout,
        length=length,
        stride=config.stride,
        pad=config.pad,
        real_steps_first=True,
        balance=config.balance,
        selection=selection,
        codes=codes,
    )


def open_selection(store: EpisodeStore, config: DataConfig) -> Selection | None:
    """The episodes that the configuration names or whose choice it describes; None if it means all.

    Raises:
        UserError: its file doesn't fit the store, or its rules don't fit what is known of the episodes.
    """
    if config.selection is not None:
        return read_selection(config.selection, store)
    if config.transitions is None:
        return None
    rules = Rules(runs=None, transitions=config.transitions, seed=config.choice_seed, quality=config.quality)
    chosen = {}
    for game in store.games:
        training = select_episodes(game, store.episode_names(game), config.holdout, "training")
        chosen[game] = choose(store, game, rules, training, at_most=True, prefix="data.")
    return Selection(chosen, f"data.transitions={config.transitions}")


def describe_choice(store: EpisodeStore, config: DataConfig) -> str:
    """A line a game: which of its episodes training reads."""
    selection, lines = open_selection(store, config), []
    for game in store.games:
        data = SequenceDataset(store, [game], split="training", holdout=config.holdout, selection=selection)
        chosen, table = data.episodes[game], store.tables[game]
        how = "" if config.transitions is None or config.quality == "all" else f", {config.quality} ones first"
        lines.append(
            f"{game}: training on {len(chosen)} of {len(table)} episodes{how}: {table.lengths[chosen].sum():,} "
            f"transitions, mean return {table.returns[chosen].mean():g} (of all {table.returns.mean():g})."
        )
    return "\n".join(lines)


def code_cache(store: EpisodeStore, tokenizer: Tokenizer, distribution: Distribution) -> CodeCache:
    """Open the cached codes of all games, encoding first what this tokenizer hasn't encoded yet."""
    name = tokenizer_hash(tokenizer)
    tokenizer.eval()

    def encode(frames: Tensor) -> Tensor:
        return tokenizer.encode(frames.to(distribution.device))

    with torch.inference_mode():
        # A CPU is fastest on pieces that fit its cache.
        chunk = 64 if distribution.device.type == "cpu" else 1024
        share = distribution.rank / distribution.ranks
        for game in store.games:
            build_codes(store, game, name, encode, chunk=chunk, share=share, progress=distribution.is_main)
    distribution.barrier()
    return CodeCache.open(store, name)
