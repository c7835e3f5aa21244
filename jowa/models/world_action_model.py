"""The world-action model: one trunk under a world model and an ensemble of Q networks (paper, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from jowa.errors import UserError
from jowa.games import ALE_ACTIONS, GAMES, LARGEST_ACTION_SET, action_set, num_actions, task_id
from jowa.models.q_ensemble import QEnsemble, ensemble_mean
from jowa.models.transformer import KeyValueCache, Trunk, TrunkConfig

MAXIMUM_BLOCKS = 64


@dataclass(frozen=True)
class ModelConfig:
    """Sizes. `q_loss` decides the last layer of the Q networks: c51 has `atoms` logits an action, mse one value.

    blocks: frames a sequence can hold, in training and in planning (context and imagined steps together); the paper
    has 8. task_embedding: whether every token is told its game. tasks: games it has a row for, the 60 of Atari first.
    actions: size of the action set, 18 for ALE's. action_set: ALE, or the games whose own set it is, with commas.
    """

    name: str = "custom"
    layers: int = 4
    heads: int = 8
    width: int = 512
    q_networks: int = 1
    q_width: int = 768
    q_loss: str = "c51"
    atoms: int = 51
    support_low: float = -10.0
    support_high: float = 30.0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    q_dropout: float = 0.01
    blocks: int = 8
    task_embedding: bool = True
    tasks: int = 60
    actions: int = 18
    action_set: str = ALE_ACTIONS

    def knows_actions_of(self, game: str) -> bool:
        """Whether the game's actions are those of the model's set."""
        return action_set(game) in self.action_set.split(",") and num_actions(game) == self.actions


def check_model(config: ModelConfig) -> None:
    """Raises UserError for sizes that can't be built, naming the key."""
    if min(config.layers, config.heads, config.width, config.q_networks, config.q_width) < 1:
        raise UserError("model.layers, heads, width, q_networks and q_width must be at least 1.")
    if not 2 <= config.blocks <= MAXIMUM_BLOCKS:
        raise UserError(f"model.blocks must lie in 2 … {MAXIMUM_BLOCKS} frames, not {config.blocks}.")
    if not all(0 <= rate < 1 for rate in (config.dropout, config.attention_dropout, config.q_dropout)):
        raise UserError("model.dropout, attention_dropout and q_dropout must lie in [0, 1).")
    if config.width % config.heads:
        raise UserError(
            f"model.heads={config.heads} doesn't divide model.width={config.width}: choose heads that divide the width."
        )
    if config.q_loss not in ("c51", "mse"):
        raise UserError(f"model.q_loss must be 'c51' or 'mse', not '{config.q_loss}'.")
    if config.atoms < 2 or config.support_high <= config.support_low:
        raise UserError("model.atoms must be at least 2 and model.support_high above model.support_low.")
    if config.tasks < len(GAMES) or not 1 <= config.actions <= LARGEST_ACTION_SET:
        raise UserError(
            f"model.tasks must be at least {len(GAMES)}, the Atari games, and model.actions lie in 1 … "
            f"{LARGEST_ACTION_SET}."
        )


def check_game_fits(config: ModelConfig, game: str) -> None:
    """Raises UserError when a model of that configuration has no row for the game, or another set of actions."""
    if task_id(game) >= config.tasks:
        raise UserError(
            f"The model knows {config.tasks} games, and {game} is none of them: finetune it on that game first "
            "(jowa.finetune)."
        )
    if not config.knows_actions_of(game):
        raise UserError(
            f"The model has {config.actions} actions, those of {config.action_set}, and {game} has {num_actions(game)} "
            "others: take an agent that was trained on that game, or finetune this one on it (jowa.finetune)."
        )


def with_games(config: ModelConfig, games: Sequence[str]) -> ModelConfig:
    """The configuration with rows for the games and their actions, sets of one size being shared.

    Raises UserError for games that have different numbers of actions.
    """
    rows = max(config.tasks, *(task_id(game) + 1 for game in games))
    sets = ",".join(dict.fromkeys(action_set(game) for game in games))
    if "," in sets and ALE_ACTIONS in sets.split(","):
        raise UserError(f"ALE's actions and others, {sets}, can't be one set: map the others by environment.actions.")
    fitting = replace(config, tasks=rows, actions=num_actions(games[0]), action_set=sets)
    for game in games:
        check_game_fits(fitting, game)
    return fitting


class Hidden(NamedTuple):
    """The trunk's states where the heads read them."""

    observation: Tensor
    """(B, L, K, D): codes 0 … K − 2, then the action; place k predicts code k+1, the action the next frame's first."""
    action: Tensor
    """(B, L, D): reward and termination."""
    last_code: Tensor
    """(B, L, D): Q, which sees the whole frame but not the action."""


class WorldActionModel(nn.Module):
    """Embeddings, trunk and heads, and the frozen target copy of the Q networks.

    Attributes:
        tokens_per_frame: K, the codes of a frame.
        block_tokens: a frame's codes, then its action.
        positions: tokens of the longest sequence.
    """

    support: Tensor

    def __init__(self, config: ModelConfig, vocabulary: int, tokens_per_frame: int = 36) -> None:
        super().__init__()
        check_model(config)
        self.config = config
        self.vocabulary = vocabulary
        self.tokens_per_frame = tokens_per_frame
        self.block_tokens = tokens_per_frame + 1
        self.positions = config.blocks * self.block_tokens
        width = config.width
        self.code_embedding = nn.Embedding(vocabulary, width)
        self.action_embedding = nn.Embedding(config.actions, width)
        self.position_embedding = nn.Embedding(self.positions, width)
        self.code_task_embedding = nn.Embedding(config.tasks, width) if config.task_embedding else None
        self.action_task_embedding = nn.Embedding(config.tasks, width) if config.task_embedding else None
        self.trunk_config = TrunkConfig(
            config.layers, config.heads, width, config.dropout, config.dropout, config.attention_dropout
        )
        self.trunk = Trunk(self.trunk_config)
        self.observation_head = head(width, vocabulary)
        self.reward_head = head(width, 3)
        self.end_head = head(width, 2)
        self.apply(initialise)
        self.q_networks = self._new_q_networks()
        self.q_target = self._new_q_networks()
        self.q_target.requires_grad_(False)
        self.synchronise_target()
        support = torch.linspace(config.support_low, config.support_high, config.atoms)
        self.register_buffer("support", support, persistent=False)

    def _new_q_networks(self) -> QEnsemble:
        config = self.config
        atoms = config.atoms if config.q_loss == "c51" else 1
        return QEnsemble(config.q_networks, config.width, config.q_width, config.actions, atoms, config.q_dropout)

    @property
    def device(self) -> torch.device:
        return self.support.device

    def train(self, mode: bool = True) -> WorldActionModel:
        super().train(mode)
        self.q_target.eval()
        return self

    def synchronise_target(self) -> None:
        """Copy the Q networks into their target."""
        self.q_target.load_state_dict(self.q_networks.state_dict())

    def embed_codes(self, codes: Tensor, positions: Tensor, tasks: Tensor) -> Tensor:
        """codes, positions (N, T) and tasks (N,) → (N, T, D)."""
        return self._embed(self.code_embedding(codes), self.code_task_embedding, positions, tasks)

    def embed_actions(self, actions: Tensor, positions: Tensor, tasks: Tensor) -> Tensor:
        """actions (N, T) of the action set, positions (N, T) and tasks (N,) → (N, T, D)."""
        return self._embed(self.action_embedding(actions), self.action_task_embedding, positions, tasks)

    def _embed(self, tokens: Tensor, task_table: nn.Embedding | None, positions: Tensor, tasks: Tensor) -> Tensor:
        if task_table is not None:
            tokens = tokens + task_table(tasks)[:, None]
        out: Tensor = tokens + self.position_embedding(positions)
        return out

    def hidden(self, codes: Tensor, actions: Tensor, tasks: Tensor) -> Hidden:
        """codes (B, L, K), actions (B, L), tasks (B,) through the trunk, causally, from position 0."""
        length = codes.shape[1]
        positions = torch.arange(length * self.block_tokens, device=codes.device).view(length, self.block_tokens)
        x_codes = self.embed_codes(codes.flatten(1), positions[None, :, :-1].flatten(1), tasks)
        x_actions = self.embed_actions(actions, positions[None, :, -1], tasks)
        blocks = torch.cat([rearrange(x_codes, "b (l k) d -> b l k d", l=length), x_actions[:, :, None]], dim=2)
        h = self.trunk(rearrange(blocks, "b l t d -> b (l t) d"))
        h = rearrange(h, "b (l t) d -> b l t d", l=length)
        observation = torch.cat([h[:, :, : self.block_tokens - 2], h[:, :, -1:]], dim=2)
        return Hidden(observation, h[:, :, -1], h[:, :, -2])

    def new_cache(self, batch: int, slots: int) -> KeyValueCache:
        return KeyValueCache(self.trunk_config, batch, slots, self.device, self.code_embedding.weight.dtype)

    def observation_logits(self, h: Tensor) -> Tensor:
        """(..., D) → (..., V)."""
        out: Tensor = self.observation_head(h)
        return out

    def reward_logits(self, h: Tensor) -> Tensor:
        """(..., D) → (..., 3): the reward's sign −1, 0, 1."""
        out: Tensor = self.reward_head(h)
        return out

    def end_logits(self, h: Tensor) -> Tensor:
        """(..., D) → (..., 2): goes on, ends."""
        out: Tensor = self.end_head(h)
        return out

    def q_logits(self, h: Tensor) -> Tensor:
        """(..., D) → (E, ..., actions, atoms) of the online networks."""
        out: Tensor = self.q_networks(h)
        return out

    @torch.no_grad()
    def q_target_logits(self, h: Tensor) -> Tensor:
        """(..., D) → (E, ..., actions, atoms) of the target copy, without gradients."""
        out: Tensor = self.q_target(h)
        return out

    def expected_q(self, logits: Tensor, weights: Tensor | None = None) -> Tensor:
        """Logits (E, ..., actions, atoms) → expected Q (..., actions): mean of the softmaxes times the support."""
        if self.config.q_loss == "mse":
            return ensemble_mean(logits[..., 0].float(), weights)
        return ensemble_mean(logits.float().softmax(-1), weights) @ self.support

    def q_values(self, h: Tensor) -> Tensor:
        """(..., D) → expected Q of the online networks (..., actions), illegal actions included."""
        logits = self.q_logits(h)
        if self.config.q_loss == "mse":
            return self.expected_q(logits)
        # Not a product of matrices, which rounds equal rows differently and in half precision coarsely.
        probabilities = ensemble_mean(logits.float().softmax(-1))
        return (probabilities * self.support.float()).sum(-1)


def head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def initialise(module: nn.Module) -> None:
    """N(0, 0.02) for linear and embedding weights, zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
