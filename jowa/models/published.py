"""The published checkpoints' tensors and ours: names, shapes and sizes, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from jowa.models.perceptual import LPIPS
from jowa.models.q_ensemble import PARAMETERS as Q_PARAMETERS
from jowa.models.tokenizer import Tokenizer, TokenizerConfig
from jowa.models.world_action_model import ModelConfig, WorldActionModel

TOKENIZER = TokenizerConfig()
"""The published tokenizer: the same under every model."""

MODELS: dict[str, ModelConfig] = {
    "40M": ModelConfig("40M", layers=4, heads=8, width=512, q_networks=1, q_width=768),
    "70M": ModelConfig("70M", layers=6, heads=12, width=768, q_networks=1, q_width=1024),
    "150M": ModelConfig("150M", layers=12, heads=12, width=768, q_networks=3, q_width=1792),
}
"""The published models, as the authors trained them: with distributional Q networks."""

LPIPS_PREFIX = "lpips."
_ATTENTION = ("query", "key", "value")
_PARTS = ("weight", "bias")


def candidates() -> list[ModelConfig]:
    """Every model a published file may hold: three sizes, with C51 or scalar Q networks."""
    return [replace(config, q_loss=loss) for loss in ("c51", "mse") for config in MODELS.values()]


def model_from_published(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Tensors of a world-action model under our names; the three attention matrices become one."""
    ours = {mine: tensors[theirs] for theirs, mine in _model_names(layers)}
    for theirs, mine in _attention_names(layers):
        ours[mine] = torch.cat([tensors[name] for name in theirs])
    return ours


def model_to_published(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The inverse of `model_from_published`."""
    published = {theirs: state[mine] for theirs, mine in _model_names(layers)}
    for theirs, mine in _attention_names(layers):
        published |= dict(zip(theirs, state[mine].chunk(len(theirs)), strict=True))
    return published


@cache
def model_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Published names and shapes of a world-action model's tensors, without the `indices` that carry nothing."""
    with torch.device("meta"):
        state = WorldActionModel(config, TOKENIZER.vocabulary).state_dict()
    return {name: tensor.shape for name, tensor in model_to_published(state, config.layers).items()}


@cache
def tokenizer_shapes() -> dict[str, torch.Size]:
    """Published names, which are ours too, and shapes of the tokenizer's tensors, without LPIPS."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Tokenizer(TOKENIZER).state_dict().items()}


@cache
def lpips_shapes() -> dict[str, torch.Size]:
    """Published names and shapes of LPIPS, which lies in the tokenizer's file."""
    with torch.device("meta"):
        return {LPIPS_PREFIX + name: tensor.shape for name, tensor in LPIPS().state_dict().items()}


def _model_names(layers: int) -> list[tuple[str, str]]:
    """(theirs, ours) of the tensors that are the same in both; their table 0 is the actions', table 1 the codes'."""
    names = [
        ("pos_emb.weight", "position_embedding.weight"),
        ("task_emb.embedding_tables.0.weight", "action_task_embedding.weight"),
        ("task_emb.embedding_tables.1.weight", "code_task_embedding.weight"),
        ("embedder.embedding_tables.0.weight", "action_embedding.weight"),
        ("embedder.embedding_tables.1.weight", "code_embedding.weight"),
    ]
    modules = [("transformer.ln_f", "trunk.norm")]
    for layer in range(layers):
        modules += [(f"transformer.blocks.{layer}.{theirs}", f"trunk.layers.{layer}.{mine}") for theirs, mine in (
            ("ln1", "attention_norm"), ("ln2", "mlp_norm"), ("attn.proj", "projection"), ("mlp.0", "mlp.0"),
            ("mlp.2", "mlp.2"))]  # fmt: skip
    for theirs, mine in (("observations", "observation"), ("rewards", "reward"), ("ends", "end")):
        modules += [(f"head_{theirs}.head_module.{i}", f"{mine}_head.{i}") for i in (0, 2)]
    names += [(f"{theirs}.{part}", f"{mine}.{part}") for theirs, mine in modules for part in _PARTS]
    for theirs, mine in (("head_q", "q_networks"), ("head_q_target", "q_target")):
        names += [(f"{theirs}.head_module.params.{i}", f"{mine}.{name}") for i, name in enumerate(Q_PARAMETERS)]
    return names


def _attention_names(layers: int) -> list[tuple[tuple[str, ...], str]]:
    """(theirs, ours) of the query, key and value projections, which ours stacks in this order."""
    return [
        (tuple(f"transformer.blocks.{layer}.attn.{name}.{part}" for name in _ATTENTION),
         f"trunk.layers.{layer}.qkv.{part}")
        for layer in range(layers)
        for part in _PARTS
    ]  # fmt: skip
