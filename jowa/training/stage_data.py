"""The sequences a stage trains on: frames while the tokenizer learns, cached codes once it is frozen."""

from __future__ import annotations

import torch
from torch import Tensor

from jowa.data.codes import CodeCache, build_codes
from jowa.data.sequences import SequenceDataset
from jowa.data.split import Split
from jowa.data.store import EpisodeStore
from jowa.models.agent_files import tokenizer_hash
from jowa.models.tokenizer import Tokenizer
from jowa.training.config import DataConfig, StageConfig
from jowa.training.distribution import Distribution


def stage_data(
    store: EpisodeStore, config: DataConfig, stage: StageConfig, tokenizer: Tokenizer, distribution: Distribution
) -> tuple[SequenceDataset, SequenceDataset]:
    """(training, held-out) sequences of one stage. Codes are made where they are missing, the games shared by ranks."""
    cache = None if stage.trains_tokenizer else code_cache(store, tokenizer, distribution)

    def part(split: Split) -> SequenceDataset:
        return SequenceDataset(store, split=split, holdout=config.holdout, stride=config.stride, codes=cache)

    return part("training"), part("held_out")


def code_cache(store: EpisodeStore, tokenizer: Tokenizer, distribution: Distribution) -> CodeCache:
    """Open the cached codes of all games, encoding first what this tokenizer hasn't encoded yet."""
    name = tokenizer_hash(tokenizer)
    tokenizer.eval()

    def encode(frames: Tensor) -> Tensor:
        return tokenizer.encode(frames.to(distribution.device))

    with torch.inference_mode():
        for game in store.games[distribution.rank :: distribution.ranks]:
            # A CPU is fastest on pieces that fit its cache.
            chunk = 64 if distribution.device.type == "cpu" else 1024
            build_codes(store, game, name, encode, chunk=chunk, progress=distribution.is_main)
    distribution.barrier()
    return CodeCache.open(store, name)
